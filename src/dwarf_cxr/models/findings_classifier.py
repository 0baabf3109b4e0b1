"""What networks share that know the findings they were trained on, and no others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import nn

from dwarf_cxr.models.outputs import MapDomain, ModelCard, Origin, Outputs
from dwarf_cxr.models.predicting import asked_findings, predict_in_batches


class FindingsClassifier(nn.Module):
    """A network with an output for each of `findings`, which is asked without words.

    A subclass has `settings`, and a `forward` of images and indices of findings. Its maps are in
    [0, 1] unless it says otherwise (`map_domain`).
    """

    settings: Any
    image_encoder: nn.Module
    """Its backbone; learns at a rate of its own."""

    def __init__(self, findings: Sequence[str], image_size: int, stride: int) -> None:
        """`stride` is the side of a map's cell in pixels."""
        super().__init__()
        self.findings = tuple(findings)
        self.image_size = image_size
        side = -(-image_size // stride)
        self.grid: tuple[int, int] = (side, side)
        self.card: ModelCard | None = None
        self.origin: Origin | None = None

    def predict(
        self, pixels: UInt8[np.ndarray, "film size size"], findings: Sequence[str] | None = None
    ) -> Outputs:
        """Probabilities and unit-domain maps for uint8 `pixels` (B, image_size, image_size).

        Raises:
            ConfigError: a finding the model was not trained on.
        """
        names, asked = asked_findings(self.findings, findings)
        return predict_in_batches(
            self, lambda images: self(images, asked), pixels, len(names), self.grid
        )

    @property
    def query_context(self) -> str:
        """A finding's score does not depend on the others asked."""
        return "isolated"

    @property
    def map_domain(self) -> MapDomain:
        """The domain of `forward`'s maps."""
        return "unit"

    def undecayed(self) -> list[nn.Parameter]:
        """Weights, beside biases and norms, that no decay may pull towards zero: none."""
        return []

    def save_pretrained(self, folder: Path) -> None:
        """Write the model folder (`models/checkpoint.py`, `save_model`)."""
        from dwarf_cxr.models.checkpoint import save_model

        save_model(self, Path(folder))  # type: ignore[arg-type]

    def architecture(self) -> dict[str, Any]:
        """What `models/building.py` needs to build the same network without its weights."""
        return {
            "settings": self.settings.model_dump(),
            "image_encoder": self.image_encoder.describe(),  # type: ignore[operator]
            "findings": list(self.findings),
            "image_size": self.image_size,
        }
