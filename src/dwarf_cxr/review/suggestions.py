"""What a model says of every film, computed once and kept, as scores, maps and regions.

REVIEW/suggestions holds about.json (which model, which data) and a file for every `PART` films.
A computation that was interrupted goes on with the first part that is missing; another model, or
changed data, starts it anew.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from contourpy import FillType, contour_generator
from jaxtyping import Float, Float32, Float64

from dwarf_cxr.data.geometry import Frame, area
from dwarf_cxr.data.images import resize
from dwarf_cxr.data.records import Box, Polygon, Shape
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.files import atomic_path, read_json, sha256_of, write_json
from dwarf_cxr.progress import Report
from dwarf_cxr.review.annotation import crosses_itself

FOLDER = "suggestions"
ABOUT_FILE = "about.json"
FORMAT = "dwarf-suggestions-1"
PART = 64
"""Films of one file."""
SIDE = 256
"""Of the square on which a map's outline is drawn, before it is scaled to the film."""
SMALLEST_SHARE = 0.001
"""Of the film: smaller parts of a map are not suggested beside a larger one."""
COARSENESS = 0.003
"""How far a suggested outline may stray from the map's, as a share of the film's longer side."""
MOST_OUTLINES = 8


@dataclass(frozen=True)
class About:
    """Which model said it, and of which data."""

    folder: str
    method: str
    sha256: str
    """Of the weights."""
    data_fingerprint: str
    findings: tuple[str, ...]
    """Those of the review that the model knows, in the review's order."""
    thresholds: tuple[float | None, ...]
    map_thresholds: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class Suggestions:
    """A model's word on every film of the data."""

    folder: Path
    about: About
    scores: Float32[np.ndarray, "image finding"]

    def score(self, film: int, finding: str) -> float | None:
        """The finding's probability; None where the model does not know the finding."""
        column = self._column(finding)
        return None if column is None else float(self.scores[film, column])

    def threshold(self, finding: str) -> float | None:
        """From which score on it is called present; None where none was fitted."""
        column = self._column(finding)
        return None if column is None else self.about.thresholds[column]

    def map_of(self, film: int, finding: str) -> Float32[np.ndarray, "h w"] | None:
        """The finding's map in [0, 1] on the model's own grid, which covers the film."""
        column = self._column(finding)
        return None if column is None else self._part(film)["maps"][film % PART, column]

    def regions(self, film: int, finding: str, frame: Frame) -> tuple[Shape, ...]:
        """Where the model sees the finding, in pixels of the film: the largest first.

        A detector's own boxes; of other models the outlines of the map at the finding's map
        threshold, and nothing where none was fitted.
        """
        column = self._column(finding)
        if column is None or (cut := self.about.map_thresholds[column]) is None:
            return ()
        part = self._part(film)
        if "boxes" not in part:
            return outlines(part["maps"][film % PART, column], cut, frame)
        own = (part["box_films"] == film) & (part["box_findings"] == column)
        own &= part["box_scores"] >= cut
        corners = part["boxes"][own] * np.array([frame[0], frame[1], frame[0], frame[1]])
        boxes = [Box(*map(float, one)) for one in corners]
        return tuple(sorted(boxes, key=lambda box: -area(box)))

    def _column(self, finding: str) -> int | None:
        return self.about.findings.index(finding) if finding in self.about.findings else None

    def _part(self, film: int) -> dict[str, np.ndarray]:
        return _read_part(_part_file(self.folder, film // PART))


def outlines(map_: Float[np.ndarray, "h w"], threshold: float, frame: Frame) -> tuple[Polygon, ...]:
    """The connected parts of a map that reach `threshold`, as outlines in pixels of the film.

    The map is read as everywhere: it covers the film, and is linear between the centres of its
    cells. Of the outlines, smoothed a little, at most `MOST_OUTLINES` are kept, the largest first;
    holes are filled.
    """
    fine = cv2.resize(map_.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    # up to the film's edge the map is what it is at the last centre; beyond, it is nothing
    field = np.pad(np.pad(fine.astype(np.float64), 1, mode="edge"), 1, constant_values=-1.0)
    centres = (np.arange(SIDE) + 0.5) / SIDE
    axis = np.concatenate(([-1e-9, 0.0], centres, [1.0, 1.0 + 1e-9]))
    lines = contour_generator(
        axis * frame[0], axis * frame[1], field, fill_type=FillType.OuterOffset
    )
    filled: Any = lines.filled(float(np.nextafter(threshold, -1.0)), 2.0)
    rings, offsets = filled
    parts = []
    for points, offset in zip(rings, offsets, strict=True):
        outer = np.clip(points[: int(offset[1]) - 1], 0.0, frame)  # the last repeats the first
        if len(outer) >= 3 and (size := area(Polygon(outer))) > 0:
            parts.append((size, outer))
    parts.sort(key=lambda part: -part[0])
    smallest = SMALLEST_SHARE * frame[0] * frame[1]
    kept = [outer for size, outer in parts[:MOST_OUTLINES] if size >= smallest]
    return tuple(Polygon(_smoothed(outer, frame)) for outer in kept)


def _smoothed(points: Float64[np.ndarray, "before 2"], frame: Frame) -> np.ndarray:
    tolerance = COARSENESS * max(frame)
    fewer = cv2.approxPolyDP(points.astype(np.float32)[:, None, :], tolerance, closed=True)
    smooth = fewer[:, 0, :].astype(np.float64)
    is_usable = len(smooth) >= 3 and area(Polygon(smooth)) > 0 and not crosses_itself(smooth)
    return smooth if is_usable else points


def suggest(
    review: Path,
    run: Path,
    data: PreparedData,
    findings: Sequence[str],
    *,
    report: Report | None = None,
) -> Suggestions:
    """The suggestions of the model of `run`, computed as far as they are not in the folder yet.

    Args:
        run: a RUN or a bare model folder; a zero-shot model is asked for `findings`.

    Raises:
        CheckpointError: no model there, or a damaged one.
        ConfigError: the model knows none of the findings.
    """
    from dwarf_cxr.models.checkpoint import load_model, model_folder
    from dwarf_cxr.models.outputs import ZeroShotClassifier, method_of

    model = load_model(run)
    if model.card is None and isinstance(model, ZeroShotClassifier):
        model = model.asking({name: name for name in findings})
    known = tuple(name for name in findings if name in model.findings)
    if not known:
        raise ConfigError(
            f"{run}: the model knows {', '.join(model.findings)}, none of the data's "
            f"{', '.join(findings)}; choose a run of these findings"
        )
    card = model.card
    about = About(
        folder=str(run),
        method=method_of(model),
        sha256=sha256_of(model_folder(run) / "model.safetensors"),
        data_fingerprint=data.fingerprint,
        findings=known,
        thresholds=tuple(None if card is None else card.score_thresholds.get(f) for f in known),
        map_thresholds=tuple(None if card is None else card.map_thresholds.get(f) for f in known),
    )
    folder = review / FOLDER
    if _read_about(folder) != about:
        shutil.rmtree(folder, ignore_errors=True)
        _read_part.cache_clear()
        write_json(folder / ABOUT_FILE, {"format": FORMAT, **dataclasses.asdict(about)})
    count = len(data.image_ids)
    for number in range(-(-count // PART)):
        file = _part_file(folder, number)
        if file.is_file():
            continue
        if report is not None:
            report("suggesting", number * PART, count)
        films = np.arange(number * PART, min(count, (number + 1) * PART))
        content = _answers(model, data, films, known)
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **content)
    return _with_scores(folder, about, count)


def open_suggestions(review: Path, data: PreparedData) -> Suggestions | None:
    """What `suggest` left in the folder; None where it was never done, or not to the end."""
    folder = review / FOLDER
    about = _read_about(folder)
    if about is None or about.data_fingerprint != data.fingerprint:
        return None
    count = len(data.image_ids)
    if not all(_part_file(folder, number).is_file() for number in range(-(-count // PART))):
        return None
    return _with_scores(folder, about, count)


def _answers(
    model: Any, data: PreparedData, films: np.ndarray, findings: Sequence[str]
) -> dict[str, np.ndarray]:
    pixels = np.array(data.pixels[films[0] : films[-1] + 1])
    if data.size != model.image_size:
        pixels = np.stack([resize(one, model.image_size) for one in pixels])
    outputs = model.predict(pixels, findings)
    content = {
        "scores": outputs.probability.astype(np.float32),
        "maps": outputs.maps.astype(np.float32),
    }
    found = outputs.detections
    if found is not None:
        content |= {
            "boxes": np.concatenate([one.boxes for one in found]) / np.float32(model.image_size),
            "box_scores": np.concatenate([one.scores for one in found]),
            "box_films": np.repeat(films, [len(one.boxes) for one in found]),
            "box_findings": np.concatenate([one.findings for one in found]),
        }
    return content


def _with_scores(folder: Path, about: About, count: int) -> Suggestions:
    parts = [_part_file(folder, number) for number in range(-(-count // PART))]
    scores = [np.zeros((0, len(about.findings)), np.float32)]
    for part in parts:
        try:
            with np.load(part) as content:
                scores.append(content["scores"])
        except (OSError, ValueError, KeyError, EOFError):
            raise DataError(f"{part}: damaged; remove it and serve the review again") from None
    return Suggestions(folder, about, np.concatenate(scores))


def _part_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.npz"


@lru_cache(maxsize=8)
def _read_part(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as content:
        return {name: content[name] for name in content.files}


def _read_about(folder: Path) -> About | None:
    if not (folder / ABOUT_FILE).is_file():
        return None
    content = read_json(folder / ABOUT_FILE)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        return None
    try:
        return About(**{name: as_tuple(value) for name, value in content.items()})
    except TypeError:
        return None


def as_tuple(value: Any) -> Any:
    """What JSON made a list of a tuple, as a tuple again."""
    return tuple(value) if isinstance(value, list) else value
