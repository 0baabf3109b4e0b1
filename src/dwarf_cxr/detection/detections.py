"""What a detector says of a film."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64


class Detections(NamedTuple):
    """The boxes that a detector keeps on one film; plain arrays, on the CPU."""

    boxes: Float32[np.ndarray, "box 4"]
    """(x1, y1, x2, y2) in pixels of the model's image."""
    scores: Float32[np.ndarray, "box"]
    """In (0, 1]; boxes of a finding are in falling order."""
    findings: Int64[np.ndarray, "box"]
    """Indices into the findings that were asked for, in rising order."""

    @classmethod
    def kept(
        cls,
        boxes: Float32[np.ndarray, "finding place 4"],
        scores: Float32[np.ndarray, "finding place"],
    ) -> "Detections":
        """The boxes of a film that score more than 0."""
        findings, places = scores.nonzero()
        own = scores[findings, places]
        order = np.lexsort((-own, findings))
        return cls(boxes[findings, places][order], own[order], findings[order])
