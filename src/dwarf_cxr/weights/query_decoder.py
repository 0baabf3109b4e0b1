"""The query decoder that KAD and MedKLIP share, under the names of `models/decoder.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dwarf_cxr.weights.keys import KeyReader

LAYERS = 4
HEADS = 4
"""Of both; no tensor tells it."""
FEEDFORWARD = 1024
DROPOUT = 0.1


@dataclass(frozen=True)
class Wanted:
    """How the user wants a model to be imported, where the checkpoint leaves it open."""

    text_encoder: Path | None
    """A folder of the family's BERT; None: it lies beside the checkpoint."""
    trust: bool = False
    """Unpickle in full what holds more than tensors: it can run any program."""
    image_size: int | None = None
    """Of the films, in pixels; None: as the checkpoint tells."""
    findings: Sequence[str] | None = None
    """Those that the model is asked for by default; None: all that it can be asked for."""
    prompts: Mapping[str, str] | None = None
    """Finding to the words it is asked with, where the family's own are not wanted."""


def take_decoder(reader: KeyReader, width: int) -> dict[str, Tensor]:
    """`decoder.*` of a checkpoint as the state of a `QueryDecoder` of 4 layers.

    torch keeps query, key and value of an attention in one matrix of 3·width rows, in this order.
    """
    state: dict[str, Tensor] = {}
    for layer in range(LAYERS):
        source, target = f"decoder.layers.{layer}", f"layers.{layer}"
        for theirs, ours in (
            ("self_attn", "self_attention"),
            ("multihead_attn", "cross_attention"),
        ):
            joint = {
                "weight": reader.take(f"{source}.{theirs}.in_proj_weight", (3 * width, width)),
                "bias": reader.take(f"{source}.{theirs}.in_proj_bias", (3 * width,)),
            }
            for part, value in joint.items():
                for name, rows in zip(("query", "key", "value"), value.split(width), strict=True):
                    state[f"{target}.{ours}.{name}.{part}"] = rows.clone()
            output = reader.take_linear(f"{source}.{theirs}.out_proj", width, width)
            state |= {f"{target}.{ours}.output.{part}": value for part, value in output.items()}
        for theirs, ours, outputs, inputs in (
            ("linear1", "expand", FEEDFORWARD, width),
            ("linear2", "contract", width, FEEDFORWARD),
        ):
            linear = reader.take_linear(f"{source}.{theirs}", outputs, inputs)
            state |= {f"{target}.{ours}.{part}": value for part, value in linear.items()}
        for norm in ("norm1", "norm2", "norm3"):
            values = reader.take_norm(f"{source}.{norm}", width)
            state |= {f"{target}.{norm}.{part}": value for part, value in values.items()}
    state |= {
        f"norm.{part}": value for part, value in reader.take_norm("decoder.norm", width).items()
    }
    return state


def take_score(reader: KeyReader, name: str, width: int) -> dict[str, Tensor]:
    """The two logits, absent and present, as one log-odds: the same probability.

    softmax((a, b))[1] = sigmoid(b - a).
    """
    pair = reader.take_linear(name, 2, width)
    return {part: value[1:] - value[:1] for part, value in pair.items()}
