import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.image_encoders import rebuild_image_encoder
from dwarf_cxr.models.normalisation import Normalisation
from dwarf_cxr.models.vision_transformer import VisionTransformer, vit_from_folder
from tests.models.made_towers import (
    FAMILIES,
    PATCH,
    SPECIAL,
    make_tower,
    own_size,
    trained_a_step,
    write_tower,
)
from tests.tiny import booby_trap, write_vit

OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DEFAULTS = {
    "vit": HALF,
    "deit": IMAGENET,
    "dinov2": IMAGENET,
    "dinov2_with_registers": IMAGENET,
    "clip": OPENAI,
    "clip_vision_model": OPENAI,
    "siglip": HALF,
    "siglip_vision_model": HALF,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("towers")
    return {family: write_tower(root / family, family) for family in FAMILIES}


def noise(size: int, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, size, size, generator=torch.Generator().manual_seed(seed))


def expected_tokens(family: str, films: torch.Tensor, mean, std) -> torch.Tensor:
    """By transformers' own model, one channel of one film at a time normalised by hand."""
    channels = [(films - m) / s for m, s in zip(mean, std, strict=True)]
    pixels = torch.stack(channels, dim=1)
    model = make_tower(family)
    tower = getattr(model, "vision_model", model)
    if family.startswith("dinov2"):
        hidden = tower(pixels).last_hidden_state
    else:
        hidden = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
    patches = hidden[:, SPECIAL[family] :]
    return tower.post_layernorm(patches) if family.startswith("clip") else patches


@torch.no_grad()
@pytest.mark.parametrize("patches", [4, 3, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers_at_any_size(folders, family, patches):
    size = patches * PATCH[family]
    films = noise(size)
    encoder = vit_from_folder(folders[family], 0).eval()
    expected = expected_tokens(family, films, *DEFAULTS[family])
    assert expected.shape == (2, patches**2, 32)
    torch.testing.assert_close(encoder(films), expected, rtol=0, atol=1e-4)
    assert (encoder.width, encoder.grid(size)) == (32, (patches, patches))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_positions_are_interpolated_not_cut(folders, family):
    """On a blank film all patches are alike, so tokens tell positions."""
    encoder = vit_from_folder(folders[family], 0).eval()
    sizes = [(n, n * PATCH[family]) for n in (4, 8)]
    own, twice = (
        encoder(torch.full((1, size, size), 0.5))[0].unflatten(0, (n, n)) for n, size in sizes
    )
    for row, column in ((0, 0), (0, 3), (3, 0), (3, 3)):
        distances = (own - twice[row * 7 // 3, column * 7 // 3]).square().sum(-1)
        assert int(distances.argmin()) == row * 4 + column


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_in_row_major_order(folders, family):
    patch, size = PATCH[family], own_size(family)
    encoder = vit_from_folder(folders[family], 0).eval()
    film = noise(size, 1) * 0.2
    square = film.clone()
    square[:, :patch, 3 * patch :] = 1.0  # upper right
    change = (encoder(square) - encoder(film))[0].square().sum(-1)
    assert int(change.argmax()) == 3


@torch.no_grad()
def test_the_folder_says_how_pixels_are_normalised(tmp_path):
    mean, std = (0.3, 0.5, 0.7), (0.2, 0.4, 0.1)
    processor = {"image_mean": list(mean), "image_std": list(std), "rescale_factor": 1 / 255}
    folder = write_tower(tmp_path / "rad", "dinov2", processor)
    films = noise(own_size("dinov2"))
    encoder = vit_from_folder(folder, 0).eval()
    expected = expected_tokens("dinov2", films, mean, std)
    torch.testing.assert_close(encoder(films), expected, rtol=0, atol=1e-4)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe())))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(films), encoder(films))


def test_a_normalisation_of_other_channels_is_refused(tmp_path):
    folder = write_tower(tmp_path / "vit", "vit", {"image_mean": [0.1, 0.2], "image_std": 0.5})
    with pytest.raises(ConfigError, match=r"3 channels.* mean for 2"):
        vit_from_folder(folder, 0)


@pytest.mark.parametrize(
    ("family", "size", "fitting"),
    [("dinov2", 512, "504 or 518"), ("siglip", 90, "80 or 96"), ("vit", 7, "16")],
)
def test_sizes_that_patches_do_not_fill_are_refused(folders, family, size, fitting):
    encoder = vit_from_folder(folders[family], 0)
    with pytest.raises(ConfigError, match=f"{size} px .*--size {fitting}$"):
        encoder.grid(size)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_not_frozen_learns(folders, family, frozen):
    moved = trained_a_step(vit_from_folder(folders[family], frozen), noise(own_size(family)))
    still = {key for key, change in moved.items() if change == 0}
    first = ("embeddings", "pre_layrnorm", "layers.0.", "layer.0.")
    fixed = {key for key in moved if any(part in key for part in first)} if frozen else set()
    assert bool(fixed) == bool(frozen)
    assert still == fixed | {key for key in moved if key.endswith("mask_token")}


def test_gradients_reach_every_trainable_weight_and_the_film(folders):
    for family in FAMILIES:
        encoder = vit_from_folder(folders[family], 1)
        films = noise(own_size(family)).requires_grad_()
        encoder(films).square().sum().backward()
        assert films.grad is not None
        assert bool((films.grad != 0).all())
        for name, parameter in encoder.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (family, name)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_through_its_description(folders, family):
    films = noise(own_size(family))
    encoder = vit_from_folder(folders[family], 1)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe())))
    assert isinstance(again, VisionTransformer)
    assert again.frozen_layers == 1
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(films), encoder.eval()(films))


@torch.no_grad()
def test_an_older_description_without_a_normalisation_still_rebuilds(folders):
    films = noise(own_size("vit"))
    encoder = vit_from_folder(folders["vit"], 0).eval()
    described = encoder.describe()
    del described["normalisation"]
    again = rebuild_image_encoder(described)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(films), encoder(films))


def test_half_precision_weights_are_trained_in_full(tmp_path):
    make_tower("clip").half().save_pretrained(tmp_path / "clip")
    encoder = vit_from_folder(tmp_path / "clip", 0)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_a_grey_model_takes_one_channel():
    config = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    config |= {"num_channels": 1, "patch_size": 8, "image_size": 16, "intermediate_size": 8}
    encoder = VisionTransformer(config, 0, Normalisation((0.2,), (0.4,)))
    film = noise(16, 1)
    assert torch.equal(encoder.pixels(film), (film[:, None] - 0.2) / 0.4)
    assert encoder(film).shape == (1, 4, 8)


def test_too_many_frozen_layers_are_refused(folders):
    for family in FAMILIES:
        with pytest.raises(ConfigError, match=r"frozen_layers = 3.* 2 layers"):
            vit_from_folder(folders[family], 3)


def test_missing_weights_of_a_tower_are_refused(folders, tmp_path):
    """A text tower alone must not pass as a vision tower with random weights."""
    for family in ("clip", "siglip"):
        target = tmp_path / family
        with_weights(
            folders[family],
            target,
            lambda weights: {k: v for k, v in weights.items() if not k.startswith("vision_model")},
        )
        with pytest.raises(CheckpointError, match=r"missing weights .*patch_embedding"):
            vit_from_folder(target, 0)


@pytest.mark.parametrize("kind", ["siglip2", "swin", "resnet", None])
def test_other_kinds_are_refused_with_the_supported_ones(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ConfigError, match=f"model_type {kind!r}; supported: vit, deit, dinov2"):
        vit_from_folder(tmp_path, 0)


def test_oblong_patches_are_refused(folders, tmp_path):
    values = json.loads((folders["dinov2"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"patch_size": [14, 7]}))
    with pytest.raises(ConfigError, match="patch_size"):
        vit_from_folder(tmp_path, 0)


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    return write_vit(tmp_path_factory.mktemp("encoders") / "vit")


def with_weights(vit_folder, target, change) -> None:
    target.mkdir()
    (target / "config.json").write_bytes((vit_folder / "config.json").read_bytes())
    weights = load_file(vit_folder / "model.safetensors")
    save_file(change(weights), target / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_listed(vit_folder, tmp_path):
    dropped = [
        key for key in load_file(vit_folder / "model.safetensors") if "layernorm_after" in key
    ]
    assert len(dropped) == 4
    with_weights(
        vit_folder,
        tmp_path / "vit",
        lambda weights: {key: value for key, value in weights.items() if key not in dropped},
    )
    with pytest.raises(CheckpointError) as caught:
        vit_from_folder(tmp_path / "vit", 0)
    assert str(caught.value).count("layernorm_after") == 4


def test_weights_of_another_shape_are_named(vit_folder, tmp_path):
    with_weights(
        vit_folder,
        tmp_path / "vit",
        lambda weights: {key: value[..., :-1].contiguous() for key, value in weights.items()},
    )
    with pytest.raises(CheckpointError, match="layernorm"):
        vit_from_folder(tmp_path / "vit", 0)


def test_a_folder_without_weights_is_a_checkpoint_error(vit_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((vit_folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="weights cannot be read"):
        vit_from_folder(tmp_path, 0)


def test_a_pickle_is_never_executed(vit_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((vit_folder / "config.json").read_bytes())
    mark = booby_trap(tmp_path / "pytorch_model.bin", tmp_path / "sprung")
    with pytest.raises(CheckpointError, match="weights cannot be read"):
        vit_from_folder(tmp_path, 0)
    assert not mark.exists()
