"""`gain`: the paper's reading of GAIN, extra supervision of the raw attention.

Cross-entropy plus plain Dice (w_FP = 1) on the cross-attention itself, without heads, all findings
in every step. Attention mining, GAIN's other half, is not part of the paper's baseline.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="gain",
    summary="plain Dice on the raw attention, all findings jointly (the paper's baseline)",
    supervision="labels and regions",
    settings=MethodSettings(
        model=ModelSettings(head="none", map_space="relative", query_context="joint"),
        objective=ObjectiveSettings(seg_weight=0.5, fp_weight=1.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
