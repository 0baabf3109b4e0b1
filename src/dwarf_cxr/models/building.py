"""A fresh network of any kind, and the empty one that a checkpoint's weights go into."""

from collections.abc import Mapping, Sequence
from typing import Any

from dwarf_cxr.config import AnyModelSettings, ClassAttentionSettings, ModelSettings
from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.models.class_attention import (
    ClassAttentionClassifier,
    build_class_attention,
    rebuild_class_attention,
)
from dwarf_cxr.models.vlm import VisionLanguageClassifier, build_classifier

Trainable = VisionLanguageClassifier | ClassAttentionClassifier
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
    raise TypeError(f"no network of kind {settings.kind}")


def rebuild(kind: str, architecture: Mapping[str, Any]) -> Trainable:
    """The network that `architecture()` recorded, without weights; of all kinds but prompted ones.

    Raises:
        CheckpointError: a kind that this version does not know.
    """
    if kind == "class-attention":
        return rebuild_class_attention(architecture)
    raise CheckpointError(f"kind {kind!r} is unknown to this version of dwarf-cxr")
