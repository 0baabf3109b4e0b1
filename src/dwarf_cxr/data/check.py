"""Every fault of a DATA folder that can be seen, in one pass."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from dwarf_cxr.data.coco import shapes_from_coco
from dwarf_cxr.data.geometry import is_inside
from dwarf_cxr.data.records import Mask, RegionKind
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
from dwarf_cxr.json_stream import read_json_object

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


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of images.csv."""

    line: int
    places: Mapping[str, int]
    """The column of each name, the same for all rows."""
    cells: tuple[str, ...]

    def get(self, name: str) -> str:
        """The field of that name; nothing where there is no such column."""
        place = self.places.get(name)
        return "" if place is None else self.cells[place]


@dataclass(frozen=True, slots=True)
class _Table:
    """images.csv, as far as it could be read."""

    columns: tuple[str, ...]
    rows: Sequence[_Row]


@dataclass(frozen=True, slots=True)
class _Image:
    """What regions.json says of an image."""

    image_id: str
    width: Any
    height: Any


def check(folder: Path) -> list[Fault]:
    """All faults of the DATA folder: files, hashes, ids, splits, labels, regions and pixels.

    A fault never hides another one: what can still be read is read. Errors come before warnings.
    """
    folder = Path(folder)
    faults: list[Fault] = []
    dataset = _check_dataset(folder, faults)
    table = _read_images(folder / IMAGES_FILE, faults)
    rows = None if table is None else table.rows
    findings = _check_findings(dataset, table, folder, faults)
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
    """The hashes of all files but the pixels, which are read only once: by `_check_pixels`."""
    hashes = dataset.get("sha256")
    if not isinstance(hashes, Mapping):
        return
    for name, stated in hashes.items():
        path = folder / name
        if path != _pixels_path(dataset, folder) and path.is_file() and sha256_of(path) != stated:
            faults.append(_changed(path))


def _changed(path: Path) -> Fault:
    what = f"its SHA-256 is not the one in {DATASET_FILE}: changed or damaged"
    return Fault(str(path), what, PREPARE_AGAIN)


def _read_images(path: Path, faults: list[Fault]) -> _Table | None:
    """images.csv row by row; a row that is not whole is reported and left out."""
    if not path.is_file():
        faults.append(Fault(str(path), "missing", PREPARE_AGAIN))
        return None
    with path.open("rb") as stream:
        reader = csv.reader(_lines(stream, path, faults))
        columns: tuple[str, ...] = ()
        places: dict[str, int] = {}
        rows = []
        known: dict[str, str] = {}
        start = 1
        try:
            for cells in reader:
                line, start = start, reader.line_num + 1
                stripped = tuple(cell.strip() for cell in cells)
                if not columns:
                    columns = stripped
                    places = {name: place for place, name in enumerate(columns)}
                elif cells and len(cells) != len(columns):
                    faults.append(
                        Fault(
                            f"{path}, line {line}",
                            f"{len(cells)} fields where the header has {len(columns)}",
                            "quote fields that hold commas",
                        )
                    )
                elif cells:
                    # patients, splits and labels come again and again: one text of each is enough
                    shared = tuple(known.setdefault(cell, cell) for cell in stripped)
                    rows.append(_Row(line, places, shared))
        except csv.Error as fault:
            faults.append(Fault(f"{path}, line {start}", f"not valid CSV ({fault})", "correct it"))
    if not columns:
        faults.append(Fault(str(path), "empty", PREPARE_AGAIN))
        return None
    for name in doubles(columns):
        faults.append(Fault(str(path), f"column {name!r} twice", "drop one of them"))
    for name in IMAGE_COLUMNS:
        if name not in columns:
            faults.append(Fault(str(path), f"no column {name!r}", PREPARE_AGAIN))
    if not rows:
        faults.append(Fault(str(path), "lists no image", PREPARE_AGAIN))
    return _Table(columns, rows)


def _lines(stream: BinaryIO, path: Path, faults: list[Fault]) -> Iterator[str]:
    """The lines of images.csv; what is wrong with its bytes goes to `faults`."""
    returns = False
    for number, content in enumerate(stream, start=1):
        if number == 1 and content.startswith(b"\xef\xbb\xbf"):
            remedy = "save as UTF-8 without"
            faults.append(Fault(str(path), "begins with a byte order mark", remedy, "warning"))
            content = content[3:]
        if b"\r" in content and not returns:
            returns = True
            remedy = "save with LF line ends"
            faults.append(Fault(str(path), "has CR line ends", remedy, "warning"))
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as fault:
            what = f"byte 0x{content[fault.start]:02x} is not UTF-8"
            remedy = "save the table as CSV UTF-8"
            faults.append(Fault(f"{path}, line {number}", what, remedy))
            text = content.decode("utf-8", errors="replace")
        # a CR alone ends a line too
        yield from io.StringIO(text.replace("\0", "�"), newline="")


def _check_findings(
    dataset: Mapping[str, Any],
    table: _Table | None,
    folder: Path,
    faults: list[Fault],
) -> tuple[str, ...]:
    """The findings: dataset.json's, or those that the columns of images.csv suggest."""
    columns = () if table is None else table.columns
    labelled = tuple(
        dict.fromkeys(name for name in columns if name not in (*IMAGE_COLUMNS, "text"))
    )
    stated = dataset.get("findings")
    if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
        return labelled
    if columns:
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
        where = f"{path}, line {row.line}"
        image_id = row.get("image_id")
        if not image_id or not row.get("patient_id"):
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
        if row.get("split") not in SPLITS:
            faults.append(Fault(where, f"split {row.get('split')!r}", f"write {', '.join(SPLITS)}"))
        for side in ("width", "height"):
            if not row.get(side).isdecimal() or int(row.get(side)) < 1:
                faults.append(Fault(where, f"{side} {row.get(side)!r}", PREPARE_AGAIN))
        for finding in findings:
            if row.get(finding) not in LABELS:
                faults.append(
                    Fault(
                        f"{where}, column {finding!r}",
                        f"label {row.get(finding)!r}",
                        "write 1 (present), 0 (absent) or nothing (never assessed)",
                    )
                )
        other = by_hash.setdefault(row.get("sha256") or f"line {row.line}", row)
        if other is not row:
            same = f"the same image file as line {other.line} ({other.get('image_id')})"
            if other.get("split") != row.get("split"):
                both = f"{other.get('split')} and {row.get('split')}"
                faults.append(
                    Fault(where, f"{same}, but in two splits ({both})", "put both into one")
                )
            else:
                faults.append(Fault(where, same, "drop one of them", "warning"))
    shared = patients_in_two_splits(
        [row.get("patient_id") for row in rows],
        [row.get("split") for row in rows],
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
        members = [row for row in rows if row.get("split") == split]
        if not members:
            faults.append(
                Fault(str(path), f"no image in the split {split!r}", "see --splits", "warning")
            )
            continue
        for finding in findings:
            labels = {row.get(finding) for row in members}
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
    by_id = {row.get("image_id"): row for row in rows or ()}
    try:
        images, names, in_order = _read_images_of_regions(path, rows, by_id, faults)
    except DataError as fault:
        what = str(fault).removeprefix(f"{path}: ").removesuffix("; restore or regenerate it")
        faults.append(Fault(str(path), what, PREPARE_AGAIN))
        return
    for category in names.values():
        if category not in findings:
            faults.append(
                Fault(str(path), f"unknown finding {category!r}", f"known: {', '.join(findings)}")
            )
    if not in_order:
        odd = sorted({image.image_id for image in images.values()} ^ by_id.keys())
        which = f": {listed(odd)}" if odd else " or their order"
        faults.append(Fault(str(path), f"images differ from {IMAGES_FILE}{which}", PREPARE_AGAIN))
    absent: dict[str, int] = {}
    for position, annotation in enumerate(_annotations(path)):
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
        kind = annotation.get("kind")
        if kind not in get_args(RegionKind):
            faults.append(Fault(where, f"kind {kind!r}", "write 'expert' or 'pseudo'"))
        _check_shapes(annotation, image, where, faults)
        row = by_id.get(image.image_id) if image is not None else None
        if row is not None and finding is not None and row.get(finding) != "1":
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


def _read_images_of_regions(
    path: Path,
    rows: Sequence[_Row] | None,
    by_id: Mapping[str, _Row],
    faults: list[Fault],
) -> tuple[dict[Any, _Image], dict[Any, Any], bool]:
    """Images and findings by their ids, and whether the images are those of `rows` in order.

    Raises:
        DataError: the file is no JSON object.
    """
    images: dict[Any, _Image] = {}
    names: dict[Any, Any] = {}
    missing = ["images", "annotations", "categories"]
    count, in_order = 0, True
    for key, part in read_json_object(path):
        if key not in missing or not isinstance(part, Iterator):
            continue
        missing.remove(key)
        for entry in part:
            if not isinstance(entry, dict):
                continue
            if key == "categories":
                names[_key(entry.get("id"))] = entry.get("name")
            elif key == "images":
                image_id = str(entry.get("image_id"))
                if rows is not None:
                    expected = rows[count].get("image_id") if count < len(rows) else None
                    in_order = in_order and image_id == expected
                if image_id in by_id:  # the text that is in memory already
                    image_id = by_id[image_id].get("image_id")
                image = _Image(image_id, entry.get("width"), entry.get("height"))
                images[_key(entry.get("id"))] = image
                count += 1
    for name in missing:
        faults.append(Fault(str(path), f"no list {name!r}", PREPARE_AGAIN))
    return images, names, in_order and (rows is None or count == len(rows))


def _annotations(path: Path) -> Iterator[dict[str, Any]]:
    for key, part in read_json_object(path):
        if key == "annotations" and isinstance(part, Iterator):
            yield from (entry for entry in part if isinstance(entry, dict))


def _key(identifier: Any) -> Any:
    """An id to look up, None for what cannot be one."""
    return identifier if isinstance(identifier, int | str) else None


def _check_shapes(
    annotation: Mapping[str, Any],
    image: _Image | None,
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
    width, height = image.width, image.height
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
    """The size of the pixels' file, its hash and blank images, all in one reading."""
    path = _pixels_path(dataset, folder)
    if path is None:
        return
    if not path.is_file():
        faults.append(Fault(str(path), "missing", PREPARE_AGAIN))
        return
    size, found = dataset["size"], path.stat().st_size
    expected = None if rows is None else len(rows) * size * size
    if expected is not None and found != expected:
        what = f"{found} bytes where {len(rows or ())} images of {size}×{size} need {expected}"
        faults.append(Fault(str(path), what, PREPARE_AGAIN))
    blank, digest = [], hashlib.sha256()
    with path.open("rb") as stream:
        image_by_image = expected == found
        parts = iter(lambda: stream.read(size * size if image_by_image else 1 << 20), b"")
        for index, content in enumerate(parts):
            digest.update(content)
            if image_by_image and content == content[:1] * len(content):
                blank.append(index)
    hashes = dataset.get("sha256")
    if isinstance(hashes, Mapping) and hashes.get(path.name) != digest.hexdigest():
        faults.append(_changed(path))
    for index in blank:
        faults.append(
            Fault(
                f"{path}, image {(rows or ())[index].get('image_id')!r}",
                "every pixel is the same",
                "drop it if it is a failed export",
                "warning",
            )
        )


def _pixels_path(dataset: Mapping[str, Any], folder: Path) -> Path | None:
    """The file of pixels that `dataset` names, None when its size makes no sense."""
    size = dataset.get("size")
    return folder / pixels_file(size) if isinstance(size, int) and size > 0 else None


def _check_sources(rows: Sequence[_Row], path: Path, faults: list[Fault]) -> None:
    """The original files, where they are still there: JPEG decoders pass a flipped byte."""
    missing = []
    for row in rows:
        source, stated = Path(row.get("source")), row.get("sha256")
        if not row.get("source") or not stated:
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
