"""BERT weights of other projects as a text encoder folder that `encode_prompts` reads.

```
config.json, model.safetensors, tokenizer.json, tokenizer_config.json
projection.safetensors   Linear, GELU, Linear on the pooler's output, where the project has one
1_Pooling/config.json    where a prompt's vector is the last hidden state of [CLS]
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from dwarf_cxr.errors import CheckpointError, DataError
from dwarf_cxr.files import read_json, write_bytes, write_json
from dwarf_cxr.models.text_encoders import PROJECTION_FILE
from dwarf_cxr.weights.keys import KeyReader

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
)
"""What of a BERT's config.json fixes the shapes of its weights."""


@dataclass(frozen=True)
class TextFolder:
    """A tokeniser and the sizes of its BERT: what no checkpoint of these families holds."""

    folder: Path
    config: Mapping[str, Any]
    tokeniser: Any
    """transformers' tokeniser."""


@dataclass(frozen=True)
class BertWeights:
    """A BERT under transformers' names, without the prefix `bert.`."""

    tensors: dict[str, Tensor]
    projection: dict[str, Tensor] | None
    """KAD's mlp_embed: 0.weight, 0.bias, 2.weight, 2.bias."""


def open_text_folder(given: Path | None, path: Path, what: str) -> TextFolder:
    """The folder of `--text-encoder`, else the one that the checkpoint `path` is or lies in.

    Args:
        what: the BERT that is wanted, in words.

    Raises:
        CheckpointError: there is none, or it holds no BERT's config.json with its tokeniser.
    """
    folder = given or (path if path.is_dir() else path.parent)
    where = f"--text-encoder {folder}" if given else str(path)
    if not (folder / "config.json").is_file() or not _has_vocabulary(folder):
        raise CheckpointError(
            f"{where}: no tokeniser there; give --text-encoder FOLDER, a folder of {what} in "
            "Hugging Face layout with config.json and vocab.txt"
        )
    try:
        config = read_json(folder / "config.json")
    except DataError as fault:
        raise CheckpointError(str(fault)) from None
    kind = config.get("model_type", "bert") if isinstance(config, dict) else None
    if kind != "bert":
        raise CheckpointError(f"{where}: its config.json says model_type {kind!r}, not 'bert'")
    missing = [name for name in SIZES if not isinstance(config.get(name), int)]
    if missing:
        raise CheckpointError(f"{where}: its config.json does not say {', '.join(missing)}")
    tokeniser = _tokeniser(folder, where)
    if len(tokeniser) > config["vocab_size"]:
        raise CheckpointError(
            f"{where}: its tokeniser knows {len(tokeniser)} words, its config.json says vocab_size "
            f"{config['vocab_size']}; they are of different models"
        )
    return TextFolder(folder, config, tokeniser)


def take_bert(reader: KeyReader, prefix: str, text: TextFolder, *, pooler: bool) -> BertWeights:
    """The BERT whose keys begin with `prefix`, and `mlp_embed` if it is there.

    Faults stay in the reader. Heads of the pretraining, and `position_ids`, a constant that older
    releases of transformers stored, are dropped.
    """
    _rename_old_norms(reader)
    shapes = bert_shapes(text.config, pooler=pooler)
    word_key = "embeddings.word_embeddings.weight"
    found = reader.shape(prefix + word_key)
    if found is not None and len(found) == 2 and found[0] != text.config["vocab_size"]:
        reader.faults.append(
            f"vocabulary: the weights have {found[0]} words, config.json of {text.folder} says "
            f"{text.config['vocab_size']}: that is another BERT"
        )
    tensors = {key: reader.take(prefix + key, shape) for key, shape in shapes.items()}
    reader.drop(f"{prefix}embeddings.position_ids", "a constant")
    if not pooler:
        reader.drop(f"{prefix}pooler.*", "this family reads the last hidden state")
    reader.drop("cls.*", "heads of BERT's pretraining")
    return BertWeights(tensors, _take_projection(reader, text.config["hidden_size"]))


def bert_shapes(config: Mapping[str, Any], *, pooler: bool) -> dict[str, tuple[int, ...]]:
    """Every tensor of a BERT with its shape, from the sizes of its config.json."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
    }
    linear = {"pooler.dense": (width, width)} if pooler else {}
    norms = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        block = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            linear[f"{block}.attention.self.{name}"] = (width, width)
        linear[f"{block}.attention.output.dense"] = (width, width)
        linear[f"{block}.intermediate.dense"] = (inner, width)
        linear[f"{block}.output.dense"] = (width, inner)
        norms += [f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"]
    for name, (outputs, inputs) in linear.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def write_text_encoder(
    folder: Path,
    text: TextFolder,
    weights: BertWeights,
    *,
    cls_vector: bool = False,
    sep: bool = True,
    longest: int | None = None,
) -> None:
    """Write a folder for the setting `text_encoder`.

    Args:
        cls_vector: a prompt's vector is the last hidden state of [CLS], not the pooler's output.
        sep: prompts end with [SEP].
        longest: tokens after which a prompt is cut.
    """
    write_bytes(
        folder / "model.safetensors", save_tensors(weights.tensors, metadata={"format": "pt"})
    )
    write_json(folder / "config.json", {**text.config, "model_type": "bert"})
    if weights.projection is not None:
        write_bytes(folder / PROJECTION_FILE, save_tensors(weights.projection))
    if cls_vector:
        (folder / "1_Pooling").mkdir()
        write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    tokeniser = text.tokeniser
    tokeniser.model_max_length = longest or text.config["max_position_embeddings"]
    if not sep:
        from tokenizers.processors import TemplateProcessing

        cls = tokeniser.cls_token
        tokeniser.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{cls} $A", special_tokens=[(cls, tokeniser.cls_token_id)]
        )
    tokeniser.save_pretrained(folder)
    if not sep:
        # transformers' BertTokenizer puts [SEP] back; the general class takes tokenizer.json as is
        file = folder / "tokenizer_config.json"
        write_json(file, read_json(file) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json"))


def _tokeniser(folder: Path, where: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as fault:  # its Rust part raises a bare Exception on damaged files
        raise CheckpointError(
            f"{where}: its tokeniser cannot be read ({fault}); copy the folder again"
        ) from None


def _rename_old_norms(reader: KeyReader) -> None:
    """TensorFlow's names, which BERTs of 2019 and 2020 still have."""
    for key in reader.left():
        for old, new in (
            ("LayerNorm.gamma", "LayerNorm.weight"),
            ("LayerNorm.beta", "LayerNorm.bias"),
        ):
            if key.endswith(old):
                reader.tensors[key.removesuffix(old) + new] = reader.tensors.pop(key)


def _take_projection(reader: KeyReader, width: int) -> dict[str, Tensor] | None:
    if not any(key.startswith("mlp_embed.") for key in reader.left()):
        return None
    return {
        f"{layer}.{part}": value
        for layer in (0, 2)
        for part, value in reader.take_linear(f"mlp_embed.{layer}", width, width).items()
    }
