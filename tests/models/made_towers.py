"""Random vision transformers of every family in Hugging Face layout, tiny, and a training step."""

import json
from pathlib import Path

import torch
from torch import nn

SIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCH = {
    "vit": 16,
    "deit": 16,
    "dinov2": 14,
    "dinov2_with_registers": 14,
    "clip": 16,
    "clip_vision_model": 16,
    "siglip": 16,
    "siglip_vision_model": 16,
}
FAMILIES = tuple(PATCH)
SPECIAL = {
    "vit": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 4,
    "clip": 1,
    "clip_vision_model": 1,
    "siglip": 0,
    "siglip_vision_model": 0,
}
"""Tokens before the patches."""
WORDS = ("no", "chest", "mass", "effusion", "nodule", "fluid", "with", "without", "a", "large")


def own_size(family: str) -> int:
    """The image size of the made models: 4 patches a side."""
    return 4 * PATCH[family]


def make_tower(family: str, seed: int = 5):
    """A random model of that `model_type`; for "clip" and "siglip" with both towers."""
    import transformers as hf

    torch.manual_seed(seed)
    vision = SIDE | {"patch_size": PATCH[family], "image_size": own_size(family)}
    wide = vision | {"intermediate_size": 48}
    text = SIDE | {
        "intermediate_size": 40,
        "vocab_size": 8 + len(WORDS),
        "max_position_embeddings": 12,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    towers = {"text_config": text, "vision_config": wide}
    if family == "vit":
        model = hf.ViTModel(hf.ViTConfig(**wide), add_pooling_layer=False)
    elif family == "deit":
        model = hf.DeiTModel(hf.DeiTConfig(**wide), add_pooling_layer=False)
    elif family == "dinov2":
        model = hf.Dinov2Model(hf.Dinov2Config(**vision, mlp_ratio=2))
    elif family == "dinov2_with_registers":
        config = hf.Dinov2WithRegistersConfig(**vision, mlp_ratio=2, num_register_tokens=3)
        model = hf.Dinov2WithRegistersModel(config)
    elif family == "clip":
        model = hf.CLIPModel(hf.CLIPConfig(**towers, projection_dim=20))
    elif family == "clip_vision_model":
        model = hf.CLIPVisionModel(hf.CLIPVisionConfig(**wide))
    elif family == "siglip":
        model = hf.SiglipModel(hf.SiglipConfig(**towers))
    else:
        model = hf.SiglipVisionModel(hf.SiglipVisionConfig(**wide))
    with torch.no_grad():  # as they start, tokens hardly differ and positions hardly matter
        for parameter in model.parameters():
            if parameter.numel() > 1:
                parameter += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def write_tower(folder: Path, family: str, processor: dict | None = None) -> Path:
    """That model in `folder`, with a preprocessor_config.json if `processor` is given."""
    make_tower(family).save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def write_both_towers(folder: Path, family: str) -> Path:
    """ "clip" or "siglip" with a tokeniser that knows `WORDS`, in `folder`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    write_tower(folder, family)
    special = ["<pad>", "<unk>", "<start>", "<end>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
    ).save_pretrained(folder)
    return folder


def trained_a_step(encoder: nn.Module, films: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far every number of the state moved in one step of training."""
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2, weight_decay=0.1)
    tokens = encoder(films)
    (
        tokens * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))
    ).sum().backward()
    optimizer.step()
    return {key: (value - before[key]).abs().max() for key, value in encoder.state_dict().items()}
