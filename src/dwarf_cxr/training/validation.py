"""Judging a model on the validation split during training."""

from typing import NamedTuple

from dwarf_cxr.evaluation.evaluate import QuickScorer
from dwarf_cxr.models.outputs import Classifier, Outputs


class Validation(NamedTuple):
    """Macro values on the validation split; None where undefined."""

    auc: float | None
    dice: float | None
    hit_rate: float | None
    outputs: Outputs

    def score(self, supervises_maps: bool) -> float | None:
        """What epochs are chosen by: (AUC + Dice) / 2, or AUC alone for labels-only methods."""
        if self.auc is None or not supervises_maps or self.dice is None:
            return self.auc
        return (self.auc + self.dice) / 2


def validate(model: Classifier, scorer: QuickScorer) -> Validation:
    """Predict the scorer's images and score them."""
    outputs = model.predict(scorer.data.pixels[scorer.indices])
    scores = scorer(outputs.probability, outputs.maps)
    return Validation(scores["auc"], scores["dice"], scores["hit_rate"], outputs)
