"""What the sets made of CheXpert share: how views are named, and the tables of labels.

- A view is a file patient00001/study1/view1_frontal.jpg, whatever folders stand before it
  ("CheXpert-v1.0/train/", "CheXpert/val/", "test/"). Its id, here as in CheXlocalize, is
  patient00001_study1_view1_frontal; the name says whether it is frontal or lateral.
- A table has a row for each view: `Path`, and among others 14 columns with 1 (present), 0 (absent),
  -1 (uncertain) or nothing (not mentioned in the report). "No Finding" is no finding: not read.
- The labels of the training part were mined from reports; those of the validation and test parts
  are the majority of three and of five radiologists.
- Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
  Comparison, AAAI 2019.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dwarf_cxr.data.records import Finding
from dwarf_cxr.data.rows import read_table
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import CHEXPERT_13

PATIENTS_OF = "CheXpert"
"""All these sets number the same patients."""
LICENCE = "Stanford University Dataset Research Use Agreement (non-commercial research)"
CITATION = (
    "Irvin J, Rajpurkar P, Ko M, et al. CheXpert: A Large Chest Radiograph Dataset with "
    "Uncertainty Labels and Expert Comparison. AAAI 2019."
)

COLUMNS: Mapping[str, Finding] = {
    **{name: name for name in CHEXPERT_13 if name != "Effusion"},
    "Pleural Effusion": "Effusion",
}
"""Findings by their column."""

_VIEW = re.compile(
    r"(?:^|/)(patient\d+)/(study\d+)/(view\d+_(frontal|lateral))\.(?:jpg|jpeg|png)$", re.IGNORECASE
)
_VIEW_ID = re.compile(r"(patient\d+)_study\d+_view\d+_(frontal|lateral)")


@dataclass(frozen=True, slots=True)
class View:
    """One image of CheXpert."""

    image_id: str
    patient_id: str
    lateral: bool


@dataclass(frozen=True, slots=True)
class LabelledView:
    """A view and its row: what is certain, and what is uncertain; the rest is not mentioned."""

    view: View
    labels: Mapping[Finding, bool]
    uncertain: frozenset[Finding]


def view_of_path(path: str) -> View | None:
    """The view at the end of a path, or None when it is not named as CheXpert's are."""
    found = _VIEW.search(path.replace("\\", "/"))
    if found is None:
        return None
    patient, study, name, side = (part.lower() for part in found.groups())
    return View(f"{patient}_{study}_{name}", patient, side == "lateral")


def view_of_id(image_id: str) -> View | None:
    """The view of an id such as patient00001_study1_view1_frontal, or None when it is no such."""
    found = _VIEW_ID.fullmatch(image_id)
    return None if found is None else View(image_id, found[1], found[2] == "lateral")


def find_views(root: Path) -> dict[str, tuple[Path, ...]]:
    """All views anywhere under `root` by their id, in sorted order."""
    found: dict[str, list[Path]] = {}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            view = view_of_path(path.absolute().as_posix())
            if view is not None:
                found.setdefault(view.image_id, []).append(path)
    return {image_id: tuple(paths) for image_id, paths in found.items()}


def read_labelled_views(path: Path, *, only: Collection[str] | None = None) -> list[LabelledView]:
    """The views of one of CheXpert's tables, in order; of those in `only` (ids) if it is given.

    Raises:
        DataError: a column is missing, or rows are faulty; all of them are listed.
    """
    table = read_table(path, required=("Path", *COLUMNS))
    views: dict[str, LabelledView] = {}
    faults = []
    for row in table.rows:
        where, written = f"{path}, line {row.line}", row.fields["Path"]
        view = view_of_path(written)
        if view is None:
            faults.append(
                f"{where}: the path {written!r} does not end as patient00001/study1/"
                f"view1_frontal.jpg does; correct it"
            )
            continue
        if only is not None and view.image_id not in only:
            continue
        if view.image_id in views:
            faults.append(f"{where}: {view.image_id} is listed twice; drop one of the rows")
            continue
        labels: dict[Finding, bool] = {}
        doubtful = set()
        for column, finding in COLUMNS.items():
            value = _value(row.fields[column])
            if value is None:
                faults.append(
                    f"{where}, column {column!r}: label {row.fields[column]!r}; write 1, 0, -1 or "
                    f"nothing"
                )
            elif value == "uncertain":
                doubtful.add(finding)
            elif value != "unmentioned":
                labels[finding] = value == "present"
        views[view.image_id] = LabelledView(view, labels, frozenset(doubtful))
    if faults:
        raise DataError("\n".join(faults))
    return list(views.values())


def _value(written: str) -> Literal["present", "absent", "uncertain", "unmentioned"] | None:
    """What a cell says; None when it says none of these."""
    if not written:
        return "unmentioned"
    try:
        number = float(written)
    except ValueError:
        return None
    if number == 1:
        return "present"
    if number == 0:
        return "absent"
    return "uncertain" if number == -1 else None
