"""Vision transformers that users bring: each family's tokens are those of transformers itself."""

import json

import numpy as np
import pytest
import torch
import transformers as hf

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.image_encoders import build_image_encoder, rebuild_image_encoder

PATCH = 14
SIZE = 56
GRID = SIZE // PATCH
TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 36,
    "patch_size": PATCH,
    "image_size": SIZE,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "vocab_size": 50,
    "max_position_embeddings": 12,
}
FAMILIES = {
    "vit": ((0.5,) * 3, (0.5,) * 3, 1),
    "deit": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 2),
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1),
    "dinov2_with_registers": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 5),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 1),
    "siglip": ((0.5,) * 3, (0.5,) * 3, 0),
}
"""Mean and std of each family's published weights, and the tokens before the patches."""


def write_family(folder, family):
    """A random model of the family, in its Hugging Face layout; returns transformers' tower."""
    torch.manual_seed(21)
    dino = {key: value for key, value in TOWER.items() if key != "intermediate_size"}
    model = {
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**TOWER), add_pooling_layer=False),
        "deit": lambda: hf.DeiTModel(hf.DeiTConfig(**TOWER), add_pooling_layer=False),
        "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**dino, mlp_ratio=2)),
        "dinov2_with_registers": lambda: hf.Dinov2WithRegistersModel(
            hf.Dinov2WithRegistersConfig(**dino, mlp_ratio=2, num_register_tokens=4)
        ),
        "clip": lambda: hf.CLIPModel(
            hf.CLIPConfig(text_config=TEXT, vision_config=TOWER, projection_dim=8)
        ),
        "siglip": lambda: hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=TOWER)),
    }[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # positions and norms too
    model.eval().save_pretrained(folder)
    return model.vision_model if family in ("clip", "siglip") else model


def films(size=SIZE, count=2):
    pixels = np.random.default_rng(5).random((count, size, size), dtype=np.float32)
    return torch.from_numpy(pixels)


@torch.no_grad()
def expected(tower, family, images, mean, std):
    channels = [(images - m) / s for m, s in zip(mean, std, strict=True)]
    pixels = torch.stack(channels, dim=1)
    asked = {} if family.startswith("dinov2") else {"interpolate_pos_encoding": True}
    hidden = tower(pixels, **asked).last_hidden_state
    if family == "clip":
        hidden = tower.post_layernorm(hidden)
    return hidden[:, FAMILIES[family][2] :]


@torch.no_grad()
@pytest.mark.parametrize("size", [SIZE, 84])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_transformers_own(tmp_path, family, size):
    tower = write_family(tmp_path / "hf", family)
    encoder = build_image_encoder(str(tmp_path / "hf"), None).eval()
    assert encoder.grid(size) == (size // PATCH, size // PATCH)
    mean, std, _ = FAMILIES[family]
    images = films(size)
    wanted = expected(tower, family, images, mean, std)
    tokens = encoder(images)
    assert tokens.shape == (2, (size // PATCH) ** 2, 24)
    torch.testing.assert_close(tokens, wanted, atol=2e-5, rtol=1e-4)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe()))).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(images), tokens)


@torch.no_grad()
def test_the_folders_own_normalisation_is_taken(tmp_path):
    tower = write_family(tmp_path / "hf", "dinov2")
    own = {"image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}  # RAD-DINO's
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(own))
    encoder = build_image_encoder(str(tmp_path / "hf"), None).eval()
    images = films()
    wanted = expected(tower, "dinov2", images, (0.5307,) * 3, (0.2583,) * 3)
    torch.testing.assert_close(encoder(images), wanted, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_of_a_patch_moves_its_own_token_most(tmp_path, family):
    write_family(tmp_path / "hf", family)
    encoder = build_image_encoder(str(tmp_path / "hf"), None).eval()
    images = films(count=1)
    changed = images.clone()
    row, column = 1, 3
    changed[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 1
    moved = (encoder(changed) - encoder(images)).norm(dim=-1)[0]
    assert int(moved.argmax()) == row * GRID + column


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_all_but_the_frozen_layers(tmp_path, family):
    write_family(tmp_path / "hf", family)
    encoder = build_image_encoder(str(tmp_path / "hf"), 1)
    encoder(films()).square().sum().backward()
    without = {name for name, one in encoder.named_parameters() if one.grad is None}
    frozen = {name for name, one in encoder.named_parameters() if not one.requires_grad}
    assert without == frozen
    assert any("embeddings" in name for name in frozen)
    assert any(".0." in name for name in frozen)
    assert not any(".1." in name for name in frozen)


def test_sizes_that_patches_do_not_fill_are_refused_with_the_nearest(tmp_path):
    write_family(tmp_path / "hf", "dinov2")
    encoder = build_image_encoder(str(tmp_path / "hf"), None)
    with pytest.raises(ConfigError, match="--size 504 or 518"):
        encoder.grid(512)


def write_cached(cache, folder, name):
    """`folder` in the local cache of the hub, as its client keeps it."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("c" * 40)
    (home / "snapshots").mkdir()
    folder.rename(home / "snapshots" / ("c" * 40))


@torch.no_grad()
def test_a_hub_name_is_found_in_the_cache_without_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tower = write_family(tmp_path / "hf", "dinov2")
    write_cached(tmp_path / "cache", tmp_path / "hf", "microsoft/rad-dino")
    encoder = build_image_encoder("microsoft/rad-dino", None).eval()
    mean, std, _ = FAMILIES["dinov2"]
    wanted = expected(tower, "dinov2", films(), mean, std)
    torch.testing.assert_close(encoder(films()), wanted, atol=2e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="not in the local Hugging Face cache"):
        build_image_encoder("microsoft/absent", None)


def test_neither_folder_nor_hub_name_is_refused():
    with pytest.raises(ConfigError, match="no such folder"):
        build_image_encoder("not a name", None)


def test_another_kind_of_model_is_refused_with_the_supported_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="'bert'; supported: vit, deit, dinov2"):
        build_image_encoder(str(tmp_path), None)


@pytest.mark.parametrize("family", ["dinov2", "clip", "siglip"])
def test_missing_weights_are_named(tmp_path, family):
    from safetensors.torch import load_file, save_file

    write_family(tmp_path / "hf", family)
    file = tmp_path / "hf" / "model.safetensors"
    weights = load_file(file)
    lost = next(key for key in weights if "vision" in key or family == "dinov2")
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=lost.split(".")[-1]):
        build_image_encoder(str(tmp_path / "hf"), None)


@pytest.mark.parametrize("content", ["[]", '{"image_std": [0, 1, 1]}', '{"image_mean": "x"}'])
def test_a_normalisation_without_sense_is_refused(tmp_path, content):
    write_family(tmp_path / "hf", "vit")
    (tmp_path / "hf" / "preprocessor_config.json").write_text(content)
    with pytest.raises(ConfigError, match="preprocessor_config"):
        build_image_encoder(str(tmp_path / "hf"), None)
