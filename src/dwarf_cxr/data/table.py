"""A user's own radiographs as CSV tables.

`images.csv`, one row per radiograph: `image_id` or `path` or both, `patient_id`, optionally
`split` (train, val, test) and `text` (or `report_text`), and one column per finding. A label is 1
(present), 0 (absent) or empty (never assessed) and nothing else: -1, 0.5 or "nan" are refused,
because every tool means something different by them. The columns of `dwarf data prepare`'s own
images.csv are understood too; `source` then is the path.

`regions.csv`, if there is one, one row per box: `image_id`, `finding`, `x1`, `y1`, `x2`, `y2` in
pixels of the image file, optionally `annotator`.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from dwarf_cxr.data.geometry import fault_of
from dwarf_cxr.data.images import find_images, image_stem, only_image
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import Row, Table, listed, read_table
from dwarf_cxr.data.splits import NAMES as SPLIT_NAMES
from dwarf_cxr.errors import DataError, DwarfError
from dwarf_cxr.findings import SYNONYMS

IMAGES_TABLE = "images.csv"
REGIONS_TABLE = "regions.csv"

NOT_FINDINGS = (
    "image_id",
    "path",
    "patient_id",
    "split",
    "source",
    "sha256",
    "width",
    "height",
    "text",
    "report_text",
)
"""Columns of images.csv that have a meaning of their own; all others are findings."""

LABELS: Mapping[str, bool | None] = {"1": True, "0": False, "": None}


def read_csv(root: Path, *, name: str | None = None) -> SourceSet:
    """Read `images.csv` and, if there, `regions.csv` in the folder `root`.

    Images are found by `path` (from `root`, or absolute), or by `image_id` anywhere under `root`.

    Raises:
        DataError: the tables have faults; all that are found are listed, with file and line.
    """
    root = Path(root)
    table = read_table(root / IMAGES_TABLE, required=("patient_id",))
    if not {"image_id", "path", "source"} & set(table.columns):
        raise DataError(f"{table.path}: needs a column 'image_id' or 'path'")
    if {"text", "report_text"} <= set(table.columns):
        raise DataError(f"{table.path}: has both 'text' and 'report_text'; keep one of them")
    columns = [column for column in table.columns if column not in NOT_FINDINGS]
    findings = tuple(SYNONYMS.get(column, column) for column in columns)
    if not columns or "" in columns or len(set(findings)) != len(findings):
        raise DataError(
            f"{table.path}: needs one named column per finding, none of them twice; found "
            f"{listed(columns) or 'none'}"
        )
    faults: list[str] = []
    regions_path = root / REGIONS_TABLE
    known = {_image_id(row) for row in table.rows}
    regions = _read_regions(regions_path, known, findings, faults) if regions_path.exists() else {}
    files = find_images(root)
    lines: dict[str, int] = {}
    radiographs = []
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        image_id = _image_id(row)
        if image_id in lines:
            faults.append(
                f"{where}: image id {image_id!r} already stands in line {lines[image_id]}; "
                f"ids must differ"
            )
            continue
        lines[image_id] = row.line
        try:
            radiographs.append(
                _radiograph(table, row, dict(zip(columns, findings, strict=True)), files, root)
            )
        except DwarfError as fault:
            faults.append(str(fault))
    if not table.rows:
        faults.append(f"{table.path}: lists no image")
    if faults:
        raise DataError("\n".join(faults))
    with_regions = [
        Radiograph(
            image_id=one.image_id,
            patient_id=one.patient_id,
            path=one.path,
            labels=one.labels,
            regions=tuple(regions.get(one.image_id, ())),
            split=one.split,
            text=one.text,
        )
        for one in radiographs
    ]
    contradicted = [
        f"{one.image_id} ({region.finding})"
        for one in with_regions
        for region in one.regions
        if one.labels.get(region.finding) is not True
    ]
    notes = []
    if not regions_path.exists() and (root / "regions.json").exists():
        notes.append(
            "regions.json is not read by this format, so that no image has a region; to keep its "
            "regions, read it as coco"
        )
    if contradicted:
        notes.append(
            f"{len(contradicted)} boxes lie on findings that are not labelled 1; kept, the labels "
            f"stand: {listed(contradicted)}"
        )
    return SourceSet(
        name=name or root.resolve().name,
        findings=findings,
        radiographs=tuple(with_regions),
        source=str(table.path),
        licence="as stated by its owner",
        citation="",
        notes=tuple(notes),
    )


def _image_id(row: Row) -> str:
    fields = row.fields
    return fields.get("image_id") or image_stem(fields.get("path") or fields.get("source") or "")


def _radiograph(
    table: Table,
    row: Row,
    findings: Mapping[str, str],
    files: Mapping[str, tuple[Path, ...]],
    root: Path,
) -> Radiograph:
    """One row without its regions; all its faults are in one message."""
    where = f"{table.path}, line {row.line}"
    faults = []
    image_id = _image_id(row)
    if not image_id:
        faults.append(f"{where}: neither 'image_id' nor 'path' is filled in")
    if not row.fields["patient_id"]:
        faults.append(f"{where}: 'patient_id' is empty; fill it in")
    split = row.fields.get("split") or None
    if split is not None and split.lower() not in SPLIT_NAMES:
        faults.append(f"{where}, column 'split': {split!r}; write train, val or test")
    labels = {}
    for column, finding in findings.items():
        written = row.fields[column]
        if written not in LABELS:
            faults.append(
                f"{where}, column {column!r}: label {written!r}; write 1 (present), 0 (absent) or "
                f"nothing (never assessed)"
            )
        elif (label := LABELS[written]) is not None:
            labels[finding] = label
    given = row.fields.get("path") or row.fields.get("source") or ""
    path: Path | None = root / given
    if not given:
        path = only_image(image_stem(image_id), files)
        if path is None and image_id:
            faults.append(f"{where}: no PNG or JPEG named {image_id!r} under {root}; restore it")
    elif not (root / given).is_file():
        faults.append(f"{where}: {root / given}: no such file; restore it or correct 'path'")
    if faults or path is None:
        raise DataError("\n".join(faults))
    return Radiograph(
        image_id=image_id,
        patient_id=row.fields["patient_id"],
        path=path,
        labels=labels,
        split=None if split is None else SPLIT_NAMES[split.lower()],
        text=row.fields.get("text") or row.fields.get("report_text") or None,
    )


def _read_regions(
    path: Path, known: set[str], findings: tuple[str, ...], faults: list[str]
) -> dict[str, list[Region]]:
    """Regions by image id, which rows may write without its suffix; faults go to `faults`."""
    corners = ("x1", "y1", "x2", "y2")
    table = read_table(path, required=("image_id", "finding", *corners))
    by_stem: dict[str, list[str]] = {}
    for image_id in sorted(known):
        by_stem.setdefault(image_stem(image_id), []).append(image_id)
    regions: dict[str, list[Region]] = {}
    for row in table.rows:
        where = f"{path}, line {row.line}"
        written = row.fields["image_id"]
        meant = [written] if written in known else by_stem.get(image_stem(written), [])
        finding = SYNONYMS.get(row.fields["finding"], row.fields["finding"])
        if not meant:
            faults.append(f"{where}: image {written!r} is not in {IMAGES_TABLE}")
        elif len(meant) > 1:
            faults.append(
                f"{where}: image {written!r} can be any of {listed(meant)}; write the whole id"
            )
        if finding not in findings:
            faults.append(f"{where}: unknown finding {finding!r}; known: {', '.join(findings)}")
        numbers = [_number(row.fields[corner]) for corner in corners]
        box = Box(*numbers)
        if fault := fault_of(box):
            numbers_written = ", ".join(f"{corner}={row.fields[corner]!r}" for corner in corners)
            faults.append(f"{where}: {fault}: {numbers_written}; correct or drop the row")
        annotator = row.fields.get("annotator") or "unknown"
        for image_id in meant:
            regions.setdefault(image_id, []).append(Region(finding, box, annotator))
    return regions


def _number(written: str) -> float:
    """The number, or NaN for what is none."""
    try:
        return float(written)
    except ValueError:
        return math.nan
