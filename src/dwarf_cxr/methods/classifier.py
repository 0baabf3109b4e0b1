"""`classifier`: the same network trained on labels alone; its maps are its raw attention."""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="classifier",
    summary="labels only: the paper's baseline without any guidance of attention",
    supervision="labels",
    settings=MethodSettings(
        model=ModelSettings(head="none", query_context="joint"),
        objective=ObjectiveSettings(seg_weight=0.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
