"""`retinanet`: a detector trained on boxes and absent labels (Lin et al., ICCV 2017).

It is what report cross-attention (Bhalodia et al., MICCAI 2021) takes its regions from. Nothing but
boxes says that a finding is there: a present finding without one trains nothing. Films are not
turned, so that boxes stay boxes, and regions are moved at the films' resolution. Batches are
small, since a short training of few films needs many steps.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ObjectiveSettings,
    RetinaNetSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="retinanet",
    summary="a detector: anchors, focal loss and boxes of its own",
    supervision="boxes and absent labels",
    settings=MethodSettings(
        model=RetinaNetSettings(),
        objective=ObjectiveSettings(
            seg_weight=0.0, label_weight=0.0, detection_weight=1.0, map_size=224
        ),
        training=TrainingSettings(
            schedule="joint", epochs=10, rotate=0.0, batch_size=16, lr=1e-3, encoder_lr=3e-4
        ),
    ),
)
