"""`ham`: hierarchical attention mining (Ouyang et al., IEEE TMI 2021).

Class activation maps of the findings are kept inside that of the abnormality, which they must cover
together; where boxes are known, the maps are also compared with them. `--set box_weight=0` trains
on labels alone, `--set region_share=.5` on the boxes of half of the annotated films.
"""

from dwarf_cxr.config import (
    HamSettings,
    MethodSettings,
    ObjectiveSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="ham",
    summary="class activation maps inside an abnormality's, and in boxes unless box_weight=0 (HAM)",
    supervision="labels and regions",
    settings=MethodSettings(
        model=HamSettings(),
        objective=ObjectiveSettings(
            seg_weight=0.0,
            label_weight=1.0,
            anomaly_weight=0.01,
            box_weight=0.5,
            bound_weight=0.001,
            union_weight=0.001,
        ),
        training=TrainingSettings(schedule="joint", epochs=12),
    ),
)
