"""CheXpert with the boxes of HAM's authors.

- 6,101 boxes of nine findings on 2,348 views of CheXpert (2,200 of its training part, 148 of its
  validation part), drawn by one radiologist of more than ten years; some views are lateral. The
  read-me says 6,099 and 2,345.
- `BBoxes.json`: "train/patient00001/study1/view1_frontal.jpg" to finding to a list of
  [x1, y1, x2, y2] in pixels of the original image (NIH's are x, y, width, height). Names have
  underscores; two are also misspelt: "edema" (44 boxes), "Enlarg_Cardiomediastinum" (25).
- The sizes of the original images are not given: the boxes fit only CheXpert at full size, not
  "CheXpert-v1.0-small".
- Labels: CheXpert's `train.csv` (mined from reports) and `valid.csv` (majority of three
  radiologists). Only views with boxes are read.
- Splits: CheXpert's training part trains, its validation part tests; validation is carved out of
  train. The 148 test views are also among CheXlocalize's validation views.
- Licence: none is stated for the boxes; the images are CheXpert's, for research only.
- Ouyang et al., Learning Hierarchical Attention for Weakly-supervised Chest X-Ray Abnormality
  Localization and Diagnosis, IEEE Transactions on Medical Imaging 40(10), 2698-2710, 2021.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dwarf_cxr.data.chexpert import (
    CITATION,
    LICENCE,
    PATIENTS_OF,
    LabelledView,
    View,
    find_views,
    read_labelled_views,
    view_of_path,
)
from dwarf_cxr.data.geometry import fault_of
from dwarf_cxr.data.images import left_out, only_image
from dwarf_cxr.data.records import Box, Finding, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import listed, only_file
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json
from dwarf_cxr.findings import CHEXPERT_13, CHEXPERT_BOXED_9

UncertainPolicy = Literal["ignore", "absent", "present"]
"""What an uncertain label without a box becomes: never assessed, 0 or 1."""

BOX_FILE = "BBoxes.json"
TABLES: Mapping[str, str] = {"train": "train.csv", "valid": "valid.csv"}
"""Tables of labels by the first folder of a view's key."""

SPLITS: Mapping[str, str] = {"train": "train", "valid": "test"}

NAMES: Mapping[str, Finding] = {
    **{name.replace(" ", "_"): name for name in CHEXPERT_BOXED_9 if name != "Effusion"},
    "Pleural_Effusion": "Effusion",
    "edema": "Edema",
    "Enlarg_Cardiomediastinum": "Enlarged Cardiomediastinum",
}
"""The file's names of the findings; any other is an error."""

MISSPELT = ("edema", "Enlarg_Cardiomediastinum")

ANNOTATOR = "HAM radiologist"


@dataclass(frozen=True, slots=True)
class _Boxed:
    """A view of the box file, the part of CheXpert it is in, and its boxes."""

    view: View
    part: str
    regions: tuple[Region, ...]
    misspelt: tuple[str, ...]
    without_area: int


def read_chexpert_boxes(
    root: Path,
    *,
    missing: Literal["error", "skip"] = "error",
    lateral: bool = False,
    uncertain: UncertainPolicy = "ignore",
    assume_absent: bool = False,
) -> SourceSet:
    """Read the boxes, CheXpert's tables and the boxed images, anywhere under `root`.

    A finding with a box is present where the table is silent or uncertain; where the table calls
    it absent the label stands and the box is kept, counted in the notes. Boxes without area are
    left out with a note.

    Args:
        missing: what becomes of boxed views without an image: an error, or left out with a note.
        lateral: keep the lateral views.
        uncertain: what an uncertain label without a box becomes: never assessed, 0 or 1.
        assume_absent: take findings that the report does not mention as absent, not as never
            assessed.

    Raises:
        DataError: a file or image is missing, or entries are faulty; all of them are listed.
    """
    root = Path(root)
    path = only_file(root, BOX_FILE)
    if path is None:
        raise DataError(
            f"{root}: holds no {BOX_FILE}; put the one of github.com/oyxhust/HAM (under "
            f"datasets/CheXpert/Annotations) beside CheXpert and give their folder as --root"
        )
    boxed, faults = _read_boxes(path)
    if faults:
        raise DataError("\n".join(faults))
    notes = []
    laterals = sum(one.view.lateral for one in boxed)
    if laterals and not lateral:
        boxed = [one for one in boxed if not one.view.lateral]
        notes.append(f"{laterals} lateral views left out; --lateral keeps them")
    elif laterals:
        notes.append(f"{laterals} lateral views kept")
    labelled = _read_labels(root, path, boxed)
    images = find_views(root)
    absent = [one.view.image_id for one in boxed if one.view.image_id not in images]
    notes += left_out(absent, len(boxed), "boxed views", root, missing)
    radiographs = []
    for one in boxed:
        image = only_image(one.view.image_id, images)
        if image is None:
            continue
        if any(part.lower().endswith("-small") for part in image.absolute().parts):
            raise DataError(
                f"{image}: the boxes are in pixels of the original images; use CheXpert at full "
                f"size, not its small version"
            )
        shown = {region.finding for region in one.regions}
        radiographs.append(
            Radiograph(
                image_id=one.view.image_id,
                patient_id=one.view.patient_id,
                path=image,
                labels=_decided(labelled[one.view.image_id], shown, uncertain, assume_absent),
                regions=one.regions,
                split=SPLITS[one.part],
            )
        )
    there = {one.image_id for one in radiographs}
    kept = [one for one in boxed if one.view.image_id in there]
    notes += _counted(kept, labelled, uncertain, assume_absent)
    return SourceSet(
        name="CheXpert with HAM's boxes",
        findings=CHEXPERT_13,
        radiographs=tuple(radiographs),
        source="https://github.com/oyxhust/HAM; images: https://aimi.stanford.edu/datasets",
        licence=f"boxes: none stated; images: {LICENCE}",
        citation=(
            "Ouyang X, Karanam S, Wu Z, Chen T, Huo J, Zhou XS, Wang Q, Cheng JZ. Learning "
            "Hierarchical Attention for Weakly-supervised Chest X-Ray Abnormality Localization "
            f"and Diagnosis. IEEE TMI 40(10), 2698-2710, 2021. {CITATION}"
        ),
        notes=tuple(notes),
        patients_of=PATIENTS_OF,
    )


def _read_boxes(path: Path) -> tuple[list[_Boxed], list[str]]:
    """Boxed views in the file's order, and faults."""
    document = read_json(path)
    if not isinstance(document, dict) or not document:
        return [], [f"{path}: must map views to findings to boxes, as the official file does"]
    boxed: dict[str, _Boxed] = {}
    faults: list[str] = []
    for key, entry in document.items():
        where = f"{path}, {key}"
        view, part = view_of_path(key), key.split("/", 1)[0]
        if view is None or part not in TABLES:
            faults.append(
                f"{where}: not a path such as train/patient00001/study1/view1_frontal.jpg or "
                f"valid/…; is it the box file of another data set?"
            )
        elif view.image_id in boxed:
            faults.append(f"{where}: {view.image_id} stands there twice; keep one of them")
        elif not isinstance(entry, dict):
            faults.append(f"{where}: must map findings to lists of boxes")
        else:
            regions, without_area, bad = _read_view(entry, where)
            faults += bad
            misspelt = tuple(name for name in entry if name in MISSPELT)
            boxed[view.image_id] = _Boxed(view, part, tuple(regions), misspelt, without_area)
    return list(boxed.values()), faults


def _read_view(entry: Mapping[str, Any], where: str) -> tuple[list[Region], int, list[str]]:
    """Regions, how many boxes have no area, and faults."""
    regions: list[Region] = []
    faults: list[str] = []
    without_area = 0
    for name, boxes in entry.items():
        if name not in NAMES:
            faults.append(f"{where}: unknown finding {name!r}; known: {', '.join(NAMES)}")
            continue
        for number, corners in enumerate(boxes if isinstance(boxes, list) else [boxes], start=1):
            if not (
                isinstance(corners, list)
                and len(corners) == 4
                and all(isinstance(n, int | float) and not isinstance(n, bool) for n in corners)
                and all(map(math.isfinite, corners))
            ):
                faults.append(f"{where}, {name}, box {number}: must be [x1, y1, x2, y2]")
                continue
            box = Box(*map(float, corners))
            if fault_of(box):
                without_area += 1
            else:
                regions.append(Region(NAMES[name], box, ANNOTATOR))
    return regions, without_area, faults


def _read_labels(root: Path, box_file: Path, boxed: list[_Boxed]) -> dict[str, LabelledView]:
    """The row of every boxed view by id."""
    labelled: dict[str, LabelledView] = {}
    faults = []
    for part, name in TABLES.items():
        wanted = {one.view.image_id for one in boxed if one.part == part}
        if not wanted:
            continue
        table = only_file(root, name)
        if table is None:
            faults.append(f"{root}: no {name}, the labels of CheXpert's {part} part; put it there")
            continue
        try:
            rows = read_labelled_views(table, only=wanted)
        except DataError as fault:
            faults.append(str(fault))
            continue
        labelled |= {one.view.image_id: one for one in rows}
        unlisted = sorted(wanted - labelled.keys())
        if unlisted:
            faults.append(
                f"{table}: {len(unlisted)} views of {box_file.name} are not listed: "
                f"{listed(unlisted)}; use the whole official table"
            )
    if faults:
        raise DataError("\n".join(faults))
    return labelled


def _decided(
    row: LabelledView,
    boxed: set[Finding],
    uncertain: UncertainPolicy,
    assume_absent: bool,
) -> dict[Finding, bool]:
    """The labels: what the table is certain of, then what is boxed, then what the policies say."""
    labels = dict.fromkeys(CHEXPERT_13, False) if assume_absent else {}
    for finding in row.uncertain:
        labels.pop(finding, None)
    if uncertain != "ignore":
        labels |= dict.fromkeys(row.uncertain, uncertain == "present")
    return {**labels, **dict.fromkeys(boxed, True), **row.labels}


def _counted(
    boxed: list[_Boxed],
    labelled: Mapping[str, LabelledView],
    uncertain: UncertainPolicy,
    assume_absent: bool,
) -> list[str]:
    """The counts and the policy that a user should know, as notes."""
    becomes = {"ignore": "as never assessed", "absent": "as absent", "present": "as present"}
    regions = sum(len(one.regions) for one in boxed)
    rows = [(one, labelled[one.view.image_id]) for one in boxed]
    notes = [f"{regions} boxes on {len(boxed)} views"]
    misspelt = Counter(name for one in boxed for name in one.misspelt)
    notes += [
        f"{name!r} was read as {NAMES[name]!r} on {count} views" for name, count in misspelt.items()
    ]
    doubtful = sum(len(row.uncertain) for _, row in rows)
    if doubtful:
        notes.append(
            f"{doubtful} labels are uncertain; taken {becomes[uncertain]} where there is no box"
        )
    notes.append(
        "findings that the report does not mention and that have no box were taken as "
        + ("absent" if assume_absent else "never assessed")
    )
    decided = contradicted = 0
    for one, row in rows:
        for finding in {region.finding for region in one.regions}:
            if finding not in row.labels:
                decided += 1
            elif not row.labels[finding]:
                contradicted += 1
    if decided:
        notes.append(f"{decided} findings were taken as present for their boxes alone")
    if contradicted:
        notes.append(f"{contradicted} boxed findings are absent by the labels; the labels stand")
    without_area = sum(one.without_area for one in boxed)
    if without_area:
        notes.append(f"{without_area} boxes have no area; left out")
    return notes
