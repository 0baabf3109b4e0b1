"""What a classifier says about radiographs, and what it carries along to say it honestly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from dwarf_cxr.detection.detections import Detections

MapDomain = Literal["simplex", "unit"]
"""simplex: non-negative, sums to 1 over the grid; unit: each value in [0, 1]."""


class Prediction(NamedTuple):
    """Differentiable output of `forward`."""

    logits: Tensor
    """(B, C) log-odds that the finding is present."""
    maps: Tensor
    """(B, C, h, w) in the domain that `domain` names."""
    domain: MapDomain
    extras: dict[str, Tensor]


class Outputs(NamedTuple):
    """What `predict` returns: plain arrays, on the CPU."""

    probability: np.ndarray
    """(B, C) float64 in [0, 1]."""
    maps: np.ndarray
    """(B, C, h, w) float32, unit domain."""
    extras: dict[str, np.ndarray]
    """`dwarf-prior`: "prior" (C, h, w) and "evidence" (B, C, h, w), unit domain."""
    detections: tuple[Detections, ...] | None = None
    """A detector's own boxes on each film, not made from maps; None of other models and of no film.
    """
    attributes: np.ndarray | None = None
    """(B, attribute) float64: probabilities of what a report would say; None likewise."""


@dataclass(frozen=True)
class Origin:
    """Where a model that was not trained here comes from."""

    family: str
    """`kad`, `medklip`, `clip`, …"""
    file: str
    sha256: str
    """Of that file."""
    notes: tuple[str, ...] = ()
    """What the import left out, read in one way of several, or could not check."""


@dataclass(frozen=True)
class ModelCard:
    """What a trained model must carry so that it can be judged on any data."""

    method: str
    data_name: str
    data_fingerprint: str
    splits_sha256: str
    query_context: str
    map_domain: str
    score_thresholds: dict[str, float | None]
    """Per finding, fitted on validation (largest F1); None where it could not be fitted."""
    map_thresholds: dict[str, float | None]
    """Per finding, the largest mean Dice on validation positives."""
    prior_thresholds: dict[str, float | None]
    """The same for `train_prior`."""
    train_prior: np.ndarray
    """(C, size, size) float32: mean coverage over training positives that carry regions."""
    seen_patients: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Sorted int64 hashes of the patients of the training and validation splits."""
    harmonised: dict[str, list[str]] | None = None
    """What `PreparedData.harmonised` said of the training data; None in older models."""
    seen_files: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The same of their image files: they are known under any name; empty in older models."""
    zero_shot: bool = False
    """Not trained on the data: only thresholds and prior come from it."""


@runtime_checkable
class Classifier(Protocol):
    """What evaluation, prediction and the pages need of a model."""

    findings: tuple[str, ...]
    image_size: int
    card: ModelCard | None

    def predict(self, pixels: np.ndarray, findings: Sequence[str] | None = None) -> Outputs:
        """Outputs for uint8 `pixels` (B, size, size); any B, batched internally."""
        ...


class StatedClassifier(Classifier, Protocol):
    """A classifier that states what its card must say of its answers."""

    origin: Origin | None

    @property
    def query_context(self) -> str:
        """Whether a finding's score depends on the others asked: `isolated` or `joint`."""
        ...

    @property
    def map_domain(self) -> MapDomain:
        """The domain of the network's own maps."""
        ...


@runtime_checkable
class ZeroShotClassifier(StatedClassifier, Protocol):
    """A classifier that can be asked for any finding, in words."""

    def asking(self, words: Mapping[str, str]) -> "ZeroShotClassifier":
        """The same model asked for the findings `words`, each with its words."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write the model folder."""
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """A classifier that also tells what a report would say."""

    attributes: tuple[str, ...]
    """Of the columns of `Outputs.attributes`."""


def method_of(model: StatedClassifier) -> str:
    """What trained the model, or where it comes from."""
    if model.card is not None:
        return model.card.method
    return "zero-shot" if model.origin is None else model.origin.family
