"""A review's regions out to a COCO file, and a COCO file's regions in, as a reader's words.

Beside COCO's own fields an image has `image_id` and `labels` (finding to 1 or 0), an annotation
has `kind`, `annotator`, `origin` and `shape` (box, polygon or mask). A box also has its corners as
a polygon, since COCO's tools make masks of segmentations alone. There are no patient ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    NOTHING,
    Assessment,
    MarkedRegion,
    Verdict,
    checked_assessment,
)
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.ledger import Ledger

_LABEL: Mapping[Verdict | None, int] = {"present": 1, "absent": 0}


def export_coco(review: Review, decided: Mapping[tuple[int, Finding], Decision], out: Path) -> int:
    """Write the assessed films of a review; how many regions that is."""
    data, findings = review.data, review.settings.findings
    category = {finding: number for number, finding in enumerate(findings, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, film in enumerate(sorted({film for film, _ in decided}), start=1):
        width, height = review.frame(film)
        its = {name: decided[film, name] for name in findings if (film, name) in decided}
        images.append(
            {
                "id": number,
                "file_name": Path(data.sources[film]).name,
                "width": width,
                "height": height,
                "image_id": data.image_ids[film],
                "labels": {
                    name: _LABEL[one.verdict] for name, one in its.items() if one.verdict in _LABEL
                },
            }
        )
        for finding, decision in its.items():
            for annotator, region in decision.regions:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category[finding],
                        **_fields(region.shape),
                        "kind": "expert",
                        "annotator": annotator,
                        "origin": region.origin,
                    }
                )
    write_json(
        out,
        {
            "info": {"description": f"{data.name}, reviewed"},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": one, "name": name} for name, one in category.items()],
        },
    )
    return len(annotations)


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
    notes: tuple[str, ...]


def import_coco(review: Review, ledger: Ledger, file: Path, reader: str) -> Imported:
    """Enter a COCO file's regions and labels as the words of `reader`; the same again is nothing.

    An image is found by `image_id`, else by the stem of its file name; regions given for another
    size than the film's are scaled to it. A finding with regions is present, others are what the
    image's `labels` say. What the reader said of a finding before is replaced, and can be undone.

    Raises:
        DataError: the file has faults; all that are found are named, and nothing is entered.
    """
    document = read_json(file)
    faults: list[str] = []
    notes: list[str] = []
    cases = _read(document, review, file, faults)
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
    films = findings = regions = 0
    for film, edits in checked.items():
        state = ledger.state(film, reader)
        kept = {name: state.assessments.get(name, NOTHING) for name in edits}
        # what an import says nothing about, the comment, stays
        edits = {
            name: Assessment(one.verdict, one.regions, kept[name].comment)
            for name, one in edits.items()
        }
        key = f"import-{state.version}-{film}"
        after = ledger.edit(film, reader, edits, version=state.version, key=key, action="import")
        if after.version != state.version:
            films += 1
            findings += len(edits)
            regions += sum(len(one.regions) for one in edits.values())
    return Imported(films, findings, regions, tuple(notes))


def _read(
    document: Any, review: Review, file: Path, faults: list[str]
) -> dict[tuple[int, Finding], Assessment]:
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in ("images", "annotations", "categories"):
        part = document.get(name) if isinstance(document, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            raise DataError(f"{file}: needs a list {name!r} of objects, as COCO files have")
        parts[name] = part
    findings = review.settings.findings
    finding_of: dict[Any, Finding] = {}
    for category in parts["categories"]:
        name = _finding_name(category.get("name", ""), findings)
        if name in findings:
            finding_of[_hashable(category.get("id"))] = name
    film_of, frame_of = _films(parts["images"], review, file, faults)
    cases: dict[tuple[int, Finding], Assessment] = {}
    for image in parts["images"]:
        labels = image.get("labels", {})
        film = film_of.get(_hashable(image.get("id")))
        if film is None or not isinstance(labels, Mapping):
            continue
        for written, label in labels.items():
            name = _finding_name(written, findings)
            if name in findings and label in (0, 1):
                verdict: Verdict = "present" if label else "absent"
                cases[film, name] = Assessment(verdict)
    for position, entry in enumerate(parts["annotations"]):
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
        regions = (*earlier.regions, *map(MarkedRegion, shapes))
        cases[film, finding] = Assessment("present", regions)
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
