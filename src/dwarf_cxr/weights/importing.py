"""One door to all importers: `dwarf weights import`."""

from collections.abc import Sequence
from pathlib import Path

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import VOCABULARY
from dwarf_cxr.models.clip import ClipMap, ClipSettings
from dwarf_cxr.prediction import read_prompts
from dwarf_cxr.weights.clip import import_clip
from dwarf_cxr.weights.kad import import_kad
from dwarf_cxr.weights.kebert import import_kebert
from dwarf_cxr.weights.medklip import import_medklip
from dwarf_cxr.weights.query_decoder import Wanted
from dwarf_cxr.weights.report import Report
from dwarf_cxr.weights.vit import Pixels, import_vit


def import_foreign(
    family: str,
    path: Path,
    out: Path,
    *,
    text_encoder: Path | None = None,
    trust: bool = False,
    image_size: int | None = None,
    findings: Sequence[str] | None = None,
    prompts: Path | None = None,
    pixels: Pixels | None = None,
    positive: str | None = None,
    negative: str | None = None,
    maps: ClipMap | None = None,
) -> Report:
    """Import weights of `family` from `path` to the folder `out`.

    Raises:
        ConfigError: an unknown family, or an option that the family does not have.
        CheckpointError: the file cannot be read or does not fit; nothing is written.
    """
    given = {
        "--text-encoder": text_encoder,
        "--image-size": image_size,
        "--findings": findings,
        "--prompts": prompts,
        "--pixels": pixels,
        "--positive": positive,
        "--negative": negative,
        "--maps": maps,
    }
    known = {
        "kad": ("--text-encoder", "--image-size", "--findings", "--prompts"),
        "medklip": ("--text-encoder", "--image-size", "--findings", "--prompts"),
        "med-kebert": ("--text-encoder",),
        "vit": ("--pixels",),
        "clip": ("--image-size", "--findings", "--prompts", "--positive", "--negative", "--maps"),
    }
    if family not in known:
        raise ConfigError(f"unknown family {family!r}; known: {', '.join(known)}")
    strange = [
        name for name, value in given.items() if value is not None and name not in known[family]
    ]
    if strange:
        raise ConfigError(
            f"{', '.join(strange)}: not an option of {family}; it has {', '.join(known[family])}"
        )
    if family == "vit":
        return import_vit(path, out, trust=trust, pixels=pixels)
    if family == "med-kebert":
        return import_kebert(path, out, text_encoder=text_encoder, trust=trust)
    words = None if prompts is None else read_prompts(prompts)
    if family == "clip":
        default = ClipSettings()
        return import_clip(
            str(path),
            out,
            VOCABULARY if findings is None else findings,
            prompts=words,
            image_size=image_size,
            settings=ClipSettings(
                default.positive if positive is None else positive,
                default.negative if negative is None else negative,
                default.maps if maps is None else maps,
            ),
        )
    importer = import_kad if family == "kad" else import_medklip
    return importer(path, out, Wanted(text_encoder, trust, image_size, findings, words))
