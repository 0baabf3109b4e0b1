"""Image encoders: grey radiographs in, a grid of tokens out.

Every encoder takes (B, H, W) float in [0, 1], normalises and repeats the grey channel itself, and
returns (B, N, width) tokens in row-major order of its (h, w) grid.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.models.efficientnet import (
    STARTER_FROZEN,
    rebuild_starter,
    starter_image_encoder,
)
from dwarf_cxr.models.hugging_face import find_folder
from dwarf_cxr.models.normalisation import Normalisation
from dwarf_cxr.models.resnet import ResNetTokens
from dwarf_cxr.models.vision_transformer import VisionTransformer, vit_from_folder


class ImageEncoder(Protocol):
    """What the classifier needs of an image encoder."""

    width: int

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens for a square image."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_image_encoder` makes the same architecture."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Tokens (B, N, width) of images (B, H, W) in [0, 1]."""
        ...


def build_image_encoder(name: str, frozen_layers: int | None) -> nn.Module:
    """The encoder that the setting `image_encoder` names, with its pretrained weights.

    Raises:
        ConfigError: no such folder or model, or not one that is supported.
        CheckpointError: its weights do not fit.
    """
    if name == "efficientnet-lite0":
        return starter_image_encoder(STARTER_FROZEN if frozen_layers is None else frozen_layers)
    if name == "vit-b16":
        return VisionTransformer({}, frozen_layers or 0)
    return vit_from_folder(find_folder("image_encoder", name), frozen_layers or 0)


def rebuild_image_encoder(description: Mapping[str, Any]) -> nn.Module:
    """The architecture that `describe` recorded, without weights."""
    kind = description.get("kind")
    if kind == "efficientnet-lite0":
        return rebuild_starter(description)
    if kind == "vit":
        normalisation = description.get("normalisation")
        return VisionTransformer(
            description["config"],
            description["frozen_layers"],
            # older models lack it: they are ViTs, normalised as their family is
            Normalisation.of(normalisation) if normalisation else None,
        )
    if kind == "resnet50":
        return ResNetTokens(
            description["stages"], description["width"], description["frozen_layers"]
        )
    raise CheckpointError(f"image encoder kind {kind!r} is unknown to this version of dwarf-cxr")
