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
