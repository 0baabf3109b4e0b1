"""A fresh network of any kind, and the empty one that a checkpoint's weights go into."""

from collections.abc import Mapping, Sequence
from typing import Any

from dwarf_cxr.config import (
    AnyModelSettings,
    ClassAttentionSettings,
    HamSettings,
    ModelSettings,
    RetinaNetSettings,
)
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.class_attention import (
    ClassAttentionClassifier,
    build_class_attention,
    rebuild_class_attention,
)
from dwarf_cxr.models.ham import HamClassifier, build_ham, rebuild_ham
from dwarf_cxr.models.report_attention import ReportAttention, rebuild_report_attention
from dwarf_cxr.models.retinanet import RetinaNet, build_retinanet, rebuild_retinanet
from dwarf_cxr.models.vlm import VisionLanguageClassifier, build_classifier

Trainable = VisionLanguageClassifier | ClassAttentionClassifier | HamClassifier | RetinaNet
"""What the training loop trains."""


def build_fresh(
    settings: AnyModelSettings, findings: Sequence[str], image_size: int, seed: int
) -> Trainable:
    """A network ready to train: pretrained encoders, all else fresh by the seed.

    Raises:
        ConfigError: an encoder that there is not.
    """
    match settings:
        case ModelSettings():
            return build_classifier(settings, findings, image_size, seed)
        case ClassAttentionSettings():
            return build_class_attention(settings, findings, image_size, seed)
        case HamSettings():
            return build_ham(settings, findings, image_size, seed)
        case RetinaNetSettings():
            return build_retinanet(settings, findings, image_size, seed)
    raise ConfigError(f"a {settings.kind} network is not built by the training loop")


def rebuild(kind: str, architecture: Mapping[str, Any]) -> Trainable | ReportAttention:
    """The network that `architecture()` recorded, without weights; of all kinds but prompted ones.

    Raises:
        CheckpointError: a kind that this version does not know.
    """
    if kind == "report-attention":
        return rebuild_report_attention(architecture)
    if kind == "class-attention":
        return rebuild_class_attention(architecture)
    if kind == "ham":
        return rebuild_ham(architecture)
    if kind == "retinanet":
        return rebuild_retinanet(architecture)
    raise CheckpointError(f"kind {kind!r} is unknown to this version of dwarf-cxr")
