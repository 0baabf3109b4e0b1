"""A classifier that answers for findings made of several of its own."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dwarf_cxr.findings import select
from dwarf_cxr.models.outputs import Classifier, ModelCard, Outputs


class MergedClassifier:
    """Answers for unions of a model's findings: score and map are the largest of the parts'."""

    def __init__(
        self, model: Classifier, parts: Mapping[str, tuple[str, ...]], card: ModelCard
    ) -> None:
        """`card` is that of the unions, `merged_card`."""
        self.model = model
        self.parts = dict(parts)
        self.findings = tuple(parts)
        self.image_size = model.image_size
        self.card: ModelCard | None = card

    def predict(self, pixels: np.ndarray, findings: Sequence[str] | None = None) -> Outputs:
        """Outputs for uint8 `pixels` (B, size, size).

        Raises:
            ConfigError: a finding that is not among `findings` of this classifier.
        """
        names = self.findings if findings is None else findings
        names = select(names, self.findings, where="predict")
        asked = tuple(dict.fromkeys(part for name in names for part in self.parts[name]))
        outputs = self.model.predict(pixels, asked)
        columns = [[asked.index(part) for part in self.parts[name]] for name in names]
        extras = {}
        for key, values in outputs.extras.items():
            # per finding only: "prior" (C, h, w), all else (B, C, h, w)
            axis = 0 if key == "prior" else 1
            extras[key] = _largest(values, columns, axis)
        return Outputs(
            _largest(outputs.probability, columns, 1), _largest(outputs.maps, columns, 1), extras
        )


def merged_card(
    card: ModelCard, findings: Sequence[str], parts: Mapping[str, tuple[str, ...]]
) -> ModelCard:
    """The card of a classifier of unions, from its model's; nothing is fitted anew.

    A union's prior is the largest of its parts' at every pixel, its thresholds the largest of
    theirs: then it is called present only where a part is, and marked only where a part is. A
    threshold is None where that of a part could not be fitted; parts without any training region
    have no prior and are left out of the prior's threshold.
    """
    priors = dict(zip(findings, card.train_prior, strict=True))
    with_prior = {
        name: tuple(part for part in own if priors[part].any()) or own
        for name, own in parts.items()
    }
    columns = [[list(findings).index(part) for part in own] for own in parts.values()]
    return dataclasses.replace(
        card,
        score_thresholds=_thresholds(card.score_thresholds, parts),
        map_thresholds=_thresholds(card.map_thresholds, parts),
        prior_thresholds=_thresholds(card.prior_thresholds, with_prior),
        train_prior=_largest(card.train_prior, columns, 0),
    )


def _thresholds(
    fitted: Mapping[str, float | None], parts: Mapping[str, tuple[str, ...]]
) -> dict[str, float | None]:
    merged: dict[str, float | None] = {}
    for name, own in parts.items():
        values = [fitted.get(part) for part in own]
        known = [value for value in values if value is not None]
        merged[name] = max(known) if len(known) == len(values) else None
    return merged


def _largest(values: np.ndarray, columns: Sequence[Sequence[int]], axis: int) -> np.ndarray:
    return np.stack([values.take(own, axis=axis).max(axis=axis) for own in columns], axis=axis)
