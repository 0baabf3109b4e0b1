"""CheXlocalize.

- The validation (234 views, 200 patients) and test sets (668 views, 500 patients) of CheXpert with
  the outlines that two radiologists drew; for judging models, there is no training part.
- `val_labels.csv` (or `valid.csv`) and `test_labels.csv`: 13 findings and "No Finding", by
  majority of radiologists; every finding is assessed on every view.
- `gt_annotations_val.json`, `gt_annotations_test.json`: id to `img_size` [height, width] and, for
  each of ten findings that is present, a list of outlines of [x, y], in pixels of the original
  image. Only views with one of the ten are in them (187 of the 234). They say "Airspace Opacity"
  where the tables say "Lung Opacity".
- `gt_segmentations_val.json`, `gt_segmentations_test.json`: id to finding to the union of its
  outlines as run lengths, {size: [height, width], counts}; all zero where it is absent. Read only
  where the annotations are not there.
- Lateral views are among them; they are left out unless asked for.
- Saporta et al., Benchmarking saliency methods for chest X-ray interpretation, Nature Machine
  Intelligence 4, 867-878, 2022.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dwarf_cxr.data.chexpert import (
    COLUMNS,
    LICENCE,
    PATIENTS_OF,
    LabelledView,
    find_views,
    read_labelled_views,
    view_of_id,
)
from dwarf_cxr.data.geometry import Frame, area, decompress_counts, fault_of
from dwarf_cxr.data.images import left_out, only_image
from dwarf_cxr.data.records import Finding, Mask, Polygon, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import only_file
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json
from dwarf_cxr.findings import CHEXLOCALIZE_10, CHEXPERT_13

TABLES: Mapping[str, tuple[str, ...]] = {
    "val": ("val_labels.csv", "valid.csv"),
    "test": ("test_labels.csv",),
}
"""Tables of labels by split; the first that is there is read."""

TASKS: Mapping[Finding, str] = {
    **{finding: column for column, finding in COLUMNS.items() if finding in CHEXLOCALIZE_10},
    "Lung Opacity": "Airspace Opacity",
}
"""The ten findings and what CheXlocalize's JSON files and scripts call them."""

NAMES: Mapping[str, Finding] = {task: finding for finding, task in TASKS.items()}
"""The JSON files' names of the findings; any other is an error."""

ANNOTATOR = "CheXlocalize radiologists"


@dataclass(frozen=True, slots=True)
class _Outlined:
    """The regions of one view, and (width, height) of the frame they are given in."""

    frame: Frame
    regions: tuple[Region, ...]
    without_area: int
    """How many outlines were left out, for they enclose nothing."""


def read_chexlocalize(
    root: Path, *, missing: Literal["error", "skip"] = "error", lateral: bool = False
) -> SourceSet:
    """Read CheXlocalize's tables, outlines and images, anywhere under `root`; either split or both.

    `missing` says what becomes of rows without an image: an error, or left out with a note;
    `lateral` keeps the lateral views. Outlines that enclose nothing are left out with a note; those
    on a finding that the labels call absent are kept, and counted in the notes.

    Raises:
        DataError: a table or image is missing, or rows or outlines are faulty; all are listed.
    """
    root = Path(root)
    tables = {split: only_file(root, *names) for split, names in TABLES.items()}
    if not any(tables.values()):
        names = ", ".join(name for names in TABLES.values() for name in names)
        raise DataError(
            f"{root}: holds none of {names}; give the folder of the official download (with "
            f"CheXpert and CheXlocalize in it) as --root"
        )
    notes = [f"no {TABLES[split][0]} under {root}" for split in TABLES if tables[split] is None]
    faults: list[str] = []
    rows: list[tuple[str, LabelledView]] = []
    outlined: dict[str, _Outlined] = {}
    for split, table in tables.items():
        if table is None:
            continue
        drawn, split_notes, split_faults = _read_outlines(root, split)
        notes += split_notes
        faults += split_faults
        try:
            labelled = read_labelled_views(table)
        except DataError as fault:
            faults.append(str(fault))
            continue
        rows += [(split, one) for one in labelled]
        unlisted = drawn.keys() - {one.view.image_id for one in labelled}
        if unlisted:
            notes.append(f"{len(unlisted)} outlined views are not listed in {table.name}")
        outlined |= drawn
    if faults:
        raise DataError("\n".join(faults))
    laterals = sum(one.view.lateral for _, one in rows)
    if laterals and not lateral:
        rows = [row for row in rows if not row[1].view.lateral]
        notes.append(f"{laterals} lateral views left out; --lateral keeps them")
    elif laterals:
        notes.append(f"{laterals} lateral views kept")
    images = find_views(root)
    absent = [one.view.image_id for _, one in rows if one.view.image_id not in images]
    notes += left_out(absent, len(rows), "listed views", root, missing)
    radiographs = []
    for split, one in rows:
        image = only_image(one.view.image_id, images)
        if image is None:
            continue
        drawn_here = outlined.get(one.view.image_id)
        radiographs.append(
            Radiograph(
                image_id=one.view.image_id,
                patient_id=one.view.patient_id,
                path=image,
                labels=one.labels,
                regions=() if drawn_here is None else drawn_here.regions,
                region_frame=None if drawn_here is None else drawn_here.frame,
                split=split,
            )
        )
    notes += _counted(radiographs, sum(one.without_area for one in outlined.values()))
    return SourceSet(
        name="CheXlocalize",
        findings=CHEXPERT_13,
        radiographs=tuple(radiographs),
        source="https://aimi.stanford.edu/datasets/chexlocalize",
        licence=LICENCE,
        citation=(
            "Saporta A, Gui X, Agrawal A, et al. Benchmarking saliency methods for chest X-ray "
            "interpretation. Nature Machine Intelligence 4, 867-878, 2022."
        ),
        notes=tuple(notes),
        patients_of=PATIENTS_OF,
    )


def original_sizes(path: Path) -> dict[str, Frame]:
    """(width, height) of the original of each view of a `gt_segmentations` file.

    Raises:
        DataError: the file or an entry is malformed.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: must map views to findings, as the official file does")
    sizes: dict[str, Frame] = {}
    for image_id, entry in document.items():
        encoded = list(entry.values()) if isinstance(entry, dict) else []
        frames = {_frame(one.get("size")) if isinstance(one, dict) else None for one in encoded}
        frame = frames.pop() if len(frames) == 1 else None
        if frame is None:
            raise DataError(
                f"{path}, {image_id}: must map findings to {{size: [height, width], counts}} of "
                f"one size; give the official gt_segmentations file"
            )
        sizes[image_id] = frame
    return sizes


def _counted(radiographs: Sequence[Radiograph], without_area: int) -> list[str]:
    """What labels and outlines disagree in, as notes."""
    notes = []
    if without_area:
        notes.append(f"{without_area} outlines enclose nothing (a point or a line); left out")
    contradicted = sum(
        len({region.finding for region in one.regions if not one.labels.get(region.finding)})
        for one in radiographs
    )
    if contradicted:
        notes.append(
            f"{contradicted} findings are outlined on views where the labels do not call them "
            f"present; kept"
        )
    bare = sum(
        one.labels.get(finding) is True and finding not in {each.finding for each in one.regions}
        for one in radiographs
        for finding in CHEXLOCALIZE_10
    )
    if bare:
        notes.append(f"{bare} present findings of the ten have no outline")
    return notes


def _read_outlines(root: Path, split: str) -> tuple[dict[str, _Outlined], list[str], list[str]]:
    """Outlined views of a split by id, notes, faults."""
    annotations = only_file(root, f"gt_annotations_{split}.json")
    segmentations = only_file(root, f"gt_segmentations_{split}.json")
    path = annotations or segmentations
    if path is None:
        return {}, [f"no gt_annotations_{split}.json under {root}: no view has a region"], []
    notes = [] if annotations else [f"no gt_annotations_{split}.json: {path.name} is read instead"]
    document = read_json(path)
    if not isinstance(document, dict):
        return {}, notes, [f"{path}: must map views to findings, as the official file does"]
    outlined: dict[str, _Outlined] = {}
    faults = []
    for image_id, entry in document.items():
        where = f"{path}, {image_id}"
        try:
            if view_of_id(image_id) is None:
                raise DataError(f"{where}: not an id such as patient00001_study1_view1_frontal")
            if not isinstance(entry, dict):
                raise DataError(f"{where}: must map findings to their outlines")
            outlined[image_id] = (
                _from_outlines(entry, where) if annotations else _from_run_lengths(entry, where)
            )
        except DataError as fault:
            faults.append(str(fault))
    return outlined, notes, faults


def _from_outlines(entry: Mapping[str, Any], where: str) -> _Outlined:
    """Raises DataError with all faults of the view."""
    faults: list[str] = []
    frame = _frame(entry.get("img_size"))
    if frame is None:
        faults.append(f"{where}: 'img_size' must be [height, width]")
    regions: list[Region] = []
    without_area = 0
    for name, outlines in entry.items():
        if name == "img_size":
            continue
        if name not in NAMES:
            faults.append(f"{where}: unknown finding {name!r}; known: {', '.join(NAMES)}")
        elif not isinstance(outlines, list):
            faults.append(f"{where}, {name}: must be a list of outlines of [x, y]")
        else:
            for number, outline in enumerate(outlines, start=1):
                shape = _polygon(outline)
                if shape is None:
                    faults.append(f"{where}, {name}, outline {number}: must be a list of [x, y]")
                elif len(shape.points) < 3 or area(shape) == 0:
                    without_area += 1
                elif fault := fault_of(shape):
                    faults.append(f"{where}, {name}, outline {number}: {fault}; correct or drop it")
                else:
                    regions.append(Region(NAMES[name], shape, ANNOTATOR))
    if faults or frame is None:
        raise DataError("\n".join(faults))
    return _Outlined(frame, tuple(regions), without_area)


def _from_run_lengths(entry: Mapping[str, Any], where: str) -> _Outlined:
    """Raises DataError with all faults of the view."""
    faults: list[str] = []
    regions: list[Region] = []
    frames = set()
    for name, encoded in entry.items():
        if name not in NAMES:
            faults.append(f"{where}: unknown finding {name!r}; known: {', '.join(NAMES)}")
            continue
        try:
            shape = _mask(encoded)
        except DataError as fault:
            faults.append(f"{where}, {name}: {fault}")
            continue
        frames.add((shape.width, shape.height))
        absent = area(shape) == 0 and sum(shape.counts) == shape.width * shape.height
        wrong = None if absent else fault_of(shape)
        if wrong:
            faults.append(f"{where}, {name}: {wrong}; correct or drop it")
        elif not absent:
            regions.append(Region(NAMES[name], shape, ANNOTATOR))
    if not faults and len(frames) != 1:
        sizes = ", ".join(f"{width}×{height}" for width, height in sorted(frames)) or "none"
        faults.append(f"{where}: its masks must have one size, found {sizes}")
    if faults:
        raise DataError("\n".join(faults))
    return _Outlined(frames.pop(), tuple(regions), 0)


def _frame(size: Any) -> Frame | None:
    """(width, height) of [height, width]; None when it is no such pair."""
    if not isinstance(size, list) or len(size) != 2:
        return None
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
        return None
    return size[1], size[0]


def _polygon(outline: Any) -> Polygon | None:
    """The outline of a list of [x, y], of any length; None when it is no such list."""
    if not isinstance(outline, list):
        return None
    if not all(isinstance(point, list) and len(point) == 2 for point in outline):
        return None
    if not all(
        isinstance(number, int | float) and not isinstance(number, bool)
        for point in outline
        for number in point
    ):
        return None
    try:
        return Polygon(np.array(outline, dtype=np.float64).reshape(-1, 2))
    except OverflowError:
        return None


def _mask(encoded: Any) -> Mask:
    """The mask of {size: [height, width], counts}.

    Raises:
        DataError: it is not of that form.
    """
    frame = _frame(encoded.get("size")) if isinstance(encoded, dict) else None
    if frame is None or not isinstance(encoded.get("counts"), str):
        raise DataError("must be run lengths, {size: [height, width], counts: text}")
    return Mask(frame[1], frame[0], decompress_counts(encoded["counts"]))
