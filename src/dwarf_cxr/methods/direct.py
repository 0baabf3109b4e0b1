"""`direct`: DWARF without its heads, the loss acting on the attention itself (an ablation)."""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="direct",
    summary="as dwarf, but without heads: the attention itself is supervised",
    supervision="labels and regions",
    settings=MethodSettings(
        model=ModelSettings(head="none", map_space="relative", query_context="isolated"),
        objective=ObjectiveSettings(seg_weight=0.5, fp_weight=2.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
