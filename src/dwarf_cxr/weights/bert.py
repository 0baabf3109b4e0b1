"""BERT weights of other projects as a text encoder folder that `encode_prompts` reads.

```
config.json, tokenizer.json, tokenizer_config.json, model.safetensors
projection.safetensors   Linear, GELU, Linear on the pooler's output, where the project has one
1_Pooling/config.json    where the prompt's vector is the last hidden state of [CLS]
```
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import write_bytes, write_json
from dwarf_cxr.weights.keys import KeyReader

if TYPE_CHECKING:
    from transformers import BertConfig

VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")


@dataclass(frozen=True)
class TextFolder:
    """The tokeniser and the shape of a BERT: what no checkpoint of these families holds."""

    folder: Path
    config: "BertConfig"
    words: int
    """Entries of the tokeniser's vocabulary."""


@dataclass(frozen=True)
class BertWeights:
    """A BERT under transformers' names, without the prefix `bert.`."""

    tensors: dict[str, Tensor]
    projection: dict[str, Tensor] | None
    """KAD's mlp_embed: 0.weight, 0.bias, 2.weight, 2.bias."""


def open_text_folder(folder: Path | None, beside: Path, what: str) -> TextFolder:
    """The folder of `--text-encoder`, or that of the checkpoint itself if it holds a tokeniser.

    Args:
        what: which BERT is wanted, for the error.

    Raises:
        CheckpointError: there is none, or it holds no BERT's config.json and tokeniser.
    """
    own = beside if beside.is_dir() else beside.parent
    if folder is None and not _is_text_folder(own):
        raise CheckpointError(
            f"{beside}: it holds no tokeniser; give --text-encoder FOLDER, a folder of {what} in "
            f"Hugging Face layout (config.json and vocab.txt)"
        )
    folder = own if folder is None else Path(folder)
    if not _is_text_folder(folder):
        raise CheckpointError(
            f"--text-encoder {folder}: no config.json with vocab.txt or tokenizer.json there; give a "
            f"folder of {what} in Hugging Face layout"
        )
    config = _bert_config(folder)
    words = len(_tokeniser(folder))
    if words > config.vocab_size:
        raise CheckpointError(
            f"--text-encoder {folder}: its tokeniser has {words} words, its config.json says "
            f"vocab_size {config.vocab_size}; the two are of different models"
        )
    return TextFolder(folder, config, words)


def take_bert(reader: KeyReader, prefix: str, text: TextFolder, *, pooler: bool) -> BertWeights:
    """The BERT whose keys begin with `prefix`, and `mlp_embed` if it is there.

    Faults stay in the reader. `position_ids`, a constant that older releases of transformers
    stored, and heads of the pretraining are dropped.
    """
    config = text.config
    width, inner = config.hidden_size, config.intermediate_size
    rename_old_norms(reader)
    reader.drop(f"{prefix}embeddings.position_ids", "a constant")
    words = f"{prefix}embeddings.word_embeddings.weight"
    found = reader.shape(words)
    if found is not None and found[0] != config.vocab_size:
        reader.faults.append(
            f"{words} has {found[0]} words, the tokeniser of {text.folder} goes with "
            f"{config.vocab_size}: it is of another BERT"
        )
        reader.tensors.pop(words)
    else:
        reader.take_into(prefix, "embeddings.word_embeddings.weight", (config.vocab_size, width))
    embeddings = {
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, width),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for key, shape in embeddings.items():
        reader.take_into(prefix, key, shape)
    for layer in range(config.num_hidden_layers):
        block = f"encoder.layer.{layer}."
        for name, outputs, inputs in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            reader.take_into(prefix, f"{block}{name}.weight", (outputs, inputs))
            reader.take_into(prefix, f"{block}{name}.bias", (outputs,))
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            reader.take_into(prefix, f"{block}{name}.weight", (width,))
            reader.take_into(prefix, f"{block}{name}.bias", (width,))
    if pooler:
        reader.take_into(prefix, "pooler.dense.weight", (width, width))
        reader.take_into(prefix, "pooler.dense.bias", (width,))
    else:
        reader.drop(f"{prefix}pooler.*", "this family reads the last hidden state")
    reader.drop("cls.*", "heads of the pretraining")
    return BertWeights(reader.taken, _take_projection(reader, width))
