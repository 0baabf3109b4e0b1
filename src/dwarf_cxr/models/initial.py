"""Starting a training from a model: of pretraining, of foreign weights, of an earlier run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from dwarf_cxr.config import ModelSettings
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.image_encoders import rebuild_image_encoder
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.models.vlm import VisionLanguageClassifier, prompts_of

ARCHITECTURE = (
    "image_encoder",
    "text_encoder",
    "width",
    "projections",
    "layers",
    "attention_heads",
    "feedforward",
    "positions",
    "norm_inputs",
)
"""Settings that the weights fix; the others are the method's to choose."""
OWN_PARTS = ("heads.", "prompt_features", "log_scale")
"""What a model does not take over as it is: of its findings, or of pretraining alone."""


def load_initial(folder: Path) -> VisionLanguageClassifier:
    """The model of a run or model folder that training can start from.

    Raises:
        CheckpointError: no model there, or one of another kind.
    """
    model = load_model(folder)
    if not isinstance(model, VisionLanguageClassifier):
        raise CheckpointError(f"{folder}: training cannot start from a {type(model).__name__}")
    return model


def settings_from(initial: VisionLanguageClassifier, settings: ModelSettings) -> ModelSettings:
    """`settings` of a method with the architecture of the model it starts from."""
    fixed = {name: getattr(initial.settings, name) for name in ARCHITECTURE}
    return ModelSettings.model_validate(settings.model_dump() | fixed)


def refuse_other_architecture(initial: VisionLanguageClassifier, settings: ModelSettings) -> None:
    """Raise where the user's settings want another network than the weights are of.

    Raises:
        ConfigError: lists the settings.
    """
    changed = [
        f"{name}: {getattr(initial.settings, name)!r} -> {getattr(settings, name)!r}"
        for name in ARCHITECTURE
        if getattr(initial.settings, name) != getattr(settings, name)
    ]
    if changed:
        raise ConfigError(
            f"settings contradict the initial model, whose weights fix them: {'; '.join(changed)}"
        )


def classifier_from(
    initial: VisionLanguageClassifier,
    settings: ModelSettings,
    findings: Sequence[str],
    image_size: int,
    seed: int,
) -> VisionLanguageClassifier:
    """A classifier ready to train that starts from the weights of `initial`.

    All of its weights are taken over but the disease heads: those start fresh, save for findings
    that both have heads of the same kind for. Prompts of findings that `initial` knows are its own,
    unless `settings.prompts` asks in another way.

    Raises:
        ConfigError: positions of another grid, or layers that cannot be frozen.
    """
    torch.manual_seed(seed)
    words = prompts_of(findings, settings.prompts)
    if settings.prompts == initial.settings.prompts == "name":
        features = initial.features_of(words)
    else:
        features = encode_prompts(settings.text_encoder, words)
    model = VisionLanguageClassifier(
        settings,
        _encoder_of(initial, settings),
        findings,
        features,
        image_size,
        torch.Generator().manual_seed(seed),
    )
    if settings.positions and model.grid != initial.grid:
        raise ConfigError(
            f"the initial model has positions of {initial.grid} tokens, images of {image_size} px "
            f"give {model.grid}; prepare the data with --size {initial.image_size}"
        )
    taken = {
        key: value for key, value in initial.state_dict().items() if not key.startswith(OWN_PARTS)
    }
    missing, unexpected = model.load_state_dict(taken, strict=False)
    strange = [key for key in missing if not key.startswith(OWN_PARTS)]
    if strange or unexpected:
        raise ConfigError(
            f"the initial model does not fit: missing {strange}, unexpected {unexpected}"
        )
    if settings.head == initial.settings.head and model.grid == initial.grid:
        for finding, head in zip(findings, model.heads, strict=True):
            if finding in initial.findings:
                known = initial.heads[initial.findings.index(finding)]
                head.load_state_dict(known.state_dict())
    return model


def _encoder_of(initial: VisionLanguageClassifier, settings: ModelSettings) -> nn.Module:
    described = initial.image_encoder.describe()  # type: ignore[operator]
    frozen = settings.frozen_layers
    if frozen is None or frozen == described.get("frozen_layers"):
        return rebuild_image_encoder(described)
    encoder = rebuild_image_encoder(described | {"frozen_layers": frozen})
    if encoder.state_dict().keys() != initial.image_encoder.state_dict().keys():
        raise ConfigError(
            f"frozen_layers = {frozen}: the initial model's encoder was folded with "
            f"{described.get('frozen_layers')} frozen layers; leave frozen_layers out"
        )
    return encoder
