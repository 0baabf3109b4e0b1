"""ViT weights of four origins, written as one folder in Hugging Face layout.

| layout | told by | LayerNorm eps | pixels |
|---|---|---|---|
| Hugging Face | `embeddings.patch_embeddings.projection` | 1e-12, or config.json | (p - .5) / .5, or preprocessor_config.json |
| timm, MAE, MRM | `patch_embed.proj`, `blocks.i.attn.qkv` | 1e-6 | timm .5 / .5, MAE ImageNet, MRM .4978 / .2449 |
| pytorch_pretrained_vit | `patch_embedding`, `attn.proj_q` | 1e-6 | .5 / .5 |
| KAD's section `image_encoder` | one of the above under `vit.` | as above | ImageNet |

Positions stay on the grid they were trained on: the encoder interpolates them when it runs.
"""  # noqa: E501

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save as save_tensors
from torch import Tensor

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import atomic_folder, write_bytes, write_json, write_text
from dwarf_cxr.models.hugging_face import quiet
from dwarf_cxr.models.normalisation import HALF, IMAGENET, Normalisation
from dwarf_cxr.models.vision_transformer import VisionTransformer
from dwarf_cxr.weights.keys import KeyReader, refuse_faults
from dwarf_cxr.weights.reading import ForeignFile, looks_like, open_foreign, tensors_of
from dwarf_cxr.weights.report import Report, collected, refuse_occupied

Layout = Literal["hugging-face", "timm", "pytorch_pretrained_vit"]
Pixels = Literal["half", "imagenet", "mrm"]
PIXELS: Mapping[Pixels, Normalisation] = {
    "half": HALF,
    "imagenet": IMAGENET,
    "mrm": Normalisation((0.4978,), (0.2449,)),
}
HEAD_WIDTH = 64
"""Numbers per attention head in every published ViT up to L; no tensor tells it."""


@dataclass(frozen=True)
class VitWeights:
    """A ViT under transformers' names, without the prefix `vit.`."""

    layout: Layout
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]

    @property
    def image_size(self) -> int:
        """Side of the films for which the position grid was trained."""
        return self.config["image_size"]


def import_vit(path: Path, out: Path, *, trust: bool, pixels: Pixels | None = None) -> Report:
    """Write `out`, a folder for the setting `image_encoder`; nothing on any refusal.

    Args:
        path: a checkpoint, or a folder in Hugging Face layout.
        pixels: how the weights' training normalised pixels, where the layout's default is wrong.

    Raises:
        CheckpointError: damaged, refused, no ViT, or keys that do not fit, all of them listed.
    """
    refuse_occupied(out)
    given = _given_config(path)
    foreign = open_foreign(path, trust=trust)
    section, tensors = _find_vit(foreign)
    reader = KeyReader(section or "file", tensors)
    in_kad = section == "image_encoder"
    refuse_other_families(foreign, reader)
    vit = read_vit(reader, in_kad=in_kad, given=given)
    refuse_faults(foreign.file, [reader])
    processor, said = _processor(path, vit, in_kad, tensors, pixels)
    aliases, dropped = collected([reader], foreign, [section] if section else [])
    report = Report(
        family="vit",
        variant=f"{vit.layout}, {vit.image_size} px, patches of {vit.config['patch_size']} px",
        foreign=foreign,
        out=out,
        aliases=aliases,
        dropped=dropped,
        notes=(*foreign.notes, *vit.notes, said),
        next_step=f"dwarf train METHOD --data DATA --out RUN --set image_encoder={out}",
    )
    with atomic_folder(out) as fresh:
        write_bytes(
            fresh / "model.safetensors", save_tensors(vit.tensors, metadata={"format": "pt"})
        )
        write_json(fresh / "config.json", vit.config)
        write_json(fresh / "preprocessor_config.json", processor)
        write_text(fresh / "README.md", report.text())
    return report


def read_vit(
    reader: KeyReader, *, in_kad: bool, given: Mapping[str, Any] | None = None
) -> VitWeights:
    """The ViT in `reader`, whichever layout it has; faults stay in the reader.

    Args:
        in_kad: the reader is KAD's section, in which pytorch_pretrained_vit's modules are stored
            twice and its last norm is never applied.
        given: the config.json of the folder, which knows what no tensor tells.

    Raises:
        CheckpointError: no layout is recognised, or a size that the rest depends on is missing.
    """
    if in_kad:
        for module in ("patch_embedding.", "class_token", "positional_embedding.", "transformer."):
            reader.merge_alias(module, f"vit.{module}")
    layout, prefix = _layout(reader)
    names = _NAMES[layout]
    hidden, channels, patch, _ = _known(reader, prefix + names["patch"] + ".weight", 4)
    _, positions, _ = _known(reader, prefix + names["positions"], 3)
    intermediate, _ = _known(
        reader, prefix + names["block"].format(0) + names["fc1"] + ".weight", 2
    )
    layers = _count(reader.left(), prefix + names["blocks"])
    side = math.isqrt(positions - 1)
    if side * side != positions - 1:
        reader.faults.append(f"{positions - 1} positions beside CLS make no square grid")
    heads, said = _heads(hidden, given)
    final_norm = not (in_kad and layout == "pytorch_pretrained_vit")
    config: dict[str, Any] = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-12 if layout == "hugging-face" else 1e-6,
        "image_size": side * patch,
        "patch_size": patch,
        "num_channels": channels,
        "qkv_bias": True,
    }
    if layout == "pytorch_pretrained_vit":
        config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = 0.1
    if given is not None:
        for name in ("layer_norm_eps", "hidden_act", "qkv_bias"):
            config[name] = given.get(name, config[name])
        if given.get("num_hidden_layers", layers) != layers:
            reader.faults.append(
                f"config.json says {given['num_hidden_layers']} layers, the weights have {layers}"
            )
    tensors = _take(reader, layout, prefix, config, positions)
    notes = [said, f"LayerNorm eps {config['layer_norm_eps']:g}"]
    if not final_norm:
        # transformers has no ViT without it: `final_norm` is read by models/vision_transformer.py
        config["final_norm"] = False
        notes.append("no final LayerNorm, as in KAD's ModelViT: its weights are kept but unused")
    _drop_heads(reader, prefix)
    return VitWeights(layout, config, tensors, tuple(notes))


def build_vit(vit: VitWeights, normalisation: Normalisation) -> VisionTransformer:
    """The encoder with these weights."""
    from transformers import ViTModel

    encoder = VisionTransformer(vit.config, normalisation=normalisation)
    with quiet():
        # transformers renames its modules from release to release and knows the published names
        loaded = ViTModel.from_pretrained(
            None, config=encoder.config, state_dict=vit.tensors, add_pooling_layer=False
        )
    encoder.take(loaded)
    return encoder


def refuse_other_families(foreign: ForeignFile, reader: KeyReader) -> None:
    """A file without a patch embedding is no ViT; the error says what it looks like.

    Raises:
        CheckpointError: there is none.
    """
    if not any(
        _is_patch(key, names["patch"]) for key in reader.left() for names in _NAMES.values()
    ):
        raise CheckpointError(
            f"{foreign.file}: no ViT in it (no patch embedding of Hugging Face's, timm's or "
            f"pytorch_pretrained_vit's layout); {looks_like(foreign.content)}"
        )


_NAMES: Mapping[Layout, Mapping[str, str]] = {
    "hugging-face": {
        "patch": "embeddings.patch_embeddings.projection",
        "class": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "blocks": "encoder.layer.",
        "block": "encoder.layer.{}.",
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "output": "attention.output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "norm": "layernorm",
    },
    "timm": {
        "patch": "patch_embed.proj",
        "class": "cls_token",
        "positions": "pos_embed",
        "blocks": "blocks.",
        "block": "blocks.{}.",
        "qkv": "attn.qkv",
        "output": "attn.proj",
        "norm1": "norm1",
        "norm2": "norm2",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
        "norm": "norm",
    },
    "pytorch_pretrained_vit": {
        "patch": "patch_embedding",
        "class": "class_token",
        "positions": "positional_embedding.pos_embedding",
        "blocks": "transformer.blocks.",
        "block": "transformer.blocks.{}.",
        "query": "attn.proj_q",
        "key": "attn.proj_k",
        "value": "attn.proj_v",
        "output": "proj",
        "norm1": "norm1",
        "norm2": "norm2",
        "fc1": "pwff.fc1",
        "fc2": "pwff.fc2",
        "norm": "norm",
    },
}
"""Where each layout keeps what; the first is also the one that is written."""


def _layout(reader: KeyReader) -> tuple[Layout, str]:
    for layout, names in _NAMES.items():
        for key in reader.left():
            if _is_patch(key, names["patch"]):
                return layout, key[: -len(names["patch"] + ".weight")]
    raise CheckpointError(f"{reader.section}: no ViT in it; its keys: {reader.left()[:8]}")


def _is_patch(key: str, name: str) -> bool:
    return key in (f"{name}.weight", f"vit.{name}.weight")


def _known(reader: KeyReader, key: str, dimensions: int) -> tuple[int, ...]:
    shape = reader.shape(key)
    if shape is None or len(shape) != dimensions:
        raise CheckpointError(
            f"{reader.section}: {key} is {'missing' if shape is None else shape}; the size of the "
            "ViT cannot be told: is the file complete?"
        )
    return shape


def _count(keys: Iterable[str], blocks: str) -> int:
    """One more than the largest number that follows `blocks`, so that a hole is a missing key."""
    numbers = [key[len(blocks) :].split(".", 1)[0] for key in keys if key.startswith(blocks)]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def _heads(hidden: int, given: Mapping[str, Any] | None) -> tuple[int, str]:
    if given is not None and "num_attention_heads" in given:
        heads = int(given["num_attention_heads"])
        return heads, f"{heads} attention heads, from config.json"
    if hidden % HEAD_WIDTH:
        raise CheckpointError(
            f"the number of attention heads of a ViT of {hidden} numbers a token cannot be told; "
            "give a folder in Hugging Face layout, whose config.json says it"
        )
    heads = hidden // HEAD_WIDTH
    return heads, f"{heads} attention heads assumed, {HEAD_WIDTH} numbers each"


def _take(
    reader: KeyReader, layout: Layout, prefix: str, config: Mapping[str, Any], positions: int
) -> dict[str, Tensor]:
    names, written = _NAMES[layout], _NAMES["hugging-face"]
    hidden, patch = config["hidden_size"], config["patch_size"]
    tensors = {
        written["class"]: reader.take(prefix + names["class"], (1, 1, hidden)),
        written["positions"]: reader.take(prefix + names["positions"], (1, positions, hidden)),
        f"{written['patch']}.weight": reader.take(
            f"{prefix}{names['patch']}.weight", (hidden, config["num_channels"], patch, patch)
        ),
        f"{written['patch']}.bias": reader.take(f"{prefix}{names['patch']}.bias", (hidden,)),
    }
    linear = {
        "query": (hidden, hidden),
        "key": (hidden, hidden),
        "value": (hidden, hidden),
        "output": (hidden, hidden),
        "fc1": (config["intermediate_size"], hidden),
        "fc2": (hidden, config["intermediate_size"]),
    }
    for layer in range(config["num_hidden_layers"]):
        block, target = prefix + names["block"].format(layer), written["block"].format(layer)
        parts: dict[str, dict[str, Tensor]] = {}
        if "qkv" in names:
            joint = reader.take_linear(block + names["qkv"], 3 * hidden, hidden)
            for place, name in enumerate(("query", "key", "value")):
                rows = slice(place * hidden, (place + 1) * hidden)
                parts[name] = {part: value[rows].clone() for part, value in joint.items()}
        for name, (outputs, inputs) in linear.items():
            if name not in parts:
                parts[name] = reader.take_linear(block + names[name], outputs, inputs)
        for name in ("norm1", "norm2"):
            parts[name] = reader.take_norm(block + names[name], hidden)
        for name, values in parts.items():
            for part, value in values.items():
                tensors[f"{target}{written[name]}.{part}"] = value
    for part, value in reader.take_norm(prefix + names["norm"], hidden).items():
        tensors[f"{written['norm']}.{part}"] = value
    return tensors


def _drop_heads(reader: KeyReader, prefix: str) -> None:
    reader.drop(f"{prefix}pooler.*", "reads CLS alone")
    for name in ("fc.*", "head.*", "head_drop.*", "pre_logits.*", "classifier.*"):
        reader.drop(prefix + name, "classifies other images")
    reader.drop(f"{prefix}embeddings.mask_token", "of the pretraining")
    for name in ("mask_token", "decoder*", "bert_*"):
        reader.drop(prefix + name, "of the masked pretraining")
    if prefix:
        reader.drop("classifier.*", "classifies other images")


def _given_config(path: Path) -> Mapping[str, Any] | None:
    file = path / "config.json" if path.is_dir() else None
    if file is None or not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise CheckpointError(f"{file}: not readable ({fault}); copy the folder again") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "vit":
        raise CheckpointError(f"{file}: model_type is {kind!r}; 'weights import vit' takes 'vit'")
    return config


def _find_vit(foreign: ForeignFile) -> tuple[str | None, dict[str, Tensor]]:
    """The section with the ViT (None: the file has no sections) and its tensors."""
    for name in ("image_encoder", "model", "state_dict"):
        if isinstance(foreign.content.get(name), Mapping):
            return name, foreign.section(name)
    return None, tensors_of(foreign.content, str(foreign.file))


def _processor(
    path: Path,
    vit: VitWeights,
    in_kad: bool,
    tensors: Mapping[str, Tensor],
    pixels: Pixels | None,
) -> tuple[dict[str, Any], str]:
    """preprocessor_config.json, and why it is what it is."""
    own = path / "preprocessor_config.json"
    if pixels is None and path.is_dir() and own.is_file():
        try:
            return dict(json.loads(own.read_text(encoding="utf-8"))), "pixels as its folder says"
        except (OSError, ValueError, TypeError) as fault:
            raise CheckpointError(f"{own}: not readable ({fault})") from None
    chosen, why = pixels, "as --pixels says"
    if chosen is None:
        chosen, why = _usual_pixels(vit.layout, in_kad, tensors)
    mean, std = PIXELS[chosen]
    channels = vit.config["num_channels"]
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*mean] if len(mean) > 1 else [*mean] * channels,
        "image_std": [*std] if len(std) > 1 else [*std] * channels,
    }
    return processor, f"pixels normalised by mean {mean[0]:g}…, deviation {std[0]:g}…: {why}"


def _usual_pixels(
    layout: Layout, in_kad: bool, tensors: Mapping[str, Tensor]
) -> tuple[Pixels, str]:
    if in_kad:
        return "imagenet", "KAD normalises every film so"
    if any(key.startswith("bert_") for key in tensors):
        return "mrm", "it has MRM's report decoder"
    if any(key.startswith("decoder") or key == "mask_token" for key in tensors):
        return "imagenet", "it has MAE's decoder"
    if layout == "timm":
        return "half", "assumed, as timm's; if it is an MAE or MRM, add --pixels imagenet or mrm"
    return "half", "usual for this layout"
