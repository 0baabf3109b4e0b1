"""ResNet-50 tokens, as KAD and MedKLIP have them: for imported weights."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.normalisation import IMAGENET


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

    The grey film is repeated to three channels and normalised as ImageNet's images are. KAD reads
    512 and 1024 px films with all four stages (stride 32), 224 px with three (stride 16), as does
    MedKLIP. Batch norm keeps the statistics it was trained with, so that a film's tokens do not
    depend on its batch. `frozen_layers` counts residual blocks from the image; the stem is frozen
    with the first.
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
        self.register_buffer("mean", torch.tensor(IMAGENET.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET.std)[:, None, None], persistent=False)
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
        """JSON from which `rebuild_image_encoder` makes the same architecture."""
        return {
            "kind": "resnet50",
            "stages": self.stages,
            "width": self.width,
            "frozen_layers": self.frozen_layers,
        }

    def forward(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch n d"]:
        """Tokens at stride 2^(stages + 1)."""
        features = (images[:, None] - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_layers == 0):
            features = F.relu(self.bn1(self.conv1(features)))
            features = F.max_pool2d(features, 3, 2, padding=1)
        for number, block in enumerate(self._blocks()):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_layers):
                features = block(features)
        cells = features.flatten(2).transpose(1, 2)
        return self.res_l2(F.relu(self.res_l1(cells)))
