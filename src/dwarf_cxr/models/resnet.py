"""ResNet-50: a pyramid of features, or tokens as KAD and MedKLIP have them."""

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

    def __init__(self, inputs: int, width: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        outputs = width * self.EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
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


class ResNetStages(nn.Module):
    """The first `stages` of ResNet-50's four stages.

    The grey film is repeated to three channels and normalised as ImageNet's images are.
    `frozen_layers` counts residual blocks from the image; the stem is frozen with the first.
    Beyond `output_stride` every block of a stage is dilated instead of the first strided (HAM).

    With `fixed_norms` batch norm keeps the statistics it was trained with, so that a film's
    features do not depend on its batch; weights that start at random need those of the batch.
    """

    STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
    """Width, blocks and stride of each stage."""

    def __init__(
        self,
        stages: int = 4,
        frozen_layers: int = 0,
        *,
        output_stride: int = 32,
        fixed_norms: bool = True,
    ) -> None:
        super().__init__()
        self.number_of_stages = stages
        self.output_stride = output_stride
        self.fixed_norms = fixed_norms
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, reached, dilation = 64, 4, 1
        for number, (channels, blocks, wanted) in enumerate(self.STAGES[:stages], start=1):
            stride = wanted if reached * wanted <= output_stride else 1
            reached, dilation = reached * stride, dilation * wanted // stride
            stage = nn.Sequential()
            for block in range(blocks):
                first = stride if block == 0 else 1
                stage.append(Bottleneck(inputs, channels, first, dilation))
                inputs = channels * Bottleneck.EXPANSION
            self.add_module(f"layer{number}", stage)
        self.channels = tuple(width * Bottleneck.EXPANSION for width, *_ in self.STAGES[:stages])
        """Of the features at strides 4, 8, 16 and 32."""
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET.std)[:, None, None], persistent=False)
        self._freeze(frozen_layers)
        self.train()

    def _freeze(self, frozen_layers: int) -> None:
        blocks = [block for stage in self._stages() for block in stage.children()]
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

    def _stages(self) -> Iterator[nn.Module]:
        for number in range(1, self.number_of_stages + 1):
            yield self.get_submodule(f"layer{number}")

    def train(self, mode: bool = True) -> "ResNetStages":
        """Set the mode; fixed batch norms stay in evaluation mode (see the class)."""
        super().train(mode)
        if self.fixed_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """JSON from which `models/backbones.py` makes the same architecture."""
        return {
            "kind": "resnet50-stages",
            "frozen_layers": self.frozen_layers,
            "output_stride": self.output_stride,
            "fixed_norms": self.fixed_norms,
        }

    def stages(self, images: Float[Tensor, "batch height width"]) -> tuple[Tensor, ...]:
        """The features (B, channels, h, w) of every stage."""
        features = (images[:, None] - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_layers == 0):
            features = F.relu(self.bn1(self.conv1(features)))
            features = F.max_pool2d(features, 3, 2, padding=1)
        kept, number = [], 0
        for stage in self._stages():
            for block in stage.children():
                moving = torch.is_grad_enabled() and number >= self.frozen_layers
                with torch.set_grad_enabled(moving):
                    features = block(features)
                number += 1
            kept.append(features)
        return tuple(kept)


class ResNetTokens(ResNetStages):
    """ResNet-50 cut after `stages` of its four stages, then a small MLP on every grid cell.

    KAD reads 512 and 1024 px films with all four stages (stride 32), 224 px with three (stride 16),
    as does MedKLIP.
    """

    def __init__(self, stages: int, width: int, frozen_layers: int = 0) -> None:
        super().__init__(stages, frozen_layers)
        self.width = width
        inputs = self.channels[-1]
        self.res_l1 = nn.Linear(inputs, inputs)
        self.res_l2 = nn.Linear(inputs, width)

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens for a square image."""
        stride = 2 ** (self.number_of_stages + 1)
        side = -(-image_size // stride)
        return side, side

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_image_encoder` makes the same architecture."""
        return {
            "kind": "resnet50",
            "stages": self.number_of_stages,
            "width": self.width,
            "frozen_layers": self.frozen_layers,
        }

    def forward(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch n d"]:
        """Tokens at stride 2^(stages + 1)."""
        cells = self.stages(images)[-1].flatten(2).transpose(1, 2)
        return self.res_l2(F.relu(self.res_l1(cells)))
