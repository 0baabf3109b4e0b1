"""Vision transformers as image encoders: ViT, DeiT, DINOv2, and the towers of CLIP and SigLIP."""

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.hugging_face import quiet
from dwarf_cxr.models.normalisation import (
    FAMILY_NORMALISATION,
    GreyToChannels,
    Normalisation,
    read_normalisation,
)

BOTH_TOWERS = ("clip", "siglip")
"""Kinds of folders that also hold a text tower, which is not read."""
SUPPORTED = ("vit", "deit", "dinov2", "dinov2_with_registers", *BOTH_TOWERS)
"""SigLIP 2 with a fixed resolution is published as `siglip`; the NaFlex form is `siglip2`."""


class VisionTransformer(nn.Module):
    """A vision transformer through transformers; tokens are its last hidden states.

    They are taken after the model's own last norm. (CLIP applies that norm to its CLS token alone;
    here it is applied to the patches, which it also prepares for CLIP's projection.) What is no
    patch is dropped: CLS, DeiT's distillation token, registers. It precedes the patches in every
    family.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        frozen_layers: int = 0,
        normalisation: Normalisation | None = None,
    ) -> None:
        """`config` is transformers' (`model_type` says the family); default: the family's pixels.

        Raises:
            ConfigError: more frozen layers than there are, or a normalisation of other channels.
        """
        super().__init__()
        self.config = _tower_config(config)
        family = self.config.model_type
        self.vit = _empty_tower(self.config)
        self.final_norm = bool(getattr(self.config, "final_norm", True))
        if not self.final_norm:
            # KAD's ModelViT reads its last block as it is; `dwarf weights import` marks it so
            self.vit.layernorm = nn.Identity()
        self.width = self.config.hidden_size
        self.normalisation = normalisation or FAMILY_NORMALISATION[family]
        self.pixels = GreyToChannels(self.normalisation, self.config.num_channels)
        self.frozen_layers = frozen_layers
        self._freeze()

    def _freeze(self) -> None:
        layers = self._layers()
        if self.frozen_layers > len(layers):
            raise ConfigError(
                f"frozen_layers = {self.frozen_layers}: this {self.config.model_type} has "
                f"{len(layers)} layers"
            )
        if self.frozen_layers:
            self.vit.embeddings.requires_grad_(False)
            if hasattr(self.vit, "pre_layrnorm"):
                self.vit.pre_layrnorm.requires_grad_(False)
            for layer in layers[: self.frozen_layers]:
                layer.requires_grad_(False)
        mask_token = getattr(self.vit.embeddings, "mask_token", None)
        if mask_token is not None:  # of the pretraining; nothing here ever masks
            mask_token.requires_grad_(False)

    def _layers(self) -> nn.ModuleList:
        blocks = self.vit.encoder if hasattr(self.vit, "encoder") else self.vit
        return blocks.layers if hasattr(blocks, "layers") else blocks.layer

    def take(self, tower: nn.Module) -> None:
        """Take the weights of transformers' model of the same architecture."""
        weights = tower.state_dict()
        if not self.final_norm:
            weights = {k: v for k, v in weights.items() if not k.startswith("layernorm.")}
        self.vit.load_state_dict(weights)

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens for a square image.

        Raises:
            ConfigError: the patches do not fill the image; names the nearest sizes that they do.
        """
        return square_grid(image_size, self.config.patch_size)

    def describe(self) -> dict[str, Any]:
        """JSON from which `rebuild_image_encoder` makes the same architecture."""
        return {
            "kind": "vit",
            "frozen_layers": self.frozen_layers,
            "config": self.config.to_diff_dict(),
            "normalisation": self.normalisation.describe(),
        }

    def forward(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch n d"]:
        """Patch tokens; the position grid is interpolated when the image size is another."""
        hidden = _hidden_states(self.vit, self.pixels(images))
        rows, columns = (side // self.config.patch_size for side in images.shape[-2:])
        return hidden[:, -rows * columns :]


def square_grid(image_size: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of a square image.

    Raises:
        ConfigError: the patches do not fill the image; names the nearest sizes that they do.
    """
    side = image_size // patch
    if image_size % patch or not side:
        fitting = " or ".join(f"{n * patch}" for n in (side, side + 1) if n)
        raise ConfigError(
            f"images of {image_size} px do not divide into this encoder's patches of {patch} px; "
            f"prepare the data with --size {fitting}"
        )
    return side, side


def _hidden_states(tower: Any, pixels: Tensor) -> Tensor:
    """Of all tokens, after the tower's last norm."""
    if tower.config.model_type.startswith("dinov2"):  # always interpolates
        return tower(pixels).last_hidden_state
    hidden = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
    if tower.config.model_type == "clip_vision_model":
        return tower.post_layernorm(hidden)
    return hidden


def _empty_tower(config: Any) -> Any:
    from transformers import AutoModel

    return AutoModel.from_config(config, dtype=torch.float32, **_without_pooler(config))


def _without_pooler(config: Any) -> dict[str, bool]:
    return {"add_pooling_layer": False} if config.model_type in ("vit", "deit") else {}


def _tower_config(values: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    values = dict(values)
    config = AutoConfig.for_model(values.pop("model_type", "vit"), **values)
    for name in ("image_size", "patch_size"):
        setattr(config, name, _side(name, getattr(config, name)))
    if config.model_type == "siglip_vision_model":
        config.vision_use_head = False
    return config


def _side(name: str, value: Any) -> int:
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise ConfigError(f"{name} = {value}: only square images and patches are supported")
    return int(sides.pop())


def tower_of_folder(where: str, folder: Path) -> Any:
    """The configuration of the vision transformer in a folder, as transformers' object.

    Raises:
        ConfigError: no readable config.json, or another kind of model.
    """
    from transformers import AutoConfig

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except (OSError, ValueError, AttributeError) as fault:
        raise ConfigError(
            f"{where}: no readable config.json there ({fault}); give 'efficientnet-lite0', "
            "'vit-b16', or a folder or hub name of a vision transformer in Hugging Face layout"
        ) from None
    towers = [*SUPPORTED, *(f"{name}_vision_model" for name in BOTH_TOWERS)]
    if kind not in towers:
        raise ConfigError(
            f"{where}: its config.json says model_type {kind!r}; supported: {', '.join(towers)}"
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as fault:
        raise ConfigError(f"{where}: its config.json is not valid ({fault})") from None
    return config.vision_config if kind in BOTH_TOWERS else config


def vit_from_folder(folder: Path, frozen_layers: int) -> VisionTransformer:
    """A vision transformer with the weights of a folder in Hugging Face layout.

    Raises:
        ConfigError: the folder has no config.json, or it is not a vision transformer's.
        CheckpointError: weights are missing or do not fit; lists the keys.
    """
    from transformers import AutoModel

    where = f"image_encoder = {folder}"
    found = tower_of_folder(where, folder)
    encoder = VisionTransformer(
        found.to_diff_dict(), frozen_layers, read_normalisation(folder, found.model_type)
    )
    config = encoder.config
    try:
        with quiet():
            loaded, info = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with their names
                **_without_pooler(config),
            )
    except (OSError, ValueError, RuntimeError, UnpicklingError) as fault:
        raise CheckpointError(f"{where}: weights cannot be read: {fault}") from None
    refuse_unfit(where, info)
    encoder.take(loaded)
    return encoder


def refuse_unfit(where: str, loading: Mapping[str, Any]) -> None:
    """Raise on what transformers would fill with random numbers.

    Raises:
        CheckpointError: weights are missing or of another shape; lists the keys.
    """
    missing = sorted(key for key in loading["missing_keys"] if not key.endswith("mask_token"))
    mismatched = sorted(map(str, loading["mismatched_keys"]))
    if missing or mismatched:
        raise CheckpointError(
            f"{where}: missing weights {missing}, weights of another shape {mismatched}"
        )
