"""`dwarf-prior`: the refined map as prior plus evidence.

A finding's usual place, which a linear head can hide in its bias, becomes a part of its own:
sigmoid(logit(prior) + gain · log(N·A)). Otherwise trained as `dwarf`.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="dwarf-prior",
    summary="shows apart where a finding usually lies and what this film adds",
    supervision="labels and regions",
    settings=MethodSettings(
        model=ModelSettings(head="prior", map_space="relative", query_context="isolated"),
        objective=ObjectiveSettings(seg_weight=0.5, fp_weight=2.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
