"""`class-attention`: a convolutional network with a mask for every finding (Sriker et al., 2022).

Its baselines are `--set attention=image` (one mask for all findings, Jetley et al.) and
`--set attention=none` (the plain network), both with `--set entropy_weight=0`.
"""

from dwarf_cxr.config import (
    ClassAttentionSettings,
    MethodSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="class-attention",
    summary="labels only: a convolutional network whose third stage attends for every finding",
    supervision="labels",
    settings=MethodSettings(
        model=ClassAttentionSettings(),
        objective=ObjectiveSettings(
            seg_weight=0.0, entropy_weight=0.1, positive_weighting="frequency"
        ),
        training=TrainingSettings(schedule="joint"),
    ),
)
