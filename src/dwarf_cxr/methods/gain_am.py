"""`gain-am`: the original GAIN's attention mining, from labels alone (Li et al., CVPR 2018).

What a present finding attends to is erased from the film, and its score on the rest is a loss: the
attention must come to cover all that speaks for the finding. GAIN's map is Grad-CAM; here it is the
finding's cross-attention, which needs no backward pass to be had. Queries are isolated: in a joint
context a finding also learns what other findings' queries saw, which erasing by its own map would
not erase. `--set external_weight=10` adds the regions, which makes it GAIN_ext.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="gain-am",
    summary="labels only: attention must cover all that speaks for a finding (GAIN's mining)",
    supervision="labels",
    settings=MethodSettings(
        model=ModelSettings(head="none", query_context="isolated"),
        objective=ObjectiveSettings(seg_weight=0.0, mining_weight=1.0),
        training=TrainingSettings(schedule="joint"),
    ),
)
