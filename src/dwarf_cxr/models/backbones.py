"""Convolutional networks as pyramids of features, for the methods that are not prompted.

A backbone takes (B, H, W) float in [0, 1], normalises and repeats the grey channel itself, and
gives the features at strides 4, 8, 16 and 32.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.efficientnet import STARTER_FROZEN, rebuild_starter, starter_image_encoder
from dwarf_cxr.models.resnet import ResNetStages


class Backbone(Protocol):
    """What a network needs of its backbone, beside being a module."""

    channels: tuple[int, ...]
    """Of the features at strides 4, 8, 16 and 32."""

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_backbone` makes the same architecture."""
        ...

    def stages(self, images: Tensor) -> tuple[Tensor, ...]:
        """Four features (B, channels, h, w) of images (B, H, W) in [0, 1].

        Beyond the output stride the grid stays and convolutions are dilated instead.
        """
        ...


def build_backbone(name: str, frozen_layers: int | None, output_stride: int = 32) -> nn.Module:
    """The backbone that the setting `image_encoder` names, with its pretrained weights.

    Raises:
        ConfigError: no such name or file, or too many frozen layers.
        CheckpointError: its weights do not fit.
    """
    if name == "efficientnet-lite0":
        frozen = STARTER_FROZEN if frozen_layers is None else frozen_layers
        return starter_image_encoder(frozen, output_stride)
    if name == "resnet50":
        return ResNetStages(
            frozen_layers=frozen_layers or 0, output_stride=output_stride, fixed_norms=False
        )
    file = Path(name)
    if file.suffix != ".safetensors" or not file.is_file():
        raise ConfigError(
            f"image_encoder = {name!r}: no such convolutional network; give efficientnet-lite0, "
            "resnet50, or a .safetensors file with ResNet-50 weights in torchvision's layout"
        )
    backbone = ResNetStages(frozen_layers=frozen_layers or 0, output_stride=output_stride)
    _load_torchvision(backbone, file)
    return backbone


def rebuild_backbone(description: Mapping[str, Any]) -> nn.Module:
    """The architecture that `describe` recorded, without weights."""
    kind = description.get("kind")
    if kind == "efficientnet-lite0":
        return rebuild_starter(description)
    if kind == "resnet50-stages":
        return ResNetStages(
            frozen_layers=description["frozen_layers"],
            output_stride=description["output_stride"],
            fixed_norms=description["fixed_norms"],
        )
    raise CheckpointError(f"backbone kind {kind!r} is unknown to this version of dwarf-cxr")


def _load_torchvision(backbone: ResNetStages, file: Path) -> None:
    """ResNet-50 in torchvision's layout, which timm's files share."""
    try:
        tensors = load_tensors(file.read_bytes())
    except SafetensorError as fault:
        raise CheckpointError(f"{file}: no safetensors file, or damaged ({fault})") from None
    # torchvision calls them downsample.0 and .1, as we do; fc classifies other images
    expected = {
        key: tuple(value.shape)
        for key, value in backbone.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [
        f"{key} is {found.get(key, 'missing')}, expected {shape}"
        for key, shape in expected.items()
        if found.get(key) != shape
    ]
    known = ("fc.weight", "fc.bias")
    faults += [
        f"unexpected {key}"
        for key in found.keys() - expected.keys()
        if key not in known and not key.endswith("num_batches_tracked")
    ]
    if faults:
        shown = "; ".join(sorted(faults)[:5])
        raise CheckpointError(f"{file}: not ResNet-50: {len(faults)} keys do not fit: {shown}")
    backbone.load_state_dict({key: tensors[key] for key in expected}, strict=False)
