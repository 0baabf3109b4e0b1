"""Med-KEBERT, KAD's text encoder: KEBERT's own file, or a BERT folder in Hugging Face layout.

KEBERT's training wrote `state_dict` with `bert_model.*` and `mlp_embed.*`, the layers that KAD puts
on the pooler's output. The folder that Hugging Face has of Med-KEBERT is a bare BERT without them.
"""

from collections.abc import Mapping
from pathlib import Path

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import atomic_folder, write_text
from dwarf_cxr.weights.bert import open_text_folder, take_bert, write_text_encoder
from dwarf_cxr.weights.keys import KeyReader, refuse_faults
from dwarf_cxr.weights.reading import looks_like, open_foreign, tensors_of
from dwarf_cxr.weights.report import Report, collected, refuse_occupied

SECTIONS = ("state_dict", "text_encoder")
"""Of KEBERT's file, and of a KAD checkpoint, whose text encoder this can be as well."""


def import_kebert(path: Path, out: Path, *, text_encoder: Path | None, trust: bool) -> Report:
    """Write `out`, a folder for the setting `text_encoder`; nothing on any refusal.

    Args:
        path: KEBERT's file, a KAD checkpoint, or a folder with a BERT.
        text_encoder: where tokeniser and config.json are, if not beside the weights.

    Raises:
        CheckpointError: damaged, refused, no BERT, or keys that do not fit, all of them listed.
    """
    refuse_occupied(out)
    foreign = open_foreign(path, trust=trust)
    section = next((n for n in SECTIONS if isinstance(foreign.content.get(n), Mapping)), None)
    if section is None:
        tensors = tensors_of(foreign.content, str(foreign.file))
    else:
        tensors = foreign.section(section)
    prefix = next(
        (p for p in ("bert_model.", "bert.", "") if f"{p}{_WORDS}" in tensors),
        None,
    )
    if prefix is None:
        raise CheckpointError(
            f"{foreign.file}: no BERT in it (no {_WORDS}); {looks_like(foreign.content)}"
        )
    text = open_text_folder(text_encoder, Path(path), "Med-KEBERT")
    reader = KeyReader(section or "file", tensors)
    bert = take_bert(reader, prefix, text, pooler=True)
    reader.drop("logit_scale", "of the contrastive loss")
    refuse_faults(foreign.file, [reader])
    aliases, dropped = collected([reader], foreign, [section] if section else [])
    projected = bert.projection is not None
    report = Report(
        family="med-kebert",
        variant=f"BERT of {text.config['num_hidden_layers']} layers, vocabulary of "
        f"{text.config['vocab_size']}, {'with' if projected else 'without'} mlp_embed",
        foreign=foreign,
        out=out,
        aliases=aliases,
        dropped=dropped,
        notes=(
            *foreign.notes,
            "a prompt's vector is the pooler's output"
            + (
                ", then Linear, GELU, Linear (mlp_embed)"
                if projected
                else "; the file has no mlp_embed, which KAD puts on it"
            ),
        ),
        next_step=f"dwarf train METHOD --data DATA --out RUN --set text_encoder={out}",
    )
    with atomic_folder(out) as fresh:
        write_text_encoder(fresh, text, bert)
        write_text(fresh / "README.md", report.text())
    return report


_WORDS = "embeddings.word_embeddings.weight"
