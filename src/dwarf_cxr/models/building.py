"""A fresh network of any kind, and the empty one that a checkpoint's weights go into."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dwarf_cxr.config import (
    AnyModelSettings,
    ClassAttentionSettings,
    HamSettings,
    ModelSettings,
    ReportAttentionSettings,
    RetinaNetSettings,
)
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.backbones import build_backbone, rebuild_backbone
from dwarf_cxr.models.class_attention import ClassAttentionClassifier
from dwarf_cxr.models.ham import HamClassifier
from dwarf_cxr.models.report_attention import ReportAttention
from dwarf_cxr.models.retinanet import RetinaNet
from dwarf_cxr.models.vlm import VisionLanguageClassifier, build_classifier

ConvolutionalSettings = ClassAttentionSettings | HamSettings | RetinaNetSettings
ConvolutionalNetwork = ClassAttentionClassifier | HamClassifier | RetinaNet
Trainable = VisionLanguageClassifier | ConvolutionalNetwork
"""What the training loop trains."""


def build_fresh(
    settings: AnyModelSettings, findings: Sequence[str], image_size: int, seed: int
) -> Trainable:
    """A network ready to train: pretrained encoders, all else fresh by the seed.

    Raises:
        ConfigError: an encoder that there is not, or a network that is trained otherwise.
    """
    if isinstance(settings, ModelSettings):
        return build_classifier(settings, findings, image_size, seed)
    if isinstance(settings, ReportAttentionSettings):
        raise ConfigError(f"a {settings.kind} network is not built by the training loop")
    torch.manual_seed(seed)
    stride = settings.output_stride if isinstance(settings, HamSettings) else 32
    backbone = build_backbone(settings.image_encoder, settings.frozen_layers, stride)
    generator = torch.Generator().manual_seed(seed)
    return _network(settings, backbone, findings, image_size, generator)


def rebuild(kind: str, architecture: Mapping[str, Any]) -> ConvolutionalNetwork | ReportAttention:
    """The network that `architecture()` recorded, without weights; of all kinds but prompted ones.

    Raises:
        CheckpointError: a kind that this version does not know.
    """
    given = architecture["settings"]
    if kind == "report-attention":
        detector = rebuild("retinanet", architecture["detector"])
        assert isinstance(detector, RetinaNet)
        return ReportAttention(
            ReportAttentionSettings.model_validate(given),
            detector,
            architecture["attributes"],
            torch.Generator(),
        )
    settings: ConvolutionalSettings
    if kind == "class-attention":
        settings = ClassAttentionSettings.model_validate(given)
    elif kind == "ham":
        settings = HamSettings.model_validate(given)
    elif kind == "retinanet":
        settings = RetinaNetSettings.model_validate(given)
    else:
        raise CheckpointError(f"kind {kind!r} is unknown to this version of dwarf-cxr")
    backbone = rebuild_backbone(architecture["image_encoder"])
    return _network(
        settings,
        backbone,
        architecture["findings"],
        architecture["image_size"],
        torch.Generator(),
    )


def _network(
    settings: ConvolutionalSettings,
    backbone: nn.Module,
    findings: Sequence[str],
    image_size: int,
    generator: torch.Generator,
) -> ConvolutionalNetwork:
    match settings:
        case ClassAttentionSettings():
            return ClassAttentionClassifier(settings, backbone, findings, image_size, generator)
        case HamSettings():
            return HamClassifier(settings, backbone, findings, image_size, generator)
        case RetinaNetSettings():
            return RetinaNet(settings, backbone, findings, image_size, generator)
