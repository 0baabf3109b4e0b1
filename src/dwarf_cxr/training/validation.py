"""Judging a model on the validation split during training, and its card afterwards."""

from typing import NamedTuple

import numpy as np

from dwarf_cxr.config import RunConfig
from dwarf_cxr.data.splits import patient_hashes
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.evaluate import QuickScorer, fit_card_thresholds
from dwarf_cxr.models.outputs import ModelCard, Outputs
from dwarf_cxr.models.vlm import VisionLanguageClassifier


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


def validate(model: VisionLanguageClassifier, scorer: QuickScorer) -> Validation:
    """Predict the scorer's images and score them."""
    outputs = model.predict(scorer.data.pixels[scorer.indices])
    scores = scorer(outputs.probability, outputs.maps)
    return Validation(scores["auc"], scores["dice"], scores["hit_rate"], outputs)


def make_card(
    config: RunConfig,
    data: PreparedData,
    splits_sha256: str,
    outputs: Outputs,
    val_indices: np.ndarray,
    train_prior: np.ndarray,
) -> ModelCard:
    """The model's card, with thresholds fitted on validation."""
    score, maps, prior = fit_card_thresholds(
        outputs.probability, outputs.maps, data, val_indices, train_prior
    )
    model = config.settings.model
    seen = np.isin(data.splits, ("train", "val"))
    return ModelCard(
        method=config.method,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        splits_sha256=splits_sha256,
        query_context=model.query_context,
        map_domain="simplex" if model.map_space == "probability" else "unit",
        score_thresholds=score,
        map_thresholds=maps,
        prior_thresholds=prior,
        train_prior=train_prior,
        seen_patients=patient_hashes(
            data.patients_of, [data.patient_ids[index] for index in np.flatnonzero(seen)]
        ),
        harmonised=None
        if data.harmonised is None
        else {name: list(shown) for name, shown in data.harmonised.items()},
        seen_files=np.unique(data.file_hashes[seen]),
    )
