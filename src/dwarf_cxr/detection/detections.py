"""What a detector says of a film, and what the evaluation needs of it."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8


class Detections(NamedTuple):
    """The boxes that a detector keeps on one film; plain arrays, on the CPU."""

    boxes: Float32[np.ndarray, "box 4"]
    """(x1, y1, x2, y2) in pixels of the model's image."""
    scores: Float32[np.ndarray, "box"]
    """In [0, 1]; boxes of a finding are in falling order."""
    findings: Int64[np.ndarray, "box"]
    """Indices into the detector's findings."""


@runtime_checkable
class Detector(Protocol):
    """A classifier that also gives boxes of its own, not made from maps."""

    findings: tuple[str, ...]
    image_size: int

    def detect(self, pixels: UInt8[np.ndarray, "film size size"]) -> list[Detections]:
        """The boxes of every film, all findings; any number of films, batched internally."""
        ...
