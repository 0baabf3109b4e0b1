"""MedKLIP: its checkpoints as one of our models.

Image tokens are ResNet-50's up to layer3, 256 numbers each; prompts are sentences, of which
Bio_ClinicalBERT's last hidden state of [CLS] is projected to 256 (`disease_embedding_layer`). The
BERT is not in the checkpoint. Its decoder is KAD's in small, without a norm on what goes in; the
map is the mean over its layers, as in MedKLIP's grounding.

MedKLIP tokenises in its own way, with [CLS] in front, no [SEP] behind, and 64 tokens at most.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dwarf_cxr.config import ModelSettings
from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import atomic_folder
from dwarf_cxr.findings import DESCRIPTIONS, VOCABULARY, select
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.weights.bert import TextFolder, open_text_folder, take_bert, write_text_encoder
from dwarf_cxr.weights.keys import KeyReader, refuse_faults
from dwarf_cxr.weights.model import place_model
from dwarf_cxr.weights.query_decoder import (
    DROPOUT,
    FEEDFORWARD,
    HEADS,
    LAYERS,
    Wanted,
    take_decoder,
    take_score,
)
from dwarf_cxr.weights.reading import looks_like, open_foreign, tensors_of
from dwarf_cxr.weights.report import Report, collected, refuse_occupied
from dwarf_cxr.weights.resnet import take_resnet

WIDTH = 256
TEXT_WIDTH = 768
IMAGE_SIZE = 224
LONGEST_PROMPT = 64
NAMES = {
    "atelectasis": "Atelectasis",
    "calcification": "Calcification",
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "effusion": "Effusion",
    "emphysema": "Emphysema",
    "fracture": "Fracture",
    "hernia": "Hernia",
    "infiltrate": "Infiltration",
    "mass": "Mass",
    "nodule": "Nodule",
    "pneumonia": "Pneumonia",
    "eumonia": "Pneumonia",
    "pneumothorax": "Pneumothorax",
    "thicken": "Pleural Thickening",
    "opacity": "Lung Opacity",
    "lesion": "Lung Lesion",
    "device": "Support Devices",
}
"""MedKLIP's observations in the shared vocabulary; `eumonia` is how its book spells pneumonia."""


def import_medklip(path: Path, out: Path, wanted: Wanted) -> Report:
    """Write `out`, a model folder; nothing on any refusal.

    Args:
        wanted: the folder of Bio_ClinicalBERT needs its weights. Films are of 224 px. Prompts are
            of observations, such as MedKLIP's own book of 75; without them the vocabulary's
            descriptions are, and findings are those of the prompts.

    Raises:
        CheckpointError: damaged, refused, of another family, or keys that do not fit, all listed.
        ConfigError: a finding without a prompt.
    """
    refuse_occupied(out)
    book = wanted.prompts or {name: DESCRIPTIONS[name] for name in VOCABULARY}
    known = {NAMES.get(name, name): words for name, words in book.items()}
    asked = select(wanted.findings or list(known), list(known), where="--findings")
    size = wanted.image_size or IMAGE_SIZE
    if size < 32:
        raise CheckpointError(f"--image-size {size}: ResNet-50 needs 32 px at least")
    foreign = open_foreign(path, trust=wanted.trust)
    section = foreign.content.get("model")
    state = foreign.section("model") if isinstance(section, Mapping) else None
    reader = KeyReader("model", state or tensors_of(foreign.content, str(foreign.file)))
    if reader.shape("disease_embedding_layer.weight") is None:
        raise CheckpointError(
            f"{foreign.file}: no MedKLIP checkpoint (it has no disease_embedding_layer); "
            f"{looks_like(foreign.content)}"
        )
    encoder = take_resnet(reader, WIDTH)
    parts: dict[str, dict[str, Tensor]] = {
        "decoder": take_decoder(reader, WIDTH),
        "score": take_score(reader, "classifier", WIDTH),
        "text_projection": reader.take_linear("disease_embedding_layer", WIDTH, TEXT_WIDTH),
    }
    reader.drop("cl_fc.*", "aligns anatomy while pretraining")
    text = open_text_folder(wanted.text_encoder, foreign.file, "Bio_ClinicalBERT")
    bert_reader = _open_bert(text, wanted.trust)
    bert = take_bert(bert_reader, "", text, pooler=False)
    if text.config["hidden_size"] != TEXT_WIDTH:
        bert_reader.faults.append(f"hidden_size is {text.config['hidden_size']}, not {TEXT_WIDTH}")
    refuse_faults(foreign.file, [reader, bert_reader])
    if encoder is None or encoder.number_of_stages != 3:
        raise CheckpointError(f"{foreign.file}: its image encoder does not end with layer3")

    settings = ModelSettings(
        image_encoder="medklip",
        text_encoder="text_encoder",
        prompts="description",
        width=WIDTH,
        projections="text",
        layers=LAYERS,
        attention_heads=HEADS,
        feedforward=FEEDFORWARD,
        dropout=DROPOUT,
        positions=False,
        norm_inputs=False,
        query_context="joint",
        map_layers="mean",
        map_space="relative",
        head="none",
    )
    aliases, dropped = collected(
        [reader, bert_reader], foreign, ["model"] if state is not None else []
    )
    report = Report(
        family="medklip",
        variant=f"ResNet-50 to layer3, {size} px",
        foreign=foreign,
        out=out,
        aliases=aliases,
        dropped=dropped,
        notes=(
            *foreign.notes,
            f"{HEADS} attention heads; images normalised as ImageNet's; text of {text.folder.name}",
            f"{len(asked)} observations are asked at once, MedKLIP asks its book of 75; a score "
            "depends on which others are in the question"
            + ("" if wanted.prompts else ": give the book with --prompts to ask as it does"),
        ),
        next_step=f"dwarf evaluate {out} --data DATA  (prepared with --size {size})",
    )
    with atomic_folder(out) as fresh:
        write_text_encoder(
            fresh / "text_encoder", text, bert, cls_vector=True, sep=False, longest=LONGEST_PROMPT
        )
        words = {name: known[name] for name in asked}
        features = encode_prompts(str(fresh / "text_encoder"), list(words.values()))
        place_model(fresh, settings, encoder, words, features, size, parts, report)
    return report


def _open_bert(text: TextFolder, trust: bool) -> KeyReader:
    """The weights of the BERT itself, in its own folder."""
    found = open_foreign(text.folder, trust=trust)
    tensors = tensors_of(found.content, str(found.file))
    bare = {key.removeprefix("bert."): value for key, value in tensors.items()}
    return KeyReader(f"text encoder {text.folder.name}", bare)
