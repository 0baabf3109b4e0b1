"""KAD: its three-section checkpoints as one of our models.

| section | becomes |
|---|---|
| `image_encoder` | ResNet-50 to layer4 (KAD-512, -1024) or layer3 (224 px), or one of two ViTs |
| `text_encoder` | BERT and `mlp_embed`: the folder `text_encoder` of the model |
| `model` | query decoder and `score`, the log-odds of KAD's two logits |

Nothing lies between encoders and decoder: all work with 768 numbers. A checkpoint of DeViDe or of
DWARF in this layout would be read as well; none is public.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dwarf_cxr.config import ModelSettings
from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import atomic_folder
from dwarf_cxr.findings import VOCABULARY, select
from dwarf_cxr.models.normalisation import IMAGENET
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.weights.bert import open_text_folder, take_bert, write_text_encoder
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
from dwarf_cxr.weights.reading import looks_like, open_foreign
from dwarf_cxr.weights.report import Report, collected, refuse_occupied
from dwarf_cxr.weights.resnet import take_resnet
from dwarf_cxr.weights.vit import build_vit, read_vit

WIDTH = 768
SECTIONS = ("model", "image_encoder", "text_encoder")
PROMPTS = {
    "Effusion": "pleural effusion",
    "Mass": "lung mass",
    "Nodule": "lung nodule",
    "Pleural Thickening": "pleural thicken",
}
"""The words of KAD's ChestX-ray14 list; where they are not given, the name in lower case is."""


@dataclass(frozen=True)
class _ImagePart:
    encoder: nn.Module | None
    """None after faults, which stay in the reader."""
    variant: str
    image_size: int
    notes: tuple[str, ...] = ()


def import_kad(path: Path, out: Path, wanted: Wanted) -> Report:
    """Write `out`, a model folder; nothing on any refusal.

    Args:
        wanted: of the folder of Med-KEBERT only tokeniser and config.json are read, since the
            checkpoint holds the weights. Films are of 512 px, 224 or the ViT's own; KAD-1024 cannot
            be told from KAD-512: give 1024. Findings are those of the vocabulary.

    Raises:
        CheckpointError: damaged, refused, of another family, or keys that do not fit, all listed.
        ConfigError: a finding that the vocabulary does not have.
    """
    refuse_occupied(out)
    asked = select(wanted.findings or VOCABULARY, VOCABULARY, where="--findings")
    foreign = open_foreign(path, trust=wanted.trust)
    missing = [name for name in SECTIONS if name not in foreign.content]
    if missing:
        raise CheckpointError(
            f"{foreign.file}: no KAD checkpoint: section {', '.join(missing)} is missing; "
            f"{looks_like(foreign.content)}"
        )
    readers = {name: KeyReader(name, foreign.section(name)) for name in SECTIONS}
    text = open_text_folder(wanted.text_encoder, foreign.file, "Med-KEBERT")
    if text.config["hidden_size"] != WIDTH:
        raise CheckpointError(
            f"{text.folder}: a BERT of {text.config['hidden_size']} numbers a token; "
            f"KAD's has {WIDTH}"
        )
    image = _take_image_encoder(readers["image_encoder"], wanted.image_size)
    reader = readers["text_encoder"]
    bert = take_bert(reader, "bert_model.", text, pooler=True)
    if bert.projection is None:
        reader.faults.append("missing mlp_embed.0 and mlp_embed.2")
    reader.drop("logit_scale", "of the contrastive loss")
    reader = readers["model"]
    reader.merge_alias("decoder_norm.", "decoder.norm.")
    decoder, score = take_decoder(reader, WIDTH), take_score(reader, "mlp_head.0", WIDTH)
    reader.drop("logit_scale", "of the contrastive loss")
    refuse_faults(foreign.file, readers.values())
    if image.encoder is None:
        raise CheckpointError(f"{foreign.file}: its image encoder does not fit")

    settings = ModelSettings(
        image_encoder="kad",
        text_encoder="text_encoder",
        width=WIDTH,
        projections="none",
        layers=LAYERS,
        attention_heads=HEADS,
        feedforward=FEEDFORWARD,
        dropout=DROPOUT,
        positions=False,
        query_context="joint",
        map_space="relative",
        head="none",
    )
    aliases, dropped = collected(list(readers.values()), foreign, SECTIONS)
    report = Report(
        family="kad",
        variant=image.variant,
        foreign=foreign,
        out=out,
        aliases=aliases,
        dropped=dropped,
        notes=(
            *foreign.notes,
            *image.notes,
            f"{HEADS} attention heads; images normalised as ImageNet's",
            "all findings are asked at once: a score depends on which others are in the question",
            "asked with KAD's own words where it has some, else with the name in lower case",
        ),
        next_step=f"dwarf evaluate {out} --data DATA  (prepared with --size {image.image_size})",
    )
    own = {name: PROMPTS.get(name, name.lower()) for name in asked}
    own |= {name: words for name, words in (wanted.prompts or {}).items() if name in own}
    unknown = [name for name in wanted.prompts or {} if name not in own]
    if unknown:
        select(unknown, asked, where="--prompts")
    with atomic_folder(out) as fresh:
        write_text_encoder(fresh / "text_encoder", text, bert)
        features = encode_prompts(str(fresh / "text_encoder"), list(own.values()))
        place_model(
            fresh,
            settings,
            image.encoder,
            own,
            features,
            image.image_size,
            {"decoder": decoder, "score": score},
            report,
        )
    return report


def _take_image_encoder(reader: KeyReader, image_size: int | None) -> _ImagePart:
    keys = reader.left()
    if any(key.startswith(("resnet.", "res_features.")) for key in keys):
        return _take_resnet(reader, image_size)
    if any(key.startswith(("dense_features.", "densenet.")) for key in keys):
        raise CheckpointError(
            "image_encoder is KAD's DenseNet-121, of which no weights were published: not supported"
        )
    vit = read_vit(reader, in_kad=True)
    if vit.config["hidden_size"] != WIDTH:
        reader.faults.append(f"a ViT of {vit.config['hidden_size']} numbers a token, not {WIDTH}")
    size = image_size or vit.image_size
    if size % vit.config["patch_size"]:
        raise CheckpointError(
            f"--image-size {size}: not a multiple of the patches of {vit.config['patch_size']} px"
        )
    variant = f"ViT ({vit.layout}), {size} px"
    if reader.all_faults():
        return _ImagePart(None, variant, size)
    encoder = build_vit(vit, IMAGENET)
    return _ImagePart(encoder, variant, size, vit.notes)


def _take_resnet(reader: KeyReader, image_size: int | None) -> _ImagePart:
    encoder = take_resnet(reader, WIDTH)
    if encoder is None:
        return _ImagePart(None, "ResNet-50", image_size or 0)
    size = image_size or (512 if encoder.number_of_stages == 4 else 224)
    if size < 32:
        raise CheckpointError(f"--image-size {size}: ResNet-50 needs 32 px at least")
    side = encoder.grid(size)[0]
    notes: tuple[str, ...] = ()
    if encoder.number_of_stages == 4 and image_size is None:
        notes = (
            "KAD-512 assumed; KAD-1024 has the same shapes: import that with --image-size 1024",
        )
    variant = f"ResNet-50 to layer{encoder.number_of_stages}, {size} px, {side}×{side} tokens"
    return _ImagePart(encoder, variant, size, notes)
