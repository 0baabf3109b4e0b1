"""Predicting radiographs from files: scores, maps, boxes and pictures of where each finding is."""

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import yaml
from jaxtyping import Float32, UInt8

from dwarf_cxr.data.images import decode_grey, image_stem, is_constant, read_content, resize
from dwarf_cxr.detection.detections import Detections
from dwarf_cxr.errors import CheckpointError, ConfigError, DataError, ImageError
from dwarf_cxr.evaluation.maps import reaches
from dwarf_cxr.files import read_json, sha256_of, write_bytes, write_json
from dwarf_cxr.findings import select
from dwarf_cxr.models.checkpoint import Model
from dwarf_cxr.models.clip import ClipClassifier
from dwarf_cxr.models.onnx_classifier import OnnxClassifier
from dwarf_cxr.models.opening import open_model, weights_file
from dwarf_cxr.models.outputs import AttributeReader, ModelCard, ZeroShotClassifier, method_of
from dwarf_cxr.models.predicting import Precision, predicting_at
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.parallel import in_order, usable_cores
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
LIKELY = 0.5
"""Attributes that are at least this likely stand below a film; no threshold is fitted for them."""
MOST_ATTRIBUTES = 6
"""That stand there at most; all are in predictions.json."""


@dataclass(frozen=True)
class Film:
    """A radiograph that was read."""

    source: Path
    sha256: str
    """Of the file."""
    grey: UInt8[np.ndarray, "height width"]

    def warnings(self) -> list[str]:
        """What a reader of the answer should know of the film."""
        if is_constant(self.grey):
            return [f"every pixel is {self.grey.flat[0]}: a blank film or a failed export?"]
        return []


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered, and how it was asked: what predictions.json says of it."""

    method: str
    folder: str
    sha256: str
    """Of the weights."""
    prompts: Mapping[str, str]
    """Findings that were asked with other words than their own."""
    precision: str = "fp32"


@dataclass(frozen=True)
class FindingPrediction:
    """What the model says of one finding on one film."""

    finding: str
    score: float
    """Probability in [0, 1]."""
    threshold: float | None
    """The score from which it is called present; None where none was fitted."""
    present: bool | None
    map_threshold: float | None
    grid: Float32[np.ndarray, "h w"]
    """The map in [0, 1] on the model's own grid, which covers the whole film."""
    boxes: tuple[Mapping[str, float], ...]
    """x1, y1, x2, y2 in pixels of the film, and score; see `boxes_of`; of a detector its own."""

    @property
    def no_box(self) -> str | None:
        """Why a finding that is called present by its score is nowhere; None of any other."""
        if not self.present or self.boxes:
            return None
        if self.map_threshold is None:
            return "no threshold was fitted for where it is"
        return f"nothing reaches {self.map_threshold:.3f}, from which on a place is shown"


@dataclass(frozen=True)
class FilmPrediction:
    """What the model says of one film."""

    film: Film
    model: ModelIdentity
    findings: tuple[FindingPrediction, ...]
    attributes: Mapping[str, float] = field(default_factory=dict)
    """Probabilities of what a report would say, of models that tell it."""

    def map_of(self, said: FindingPrediction) -> Float32[np.ndarray, "height width"]:
        """The finding's map on the film's pixels, in [0, 1]."""
        return _on_film(said.grid, self.film.grey)


@runtime_checkable
class WriteMore(Protocol):
    """Writes more about a film into its folder."""

    def __call__(
        self, predicted: FilmPrediction, folder: Path, *, faults: list[str]
    ) -> Mapping[str, Path]:
        """The files by the name of their kind; what could not be made goes to `faults`, at most one
        line for a film."""


@dataclass(frozen=True)
class _Judge:
    """The model and how it is asked."""

    model: Model | OnnxClassifier
    card: ModelCard | None
    """None of a zero-shot model, which has no thresholds."""
    findings: tuple[str, ...]
    prompts: Mapping[str, str]
    identity: ModelIdentity
    precision: Precision


@dataclass(frozen=True)
class _Answer:
    """What the network says of one film, in arrays."""

    name: str
    film: Film
    scores: Sequence[float]
    grids: Float32[np.ndarray, "finding h w"]
    detections: Detections | None
    attributes: Mapping[str, float]


def predict(
    run: Path,
    images: Sequence[Path],
    out: Path,
    *,
    findings: Sequence[str] | None = None,
    prompts: Path | None = None,
    save_maps: bool = False,
    precision: Precision = "fp32",
    write_more: WriteMore | None = None,
    progress: Report | None = None,
) -> Path:
    """Score radiographs and draw where each finding is.

    Under `out`: predictions.json; for each image a folder named after it, with overlay.png and,
    for each finding that is present, FINDING.png (its map on the film) and FINDING-map.png (the
    map, 16 bit, 65535 is 1), all at the image's own size, the pictures with a caption below it;
    with `save_maps` also maps.npz. Files of an earlier call that are not made anew leave an image's
    folder; nobody else's do.
    `boxes` enclose the connected parts of the map, upsampled to the image, that reach the
    finding's map threshold, whether or not the finding is present; each scores its largest value.
    A detector's boxes are its own, those that score as much; a model that reads attributes has them
    in the film's record. A finding can be called present by its score and have no box: its record
    says why under `no_box`, which is null otherwise, and so do the pictures.
    Where no threshold was fitted, `present` is null, and there are no boxes.

    Args:
        run: a run, a bare model folder or an exported file.
        prompts: a YAML file, finding to the words it is asked with.
        precision: of the network's products.
        write_more: called for each film; the files it names stand in the film's record under
            `files`.

    Returns:
        The path of predictions.json.

    Raises:
        ImageError: images that cannot be read, or about which `write_more` could not write
            everything, all of them; what could be made is written.
        ConfigError: no image, an unknown finding, wrong prompts, or `out` holds predictions of
            other films.
        CheckpointError: no model there, or a damaged one.
    """
    file = out / "predictions.json"
    _refuse_other_films(out, images)
    earlier = _files_of_earlier(file)
    records: list[dict[str, Any]] = []
    maps: list[np.ndarray] = []
    faults: list[str] = []
    films = predict_films(
        run,
        images,
        findings=findings,
        prompts=prompts,
        precision=precision,
        faults=faults,
        progress=progress,
    )
    cores = usable_cores()
    written = in_order(
        lambda named: (*named, _write_film(named[1], out / named[0], out)),
        films,
        workers=cores,
        ahead=cores,
    )
    for name, predicted, record in written:
        if write_more is not None:
            more = write_more(predicted, out / name, faults=faults)
            record["files"] = {kind: str(path.relative_to(out)) for kind, path in more.items()}
        ours = earlier | _pictures_of([said.finding for said in predicted.findings], name)
        for stale in ours - _files_of(record):
            if stale.parent == Path(name) and (out / stale).is_file():
                (out / stale).unlink()
        records.append(record)
        if save_maps:
            maps.append(np.stack([said.grid for said in predicted.findings]))
    if records:
        # an earlier call's maps would be taken for those of these images
        (out / "maps.npz").unlink(missing_ok=True)
        if save_maps:
            sources = [record["source"] for record in records]
            asked = list(records[0]["findings"])
            write_bytes(out / "maps.npz", _maps_file(maps, sources, asked))
        write_json(file, {"images": records, "faults": faults})
    if faults:
        raise ImageError(
            "\n".join([_summary_of_faults(len(images), len(records), faults, out), *faults])
        )
    return file


def predict_films(
    run: Path,
    images: Sequence[Path],
    *,
    findings: Sequence[str] | None = None,
    prompts: Path | None = None,
    precision: Precision = "fp32",
    faults: list[str],
    progress: Report | None = None,
) -> Iterator[tuple[str, FilmPrediction]]:
    """The model's answers, film by film, each with a name that is no other film's.

    Films are decoded, and boxes drawn around what maps mark, in threads beside the network.

    What is wrong with a film that cannot be read goes to `faults`, and the others are done.

    Raises:
        ConfigError: no image, an unknown finding, or wrong prompts.
        CheckpointError: no model in `run`, or a damaged one.
    """
    if not images:
        raise ConfigError("no image is given; name at least one PNG, JPEG or DICOM file")
    judge = _judge(run, findings, prompts, precision)
    names = _film_names(images)
    cores = usable_cores()
    films = in_order(
        _read_or_fault, zip(names, images, strict=True), workers=cores, ahead=BATCH + cores
    )
    said = in_order(
        lambda answer: (answer.name, _said(judge, answer)),
        _answers(judge, films, images, faults, progress),
        workers=cores,
        ahead=cores,
    )
    for number, (name, predicted) in enumerate(said):
        if progress is not None:
            for warning in predicted.film.warnings():
                progress(f"warning: {predicted.film.source}: {warning}", number, len(images))
        yield name, predicted


def _answers(
    judge: _Judge,
    films: Iterator[tuple[str, Film] | ImageError],
    images: Sequence[Path],
    faults: list[str],
    progress: Report | None,
) -> Iterator[_Answer]:
    """The network's answers, batch by batch."""
    for start in range(0, len(images), BATCH):
        if progress is not None:
            progress(f"predicting {images[start].name}", start, len(images))
        read = list(itertools.islice(films, BATCH))
        faults += [str(one) for one in read if isinstance(one, ImageError)]
        batch = [one for one in read if not isinstance(one, ImageError)]
        if batch:
            yield from _ask(judge, batch)


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


def _judge(
    run: Path, findings: Sequence[str] | None, prompts: Path | None, precision: Precision
) -> _Judge:
    model = open_model(run)
    words = {} if prompts is None else read_prompts(prompts)
    if not isinstance(model, ZeroShotClassifier):
        if model.card is None:
            raise CheckpointError(
                f"{run}: the model has no card (thresholds, prior); train it first"
            )
        if prompts is not None:
            exported = isinstance(model, OnnxClassifier)
            kind = "an exported" if exported else f"a {method_of(model)}"
            raise ConfigError(f"{prompts}: {kind} model has no prompts; leave --prompts out")
    elif model.card is None:
        # zero-shot: it can be asked anything, and has no thresholds
        asked_for = [*(model.findings if findings is None else findings), *words]
        model = model.asking({name: name for name in asked_for})
    asked = model.findings if findings is None else tuple(findings)
    names = select(asked, model.findings, where="--findings")
    if prompts is not None:
        select(list(words), model.findings, where=str(prompts))
    identity = ModelIdentity(
        method=method_of(model),
        folder=str(run),
        sha256=sha256_of(weights_file(run)),
        prompts={name: words[name] for name in names if name in words},
        precision=model.precision if isinstance(model, OnnxClassifier) else precision,
    )
    return _Judge(model, model.card, names, words, identity, precision)


def _read(source: Path) -> Film:
    content = read_content(source)
    return Film(source, sha256(content).hexdigest(), decode_grey(content, str(source)))


def _read_or_fault(named: tuple[str, Path]) -> tuple[str, Film] | ImageError:
    name, source = named
    try:
        return name, _read(source)
    except ImageError as fault:
        return fault


def _ask(judge: _Judge, films: Sequence[tuple[str, Film]]) -> list[_Answer]:
    model = judge.model
    pixels = np.stack([resize(film.grey, model.image_size) for _, film in films])
    with predicting_at(judge.precision, model):
        if isinstance(model, VisionLanguageClassifier | ClipClassifier):
            outputs = model.predict(pixels, judge.findings, judge.prompts)
        else:
            outputs = model.predict(pixels, judge.findings)
    detected: Sequence[Detections | None] = outputs.detections or [None] * len(films)
    told: list[dict[str, float]] = [{}] * len(films)
    if outputs.attributes is not None and isinstance(model, AttributeReader):
        told = [
            dict(zip(model.attributes, row, strict=True)) for row in outputs.attributes.tolist()
        ]
    rows = zip(films, outputs.probability.tolist(), outputs.maps, detected, told, strict=True)
    return [_Answer(name, film, *said) for (name, film), *said in rows]


def _said(judge: _Judge, answer: _Answer) -> FilmPrediction:
    said = zip(judge.findings, answer.scores, answer.grids, strict=True)
    findings = tuple(_said_of(judge.card, answer.film, *one) for one in said)
    predicted = FilmPrediction(answer.film, judge.identity, findings, answer.attributes)
    if answer.detections is not None:
        return _with_own_boxes(predicted, answer.detections, judge.model.image_size)
    return predicted


def _with_own_boxes(answer: FilmPrediction, found: Detections, image_size: int) -> FilmPrediction:
    """With a detector's boxes that score at least the map threshold: those that make up the map."""
    height, width = answer.film.grey.shape
    scale = np.array([width, height, width, height]) / image_size
    findings = []
    for finding, said in enumerate(answer.findings):
        own = found.findings == finding
        corners = (found.boxes[own] * scale).tolist()
        boxes = tuple(
            dict(zip(("x1", "y1", "x2", "y2", "score"), (*box, float(score)), strict=True))
            for box, score in zip(corners, found.scores[own], strict=True)
            if said.map_threshold is not None and score >= said.map_threshold
        )
        findings.append(replace(said, boxes=boxes))
    return replace(answer, findings=tuple(findings))


def _said_of(
    card: ModelCard | None,
    film: Film,
    finding: str,
    score: float,
    grid: Float32[np.ndarray, "h w"],
) -> FindingPrediction:
    threshold = None if card is None else card.score_thresholds.get(finding)
    map_threshold = None if card is None else card.map_thresholds.get(finding)
    return FindingPrediction(
        finding=finding,
        score=score,
        threshold=threshold,
        present=None if threshold is None else score >= threshold,
        map_threshold=map_threshold,
        grid=grid,
        boxes=()
        if map_threshold is None
        else tuple(boxes_of(_on_film(grid, film.grey), map_threshold)),
    )


def _on_film(
    grid: Float32[np.ndarray, "h w"], grey: UInt8[np.ndarray, "height width"]
) -> Float32[np.ndarray, "height width"]:
    return cv2.resize(grid, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _summary_of_faults(asked: int, written: int, faults: Sequence[str], out: Path) -> str:
    unread = asked - written
    incomplete = len(faults) - unread
    done = f"the other {written} are in {out}" if written else "nothing was written"
    if not incomplete:
        return f"{unread} of {asked} images failed, {done}:"
    lacking = f"{incomplete} lack results beside their scores and pictures"
    return f"{unread} of {asked} images failed, {done}; of these {lacking}:"


def _refuse_other_films(out: Path, images: Sequence[Path]) -> None:
    """Folders of other films would lie beside a predictions.json that does not know them."""
    ours = set(_film_names(images))
    others = sorted(
        {
            file.parts[0]
            for file in _files_of_earlier(out / "predictions.json")
            if len(file.parts) == 2 and file.parts[0] not in ours and (out / file).is_file()
        }
    )
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            f"--out {out}: holds predictions of other films ({', '.join(others[:3])}{more}); "
            "choose another folder, remove this one, or name those films too"
        )


def _files_of_earlier(predictions: Path) -> set[Path]:
    """Every file, relative to the folder, that the predictions of an earlier call name."""
    try:
        records = read_json(predictions)["images"]
        return set().union(*map(_files_of, records))
    except (DataError, OSError, LookupError, TypeError, AttributeError):
        return set()  # there are none, or somebody else's; these are nobody's then


def _files_of(record: Mapping[str, Any]) -> set[Path]:
    """Every file that a record of predictions.json names."""
    findings = record["findings"].values()
    pictures = [said.get(name) for said in findings for name in ("overlay", "map")]
    named = [record["overlay"], *pictures, *record.get("files", {}).values()]
    return {Path(name) for name in named if name is not None}


def _pictures_of(findings: Sequence[str], folder: str) -> set[Path]:
    """The pictures that the folder of a film could hold."""
    files = picture_names(findings)
    return {Path(folder, f"{file}{end}.png") for file in files for end in ("", "-map")}


def _write_film(predicted: FilmPrediction, folder: Path, out: Path) -> dict[str, Any]:
    """Write one image's pictures; its record in predictions.json."""
    film = predicted.film
    height, width = film.grey.shape
    picture = film_picture(film.grey, (width, height))
    files = picture_names([said.finding for said in predicted.findings])
    findings: dict[str, Any] = {}
    for said, file in zip(predicted.findings, files, strict=True):
        findings[said.finding] = {
            "score": said.score,
            "threshold": said.threshold,
            "present": said.present,
            "map_threshold": said.map_threshold,
            "boxes": list(said.boxes),
            "no_box": said.no_box,
        }
        if not said.present:
            continue
        large = predicted.map_of(said)
        drawn = blend(picture, large)
        if said.map_threshold is not None:
            drawn = outlined(drawn, reaches(large, said.map_threshold), THRESHOLD, dashed=True)
        words = f"{said.finding} {score_words(said)}"
        nowhere = [] if said.no_box is None else [f"No box: {said.no_box}"]
        where = _map_words(said.map_threshold)
        caption = [words, *nowhere, where, _source_words(predicted)]
        write_bytes(folder / f"{file}.png", png_bytes(captioned(drawn, caption)))
        steps = np.round(np.clip(large, 0, 1) * MAP_STEPS).astype(np.uint16)
        write_bytes(folder / f"{file}-map.png", png_bytes(steps))
        findings[said.finding]["overlay"] = str((folder / f"{file}.png").relative_to(out))
        findings[said.finding]["map"] = str((folder / f"{file}-map.png").relative_to(out))
    caption = [*summary_of(predicted), _source_words(predicted)]
    overlay = captioned(labelled_boxes(picture, boxes_present(predicted)), caption)
    write_bytes(folder / "overlay.png", png_bytes(overlay))
    told = {"attributes": dict(predicted.attributes)} if predicted.attributes else {}
    return {
        "source": str(film.source),
        "sha256": film.sha256,
        "width": width,
        "height": height,
        "warnings": film.warnings(),
        "model": asdict(predicted.model),
        "overlay": str((folder / "overlay.png").relative_to(out)),
        "findings": findings,
        **told,
    }


def boxes_present(
    predicted: FilmPrediction,
) -> list[tuple[str, tuple[Mapping[str, float], ...]]]:
    """Every finding asked for with the boxes to be drawn: its own if it is called present.

    Absent findings hold their place, and so the others' colours, from film to film.
    """
    return [(said.finding, said.boxes if said.present else ()) for said in predicted.findings]


def score_words(said: FindingPrediction) -> str:
    """A score beside its threshold, with as many digits as tell the two apart, but at least two."""
    if said.threshold is None:
        return f"{said.score:.2f}"
    digits = next((n for n in range(2, 7) if f"{said.score:.{n}f}" != f"{said.threshold:.{n}f}"), 2)
    return f"{said.score:.{digits}f} (present from {said.threshold:.{digits}f})"


def summary_of(predicted: FilmPrediction) -> list[str]:
    """Which findings are called present, and what a report would say, a line each."""
    present = [
        f"{said.finding} {said.score:.2f}{'' if said.no_box is None else ' (no box)'}"
        for said in predicted.findings
        if said.present
    ]
    if present:
        first = f"Called present: {', '.join(present)}"
    elif all(said.present is None for said in predicted.findings):
        first = "No threshold was fitted: nothing is called present"
    else:
        first = f"None of {len(predicted.findings)} findings called present"
    return [first, *_attribute_words(predicted.attributes)]


def _attribute_words(attributes: Mapping[str, float]) -> list[str]:
    """The likely attributes in a line, the likeliest first; no line of a model without any."""
    if not attributes:
        return []
    ordered = sorted(attributes.items(), key=lambda one: -one[1])
    likely = [f"{name} {value:.2f}" for name, value in ordered if value >= LIKELY]
    if not likely:
        name, value = ordered[0]
        return [f"Attributes: none from {LIKELY:.2f}; the likeliest is {name} {value:.2f}"]
    more = f" and {len(likely) - MOST_ATTRIBUTES} more" if len(likely) > MOST_ATTRIBUTES else ""
    return [f"Attributes: {', '.join(likely[:MOST_ATTRIBUTES])}{more}"]


def _map_words(threshold: float | None) -> str:
    if threshold is None:
        return "Map 0 (clear) to 1 (yellow)"
    return f"Map 0 (clear) to 1 (yellow), dashed at {threshold:.3f}"


def _source_words(predicted: FilmPrediction) -> str:
    return f"{predicted.film.source.name} · {predicted.model.method} · {NOTICE}"


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


def _film_names(images: Sequence[Path]) -> list[str]:
    """A folder's name for every film."""
    stems = [image_stem(image.name) for image in images]
    return _unique_names(stems, taken=("predictions.json", "maps.npz"))


def _file_name(finding: str) -> str:
    return re.sub(r"[^\w]+", "-", finding.lower()).strip("-") or "finding"


def picture_names(findings: Sequence[str]) -> list[str]:
    """A file name for each finding; none is another's with the map's "-map" behind it."""
    names = [_file_name(finding) for finding in findings]
    files: list[str] = []
    for position in range(len(names)):
        taken = ["overlay", *files, *(f"{file}-map" for file in files)]
        taken += [file.removesuffix("-map") for file in files]
        files += _unique_names(names[position : position + 1], taken)
    return files


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
