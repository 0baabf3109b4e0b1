"""`dwarf pretrain`: image-text pretraining in KAD's manner, the start of other methods.

Query classification (every finding of the data is asked for, cross-entropy on its label) plus
contrast between films and their reports. It is no method of `dwarf train`: it needs text, and its
model is meant to be started from.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="pretrain",
    summary="films against their reports, and every finding asked for (KAD's pretraining)",
    supervision="labels and text",
    settings=MethodSettings(
        model=ModelSettings(head="none", query_context="joint", contrastive=True),
        objective=ObjectiveSettings(seg_weight=0.0, contrastive_weight=1.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
