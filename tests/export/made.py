"""DICOM films and what a model could have said of them, every part an explicit argument."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_cxr.prediction import (
    Film,
    FilmPrediction,
    FindingPrediction,
    ModelIdentity,
    boxes_of,
)
from tests import dicom_files as dicom

HEIGHT, WIDTH = 44, 61
"""Neither is a multiple of 8, nor is their product: masks of one bit a pixel end within a byte."""
PLACE = np.s_[5:17, 40:58]
"""Where the first finding is: rows, columns; in no mirror image or rotation of the film does it lie
at the same place."""
BOX = (40.0, 5.0, 58.0, 17.0)
"""The same as x1, y1, x2, y2."""
SECOND_PLACES = (np.s_[30:33, 2:9], np.s_[38:44, 50:52])
SECOND_BOXES = ((2.0, 30.0, 9.0, 33.0), (50.0, 38.0, 52.0, 44.0))
MODEL = ModelIdentity("dwarf", "a-run", "ab" * 32, {})
WINDOW = dicom.Window(2048, 4096)
SOURCES: dict[str, dict[str, Any]] = {
    "DX": {"window": WINDOW},
    "DX, inverted, with a table": {
        "photometric": "MONOCHROME1",
        "voi_lut": dicom.Lut(range(4096), 0, 12),
    },
    "DX for processing": {"intent": dicom.PROCESSING},
    "CR": {"modality": "CR", "window": dicom.Window([1.5, 2], [3, 4], "SIGMOID")},
    "CR with the detector's spacing": {"modality": "CR", "removed": ["PixelSpacing"]},
    "CR without spacing": {"modality": "CR", "spacing": None, "window": WINDOW},
    "CR with pixels that are no squares": {"modality": "CR", "spacing": (0.2, 0.1)},
    "CR with the shape of its pixels": {
        "modality": "CR",
        "spacing": None,
        "changes": {"PixelAspectRatio": [2, 1]},
    },
    "secondary capture": {"modality": "OT"},
}
"""Valid films as they come: none has a frame of reference or a slice thickness."""


def write_source(path: Path, arguments: Mapping[str, Any]) -> Path:
    """A DICOM film of the size that predictions are made for here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom.dicom_bytes(dicom.film(HEIGHT, WIDTH), **arguments))
    return path


def map_with(places: Sequence[Any], *, inside: float = 0.9, seed: int = 0) -> np.ndarray:
    """Noise below 0.3, and `inside` at the places."""
    noise = np.random.default_rng(seed).random((HEIGHT, WIDTH)) * 0.3
    for place in places:
        noise[place] = inside
    return noise.astype(np.float32)


def said_of(
    finding: str,
    map_: np.ndarray,
    score: float,
    *,
    threshold: float | None = 0.5,
    map_threshold: float | None = 0.6,
) -> FindingPrediction:
    present = None if threshold is None else score >= threshold
    boxes = () if map_threshold is None else tuple(boxes_of(map_, map_threshold))
    return FindingPrediction(finding, score, threshold, present, map_threshold, map_, boxes)


FINDINGS = (
    said_of("Effusion", map_with([PLACE]), 0.83),
    said_of("Nodule", map_with([PLACE], seed=1), 0.2),
    said_of("Not in \\ any table Ω", map_with(SECOND_PLACES, inside=0.7, seed=2), 0.75),
    said_of("Mass", map_with([], seed=3), 0.4, threshold=None, map_threshold=None),
)
"""Present, absent, present in two places, and without thresholds."""


def predicted_for(
    path: Path, findings: Sequence[FindingPrediction] = FINDINGS, model: ModelIdentity = MODEL
) -> FilmPrediction:
    grey = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    film = Film(path, sha256(path.read_bytes()).hexdigest(), grey)
    return FilmPrediction(film, model, tuple(findings))


def absent(findings: Sequence[FindingPrediction] = FINDINGS) -> tuple[FindingPrediction, ...]:
    """The same, with nothing called present."""
    return tuple(replace(said, present=False) for said in findings)
