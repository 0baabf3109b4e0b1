"""What a pretrained image model expects its pixels to be, as its folder says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.errors import ConfigError


class Normalisation(NamedTuple):
    """(pixel - mean) / std per channel, of pixels in [0, 1]; one number serves all channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def describe(self) -> dict[str, list[float]]:
        """JSON from which `of` makes it again."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def of(cls, description: dict[str, Sequence[float]]) -> "Normalisation":
        """What `describe` recorded."""
        return cls(tuple(description["mean"]), tuple(description["std"]))


class GreyToChannels(nn.Module):
    """Grey images in [0, 1] to the normalised channels that a pretrained model expects."""

    def __init__(self, normalisation: Normalisation, channels: int) -> None:
        """Raises ConfigError where the normalisation is of another number of channels."""
        super().__init__()
        self.channels = channels
        self.mean: Tensor
        self.std: Tensor
        for name, values in zip(("mean", "std"), normalisation, strict=True):
            if len(values) not in (1, channels):
                raise ConfigError(
                    f"the model takes {channels} channels, its image processor gives a {name} for "
                    f"{len(values)}"
                )
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(
        self, images: Float[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """(pixel - mean) / std in every channel."""
        normalised = (images[:, None] - self.mean) / self.std
        return normalised.expand(-1, self.channels, -1, -1)


HALF = Normalisation((0.5,), (0.5,))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

FAMILY_NORMALISATION = {
    "vit": HALF,
    "deit": IMAGENET,
    "dinov2": IMAGENET,
    "dinov2_with_registers": IMAGENET,
    "clip_vision_model": OPENAI,
    "siglip_vision_model": HALF,
}
"""What each family's published weights were trained with, by transformers' `model_type`."""


def read_normalisation(folder: Path, family: str) -> Normalisation:
    """That of the folder's image processor, else the family's.

    The processor is described in preprocessor_config.json or, by newer releases of transformers,
    in processor_config.json. Its resizing and cropping are not done: films come at their size.

    Raises:
        ConfigError: the file cannot be read, or its numbers make no sense.
    """
    file, processor = _processor(folder)
    if file is None:
        return FAMILY_NORMALISATION[family]
    # a processor works on 0..255: (255·p·f - m) / s = (p - m / 255f) / (s / 255f)
    default = FAMILY_NORMALISATION[family]
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    shift: tuple[float, ...] = (0.0,)
    spread: tuple[float, ...] = (1.0,)
    if processor.get("do_normalize", True):
        shift = _numbers(file, "image_mean", processor.get("image_mean") or default.mean)
        spread = _numbers(file, "image_std", processor.get("image_std") or default.std)
    if not isinstance(factor, (int, float)) or factor <= 0 or min(spread) <= 0:
        raise ConfigError(f"{file}: image_std and rescale_factor must be numbers above zero")
    scale = 255 * factor
    return Normalisation(tuple(m / scale for m in shift), tuple(s / scale for s in spread))


def _processor(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    file = folder / "preprocessor_config.json"
    if file.is_file():
        return file, _json_object(file)
    file = folder / "processor_config.json"
    if file.is_file():
        processor = _json_object(file).get("image_processor")
        if isinstance(processor, dict):
            return file, processor
    return None, {}


def _json_object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ConfigError(f"{file}: cannot be read ({fault}); copy the folder again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected a JSON object; copy the folder again")
    return values


def _numbers(file: Path, name: str, value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise ConfigError(f"{file}: {name} = {value!r}: expected a number per channel")
    return tuple(float(v) for v in values)
