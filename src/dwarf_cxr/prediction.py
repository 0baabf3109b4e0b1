"""Predicting radiographs from files: scores, maps, boxes and pictures of where each finding is."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jaxtyping import Float32, UInt8

from dwarf_cxr.data.images import decode_grey, image_stem, is_constant, read_content, resize
from dwarf_cxr.errors import CheckpointError, ConfigError, ImageError
from dwarf_cxr.evaluation.maps import reaches
from dwarf_cxr.files import sha256_of, write_bytes, write_json
from dwarf_cxr.findings import select
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.outputs import ModelCard
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.progress import Report
from dwarf_cxr.reporting.overlay import (
    THRESHOLD,
    blend,
    captioned,
    film_picture,
    labelled_boxes,
    outlined,
    png_bytes,
)

BATCH = 16
"""Images decoded and predicted together; their full sizes are in memory at once."""
MAP_STEPS = 65535
"""A value of 1 in a 16-bit map."""
NOTICE = "Research only"


@dataclass(frozen=True)
class _Film:
    source: Path
    sha256: str
    grey: UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class _Judge:
    """The model and how it is asked."""

    model: VisionLanguageClassifier
    card: ModelCard
    findings: tuple[str, ...]
    prompts: Mapping[str, str]
    record: Mapping[str, Any]
    """What predictions.json says of the model."""


def predict(
    run: Path,
    images: Sequence[Path],
    out: Path,
    *,
    findings: Sequence[str] | None = None,
    prompts: Path | None = None,
    save_maps: bool = False,
    progress: Report | None = None,
) -> Path:
    """Score radiographs and draw where each finding is.

    Under `out`: predictions.json; for each image a folder named after it, with overlay.png and,
    for each finding that is present, FINDING.png (its map on the film) and FINDING-map.png (the
    map, 16 bit, 65535 is 1), all at the image's own size, the pictures with a caption below it;
    with `save_maps` also maps.npz.
    `boxes` enclose the connected parts of the map, upsampled to the image, that reach the
    finding's map threshold, whether or not the finding is present; each scores its largest value.
    Where no threshold was fitted, `present` is null, and there are no boxes.

    Args:
        run: a run or a bare model folder.
        prompts: a YAML file, finding to the words it is asked with.

    Returns:
        The path of predictions.json.

    Raises:
        ImageError: images that cannot be read, all of them; the others are written.
        ConfigError: no image, an unknown finding, or wrong prompts.
        CheckpointError: no model there, or a damaged one.
    """
    if not images:
        raise ConfigError("no image is given; name at least one PNG, JPEG or DICOM file")
    judge = _judge(run, findings, prompts)
    names = _unique_names(
        [image_stem(image.name) for image in images], taken=("predictions.json", "maps.npz")
    )
    records: list[dict[str, Any]] = []
    maps: list[np.ndarray] = []
    faults: list[str] = []
    for start in range(0, len(images), BATCH):
        if progress is not None:
            progress(f"predicting {images[start].name}", start, len(images))
        films = []
        for source, name in zip(images[start : start + BATCH], names[start:], strict=False):
            try:
                films.append((name, _read(source)))
            except ImageError as fault:
                faults.append(str(fault))
        for record, film_maps in _predict_films(judge, films, out):
            records.append(record)
            if save_maps:
                maps.append(film_maps)
    file = out / "predictions.json"
    if records:
        # an earlier call's maps would be taken for those of these images
        (out / "maps.npz").unlink(missing_ok=True)
        if save_maps:
            sources = [record["source"] for record in records]
            write_bytes(out / "maps.npz", _maps_file(maps, sources, judge.findings))
        write_json(file, {"images": records, "faults": faults})
    if faults:
        done = f"the other {len(records)} are in {out}" if records else "nothing was written"
        listed = "\n".join(faults)
        raise ImageError(f"{len(faults)} of {len(images)} images failed, {done}:\n{listed}")
    return file


def read_prompts(path: Path) -> dict[str, str]:
    """Read a YAML file that maps a finding to the words it is asked with.

    Raises:
        ConfigError: no such file, or anything but finding: words in it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a YAML file of 'finding: words'") from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: not valid YAML ({fault})") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: expected lines of 'finding: words'")
    for finding, words in content.items():
        if not isinstance(finding, str) or not isinstance(words, str) or not words.strip():
            raise ConfigError(
                f"{path}: {finding!r}: {words!r}; write the words as text, for example "
                "'Effusion: fluid around the lungs'"
            )
    return content


def boxes_of(map_: Float32[np.ndarray, "height width"], threshold: float) -> list[dict[str, float]]:
    """Boxes around the connected parts (8 neighbours) of map_ >= threshold, the highest first.

    Corners are in pixels of the map, whose pixel (0, 0) covers the square from (0, 0) to (1, 1).
    """
    reached = reaches(map_, threshold).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(reached, connectivity=8)
    boxes = []
    for part in range(1, count):
        left, top, width, height, _area = (int(value) for value in statistics[part])
        window = np.s_[top : top + height, left : left + width]
        score = map_[window][labels[window] == part].max()
        box = {"x1": left, "y1": top, "x2": left + width, "y2": top + height}
        boxes.append({**{name: float(edge) for name, edge in box.items()}, "score": float(score)})
    return sorted(boxes, key=lambda box: -box["score"])


def _judge(run: Path, findings: Sequence[str] | None, prompts: Path | None) -> _Judge:
    model = load_model(run)
    if model.card is None:
        raise CheckpointError(f"{run}: the model has no card; train or import it again")
    asked = model.findings if findings is None else tuple(findings)
    names = select(asked, model.findings, where="--findings")
    words = {} if prompts is None else read_prompts(prompts)
    if prompts is not None:
        select(list(words), model.findings, where=str(prompts))
    folder = run / "model" if (run / "model").is_dir() else run
    record = {
        "method": model.card.method,
        "folder": str(run),
        "sha256": sha256_of(folder / "model.safetensors"),
        "prompts": {name: words[name] for name in names if name in words},
    }
    return _Judge(model, model.card, names, words, record)


def _read(source: Path) -> _Film:
    content = read_content(source)
    grey = decode_grey(content, str(source))
    if is_constant(grey):
        raise ImageError(f"{source}: every pixel is {grey.flat[0]}, a blank film; export it again")
    return _Film(source, sha256(content).hexdigest(), grey)


def _predict_films(
    judge: _Judge, films: Sequence[tuple[str, _Film]], out: Path
) -> Iterator[tuple[dict[str, Any], Float32[np.ndarray, "finding h w"]]]:
    if not films:
        return
    pixels = np.stack([resize(film.grey, judge.model.image_size) for _, film in films])
    outputs = judge.model.predict(pixels, judge.findings, judge.prompts)
    for row, (name, film) in enumerate(films):
        record = _write_film(
            judge, film, outputs.probability[row], outputs.maps[row], out / name, out
        )
        yield record, outputs.maps[row]


def _write_film(
    judge: _Judge,
    film: _Film,
    probability: np.ndarray,
    maps: Float32[np.ndarray, "finding h w"],
    folder: Path,
    out: Path,
) -> dict[str, Any]:
    """Write one image's pictures; its record in predictions.json."""
    height, width = film.grey.shape
    picture = film_picture(film.grey, (width, height))
    files = _unique_names([_file_name(name) for name in judge.findings], taken=("overlay",))
    said: dict[str, Any] = {}
    present_boxes: list[tuple[str, list[dict[str, float]]]] = []
    lines = []
    for finding, file, score, map_ in zip(
        judge.findings, files, map(float, probability), maps, strict=True
    ):
        large = cv2.resize(map_, (width, height), interpolation=cv2.INTER_LINEAR)
        threshold = judge.card.score_thresholds.get(finding)
        map_threshold = judge.card.map_thresholds.get(finding)
        present = None if threshold is None else score >= threshold
        boxes = [] if map_threshold is None else boxes_of(large, map_threshold)
        said[finding] = {
            "score": score,
            "threshold": threshold,
            "present": present,
            "map_threshold": map_threshold,
            "boxes": boxes,
        }
        if not present:
            continue
        words = f"{finding} {score:.2f} (present from {threshold:.2f})"
        lines.append(f"{finding} {score:.2f}")
        present_boxes.append((finding, boxes))
        drawn = blend(picture, large)
        if map_threshold is not None:
            drawn = outlined(drawn, reaches(large, map_threshold), THRESHOLD, dashed=True)
        caption = [words, _map_words(map_threshold), _source_words(judge, film)]
        write_bytes(folder / f"{file}.png", png_bytes(captioned(drawn, caption)))
        steps = np.round(np.clip(large, 0, 1) * MAP_STEPS).astype(np.uint16)
        write_bytes(folder / f"{file}-map.png", png_bytes(steps))
        said[finding]["overlay"] = str((folder / f"{file}.png").relative_to(out))
        said[finding]["map"] = str((folder / f"{file}-map.png").relative_to(out))
    summary = f"Called present: {', '.join(lines)}" if lines else _nothing_words(said)
    caption = [summary, _source_words(judge, film)]
    overlay = captioned(labelled_boxes(picture, present_boxes), caption)
    write_bytes(folder / "overlay.png", png_bytes(overlay))
    return {
        "source": str(film.source),
        "sha256": film.sha256,
        "width": width,
        "height": height,
        "model": dict(judge.record),
        "overlay": str((folder / "overlay.png").relative_to(out)),
        "findings": said,
    }


def _nothing_words(said: Mapping[str, Mapping[str, Any]]) -> str:
    if all(one["present"] is None for one in said.values()):
        return "No threshold was fitted: nothing is called present"
    return f"None of {len(said)} findings called present"


def _map_words(threshold: float | None) -> str:
    if threshold is None:
        return "Map 0 (clear) to 1 (yellow)"
    return f"Map 0 (clear) to 1 (yellow), dashed at {threshold:.3f}"


def _source_words(judge: _Judge, film: _Film) -> str:
    return f"{film.source.name} · {judge.card.method} · {NOTICE}"


def _maps_file(
    maps: Sequence[Float32[np.ndarray, "finding h w"]],
    sources: Sequence[str],
    findings: Sequence[str],
) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        maps=np.stack(maps).astype(np.float32),
        images=np.array(sources),
        findings=np.array(findings),
        domain=np.array("unit"),
    )
    return stream.getvalue()


def _file_name(finding: str) -> str:
    return re.sub(r"[^\w]+", "-", finding.lower()).strip("-") or "finding"


def _unique_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """`names` as different file names, also where capitals do not count: a, a-2, a-3, …"""
    used = {name.casefold() for name in taken}
    reserved = {name.casefold() for name in names}
    unique = []
    for name in names:
        safe = name if name.strip(". ") else "image"
        candidate, number = safe, 1
        while candidate.casefold() in used or (number > 1 and candidate.casefold() in reserved):
            number += 1
            candidate = f"{safe}-{number}"
        used.add(candidate.casefold())
        unique.append(candidate)
    return unique
