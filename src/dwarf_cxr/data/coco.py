"""Radiographs and regions in COCO's JSON: reading a user's own file, and writing regions.

Beside COCO's own fields, an image may carry `patient_id`, `split`, `text`, `image_id` (a name;
by default the stem of its file name) and `labels` (finding to 1 or 0; a finding that is not there
was never assessed), and an annotation may carry `kind` ("expert" or "pseudo") and `annotator`.

A finding with an annotation is present. Without one it is what `labels` say; where they are
silent it was never assessed, unless the reader is told to take it as absent.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_cxr.data.geometry import (
    area,
    bounding_box,
    compress_counts,
    decompress_counts,
    fault_of,
)
from dwarf_cxr.data.images import find_images, image_stem, only_image
from dwarf_cxr.data.records import Box, Mask, Polygon, Radiograph, Region, Shape, SourceSet
from dwarf_cxr.data.rows import doubles, listed
from dwarf_cxr.errors import DataError, DwarfError, ImageError
from dwarf_cxr.files import read_json
from dwarf_cxr.findings import SYNONYMS


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """What regions.json says of one image; regions in pixels of the image."""

    image_id: str
    file_name: str
    width: int
    height: int
    patient_id: str
    split: str
    regions: tuple[Region, ...]


def to_coco(images: Sequence[AnnotatedImage], findings: Sequence[str], name: str) -> dict[str, Any]:
    """A COCO document of `images` and their regions; ids count from 1 in the given order."""
    parts = coco_parts(lambda: images, findings, name)
    return {key: list(part) if isinstance(part, Iterator) else part for key, part in parts.items()}


def coco_parts(
    images: Callable[[], Iterable[AnnotatedImage]], findings: Sequence[str], name: str
) -> dict[str, Any]:
    """The same document with iterators in place of its long lists.

    `images` is called for each list, so that neither the images nor their entries need be in
    memory at once (`dwarf_cxr.json_stream.write_json_object`).
    """
    category = {finding: number for number, finding in enumerate(findings, start=1)}
    return {
        "info": {"description": name},
        "images": (_image_entry(number, image) for number, image in enumerate(images(), start=1)),
        "annotations": _annotation_entries(images(), category),
        "categories": [{"id": number, "name": finding} for finding, number in category.items()],
    }


def _image_entry(number: int, image: AnnotatedImage) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "image_id": image.image_id,
        "patient_id": image.patient_id,
        "split": image.split,
    }


def _annotation_entries(
    images: Iterable[AnnotatedImage], category: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    numbers = itertools.count(1)
    for image_number, image in enumerate(images, start=1):
        for region in image.regions:
            yield {
                "id": next(numbers),
                "image_id": image_number,
                "category_id": category[region.finding],
                **shape_to_coco(region.shape),
                "kind": region.kind,
                "annotator": region.annotator,
            }


def shape_to_coco(shape: Shape) -> dict[str, Any]:
    """`bbox`, `area`, `segmentation` and `iscrowd` of a shape."""
    box = bounding_box(shape)
    if isinstance(shape, Polygon):
        segmentation: Any = [shape.points.astype(float).reshape(-1).tolist()]
    elif isinstance(shape, Mask):
        segmentation = {
            "size": [shape.height, shape.width],
            "counts": compress_counts(shape.counts),
        }
    else:
        segmentation = []
    return {
        "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
        "area": area(shape),
        "segmentation": segmentation,
        "iscrowd": int(isinstance(shape, Mask)),
    }


def shapes_from_coco(annotation: Mapping[str, Any], where: str) -> tuple[Shape, ...]:
    """The shapes of an annotation: its segmentation, or its box where it has none.

    Several polygons of one annotation are several shapes, whose union is meant.

    Raises:
        DataError: the fields are malformed, or a shape is not finite or has no area.
    """
    segmentation = annotation.get("segmentation")
    try:
        shapes: list[Shape] = []
        if isinstance(segmentation, Mapping):
            height, width = segmentation["size"]
            counts = segmentation["counts"]
            runs = decompress_counts(counts) if isinstance(counts, str) else tuple(counts)
            shapes.append(Mask(_whole(height), _whole(width), tuple(map(_whole, runs))))
        elif segmentation:
            for outline in segmentation:
                points = np.asarray(outline, dtype=np.float64).reshape(-1, 2)
                shapes.append(Polygon(points))
        else:
            if isinstance(annotation["bbox"], str):
                raise TypeError("text has characters, not numbers")
            x, y, width, height = map(float, annotation["bbox"])
            shapes.append(Box(x, y, x + width, y + height))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: needs a bbox of four numbers, or a segmentation of polygons or run lengths"
        ) from None
    except DataError as fault:
        raise DataError(f"{where}: {fault}") from None
    for shape in shapes:
        if wrong := fault_of(shape):
            raise DataError(f"{where}: {wrong}; correct or drop the annotation")
    return tuple(shapes)


def _whole(number: Any) -> int:
    """`number` as an int.

    Raises:
        ValueError: it is no whole number, 0 or more.
    """
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{number!r} is not a number")
    if number < 0 or number != number // 1 or number == math.inf:
        raise ValueError(f"{number!r} is not a whole number")
    return int(number)


def _name(written: Any, otherwise: str, where: str) -> str:
    """An id as text, or `otherwise` where there is none; 0 is an id like any other.

    Raises:
        DataError: it is neither text nor a whole number.
    """
    if written is None or (isinstance(written, str) and not written.strip()):
        return otherwise
    if isinstance(written, bool) or not isinstance(written, int | str):
        raise DataError(f"{where}: the id {written!r} must be text or a whole number")
    return str(written).strip()


def read_coco(
    path: Path, root: Path | None = None, *, assume_absent: bool = False, name: str | None = None
) -> SourceSet:
    """Read a COCO file of radiographs; images stand under `root` (by default beside the file).

    Images are found by their file name under `root`, or anywhere below it by the stem of it.
    `assume_absent` takes a finding without annotation and label as absent; otherwise it was never
    assessed. Coordinates are in the frame of each image's `width` and `height`. Without `name` the
    set is called by the file's description, or as the file.

    Raises:
        DataError: the file has faults; all that are found are listed, with image or annotation.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    document = read_json(path)
    faults: list[str] = []
    images, annotations, categories = _parts(document, path)
    names = _category_names(categories, path, faults)
    regions = _read_annotations(annotations, images, names, path, faults)
    files = find_images(root)
    radiographs: list[Radiograph] = []
    for position, image in enumerate(images):
        where = f"{path}, image {image.get('id', f'at position {position}')!r}"
        try:
            radiographs.append(
                _radiograph(image, names, regions, root, files, where, assume_absent)
            )
        except DwarfError as fault:
            faults.append(str(fault))
    doubled = doubles([one.image_id for one in radiographs])
    if doubled:
        faults.append(f"{path}: image id given twice: {listed(doubled)}; ids must differ")
    if faults:
        raise DataError("\n".join(faults))
    notes = []
    unnamed = sum(not _name(image.get("patient_id"), "", "") for image in images)
    if unnamed:
        of_which = "no" if unnamed == len(images) else f"{unnamed} of {len(images)} images have no"
        notes.append(f"{of_which} patient ids: every such image counts as a patient of its own")
    if assume_absent:
        notes.append("findings without annotation were taken as absent")
    info = document.get("info")
    description = info.get("description") if isinstance(info, Mapping) else None
    return SourceSet(
        name=name or str(description or path.stem),
        findings=tuple(dict.fromkeys(names.values())),
        radiographs=tuple(radiographs),
        source=str(path),
        licence="as stated by its owner",
        citation="",
        notes=tuple(notes),
    )


def _parts(
    document: Any, path: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    parts = []
    for name in ("images", "annotations", "categories"):
        part = document.get(name) if isinstance(document, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            raise DataError(f"{path}: needs a list {name!r} of objects, as COCO files have")
        parts.append(part)
    return parts[0], parts[1], parts[2]


def _category_names(
    categories: Sequence[Mapping[str, Any]], path: Path, faults: list[str]
) -> dict[Any, str]:
    """Findings by category id; the vocabulary's spelling where the file's is a known synonym."""
    names: dict[Any, str] = {}
    for position, category in enumerate(categories):
        number, name = category.get("id"), category.get("name")
        where = f"{path}, category {number!r} at position {position}"
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            faults.append(f"{where}: needs a whole number 'id' and a 'name'")
        elif number in names:
            faults.append(f"{where}: its id is given twice; ids must differ")
        elif _finding(name) in names.values():
            faults.append(f"{where}: a second category of the finding {name!r}; merge them")
        else:
            names[number] = _finding(name)
    return names


def _finding(written: str) -> str:
    """The vocabulary's spelling where the file's is a known synonym."""
    return SYNONYMS.get(written.strip(), written.strip())


def _read_annotations(
    annotations: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    names: Mapping[Any, str],
    path: Path,
    faults: list[str],
) -> dict[Any, list[Region]]:
    """Regions by COCO image id; faults are added to `faults`."""
    known = {image["id"] for image in images if isinstance(image.get("id"), int | str)}
    regions: dict[Any, list[Region]] = {}
    for position, annotation in enumerate(annotations):
        where = f"{path}, annotation {annotation.get('id', f'at position {position}')!r}"
        image, category = annotation.get("image_id"), annotation.get("category_id")
        kind = annotation.get("kind", "expert")
        if not isinstance(image, int | str) or image not in known:
            faults.append(f"{where}: image_id {image!r} is not among the images")
        elif not isinstance(category, int) or category not in names:
            faults.append(f"{where}: category_id {category!r} is not among the categories")
        elif kind not in ("expert", "pseudo"):
            faults.append(f"{where}: kind {kind!r}; write 'expert' or 'pseudo'")
        else:
            try:
                shapes = shapes_from_coco(annotation, where)
            except DataError as fault:
                faults.append(str(fault))
                continue
            annotator = str(annotation.get("annotator", "unknown"))
            regions.setdefault(image, []).extend(
                Region(names[category], shape, annotator, kind) for shape in shapes
            )
    return regions


def _radiograph(
    image: Mapping[str, Any],
    names: Mapping[Any, str],
    regions: Mapping[Any, Sequence[Region]],
    root: Path,
    files: Mapping[str, tuple[Path, ...]],
    where: str,
    assume_absent: bool,
) -> Radiograph:
    file_name = image.get("file_name")
    if not isinstance(image.get("id"), int | str) or not isinstance(file_name, str):
        raise DataError(f"{where}: needs an 'id' and a 'file_name'")
    direct = root / file_name
    path = direct if direct.is_file() else only_image(image_stem(file_name), files)
    if path is None:
        raise ImageError(f"{direct}: no such file, nor one of that name under {root}; restore it")
    try:
        frame = _whole(image["width"]), _whole(image["height"])
    except (KeyError, ValueError):
        raise DataError(f"{where}: needs a whole 'width' and 'height'") from None
    if min(frame) < 1:
        raise DataError(f"{where}: width and height {frame} must be positive")
    stated: dict[str, bool] = {}
    written = image.get("labels", {})
    if not isinstance(written, Mapping):
        raise DataError(f"{where}: 'labels' must map findings to 1 or 0")
    for finding, value in written.items():
        name = _finding(str(finding))
        if name not in names.values():
            raise DataError(f"{where}: label of the unknown finding {finding!r}; add a category")
        if isinstance(value, float) or value not in (0, 1):
            raise DataError(
                f"{where}: label {value!r} of {finding!r}; write 1 (present) or 0 (absent), or "
                f"leave it out (never assessed)"
            )
        stated[name] = bool(value)
    drawn = tuple(regions.get(image["id"], ()))
    contradicted = sorted({one.finding for one in drawn if stated.get(one.finding) is False})
    if contradicted:
        raise DataError(
            f"{where}: annotated but labelled absent: {listed(contradicted)}; correct one of them"
        )
    labels = dict.fromkeys(names.values(), False) if assume_absent else {}
    labels |= stated | {one.finding: True for one in drawn}
    image_id = _name(image.get("image_id"), image_stem(file_name), where)
    split, text = image.get("split"), image.get("text")
    return Radiograph(
        image_id=image_id,
        patient_id=_name(image.get("patient_id"), image_id, where),
        path=path,
        labels=labels,
        regions=drawn,
        region_frame=frame,
        split=None if split is None else str(split),
        text=None if text is None else str(text),
    )
