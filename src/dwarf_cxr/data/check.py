"""Every fault of a DATA folder that can be seen, in one pass."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dwarf_cxr.data.coco import shapes_from_coco
from dwarf_cxr.data.geometry import is_inside
from dwarf_cxr.data.records import Mask
from dwarf_cxr.data.rows import doubles, listed
from dwarf_cxr.data.splits import SPLITS, patients_in_two_splits
from dwarf_cxr.data.store import (
    DATASET_FILE,
    FORMAT,
    IMAGE_COLUMNS,
    IMAGES_FILE,
    LABELS,
    REGIONS_FILE,
    pixels_file,
)
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import sha256_of

PREPARE_AGAIN = "prepare the data again with `dwarf data prepare`"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, what, and how to mend it."""

    where: str
    what: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.what}; {self.remedy}"


@dataclass(slots=True)
class _Row:
    """A row of images.csv, as far as it could be read."""

    line: int
    fields: dict[str, str]


def check(folder: Path) -> list[Fault]:
    """All faults of the DATA folder: files, hashes, ids, splits, labels, regions and pixels.

    A fault never hides another one: what can still be read is read. Errors come before warnings.
    """
    folder = Path(folder)
    faults: list[Fault] = []
    dataset = _check_dataset(folder, faults)
    rows = _read_images(folder / IMAGES_FILE, faults)
    findings = _check_findings(dataset, rows, folder, faults)
    _check_hashes(dataset, folder, faults)
    if rows is not None:
        _check_rows(rows, findings, folder / IMAGES_FILE, faults)
        _check_positives(rows, findings, folder / IMAGES_FILE, faults)
    _check_regions(folder / REGIONS_FILE, rows, findings, faults)
    _check_pixels(dataset, rows, folder, faults)
    _check_sources(rows or (), folder / IMAGES_FILE, faults)
    return sorted(faults, key=lambda fault: fault.severity)


def _check_dataset(folder: Path, faults: list[Fault]) -> dict[str, Any]:
    """dataset.json's content, empty where it cannot be read."""
    path = folder / DATASET_FILE
    if not path.is_file():
        faults.append(Fault(str(path), "missing: not prepared, or not to the end", PREPARE_AGAIN))
        return {}
    dataset = _read_json_object(path, faults)
    for field in ("name", "findings", "size", "sha256"):
        if dataset and field not in dataset:
            faults.append(Fault(str(path), f"no field {field!r}", PREPARE_AGAIN))
    if dataset and dataset.get("format") != FORMAT:
        faults.append(
            Fault(str(path), f"format {dataset.get('format')!r}, not {FORMAT!r}", PREPARE_AGAIN)
        )
    return dataset


def _read_json_object(path: Path, faults: list[Fault]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as fault:
        faults.append(Fault(str(path), f"not readable as JSON ({fault})", PREPARE_AGAIN))
        return {}
    if not isinstance(content, dict):
        faults.append(Fault(str(path), "not a JSON object", PREPARE_AGAIN))
        return {}
    return content


def _check_hashes(dataset: Mapping[str, Any], folder: Path, faults: list[Fault]) -> None:
    hashes = dataset.get("sha256")
    if not isinstance(hashes, Mapping):
        return
    for name, stated in hashes.items():
        if (folder / name).is_file() and sha256_of(folder / name) != stated:
            faults.append(
                Fault(
                    str(folder / name),
                    f"its SHA-256 is not the one in {DATASET_FILE}: changed or damaged",
                    PREPARE_AGAIN,
                )
            )


def _read_images(path: Path, faults: list[Fault]) -> list[_Row] | None:
    """images.csv row by row; a row that is not whole is reported and left out."""
    if not path.is_file():
        faults.append(Fault(str(path), "missing", PREPARE_AGAIN))
        return None
    content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        faults.append(
            Fault(str(path), "begins with a byte order mark", "save as UTF-8 without", "warning")
        )
        content = content[3:]
    if b"\r" in content:
        faults.append(Fault(str(path), "has CR line ends", "save with LF line ends", "warning"))
    for number, line_bytes in enumerate(content.split(b"\n"), start=1):
        try:
            line_bytes.decode("utf-8")
        except UnicodeDecodeError as fault:
            faults.append(
                Fault(
                    f"{path}, line {number}",
                    f"byte 0x{line_bytes[fault.start]:02x} is not UTF-8",
                    "save the table as CSV UTF-8",
                )
            )
    text = content.decode("utf-8", errors="replace").replace("\0", "�")
    reader = csv.reader(io.StringIO(text, newline=""))
    table = []
    start = 1
    try:
        for cells in reader:
            if cells:
                table.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as fault:
        faults.append(Fault(f"{path}, line {start}", f"not valid CSV ({fault})", "correct it"))
    if not table:
        faults.append(Fault(str(path), "empty", PREPARE_AGAIN))
        return None
    header = [name.strip() for name in table[0][1]]
    for name in doubles(header):
        faults.append(Fault(str(path), f"column {name!r} twice", "drop one of them"))
    for name in IMAGE_COLUMNS:
        if name not in header:
            faults.append(Fault(str(path), f"no column {name!r}", PREPARE_AGAIN))
    rows = []
    for line, cells in table[1:]:
        if len(cells) != len(header):
            faults.append(
                Fault(
                    f"{path}, line {line}",
                    f"{len(cells)} fields where the header has {len(header)}",
                    "quote fields that hold commas",
                )
            )
            continue
        stripped = (cell.strip() for cell in cells)
        rows.append(_Row(line, dict(zip(header, stripped, strict=True))))
    if not rows:
        faults.append(Fault(str(path), "lists no image", PREPARE_AGAIN))
    return rows


def _check_findings(
    dataset: Mapping[str, Any],
    rows: Sequence[_Row] | None,
    folder: Path,
    faults: list[Fault],
) -> tuple[str, ...]:
    """The findings: dataset.json's, or those that the columns of images.csv suggest."""
    columns = [] if not rows else [name for name in rows[0].fields if name not in IMAGE_COLUMNS]
    labelled = tuple(name for name in columns if name != "text")
    stated = dataset.get("findings")
    if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
        return labelled
    if rows:
        for name in stated:
            if name not in labelled:
                faults.append(
                    Fault(str(folder / IMAGES_FILE), f"no column {name!r}", PREPARE_AGAIN)
                )
        for name in labelled:
            if name not in stated:
                faults.append(
                    Fault(
                        str(folder / IMAGES_FILE),
                        f"column {name!r} is no finding of {DATASET_FILE}",
                        PREPARE_AGAIN,
                    )
                )
    return tuple(stated)


def _check_rows(
    rows: Sequence[_Row], findings: Sequence[str], path: Path, faults: list[Fault]
) -> None:
    """Ids, patients, splits, hashes, sizes and labels."""
    seen: dict[str, int] = {}
    by_hash: dict[str, _Row] = {}
    for row in rows:
        where, fields = f"{path}, line {row.line}", row.fields
        image_id = fields.get("image_id", "")
        if not image_id or not fields.get("patient_id", ""):
            faults.append(Fault(where, "no image id or no patient id", "fill it in"))
        if image_id in seen:
            faults.append(
                Fault(
                    where,
                    f"image id {image_id!r} already stands in line {seen[image_id]}",
                    "ids must differ: drop or rename one",
                )
            )
        seen.setdefault(image_id, row.line)
        if fields.get("split") not in SPLITS:
            faults.append(
                Fault(where, f"split {fields.get('split')!r}", f"write {', '.join(SPLITS)}")
            )
        for side in ("width", "height"):
            if not fields.get(side, "").isdecimal() or int(fields[side]) < 1:
                faults.append(Fault(where, f"{side} {fields.get(side)!r}", PREPARE_AGAIN))
        for finding in findings:
            if fields.get(finding, "") not in LABELS:
                faults.append(
                    Fault(
                        f"{where}, column {finding!r}",
                        f"label {fields[finding]!r}",
                        "write 1 (present), 0 (absent) or nothing (never assessed)",
                    )
                )
        other = by_hash.setdefault(fields.get("sha256", "") or f"line {row.line}", row)
        if other is not row:
            same = f"the same image file as line {other.line} ({other.fields.get('image_id')})"
            if other.fields.get("split") != fields.get("split"):
                both = f"{other.fields.get('split')} and {fields.get('split')}"
                faults.append(
                    Fault(where, f"{same}, but in two splits ({both})", "put both into one")
                )
            else:
                faults.append(Fault(where, same, "drop one of them", "warning"))
    shared = patients_in_two_splits(
        [row.fields.get("patient_id", "") for row in rows],
        [row.fields.get("split", "") for row in rows],
    )
    for patient, splits in shared.items():
        faults.append(
            Fault(
                str(path),
                f"patient {patient!r} is in two splits ({' and '.join(splits)})",
                "put all images of a patient into one split",
            )
        )


def _check_positives(
    rows: Sequence[_Row], findings: Sequence[str], path: Path, faults: list[Fault]
) -> None:
    for split in SPLITS:
        members = [row for row in rows if row.fields.get("split") == split]
        if not members:
            faults.append(
                Fault(str(path), f"no image in the split {split!r}", "see --splits", "warning")
            )
            continue
        for finding in findings:
            labels = {row.fields.get(finding) for row in members}
            for value, kind in (("1", "positive"), ("0", "negative")):
                if value not in labels:
                    faults.append(
                        Fault(
                            str(path),
                            f"{finding!r} has no {kind} image in the split {split!r}",
                            "its metrics there are undefined: leave it out with --findings, or "
                            "split otherwise",
                            "warning",
                        )
                    )


def _check_regions(
    path: Path, rows: Sequence[_Row] | None, findings: Sequence[str], faults: list[Fault]
) -> None:
    if not path.is_file():
        faults.append(Fault(str(path), "missing", PREPARE_AGAIN))
        return
    document = _read_json_object(path, faults)
    if not document:
        return
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in ("images", "annotations", "categories"):
        part = document.get(name)
        if not isinstance(part, list):
            faults.append(Fault(str(path), f"no list {name!r}", PREPARE_AGAIN))
            part = []
        parts[name] = [entry for entry in part if isinstance(entry, dict)]
    names = {_key(category.get("id")): category.get("name") for category in parts["categories"]}
    for category in names.values():
        if category not in findings:
            faults.append(
                Fault(str(path), f"unknown finding {category!r}", f"known: {', '.join(findings)}")
            )
    images = {_key(image.get("id")): image for image in parts["images"]}
    by_id = {row.fields.get("image_id"): row for row in rows or ()}
    if rows is not None:
        listed_there = [str(image.get("image_id")) for image in parts["images"]]
        if listed_there != [row.fields.get("image_id") for row in rows]:
            odd = sorted(set(listed_there) ^ {str(image_id) for image_id in by_id})
            which = f": {listed(odd)}" if odd else " or their order"
            faults.append(
                Fault(str(path), f"images differ from {IMAGES_FILE}{which}", PREPARE_AGAIN)
            )
    absent: dict[str, int] = {}
    for position, annotation in enumerate(parts["annotations"]):
        where = f"{path}, annotation {annotation.get('id', f'at position {position}')}"
        image = images.get(_key(annotation.get("image_id")))
        finding = names.get(_key(annotation.get("category_id")))
        if image is None:
            faults.append(
                Fault(where, f"unknown image {annotation.get('image_id')!r}", "correct or drop it")
            )
        if finding is None:
            faults.append(
                Fault(
                    where,
                    f"unknown category {annotation.get('category_id')!r}",
                    "correct or drop it",
                )
            )
        _check_shapes(annotation, image, where, faults)
        row = by_id.get(image.get("image_id")) if image is not None else None
        if row is not None and finding is not None and row.fields.get(finding) != "1":
            absent[finding] = absent.get(finding, 0) + 1
    for finding, count in absent.items():
        faults.append(
            Fault(
                str(path),
                f"{count} regions of {finding!r} on images where it is not labelled 1",
                "correct the labels or drop the regions; until then the labels stand",
                "warning",
            )
        )


def _key(identifier: Any) -> Any:
    """An id to look up, None for what cannot be one."""
    return identifier if isinstance(identifier, int | str) else None


def _check_shapes(
    annotation: Mapping[str, Any],
    image: Mapping[str, Any] | None,
    where: str,
    faults: list[Fault],
) -> None:
    bbox = annotation.get("bbox")
    if isinstance(bbox, list) and not all(
        isinstance(number, int | float) and math.isfinite(number) for number in bbox
    ):
        faults.append(Fault(where, f"bbox {bbox} is not finite", "correct or drop it"))
        return
    try:
        shapes = shapes_from_coco(annotation, where)
    except DataError as fault:
        what = str(fault).removeprefix(f"{where}: ")
        faults.append(Fault(where, what, "correct or drop it"))
        return
    if image is None:
        return
    width, height = image.get("width"), image.get("height")
    if not isinstance(width, int) or not isinstance(height, int):
        faults.append(Fault(where, f"its image has the size {width}×{height}", PREPARE_AGAIN))
        return
    for shape in shapes:
        if isinstance(shape, Mask) and (shape.width, shape.height) != (width, height):
            what = f"mask of {shape.width}×{shape.height} on an image of {width}×{height}"
            faults.append(Fault(where, what, "give the mask in the image's size"))
        elif not is_inside(shape, (width, height)):
            what = f"reaches out of the {width}×{height} image"
            faults.append(Fault(where, what, "correct it, or prepare again to clip it"))


def _check_pixels(
    dataset: Mapping[str, Any], rows: Sequence[_Row] | None, folder: Path, faults: list[Fault]
) -> None:
    size = dataset.get("size")
    if not isinstance(size, int) or size < 1:
        return
    path = folder / pixels_file(size)
    if not path.is_file():
        faults.append(Fault(str(path), "missing", PREPARE_AGAIN))
        return
    if rows is None:
        return
    expected, found = len(rows) * size * size, path.stat().st_size
    if found != expected:
        what = f"{found} bytes where {len(rows)} images of {size}×{size} need {expected}"
        faults.append(Fault(str(path), what, PREPARE_AGAIN))
        return
    if not rows:
        return
    pixels = np.memmap(path, dtype=np.uint8, mode="r", shape=(len(rows), size, size))
    for row, image in zip(rows, pixels, strict=True):
        if image.min() == image.max():
            faults.append(
                Fault(
                    f"{path}, image {row.fields.get('image_id')!r}",
                    "every pixel is the same",
                    "drop it if it is a failed export",
                    "warning",
                )
            )


def _check_sources(rows: Sequence[_Row], path: Path, faults: list[Fault]) -> None:
    """The original files, where they are still there: JPEG decoders pass a flipped byte."""
    missing = []
    for row in rows:
        source, stated = Path(row.fields.get("source", "")), row.fields.get("sha256", "")
        if not row.fields.get("source") or not stated:
            continue
        try:
            changed = sha256_of(source) != stated
        except OSError:
            missing.append(str(source))
            continue
        if changed:
            faults.append(
                Fault(
                    f"{path}, line {row.line}",
                    f"{source} is not the file that was prepared (its SHA-256 differs)",
                    f"restore it, or {PREPARE_AGAIN}",
                )
            )
    if missing:
        faults.append(
            Fault(
                str(path),
                f"{len(missing)} original files are not there to be compared: {listed(missing, 3)}",
                "the prepared data serve without them",
                "warning",
            )
        )
