"""The columns of a reproduction's tables."""

from dwarf_cxr.evaluation.cases import DICE_LOST
from dwarf_cxr.reporting.metrics import AUC, DICE, F1, HIT_RATE, MCC, METHOD_METRICS, Metric

LOST = Metric(DICE_LOST, "Dice lost", "when the maps are put on other films with the finding")
METRICS = (
    AUC,
    F1,
    MCC,
    DICE,
    Metric("max_dice", "Max Dice", "oracle over thresholds, film by film: never reached in use"),
    HIT_RATE,
    LOST,
)
RELATED_METRICS = (*METHOD_METRICS, LOST)
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
