"""`dwarf`: disease-weighted attention-map refinement (the paper).

Identity-initialised heads on each finding's cross-attention, false-positive-suppressed Dice on
clinicians' regions and cross-entropy on labels, isolated queries. The paper trains one finding per
epoch in a cycle (`--set schedule=cyclic`); see RESULTS.md for why that is not the default.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="dwarf",
    summary="refines each finding's attention with an identity-initialised head (the paper)",
    supervision="labels and regions",
    settings=MethodSettings(
        model=ModelSettings(head="linear", map_space="relative", query_context="isolated"),
        objective=ObjectiveSettings(seg_weight=0.5, fp_weight=2.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
