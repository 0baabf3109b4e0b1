"""`report-attention`: a detector's regions, ranked by attention that reports have trained.

Bhalodia et al. (MICCAI 2021). The detector comes with `--init` and stays as it is; films with
reports come with `--reports`. Asked are films alone.
"""

from dwarf_cxr.config import (
    MethodSettings,
    ObjectiveSettings,
    ReportAttentionSettings,
    TrainingSettings,
)
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="report-attention",
    summary="a detector's regions, ranked by attention that reports have trained",
    supervision="text, and a detector's boxes (needs --init)",
    settings=MethodSettings(
        model=ReportAttentionSettings(),
        objective=ObjectiveSettings(seg_weight=0.0, triplet_weight=1.0),
        training=TrainingSettings(epochs=40, lr=1e-3, batch_size=16),
    ),
)
