"""Checkpoints of other projects in their own layout, and what the originals compute from them.

Nothing here uses the package's network: forwards are written from the originals' description, with
torch's own MultiheadAttention, plain convolutions and transformers' BERT.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dwarf_cxr.cli import main

WORDS = (
    "pleural",
    "effusion",
    "lung",
    "mass",
    "nodule",
    "cardiomegaly",
    "hernia",
    "thicken",
    "the",
)
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
MODULES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
Weights = dict[str, Tensor]


def dwarf(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """The command in this process, through its real door; its exit status."""
    monkeypatch.setattr(sys, "argv", ["dwarf", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


class Draw:
    """Random tensors of a seed, small enough that activations stay near one."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * scale

    def linear(self, name: str, outputs: int, inputs: int, scale: float = 1.0) -> Weights:
        return {
            f"{name}.weight": self.normal(outputs, inputs, scale=scale * inputs**-0.5),
            f"{name}.bias": self.normal(outputs, scale=0.1),
        }

    def norm(self, name: str, width: int) -> Weights:
        return {
            f"{name}.weight": 1 + self.normal(width, scale=0.1),
            f"{name}.bias": self.normal(width, scale=0.1),
        }

    def batch_norm(self, name: str, width: int, gain: float) -> Weights:
        return {
            f"{name}.weight": gain * (1 + self.normal(width, scale=0.1)),
            f"{name}.bias": self.normal(width, scale=0.1),
            f"{name}.running_mean": self.normal(width, scale=0.1),
            f"{name}.running_var": 0.5 + torch.rand(width, generator=self.generator),
            f"{name}.num_batches_tracked": torch.tensor(12),
        }


def resnet_weights(draw: Draw) -> Weights:
    """torchvision's ResNet-50 with its classifier."""

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> Weights:
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        return {f"{name}.weight": draw.normal(outputs, inputs, kernel, kernel, scale=scale)}

    weights = convolution("conv1", 64, 3, 7) | draw.batch_norm("bn1", 64, 1)
    inputs = 64
    for stage, (width, blocks) in enumerate(STAGES, start=1):
        for number in range(blocks):
            name = f"layer{stage}.{number}"
            weights |= convolution(f"{name}.conv1", width, inputs, 1)
            weights |= convolution(f"{name}.conv2", width, width, 3)
            weights |= convolution(f"{name}.conv3", 4 * width, width, 1)
            for place, channels, gain in ((1, width, 1), (2, width, 1), (3, 4 * width, 0.3)):
                weights |= draw.batch_norm(f"{name}.bn{place}", channels, gain)
            if number == 0:
                weights |= convolution(f"{name}.downsample.0", 4 * width, inputs, 1)
                weights |= draw.batch_norm(f"{name}.downsample.1", 4 * width, 0.7)
            inputs = 4 * width
    return weights | draw.linear("fc", 1000, 2048)


def twice(resnet: Weights, stages: int) -> Weights:
    """As KAD stores it: by name, and by place in a Sequential that ends after `stages`."""
    places = {name: place for place, name in MODULES.items() if int(place) <= stages + 3}
    stored = {f"resnet.{key}": value for key, value in resnet.items()}
    for key, value in resnet.items():
        module, rest = key.split(".", 1)
        if module in places:
            stored[f"res_features.{places[module]}.{rest}"] = value
    return stored


def decoder_weights(draw: Draw, width: int) -> Weights:
    weights: Weights = {}
    for layer in range(4):
        name = f"decoder.layers.{layer}"
        for attention in ("self_attn", "multihead_attn"):
            weights |= {
                f"{name}.{attention}.in_proj_weight": draw.normal(
                    3 * width, width, scale=2 * width**-0.5
                ),
                f"{name}.{attention}.in_proj_bias": draw.normal(3 * width, scale=0.1),
            }
            weights |= draw.linear(f"{name}.{attention}.out_proj", width, width)
        weights |= draw.linear(f"{name}.linear1", 1024, width)
        weights |= draw.linear(f"{name}.linear2", width, 1024)
        for norm in ("norm1", "norm2", "norm3"):
            weights |= draw.norm(f"{name}.{norm}", width)
    return weights | draw.norm("decoder.norm", width)


def write_text_folder(
    folder: Path, *, layers: int = 2, inner: int = 96, words: Sequence[str] = WORDS
) -> Path:
    """A random BERT of 768 numbers a token, in Hugging Face layout."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(21)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    config = BertConfig(
        vocab_size=len(vocabulary),
        num_hidden_layers=layers,
        intermediate_size=inner,
        max_position_embeddings=80,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def text_weights(draw: Draw, folder: Path) -> Weights:
    """KAD's section `text_encoder`: another BERT of the folder's sizes, and mlp_embed."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(22)
    bert = BertModel(BertConfig.from_pretrained(folder))
    weights = {f"bert_model.{key}": value for key, value in bert.state_dict().items()}
    weights["bert_model.embeddings.position_ids"] = torch.arange(80)[None]
    weights |= draw.linear("mlp_embed.0", 768, 768) | draw.linear("mlp_embed.2", 768, 768)
    return weights | {"logit_scale": torch.tensor(2.659)}


def kad_checkpoint(folder: Path, *, stages: int = 4, seed: int = 1) -> dict:
    """A KAD checkpoint whose decoder and ResNet-50 have the released files' full shape."""
    draw = Draw(seed)
    cells = 2048 if stages == 4 else 1024
    image = twice(resnet_weights(draw), stages)
    image |= draw.linear("res_l1", cells, cells) | draw.linear("res_l2", 768, cells)
    model = decoder_weights(draw, 768)
    for part in ("weight", "bias"):
        model[f"decoder_norm.{part}"] = model[f"decoder.norm.{part}"]
    model |= draw.linear("mlp_head.0", 2, 768) | {"logit_scale": torch.tensor(2.659)}
    return training_file(model) | {
        "image_encoder": image,
        "text_encoder": text_weights(draw, folder),
    }


def medklip_checkpoint(seed: int = 2) -> dict:
    """A MedKLIP checkpoint of full shape, keys as DataParallel writes them."""
    draw = Draw(seed)
    places = {name: place for place, name in MODULES.items() if int(place) <= 6}
    model: Weights = {}
    for key, value in resnet_weights(draw).items():
        module, rest = key.split(".", 1)
        if module in places:
            model[f"res_features.{places[module]}.{rest}"] = value
    model |= draw.linear("res_l1", 1024, 1024) | draw.linear("res_l2", 256, 1024)
    model |= draw.linear("disease_embedding_layer", 256, 768) | draw.linear("cl_fc", 768, 256)
    model |= decoder_weights(draw, 256) | draw.linear("classifier", 2, 256)
    return training_file({f"module.{key}": value for key, value in model.items()})


def training_file(model: Weights) -> dict:
    """Sections as a training script saves them, with an optimiser's."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=1e-4)
    return {
        "model": model,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"t_initial": 100, "warmup_lr_init": 1e-6},
        "config": {"image_res": 512, "schedular": {"sched": "cosine"}},
        "epoch": 17,
    }


def light(checkpoint: Mapping) -> dict:
    """The same keys and shapes with one number each: a full-shape file of a few kilobytes."""
    return {
        name: {key: value.flatten()[0].expand(value.shape) for key, value in section.items()}
        if isinstance(section, Mapping) and any(isinstance(v, Tensor) for v in section.values())
        else section
        for name, section in checkpoint.items()
    }


def original_cells(weights: Weights, films: Tensor, stages: int) -> Tensor:
    """ResNet-50 up to a stage, by torchvision's names, one operation a line."""

    def norm(x: Tensor, name: str) -> Tensor:
        scale = weights[f"{name}.weight"] / (weights[f"{name}.running_var"] + 1e-5).sqrt()
        shift = weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = (torch.stack([films] * 3, dim=1) - mean) / deviation
    x = norm(F.conv2d(x, weights["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(F.pad(x, [1] * 4, value=float("-inf")), 3, 2)
    for stage in range(1, stages + 1):
        for number in range(STAGES[stage - 1][1]):
            name = f"layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            y = norm(F.conv2d(x, weights[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = F.conv2d(y, weights[f"{name}.conv2.weight"], stride=stride, padding=1)
            y = norm(y, f"{name}.bn2").relu()
            y = norm(F.conv2d(y, weights[f"{name}.conv3.weight"]), f"{name}.bn3")
            if number == 0:
                x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(x, f"{name}.downsample.1")
            x = (x + y).relu()
    return x.flatten(2).mT


def original_tokens(section: Weights, films: Tensor, stages: int) -> Tensor:
    """KAD's and MedKLIP's image tokens from their own keys."""
    resnet = {}
    for key, value in section.items():
        if key.startswith("res_features."):
            place, rest = key.removeprefix("res_features.").split(".", 1)
            resnet[f"{MODULES[place]}.{rest}"] = value
    cells = original_cells(resnet, films, stages)
    hidden = F.linear(cells, section["res_l1.weight"], section["res_l1.bias"]).relu()
    return F.linear(hidden, section["res_l2.weight"], section["res_l2.bias"])


def original_decoder(
    weights: Weights, queries: Tensor, tokens: Tensor, *, norm_inputs: bool
) -> tuple[Tensor, list[Tensor]]:
    """Decoded queries (B, Q, d) and each layer's head-mean cross-attention (B, Q, N)."""
    width = tokens.shape[-1]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attend(x: Tensor, memory: Tensor, name: str) -> tuple[Tensor, Tensor]:
        attention = torch.nn.MultiheadAttention(width, 4, dropout=0.1, batch_first=True).eval()
        prefix = f"{name}."
        attention.load_state_dict(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
        return attention(x, memory, memory)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    if norm_inputs:
        queries, tokens = norm(queries, "decoder.norm"), norm(tokens, "decoder.norm")
    x = queries.expand(len(tokens), -1, -1)
    maps = []
    for layer in range(4):
        name = f"decoder.layers.{layer}"
        y = norm(x, f"{name}.norm1")
        x = x + attend(y, y, f"{name}.self_attn")[0]
        y, attention = attend(norm(x, f"{name}.norm2"), tokens, f"{name}.multihead_attn")
        x = x + y
        x = x + linear(
            linear(norm(x, f"{name}.norm3"), f"{name}.linear1").relu(), f"{name}.linear2"
        )
        maps.append(attention)
    return norm(x, "decoder.norm"), maps


def original_prompts(section: Weights, folder: Path, prompts: Sequence[str]) -> Tensor:
    """KAD's prompt vectors: pooler's output of [CLS] words [SEP], then mlp_embed."""
    from transformers import BertConfig, BertModel

    bert = BertModel(BertConfig.from_pretrained(folder)).eval()
    bert.load_state_dict(
        {
            key.removeprefix("bert_model."): value
            for key, value in section.items()
            if key.startswith("bert_model.") and not key.endswith("position_ids")
        }
    )
    rows = [
        bert(input_ids=tokens_of(folder, prompt, sep=True)).pooler_output[0] for prompt in prompts
    ]
    hidden = F.linear(torch.stack(rows), section["mlp_embed.0.weight"], section["mlp_embed.0.bias"])
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    return F.linear(hidden, section["mlp_embed.2.weight"], section["mlp_embed.2.bias"])


def tokens_of(folder: Path, prompt: str, *, sep: bool) -> Tensor:
    """Numbers of whole words by the folder's vocab.txt, after [CLS]."""
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = [word if word in vocabulary else "[UNK]" for word in prompt.lower().split()]
    marked = ["[CLS]", *words, *(["[SEP]"] if sep else [])]
    return torch.tensor([[vocabulary.index(word) for word in marked]])
