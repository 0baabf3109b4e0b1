"""Importer of CLIP and SigLIP models in Hugging Face layout, both towers and tokeniser.

SigLIP 2 with a fixed resolution is published as `siglip` and read; its NaFlex form is not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.files import sha256_of
from dwarf_cxr.findings import VOCABULARY
from dwarf_cxr.models.clip import ClipClassifier, ClipSettings, encode_sentences
from dwarf_cxr.models.hugging_face import find_folder, load_tokenizer, quiet
from dwarf_cxr.models.normalisation import read_normalisation
from dwarf_cxr.models.outputs import Origin
from dwarf_cxr.models.vision_transformer import BOTH_TOWERS, refuse_unfit, tower_of_folder
from dwarf_cxr.weights.reading import ForeignFile
from dwarf_cxr.weights.report import Report


def import_clip(
    source: str,
    out: Path,
    findings: Sequence[str] = VOCABULARY,
    *,
    prompts: Mapping[str, str] | None = None,
    image_size: int | None = None,
    settings: ClipSettings | None = None,
) -> Report:
    """Write the model folder `out` from a folder, or hub name, of a CLIP or SigLIP model.

    Args:
        findings: those it is asked for by default; it can be asked for any other later.
        prompts: finding to the words that stand for it, where these are not its name.
        image_size: side of the films; default the model's own, less what its patches leave over.
        settings: the sentences and the map; default `ClipSettings()`.

    Raises:
        ConfigError: no such model, another kind of model, or an option without sense; nothing is
            written.
        CheckpointError: weights or tokeniser are missing or do not fit; nothing is written.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already; choose another folder")
    words = dict(prompts or {})
    strange = [name for name in words if name not in findings]
    if strange:
        raise ConfigError(f"prompts: {', '.join(strange)}: not among the findings to ask for")
    settings = settings or ClipSettings()
    folder = find_folder("clip", source)
    where = f"clip = {source}"
    clip = _both_towers(where, folder)
    tokenizer = load_tokenizer(where, folder)
    vision = clip.config.vision_config
    own_size = vision.image_size // vision.patch_size * vision.patch_size
    features = encode_sentences(
        clip, tokenizer, settings, [words.get(name, name) for name in findings]
    )
    model = ClipClassifier(
        clip,
        tokenizer,
        settings,
        findings,
        features,
        own_size if image_size is None else image_size,
        read_normalisation(folder, vision.model_type),
    )
    report = _report(source, folder, out, model, words)
    weights = report.foreign
    model.origin = Origin("clip", weights.file.name, weights.sha256, report.origin_notes())
    model.eval().save_pretrained(out)
    return report


def _both_towers(where: str, folder: Path) -> Any:
    from transformers import AutoModel

    vision = tower_of_folder(where, folder)
    try:
        with quiet():
            clip, info = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with their names
            )
    except (OSError, ValueError, RuntimeError, UnpicklingError) as fault:
        raise CheckpointError(f"{where}: weights cannot be read: {fault}") from None
    if clip.config.model_type not in BOTH_TOWERS:
        raise ConfigError(
            f"{where}: is a {vision.model_type} without a text tower, so it cannot be asked in "
            f"words; supported: {', '.join(BOTH_TOWERS)}. As an image encoder it serves by "
            "--set image_encoder="
        )
    refuse_unfit(where, info)
    return clip


def _report(
    source: str, folder: Path, out: Path, model: ClipClassifier, words: Mapping[str, str]
) -> Report:
    weights = min(
        (*folder.glob("model*.safetensors*"), *folder.glob("pytorch_model*.bin*")),
        key=lambda file: (not file.name.endswith(".index.json"), file.name != "model.safetensors"),
    )
    settings = model.settings
    notes = [
        f"from {source}" if folder == Path(source) else f"from the hub: {source} at {folder.name}",
        f"sentences: {settings.positive!r} against {settings.negative!r}, words lower-cased",
        f"map: {settings.maps} of cosines per patch",
        f"films are resized to {model.image_size} px whole; nothing is cropped",
    ]
    notes += [f"{name} is asked with {said!r}" for name, said in words.items()]
    return Report(
        family="clip",
        variant=model.clip.config.model_type,
        foreign=ForeignFile(weights, sha256_of(weights), {}, ()),
        out=out,
        aliases=(),
        dropped=(),
        notes=tuple(notes),
        next_step=f"dwarf evaluate {out} --data DATA (prepared with --size {model.image_size})",
    )
