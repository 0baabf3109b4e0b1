"""A classifier that answers for findings made of several of its own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.models.outputs import Classifier, ModelCard, Outputs

Limits = tuple[float, ...] | None
"""The thresholds of a union's parts, each the part's own; None where one was not fitted."""


class MergedOutputs(NamedTuple):
    """What `MergedClassifier.predict` returns."""

    probability: np.ndarray
    """(B, U) float64: the largest of the parts'."""
    maps: np.ndarray
    """(B, U, h, w) float32: the largest of the parts' at every cell."""
    extras: dict[str, np.ndarray]
    """The largest of the parts', as in `Outputs`."""
    present: Float64[np.ndarray, "image union"]
    """1 where a part reaches its own threshold, else 0; NaN without a threshold."""
    own: Outputs
    """Of the parts; `MergedClassifier.columns` says whose is whose."""


class MergedClassifier:
    """Answers for unions of a model's findings; nothing is fitted anew.

    Scores and maps are the largest of the parts'. Decisions are the parts' own: a union is present
    where a part reaches its threshold, and a pixel is marked where the map of a part reaches its
    own. The largest score against any one threshold would be neither, since each part has another.
    """

    def __init__(self, model: Classifier, parts: Mapping[str, tuple[str, ...]]) -> None:
        """`parts` are the model's findings that each union is made of.

        Raises:
            CheckpointError: the model has no card, and so no thresholds.
        """
        if model.card is None:
            raise CheckpointError("the model has no card (thresholds, prior); train it first")
        self.model = model
        self.parts = dict(parts)
        self.findings = tuple(parts)
        self._asked = tuple(dict.fromkeys(part for own in parts.values() for part in own))
        self.columns = {
            name: [self._asked.index(part) for part in own] for name, own in self.parts.items()
        }
        """Of every union, its parts' columns in `MergedOutputs.own`."""
        self.score_limits = _limits(model.card.score_thresholds, self.parts)
        self.map_limits = _limits(model.card.map_thresholds, self.parts)
        self.priors, self.prior_limits = _priors(model.card, model.findings, self.parts)
        """Of every union, the train priors of the parts that have one, and their thresholds."""

    def predict(self, pixels: np.ndarray) -> MergedOutputs:
        """Outputs for uint8 `pixels` (B, size, size), unions in the order of `findings`."""
        own = self.model.predict(pixels, self._asked)
        columns = list(self.columns.values())
        extras = {
            # per finding only: "prior" (C, h, w), all else (B, C, h, w)
            key: _largest(values, columns, 0 if key == "prior" else 1)
            for key, values in own.extras.items()
        }
        present = [
            any_reaches(own.probability[:, self.columns[name]], self.score_limits[name])
            for name in self.findings
        ]
        return MergedOutputs(
            _largest(own.probability, columns, 1),
            _largest(own.maps, columns, 1),
            extras,
            np.stack(present, axis=1),
            own,
        )


def any_reaches(
    scores: Float[np.ndarray, "image part"], limits: Limits
) -> Float64[np.ndarray, "image"]:
    """1 where a part's score is at least its own threshold, else 0; NaN without thresholds."""
    if limits is None:
        return np.full(len(scores), np.nan)
    reached: np.ndarray = scores >= np.array(limits)
    return np.any(reached, axis=1).astype(np.float64)


def _limits(
    fitted: Mapping[str, float | None], parts: Mapping[str, tuple[str, ...]]
) -> dict[str, Limits]:
    limits: dict[str, Limits] = {}
    for name, own in parts.items():
        known = tuple(one for part in own if (one := fitted.get(part)) is not None)
        limits[name] = known if len(known) == len(own) else None
    return limits


def _priors(
    card: ModelCard, findings: Sequence[str], parts: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, Float32[np.ndarray, "part size size"]], dict[str, Limits]]:
    """A part without any training region has no prior: it marks nothing."""
    with_prior = {
        name: tuple(part for part in own if card.train_prior[findings.index(part)].any())
        for name, own in parts.items()
    }
    priors = {
        name: card.train_prior[[findings.index(part) for part in own]]
        for name, own in with_prior.items()
    }
    return priors, _limits(card.prior_thresholds, with_prior)


def _largest(values: np.ndarray, columns: Sequence[Sequence[int]], axis: int) -> np.ndarray:
    return np.stack([values.take(own, axis=axis).max(axis=axis) for own in columns], axis=axis)
