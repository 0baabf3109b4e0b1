"""The columns of a reproduction's tables."""

from typing import NamedTuple

from dwarf_cxr.evaluation.cases import DICE_LOST


class Metric(NamedTuple):
    """A column of the honest table."""

    key: str
    label: str
    note: str


METRICS = (
    Metric("auc", "AUC", "area under the ROC curve"),
    Metric("f1", "F1", "at the score threshold from validation"),
    Metric("mcc", "MCC", "at the score threshold from validation"),
    Metric("dice", "Dice", "at the map threshold from validation"),
    Metric("max_dice", "Max Dice", "oracle over thresholds, film by film: never reached in use"),
    Metric("hit_rate", "Hit rate", "the map's peak lies in the region"),
    Metric(DICE_LOST, "Dice lost", "when the maps are put on other films with the finding"),
)
RELATED_METRICS = (
    Metric("auc", "AUC", "area under the ROC curve"),
    Metric("dice", "Dice", "at the map threshold from validation"),
    Metric("iou", "IoU", "at the map threshold from validation"),
    Metric("hit_rate", "Hit rate", "the map's peak lies in the region"),
    Metric("t_iou", "mTIoU", "HAM's protocol, at the map threshold from validation"),
    Metric("ham_t_iou", "mTIoU (HAM)", "HAM's protocol, at its fixed threshold of the scaled map"),
    Metric(DICE_LOST, "Dice lost", "when the maps are put on other films with the finding"),
)
"""What methods of all kinds have."""
BOX_METRICS = tuple(
    Metric(f"{key}_{percent}", f"{label} .{percent}", note)
    for key, label, note in (
        ("recall", "Recall", "share of the true boxes that a predicted one reaches"),
        ("ap", "AP", "average precision"),
        ("image_hit", "Image hit", "share of the films with a box on which one is reached"),
    )
    for percent in (25, 50, 75)
)
"""Of a detector's own boxes, at an intersection over union of .25, .50 and .75."""
