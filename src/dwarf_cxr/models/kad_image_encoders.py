"""KAD's image encoders: ResNet-50 tokens, and its two ViTs, for imported weights.

Tokens are those that KAD's query decoder reads: no further projection follows. The grey film is
repeated to three channels and normalised with ImageNet's mean and deviation, as in KAD and MedKLIP.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Bottleneck(nn.Module):
    """ResNet-50's block: 1×1, 3×3 (which carries the stride), 1×1; names as in torchvision."""

    EXPANSION = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, 4·width, ⌈h / stride⌉, ⌈w / stride⌉)."""
        hidden = F.relu(self.bn1(self.conv1(features)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        hidden = self.bn3(self.conv3(hidden))
        skipped = features if self.downsample is None else self.downsample(features)
        return F.relu(hidden + skipped)


class ResNetTokens(nn.Module):
    """ResNet-50 cut after `stages` of its four stages, then a small MLP on every grid cell.

    KAD reads 512 and 1024 px films with all four (stride 32), 224 px with three (stride 16), as
    does MedKLIP. Batch norm keeps the statistics it was trained with, so that a film's tokens do
    not depend on its batch. `frozen_layers` counts residual blocks from the image; the stem is
    frozen with the first.
    """

    STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
    """Width, blocks and stride of each stage."""

    def __init__(self, stages: int, width: int, frozen_layers: int = 0) -> None:
        super().__init__()
        self.stages = stages
        self.width = width
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, (channels, blocks, stride) in enumerate(self.STAGES[:stages], start=1):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(Bottleneck(inputs, channels, stride if block == 0 else 1))
                inputs = channels * Bottleneck.EXPANSION
            self.add_module(f"layer{number}", stage)
        self.res_l1 = nn.Linear(inputs, inputs)
        self.res_l2 = nn.Linear(inputs, width)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self._freeze(frozen_layers)
        self.train()

    def _freeze(self, frozen_layers: int) -> None:
        blocks = list(self._blocks())
        if frozen_layers > len(blocks):
            raise ConfigError(
                f"frozen_layers = {frozen_layers}: this ResNet-50 has {len(blocks)} blocks"
            )
        self.frozen_layers = frozen_layers
        if frozen_layers:
            self.conv1.requires_grad_(False)
            self.bn1.requires_grad_(False)
        for block in blocks[:frozen_layers]:
            block.requires_grad_(False)

    def _blocks(self) -> Iterator[nn.Module]:
        for number in range(1, self.stages + 1):
            yield from self.get_submodule(f"layer{number}").children()

    def train(self, mode: bool = True) -> "ResNetTokens":
        """Set the mode; batch norm stays in evaluation mode (see the class)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens for a square image."""
        stride = 2 ** (self.stages + 1)
        side = -(-image_size // stride)
        return side, side

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_kad_image_encoder` makes the same architecture."""
        return {
            "kind": "kad-resnet50",
            "stages": self.stages,
            "width": self.width,
            "frozen_layers": self.frozen_layers,
        }

    def forward(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch n d"]:
        """Tokens at stride 2^(stages + 1)."""
        features = _three_channels(images, self.mean, self.std)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_layers == 0):
            features = F.relu(self.bn1(self.conv1(features)))
            features = F.max_pool2d(features, 3, 2, padding=1)
        for number, block in enumerate(self._blocks()):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_layers):
                features = block(features)
        cells = features.flatten(2).transpose(1, 2)
        return self.res_l2(F.relu(self.res_l1(cells)))


class KadVisionTransformer(nn.Module):
    """KAD's ViT encoders: tokens without CLS, with or without the final LayerNorm.

    `final_norm=False` is KAD's ModelViT, which reads the last block's output as it is.
    """

    def __init__(self, config: Mapping[str, Any], final_norm: bool, frozen_layers: int = 0) -> None:
        super().__init__()
        from dwarf_cxr.models.vision_transformer import VisionTransformer

        self.final_norm = final_norm
        self.encoder = VisionTransformer(config, frozen_layers)
        if not final_norm:
            self.encoder.vit.layernorm = nn.Identity()
        self.width: int = self.encoder.width
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights under Hugging Face's published names, an unused final norm's too."""
        from transformers import ViTModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        # transformers renames its modules from release to release and knows the published names
        loaded = ViTModel.from_pretrained(
            None, config=self.encoder.config, state_dict=dict(tensors), add_pooling_layer=False
        )
        self.load_vit(loaded)

    def load_vit(self, loaded: nn.Module) -> None:
        """Take the weights of transformers' ViT, but for an unused final norm."""
        weights = loaded.state_dict()
        if not self.final_norm:
            weights = {k: v for k, v in weights.items() if not k.startswith("layernorm.")}
        self.encoder.vit.load_state_dict(weights)

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens for a square image."""
        return self.encoder.grid(image_size)

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_kad_image_encoder` makes the same architecture."""
        described = self.encoder.describe()
        return {
            "kind": "kad-vit",
            "final_norm": self.final_norm,
            "config": described["config"],
            "frozen_layers": described["frozen_layers"],
        }

    def forward(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch n d"]:
        """Patch tokens; the position grid is interpolated when the image size is another."""
        channels = _three_channels(images, self.mean, self.std)
        hidden = self.encoder.vit(channels, interpolate_pos_encoding=True).last_hidden_state
        return hidden[:, 1:]


def rebuild_kad_image_encoder(description: Mapping[str, Any]) -> nn.Module | None:
    """The architecture that `describe` recorded, without weights; None if it is none of these."""
    kind = description.get("kind")
    if kind == "kad-resnet50":
        return ResNetTokens(
            description["stages"], description["width"], description["frozen_layers"]
        )
    if kind == "kad-vit":
        return KadVisionTransformer(
            description["config"], description["final_norm"], description["frozen_layers"]
        )
    return None


def kad_vit_from_folder(folder: Path, frozen_layers: int) -> KadVisionTransformer | None:
    """The ViT without final LayerNorm that `dwarf weights import vit` wrote; None: it is no such.

    Raises:
        CheckpointError: weights are missing or do not fit; lists the keys.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # whoever reads it next says what is wrong
    if not isinstance(config, dict) or config.get("final_norm", True):
        return None
    from dwarf_cxr.models.vision_transformer import vit_from_folder

    loaded = vit_from_folder(folder, frozen_layers)
    encoder = KadVisionTransformer(loaded.describe()["config"], False, frozen_layers)
    encoder.load_vit(loaded.vit)
    return encoder


def _three_channels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (images[:, None] - mean) / std
