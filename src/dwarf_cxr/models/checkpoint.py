"""Model folders: config.json, model.safetensors and a model card, written whole or not at all.

The loader never unpickles, and checks the weights' SHA-256, since safetensors do not notice a
flipped bit.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dwarf_cxr import __version__
from dwarf_cxr.config import ModelSettings
from dwarf_cxr.errors import CheckpointError, DataError, DwarfError
from dwarf_cxr.files import (
    atomic_folder,
    read_json,
    sha256_of,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)
from dwarf_cxr.models.building import Trainable, rebuild
from dwarf_cxr.models.clip import TOKENIZER_FOLDER, ClipClassifier, clip_from
from dwarf_cxr.models.hugging_face import load_tokenizer
from dwarf_cxr.models.image_encoders import rebuild_image_encoder
from dwarf_cxr.models.outputs import ModelCard, Origin
from dwarf_cxr.models.report_attention import ReportAttention
from dwarf_cxr.models.vlm import VisionLanguageClassifier

Model = Trainable | ReportAttention | ClipClassifier

FORMAT = "dwarf-cxr model 1"
CARD_ARRAYS = ("train_prior", "seen_patients", "seen_files")
"""Fields of the card that are stored with the weights."""
NEWER_ARRAYS = ("seen_files",)
"""Those that older models lack."""
TEXT_ENCODER_FOLDER = "text_encoder"
"""Where an imported model keeps a text encoder of its own, so that it can be asked new words."""
CLIP = "clip"
"""The kind, in config.json, of a `ClipClassifier`; without a kind it is the prompted classifier.
"""


def save_model(model: Model, folder: Path) -> None:
    """Write `model` to `folder`, replacing an earlier one as a whole.

    A trained model has a card; an imported one may have its origin alone.

    Raises:
        CheckpointError: the model has neither card nor origin.
    """
    if model.card is None and model.origin is None:
        raise CheckpointError("the model has no card (thresholds, prior); train it before saving")
    tensors = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
    card: dict[str, Any] | None = None
    if model.card is not None:
        card = dataclasses.asdict(model.card)
        tensors |= {name: torch.from_numpy(card.pop(name)) for name in CARD_ARRAYS}
    with atomic_folder(folder) as fresh:
        write_bytes(fresh / "model.safetensors", save_tensors(tensors))
        write_text(fresh / "README.md", _card_text(model))
        config = {
            "format": FORMAT,
            "version": __version__,
            "architecture": model.architecture(),
            "card": card,
            "origin": None if model.origin is None else dataclasses.asdict(model.origin),
            "sha256": sha256_of(fresh / "model.safetensors"),
        }
        if isinstance(model, ClipClassifier):
            config["kind"] = CLIP
            model.tokenizer.save_pretrained(fresh / TOKENIZER_FOLDER)
        elif not isinstance(model, VisionLanguageClassifier):
            config["kind"] = model.settings.kind
        write_json(fresh / "config.json", config)


def model_folder(run: Path) -> Path:
    """The folder of the model of a run, or `run` itself if it is a bare model folder."""
    run = Path(run)
    return whole_folder(run / "model" if (run / "config.yaml").is_file() else run)


def load_model(folder: Path) -> Model:
    """The model of a run, or of a bare model folder.

    Raises:
        CheckpointError: no model there, damaged weights, or weights that do not fit; lists every
            missing, unexpected and mis-shaped key.
    """
    folder = model_folder(folder)
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    if not config_file.is_file() or not weights_file.is_file():
        raise CheckpointError(
            f"{folder}: no model there (config.json and model.safetensors); "
            "give a run folder whose training has finished its first evaluation"
        )
    try:
        config = read_json(config_file)
    except DataError as fault:
        raise CheckpointError(str(fault)) from None
    form = config.get("format") if isinstance(config, dict) else None
    if form != FORMAT:
        raise CheckpointError(f"{config_file}: format {form!r}, this version reads {FORMAT!r}")
    try:
        return _read_model(config, config_file, weights_file)
    except DwarfError:
        raise
    except Exception as fault:  # whatever a damaged field leads the libraries to
        raise CheckpointError(
            f"{config_file}: a part is missing or wrong ({fault!r}); copy the model folder again"
        ) from None


def _read_model(config: dict[str, Any], config_file: Path, weights_file: Path) -> Model:
    found = sha256_of(weights_file)
    if found != config["sha256"]:
        raise CheckpointError(
            f"{weights_file}: SHA-256 is {found[:12]}…, config.json says {config['sha256'][:12]}…; "
            "the file is damaged or was replaced: copy the model folder again"
        )
    tensors = read_tensors(weights_file)
    card = config["card"]
    if card is not None:
        missing = [name for name in CARD_ARRAYS if name not in (*tensors, *NEWER_ARRAYS)]
        if missing:
            raise CheckpointError(f"{weights_file}: tensors are missing: {', '.join(missing)}")
        card |= {name: tensors.pop(name).numpy() for name in CARD_ARRAYS if name in tensors}
    model = _empty_model(config.get("kind"), config["architecture"], config_file.parent)
    _load_strictly(model, tensors, weights_file)
    model.card = None if card is None else ModelCard(**card)
    if (origin := config.get("origin")) is not None:
        model.origin = Origin(**(origin | {"notes": tuple(origin["notes"])}))
    return model.eval()


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: it is none; a pickle of that name is not opened.
    """
    try:
        return load_tensors(file.read_bytes())
    except SafetensorError as fault:
        raise CheckpointError(
            f"{file}: no safetensors file ({fault}); copy the folder again"
        ) from None


def _empty_model(kind: str | None, architecture: dict[str, Any], folder: Path) -> Model:
    if kind == CLIP:
        return clip_from(architecture, load_tokenizer(str(folder), folder / TOKENIZER_FOLDER))
    if kind is not None:
        return rebuild(kind, architecture)
    own_text_encoder = folder / TEXT_ENCODER_FOLDER
    if own_text_encoder.is_dir():
        architecture["settings"]["text_encoder"] = str(own_text_encoder)
    return VisionLanguageClassifier(
        ModelSettings.model_validate(architecture["settings"]),
        rebuild_image_encoder(architecture["image_encoder"]),
        architecture["findings"],
        torch.zeros(len(architecture["findings"]), architecture["text_width"]),
        architecture["image_size"],
        torch.Generator(),
    )


def _load_strictly(model: Model, tensors: dict[str, torch.Tensor], file: Path) -> None:
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [f"missing {key}" for key in expected.keys() - found.keys()]
    faults += [f"unexpected {key}" for key in found.keys() - expected.keys()]
    faults += [
        f"{key} is {found[key]}, expected {expected[key]}"
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    ]
    if faults:
        raise CheckpointError(f"{file}: weights do not fit: {'; '.join(sorted(faults))}")
    model.load_state_dict(tensors)


def _card_text(model: Model) -> str:
    card = model.card
    if card is None:
        return _origin_text(model)
    rows = "\n".join(
        f"| {name} | {_number(card.score_thresholds.get(name))} "
        f"| {_number(card.map_thresholds.get(name))} |"
        for name in model.findings
    )
    return f"""---
library_name: dwarf-cxr
tags: [chest-x-ray, attention, image-classification]
---
# {card.method} on {card.data_name}

A chest X-ray classifier with one attention map per finding, {_source(model)}.

| finding | score threshold | map threshold |
|---|---|---|
{rows}

Thresholds were fitted on the validation split (score: largest F1; map: largest mean Dice).

- Method: {card.method}; queries: {card.query_context}; images: {model.image_size} px, grey.
- Data: {card.data_name}, fingerprint {card.data_fingerprint}; splits {card.splits_sha256}.
- Names of findings: {_names(card)}.
- Architecture: {json.dumps(model.architecture()["settings"])}

**Intended use:** research. This is not a medical device: it must not be used to decide about a
patient. Scores and maps are only known for films like those it was trained on; a map shows where
the model looked, not why, and part of it can be the usual place of a finding rather than this
film's (compare the `train_prior` and `shuffled` references of its evaluation).
"""


def _source(model: Model) -> str:
    """Who made the weights."""
    if model.card is None or not model.card.zero_shot:
        return f"trained by dwarf-cxr {__version__}"
    if model.origin is None:
        return f"asked zero-shot by dwarf-cxr {__version__}: not trained on these data"
    notes = "".join(f"; {note}" for note in model.origin.notes)
    return (
        f"asked zero-shot by dwarf-cxr {__version__}: not trained on these data. Its weights are "
        f"those of {model.origin.family}, from `{model.origin.file}` (SHA-256 "
        f"{model.origin.sha256}){notes}"
    )


def _origin_text(model: Model) -> str:
    if model.origin is None:
        raise CheckpointError("the model has neither card nor origin")
    origin = model.origin
    notes = "\n".join(f"- {note}" for note in origin.notes)
    return f"""---
library_name: dwarf-cxr
tags: [chest-x-ray, attention, image-classification]
---
# {origin.family}, imported

Weights of {origin.family}, imported by dwarf-cxr {__version__} from `{origin.file}`
(SHA-256 {origin.sha256}). They are whatever their licence says; ask where you had them from.

Zero-shot: nothing was fitted here. Thresholds and train prior are fitted on the data that the model
is evaluated on, or stay empty.

- Images: {model.image_size} px, grey; queries: {model.query_context}.
- Asked by default: {", ".join(model.findings)}.
{notes}

**Intended use:** research. This is not a medical device: it must not be used to decide about a
patient.
"""


def _names(card: ModelCard) -> str:
    joined: dict[str, list[str]] = {}
    for own, shown in (card.harmonised or {}).items():
        for name in shown:
            joined.setdefault(name, []).append(own)
    words = [f"{name} = {' or '.join(own)}" for name, own in joined.items() if own != [name]]
    return f"by a label map, {'; '.join(words)}" if words else "the data set's own"


def _number(value: float | None) -> str:
    return "not fitted" if value is None else f"{value:.3f}"
