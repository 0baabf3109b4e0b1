"""A review's regions out to a COCO file, and a COCO file's regions in, as a reader's words.

Beside COCO's own fields an image has `image_id` and `labels` (finding to 1 or 0), an annotation
has `kind`, `annotator`, `origin` and `shape` (box, polygon or mask). A box also has its corners as
a polygon, since COCO's tools make masks of segmentations alone. There are no patient ids but those
that a data set itself has put into the names of its images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dwarf_cxr import __version__
from dwarf_cxr.data.coco import shape_to_coco, shapes_from_coco
from dwarf_cxr.data.geometry import Frame, scale
from dwarf_cxr.data.images import image_stem
from dwarf_cxr.data.records import Box, Finding, Mask, Polygon, Shape
from dwarf_cxr.data.rows import listed
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json, write_json
from dwarf_cxr.findings import SYNONYMS
from dwarf_cxr.review.agreement import Decision
from dwarf_cxr.review.annotation import (
    FILE,
    NOTHING,
    Assessment,
    MarkedRegion,
    Suggested,
    Verdict,
    checked_assessment,
)
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.image_names import film_file_name, original_file_name, original_folder
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.words import count

EXPERT = "expert"
_LABEL: Mapping[Verdict | None, int] = {"present": 1, "absent": 0}


def export_coco(
    review: Review,
    decided: Mapping[tuple[int, Finding], Decision],
    out: Path,
    *,
    images: str | None = None,
) -> int:
    """Write the assessed films of a review; how many regions that is.

    Args:
        images: the folder of films that were written, named by `film_file_name`; without it films
            go by their originals' names.
    """
    data, findings = review.data, review.settings.findings
    category = {finding: number for number, finding in enumerate(findings, start=1)}
    films: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, film in enumerate(sorted({film for film, _ in decided}), start=1):
        width, height = review.frame(film)
        its = {name: decided[film, name] for name in findings if (film, name) in decided}
        films.append(
            {
                "id": number,
                "file_name": original_file_name(review, film)
                if images is None
                else film_file_name(film),
                "width": width,
                "height": height,
                "image_id": data.image_ids[film],
                "labels": {
                    name: _LABEL[one.verdict] for name, one in its.items() if one.verdict in _LABEL
                },
            }
        )
        for finding, decision in its.items():
            # without a label of its own an annotation would say present
            for annotator, region in decision.regions if decision.verdict == "present" else ():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category[finding],
                        **_fields(region.shape),
                        "kind": EXPERT,
                        "annotator": annotator,
                        "origin": region.origin,
                    }
                )
    write_json(
        out,
        {
            "info": _info(review, images),
            "images": films,
            "annotations": annotations,
            "categories": [{"id": one, "name": name} for name, one in category.items()],
        },
    )
    return len(annotations)


def _info(review: Review, images: str | None) -> dict[str, Any]:
    now = datetime.now(UTC)
    where = f"as they were in {original_folder(review).name}" if images is None else f"in {images}"
    return {
        "description": f"{review.data.name}, reviewed with dwarf-cxr; films {where}",
        "version": __version__,
        "year": now.year,
        "date_created": now.isoformat(timespec="seconds"),
    }


def _fields(shape: Shape) -> dict[str, Any]:
    fields = shape_to_coco(shape)
    if isinstance(shape, Box):
        corners = [shape.x1, shape.y1, shape.x2, shape.y1, shape.x2, shape.y2, shape.x1, shape.y2]
        return {**fields, "segmentation": [corners], "shape": "box"}
    return {**fields, "shape": "polygon" if isinstance(shape, Polygon) else "mask"}


@dataclass(frozen=True)
class Imported:
    """What an import changed, and what the user should know."""

    films: int
    findings: int
    """Of films, whose assessment changed."""
    regions: int
    replaced: int
    """Findings of films on which the reader had said something else."""
    notes: tuple[str, ...]


def import_coco(
    review: Review, ledger: Ledger, file: Path, reader: str, *, replacing: bool = False
) -> Imported:
    """Enter a COCO file's regions and labels as the words of `reader`; the same again is nothing.

    An image is found by `image_id`, else by the stem of its file name; regions given for another
    size than the film's are scaled to it. A finding with regions is present, others are what the
    image's `labels` say. Annotations of another `kind` than "expert" are no reader's words and are
    left out; one of the `origin` "accepted" stays an accepted one.

    Args:
        replacing: whether what the reader said of these findings before is replaced; it can be
            undone.

    Raises:
        DataError: the file has faults; all that are found are named, and nothing is entered.
        ConfigError: the reader said something else before, which is not to be replaced.
    """
    document = read_json(file)
    faults: list[str] = []
    notes: list[str] = []
    cases = _read(document, review, file, faults, notes)
    checked: dict[int, dict[Finding, Assessment]] = {}
    for (film, finding), assessment in cases.items():
        where = f"{file}, image {review.data.image_ids[film]!r}, {finding}"
        try:
            one, said = checked_assessment(assessment, review.frame(film), where)
        except DataError as fault:
            faults.append(str(fault))
            continue
        notes += said
        checked.setdefault(film, {})[finding] = one
    if faults:
        raise DataError("\n".join(faults))
    done = ledger.enter(reader, checked, replacing=replacing)
    changed = [assessment for its in done.changed.values() for assessment in its.values()]
    regions = sum(len(one.regions) for one in changed)
    return Imported(len(done.changed), len(changed), regions, done.replaced, tuple(notes))


def _read(
    document: Any, review: Review, file: Path, faults: list[str], notes: list[str]
) -> dict[tuple[int, Finding], Assessment]:
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in ("images", "annotations", "categories"):
        part = document.get(name) if isinstance(document, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            raise DataError(f"{file}: needs a list {name!r} of objects, as COCO files have")
        parts[name] = part
    findings = review.settings.findings
    finding_of: dict[Any, Finding] = {}
    for name in ("images", "categories"):
        ids = [entry.get("id") for entry in parts[name]]
        if not all(type(one) in (int, str) for one in ids) or len(set(ids)) < len(ids):
            raise DataError(f"{file}: {name} need an id each, a number or a text, and none twice")
    unknown: set[str] = set()
    for category in parts["categories"]:
        name = _finding_name(category.get("name", ""), findings)
        if name in findings:
            finding_of[_hashable(category.get("id"))] = name
    film_of, frame_of = _films(parts["images"], review, file, faults)
    cases: dict[tuple[int, Finding], Assessment] = {}
    for image in parts["images"]:
        labels = image.get("labels") or {}
        film = film_of.get(_hashable(image.get("id")))
        if film is None:
            continue
        if not isinstance(labels, Mapping):
            faults.append(
                f"{file}, image {review.data.image_ids[film]!r}: labels {labels!r}; they can be an "
                "object of findings with 1 or 0"
            )
            continue
        for written, label in labels.items():
            name = _finding_name(written, findings)
            if label is None or label != label:  # NaN
                continue
            if name not in findings:
                unknown.add(str(written))
            elif type(label) in (int, float) and label in (0, 1):
                verdict: Verdict = "present" if label else "absent"
                cases[film, name] = Assessment(verdict)
            else:
                faults.append(
                    f"{file}, image {review.data.image_ids[film]!r}: label {label!r} of {name}; it "
                    "can be 1 or 0, or be left out"
                )
    if unknown:
        notes.append(
            f"not findings of the review, their labels are left out: {listed(sorted(unknown))}"
        )
    left_out = Counter[str]()
    for position, entry in enumerate(parts["annotations"]):
        kind = entry.get("kind", EXPERT)
        if kind != EXPERT:
            left_out[str(kind)] += 1
            continue
        where = f"{file}, annotation {entry.get('id', f'at position {position}')!r}"
        film, finding = (
            film_of.get(_hashable(entry.get("image_id"))),
            finding_of.get(_hashable(entry.get("category_id"))),
        )
        if film is None or finding is None:
            lacks = "image" if film is None else "category"
            faults.append(
                f"{where}: its {lacks} is none of the review's ("
                + (f"{lacks}_id {entry.get(f'{lacks}_id')!r}")
                + "); drop it or review data that has it"
            )
            continue
        try:
            shapes = [
                scale(shape, frame_of[film], review.frame(film)) for shape in _shapes(entry, where)
            ]
        except DataError as fault:
            faults.append(str(fault))
            continue
        earlier = cases.get((film, finding), NOTHING)
        if earlier.verdict == "absent":
            faults.append(f"{where}: annotated but labelled absent; correct one of them")
        regions = [*earlier.regions]
        for shape in shapes:
            regions.append(
                MarkedRegion(shape, "accepted", Suggested(FILE, len(regions)))
                if entry.get("origin") == "accepted"
                else MarkedRegion(shape)
            )
        cases[film, finding] = Assessment("present", tuple(regions))
    for kind, number in left_out.items():
        notes.append(f"{count(number, 'annotation')} of kind {kind!r} left out: no reader's words")
    return cases


def _shapes(entry: Mapping[str, Any], where: str) -> tuple[Shape, ...]:
    if entry.get("shape") == "box":
        return shapes_from_coco({**entry, "segmentation": []}, where)
    shapes = shapes_from_coco(entry, where)
    return tuple(one for one in shapes if isinstance(one, Box | Polygon | Mask))


def _films(
    images: list[dict[str, Any]], review: Review, file: Path, faults: list[str]
) -> tuple[dict[Any, int], dict[int, Frame]]:
    """The films that a file's images are, by the file's id, and the frames of their regions."""
    data = review.data
    by_id = {image_id: film for film, image_id in enumerate(data.image_ids)}
    by_stem: dict[str, list[int]] = {}
    for film, source in enumerate(data.sources):
        by_stem.setdefault(image_stem(source), []).append(film)
    film_of: dict[Any, int] = {}
    frame_of: dict[int, Frame] = {}
    unknown = []
    for image in images:
        named = [str(image[key]) for key in ("image_id", "file_name") if image.get(key)]
        found = [by_id[name] for name in named if name in by_id]
        stems = [image_stem(name) for name in named]
        found += [by_id[stem] for stem in stems if stem in by_id]
        found += [by_stem[stem][0] for stem in stems if len(by_stem.get(stem, ())) == 1]
        if not found:
            unknown.append(named[0] if named else repr(image.get("id")))
            continue
        frame = (image.get("width"), image.get("height"))
        if not all(type(side) is int and side > 0 for side in frame):
            faults.append(
                f"{file}, image {named[0]!r}: width and height {frame} must be whole and positive"
            )
            continue
        if found[0] in frame_of:
            faults.append(f"{file}, image {named[0]!r}: given twice; keep one of them")
            continue
        film_of[_hashable(image.get("id"))] = found[0]
        frame_of[found[0]] = (int(image["width"]), int(image["height"]))
    if unknown:
        faults.append(
            f"{file}: {len(unknown)} images are not in {data.folder}: {listed(unknown)}; drop them"
        )
    return film_of, frame_of


def _finding_name(written: Any, findings: Sequence[Finding]) -> Finding:
    """The review's spelling where the file's is a known synonym."""
    plain = str(written).strip()
    return plain if plain in findings else SYNONYMS.get(plain, plain)


def _hashable(written: Any) -> Any:
    return written if isinstance(written, int | str) else None
