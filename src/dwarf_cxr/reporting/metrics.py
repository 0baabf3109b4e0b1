"""The columns of tables: what a metric is called, and what a reader must know of it."""

from typing import NamedTuple

from dwarf_cxr.evaluation.cases import DICE_LOST


class Metric(NamedTuple):
    """A column."""

    key: str
    label: str
    note: str
    lower_is_better: bool = False


AUC = Metric("auc", "AUC", "area under the ROC curve")
F1 = Metric("f1", "F1", "at the score threshold from validation")
MCC = Metric("mcc", "MCC", "at the score threshold from validation")
DICE = Metric("dice", "Dice", "at the map threshold from validation")
IOU = Metric("iou", "IoU", "at the map threshold from validation")
HIT_RATE = Metric("hit_rate", "Hit rate", "the map's peak lies in the region")

SUMMARY_METRICS = (
    AUC,
    F1,
    MCC,
    Metric("accuracy", "Accuracy", "share of films decided rightly, at the same threshold"),
    DICE,
    Metric("max_dice", "Max Dice", "oracle over thresholds: not reachable in use"),
    Metric(
        DICE_LOST,
        "Dice lost",
        "when each map is put on other films with the finding; 0: the same map serves for any film",
    ),
    IOU,
    HIT_RATE,
    Metric("energy_inside", "Energy inside", "share of the map's sum in the region"),
    Metric(
        "fp_area",
        "FP area",
        "share of a film's area that is marked where the finding is absent; lower is better",
        lower_is_better=True,
    ),
)
PAIRED_METRICS = SUMMARY_METRICS

ORACLE_METRICS = (
    Metric("mcc", "MCC", "at the threshold with the largest MCC on these films"),
    Metric("f1", "F1", "at the same threshold"),
    Metric("accuracy", "Accuracy", "at the same threshold"),
)
ORACLE_F1_METRICS = (
    Metric("f1", "F1", "at the threshold with the largest F1 on these films"),
    Metric("mcc", "MCC", "at the same threshold"),
    Metric("accuracy", "Accuracy", "at the same threshold"),
)

LOCALISATION_METRICS = (
    Metric("t_iou", "mTIoU", "mean of T(IoU) over .1 … .7, map threshold from validation"),
    Metric("t_ior", "mTIoR", "mean of T(IoR) over .1 … .9, map threshold from validation"),
    Metric("ham_t_iou", "mTIoU", "mean of T(IoU) over .1 … .7, HAM's fixed threshold"),
    Metric("ham_t_ior", "mTIoR", "mean of T(IoR) over .1 … .9, HAM's fixed threshold"),
)
BOX_METRICS = tuple(
    Metric(f"{key}_{percent}", f"{label} .{percent}", note)
    for key, label, note in (
        ("recall", "Recall", "share of the true boxes that a predicted one reaches"),
        ("image_hit", "Films hit", "share of the films with a true box on which one is reached"),
        ("image_hit_top1", "First hit", "the same for the best-scored box of a film alone"),
        ("ap", "AP", "COCO's average precision"),
    )
    for percent in (25, 50, 75)
)
"""Of a detector's own boxes, at an intersection over union of .25, .50 and .75."""
ATTRIBUTE_METRICS = (AUC, Metric("ap", "AP", "average precision over films"))
METHOD_METRICS = (
    AUC,
    DICE,
    IOU,
    HIT_RATE,
    Metric("t_iou", "mTIoU", "HAM's protocol, map threshold from validation"),
    Metric("ham_t_iou", "mTIoU (HAM)", "HAM's protocol, HAM's fixed threshold"),
)
"""What methods of all kinds have."""
