import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.image_encoders import build_image_encoder, rebuild_image_encoder
from dwarf_cxr.models.vision_transformer import VisionTransformer
from dwarf_cxr.weights.kad import import_kad
from dwarf_cxr.weights.query_decoder import Wanted
from dwarf_cxr.weights.vit import import_vit
from tests.tiny import write_vit
from tests.weights.made import (
    Draw,
    Weights,
    decoder_weights,
    dwarf,
    text_weights,
    training_file,
    write_text_folder,
)

LAYERS, INNER = 2, 96
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


def plain_vit(seed: int = 7, *, width: int = 128, grid: int = 4, patch: int = 16) -> Weights:
    """A ViT under neutral names; attention is sharp enough that positions matter."""
    draw = Draw(seed)
    weights = {
        "cls": draw.normal(1, 1, width, scale=1),
        "positions": draw.normal(1, 1 + grid * grid, width, scale=1),
        "patch.weight": draw.normal(width, 3, patch, patch, scale=0.05),
        "patch.bias": draw.normal(width, scale=0.1),
    }
    for layer in range(LAYERS):
        for name, outputs, inputs in (
            ("query", width, width),
            ("key", width, width),
            ("value", width, width),
            ("output", width, width),
            ("fc1", INNER, width),
            ("fc2", width, INNER),
        ):
            weights |= draw.linear(f"{layer}.{name}", outputs, inputs, scale=1.5)
        weights |= draw.norm(f"{layer}.norm1", width) | draw.norm(f"{layer}.norm2", width)
    return weights | draw.norm("norm", width)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, the one of torch's bicubic."""
    t, a = abs(distance), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def resized(rows: Tensor, size: int) -> Tensor:
    """Bicubic over the first axis, cell centres aligned, edges repeated: a loop over taps."""
    old = len(rows)
    matrix = torch.zeros(size, old, dtype=torch.float64)
    for place in range(size):
        centre = (place + 0.5) * old / size - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[place, min(max(tap, 0), old - 1)] += cubic(centre - tap)
    return torch.tensordot(matrix, rows.double(), dims=([1], [0])).float()


def naive_tokens(
    weights: Weights, films: Tensor, *, eps: float, pixels, final_norm: bool = True
) -> Tensor:
    """All patch tokens of a ViT, from its equations; positions interpolated apart from CLS."""
    width = weights["cls"].shape[-1]
    heads, patch = width // 64, weights["patch.weight"].shape[-1]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    mean, deviation = (torch.tensor(values)[:, None, None] for values in pixels)
    channels = (torch.stack([films] * 3, dim=1) - mean) / deviation
    cells = F.conv2d(channels, weights["patch.weight"], weights["patch.bias"], stride=patch)
    side, old = cells.shape[-1], math.isqrt(weights["positions"].shape[1] - 1)
    grid = weights["positions"][0, 1:].reshape(old, old, width)
    if side != old:
        grid = resized(resized(grid, side).transpose(0, 1), side).transpose(0, 1)
    x = torch.cat([weights["cls"].expand(len(films), -1, -1), cells.flatten(2).mT], dim=1)
    x = x + torch.cat([weights["positions"][0, :1], grid.flatten(0, 1)])
    for layer in range(LAYERS):
        y = norm(x, f"{layer}.norm1")
        q, k, v = (
            linear(y, f"{layer}.{name}").unflatten(-1, (heads, 64)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = (q @ k.mT / 8).softmax(-1) @ v
        x = x + linear(attended.transpose(1, 2).flatten(2), f"{layer}.output")
        y = linear(norm(x, f"{layer}.norm2"), f"{layer}.fc1")
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        x = x + linear(y, f"{layer}.fc2")
    return (norm(x, "norm") if final_norm else x)[:, 1:]


def renamed(weights: Weights, top: dict[str, str], block: str, parts: dict[str, str]) -> Weights:
    out = {}
    for key, value in weights.items():
        layer, _, rest = key.partition(".")
        if layer.isdigit():
            name, part = rest.split(".")
            out[f"{block.format(layer)}{parts[name]}.{part}"] = value
        else:
            name, _, part = key.partition(".")
            out[top[name] + (f".{part}" if part else "")] = value
    return out


def hugging_face(weights: Weights) -> Weights:
    top = {
        "cls": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "patch": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    parts = {
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "output": "attention.output.dense",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    }
    return renamed(weights, top, "encoder.layer.{}.", parts)


def pretrained_vit(weights: Weights) -> Weights:
    top = {
        "cls": "class_token",
        "positions": "positional_embedding.pos_embedding",
        "patch": "patch_embedding",
        "norm": "norm",
    }
    parts = {
        "query": "attn.proj_q",
        "key": "attn.proj_k",
        "value": "attn.proj_v",
        "output": "proj",
        "fc1": "pwff.fc1",
        "fc2": "pwff.fc2",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    named = renamed(weights, top, "transformer.blocks.{}.", parts)
    return named | Draw(8).linear("fc", 1000, weights["cls"].shape[-1])


def timm(weights: Weights) -> Weights:
    top = {
        "cls": "cls_token",
        "positions": "pos_embed",
        "patch": "patch_embed.proj",
        "norm": "norm",
    }
    parts = {"output": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    parts |= {"norm1": "norm1", "norm2": "norm2"}
    joint = {}
    separate = dict(weights)
    for layer in range(LAYERS):
        for part in ("weight", "bias"):
            three = [separate.pop(f"{layer}.{name}.{part}") for name in ("query", "key", "value")]
            joint[f"blocks.{layer}.attn.qkv.{part}"] = torch.cat(three)
    return renamed(separate, top, "blocks.{}.", parts) | joint


def kad_section(vit: Weights) -> Weights:
    """KAD's ModelViT: the library's ViT under `vit.`, and four of its modules once more."""
    again = ("patch_embedding.", "class_token", "positional_embedding.", "transformer.")
    return {f"vit.{key}": value for key, value in vit.items()} | {
        key: value for key, value in vit.items() if key.startswith(again)
    }


LAYOUTS = {
    "hugging-face": (lambda w: {f"vit.{k}": v for k, v in hugging_face(w).items()}, 1e-12, HALF),
    "timm": (lambda w: {"model": timm(w)}, 1e-6, HALF),
    "mae": (
        lambda w: {"model": timm(w) | {"mask_token": torch.ones(1, 1, 64)}, "epoch": 3},
        1e-6,
        IMAGENET,
    ),
    "mrm": (
        lambda w: {"model": timm(w) | {"bert_encoder.x.weight": torch.ones(2, 2)}},
        1e-6,
        ((0.4978,) * 3, (0.2449,) * 3),
    ),
    "pytorch_pretrained_vit": (pretrained_vit, 1e-6, HALF),
}


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_function(tmp_path, monkeypatch, capsys, layout):
    weights = plain_vit()
    write, eps, pixels = LAYOUTS[layout]
    torch.save(write(weights), tmp_path / "vit.pth")
    out = tmp_path / "out"
    words = ("weights", "import", "vit", tmp_path / "vit.pth", "--out", out)
    assert dwarf(*words, monkeypatch=monkeypatch) == 0
    assert f"--set image_encoder={out}" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    processor = json.loads((out / "preprocessor_config.json").read_text())
    assert config["layer_norm_eps"] == eps
    assert (config["image_size"], config["patch_size"], config["num_attention_heads"]) == (
        64,
        16,
        2,
    )
    assert tuple(processor["image_mean"]) == pixels[0]
    assert tuple(processor["image_std"]) == pixels[1]

    encoder = build_image_encoder(str(out), 0).eval()
    films = torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(1))
    for size in (64, 96):
        given = films[:, :size, :size]
        expected = naive_tokens(weights, given, eps=eps, pixels=pixels)
        torch.testing.assert_close(encoder(given), expected, rtol=1e-4, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 96, 48])
def test_positions_are_interpolated_bicubically_apart_from_cls(tmp_path, size):
    weights = plain_vit(9)
    torch.save(timm(weights), tmp_path / "vit.pth")
    import_vit(tmp_path / "vit.pth", tmp_path / "out", trust=False)
    encoder = build_image_encoder(str(tmp_path / "out"), 0).eval()
    films = torch.rand(2, size, size, generator=torch.Generator().manual_seed(size))
    expected = naive_tokens(weights, films, eps=1e-6, pixels=HALF)
    torch.testing.assert_close(encoder(films), expected, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_the_vit_of_a_kad_file_has_no_final_norm(tmp_path):
    weights = plain_vit(10)
    section = kad_section(pretrained_vit(weights))
    torch.save({"image_encoder": section, "model": {"x": torch.ones(1)}}, tmp_path / "kad.pt")
    report = import_vit(tmp_path / "kad.pt", tmp_path / "out", trust=False)
    assert any("transformer.* equals vit.transformer.*" in line for line in report.aliases)
    assert any("no final LayerNorm" in note for note in report.notes)
    encoder = build_image_encoder(str(tmp_path / "out"), 1).eval()
    assert isinstance(encoder, VisionTransformer)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe()))).eval()
    again.load_state_dict(encoder.state_dict())
    films = torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(2))
    expected = naive_tokens(weights, films, eps=1e-6, pixels=IMAGENET, final_norm=False)
    torch.testing.assert_close(encoder(films), expected, rtol=1e-4, atol=2e-5)
    assert torch.equal(again(films), encoder(films))
    normed = naive_tokens(weights, films, eps=1e-6, pixels=IMAGENET)
    assert (expected - normed).abs().max() > 0.1


@torch.no_grad()
def test_a_folder_keeps_what_its_config_says(tmp_path):
    folder = write_vit(tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1], "image_std": [0.3]}')
    report = import_vit(folder, tmp_path / "out", trust=False)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_attention_heads"], config["hidden_size"]) == (2, 32)
    assert "2 attention heads, from config.json" in report.notes
    kept = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert kept == {"image_mean": [0.1], "image_std": [0.3]}
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "out", folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_number_of_heads_is_not_guessed(tmp_path):
    folder = write_vit(tmp_path / "vit")
    with pytest.raises(CheckpointError, match=r"32 numbers a token cannot be told.*config\.json"):
        import_vit(folder / "model.safetensors", tmp_path / "out", trust=False)


def test_what_does_not_fit_is_listed_and_nothing_written(tmp_path, monkeypatch, capsys):
    changed = timm(plain_vit())
    del changed["blocks.1.mlp.fc1.bias"]
    changed["norm.weight"] = torch.ones(5)
    changed["adapter"] = torch.ones(2)
    torch.save(changed, tmp_path / "vit.pth")
    words = ("weights", "import", "vit", tmp_path / "vit.pth", "--out", tmp_path / "out")
    assert dwarf(*words, monkeypatch=monkeypatch) == 1
    message = capsys.readouterr().err
    for said in (
        "missing blocks.1.mlp.fc1.bias (96,)",
        "norm.weight is (5,), expected (128,)",
        "unexpected adapter (2,)",
    ):
        assert said in message
    changed = timm(plain_vit())
    changed["pos_embed"] = changed["pos_embed"][:, :-1]
    torch.save(changed, tmp_path / "vit.pth")
    assert dwarf(*words, monkeypatch=monkeypatch) == 1
    assert "15 positions beside CLS make no square grid" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pixels_can_be_given(tmp_path, monkeypatch):
    torch.save(timm(plain_vit()), tmp_path / "vit.pth")
    words = ("weights", "import", "vit", tmp_path / "vit.pth", "--out", tmp_path / "out")
    assert dwarf(*words, "--pixels", "mrm", monkeypatch=monkeypatch) == 0
    processor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert processor["image_std"] == [0.2449] * 3


@torch.no_grad()
@pytest.mark.parametrize("layout", ["pytorch_pretrained_vit", "hugging-face"])
def test_a_whole_kad_model_may_have_a_vit(tmp_path, layout):
    text = write_text_folder(tmp_path / "text")
    weights = plain_vit(11, width=768, grid=3)
    if layout == "hugging-face":
        section = {f"vit.{key}": value for key, value in hugging_face(weights).items()}
        section |= Draw(12).linear("vit.pooler.dense", 768, 768)
    else:
        section = kad_section(pretrained_vit(weights))
    model = decoder_weights(Draw(13), 768) | Draw(14).linear("mlp_head.0", 2, 768)
    model |= {f"decoder_norm.{part}": model[f"decoder.norm.{part}"] for part in ("weight", "bias")}
    parts = {"image_encoder": section, "text_encoder": text_weights(Draw(15), text)}
    torch.save(training_file(model) | parts, tmp_path / "kad.pt")
    report = import_kad(
        tmp_path / "kad.pt",
        tmp_path / "out",
        Wanted(text_encoder=text, findings=["Mass", "Nodule"]),
    )
    assert f"ViT ({layout}), 48 px" in report.variant
    found = load_model(Path(tmp_path / "out"))
    assert (found.image_size, found.grid) == (48, (3, 3))
    films = torch.rand(2, 80, 80, generator=torch.Generator().manual_seed(3))
    normed, eps = (True, 1e-12) if layout == "hugging-face" else (False, 1e-6)
    expected = naive_tokens(weights, films, eps=eps, pixels=IMAGENET, final_norm=normed)
    torch.testing.assert_close(found.image_encoder(films), expected, rtol=1e-4, atol=5e-5)
