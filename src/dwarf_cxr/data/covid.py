"""COVID-19 image data collection (Cohen et al.).

- Radiographs and CT images of patients with COVID-19 and other infections of the lung, taken from
  publications and public collections: `metadata.csv`, one row per image, and the folder `images`.
  The columns used are `patientid`, `finding`, `view`, `modality`, `folder`, `filename`, `license`
  and `clinical_notes`; a table with `patient_id`, `file` and `licence` instead is understood too.
- Only radiographs (`modality` X-ray, where there is such a column) are taken, and of them the
  frontal ones: `view` PA, AP, AP Supine, AP Erect. L is lateral; an empty or other view is unknown.
- `finding` is the diagnosis of the patient, as a path: `Pneumonia/Viral/COVID-19`. Early versions
  write its last part alone. From it come two labels. Pneumonia is present where the path names it,
  or a cause that the set files under it. COVID-19 is present where the path names it, and absent
  where it names another cause (SARS, Streptococcus, …). "No Finding" makes both absent. All else
  was not assessed: "todo", "Unknown", an empty field, Tuberculosis, ARDS, and COVID-19 where only
  Pneumonia, Viral, Bacterial or Fungal stands.
- A label is the patient's, not the film's: a film of a patient with COVID-19 can be normal.
- `clinical_notes` is the text: history, course and what the authors saw, often on several films of
  the patient at once, often with the diagnosis. It is not a report of the film.
- No regions, no official splits. Films of a patient come from several days.
- Licence: each image has its own, in the table.
- Cohen et al., COVID-19 Image Data Collection: Prospective Predictions Are the Future, Journal of
  Machine Learning for Biomedical Imaging, 2020 (arXiv:2006.11988).
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dwarf_cxr.data.images import find_images, image_stem, left_out, only_image
from dwarf_cxr.data.records import Finding, Radiograph, SourceSet
from dwarf_cxr.data.rows import Row, Table, read_table
from dwarf_cxr.data.views import View, chosen_views, views_note
from dwarf_cxr.errors import DataError, DwarfError

TABLE = "metadata.csv"
RADIOGRAPH = "X-ray"
FINDINGS: tuple[Finding, ...] = ("COVID-19", "Pneumonia")

ROOT_OF_PATHS = "Pneumonia"
KINDS = frozenset({"Pneumonia", "Viral", "Bacterial", "Fungal"})
"""Parts of a path that leave the cause of a pneumonia open."""

OTHER_CAUSES = frozenset(
    {
        "Aspergillosis",
        "Aspiration",
        "Chlamydophila",
        "E.Coli",
        "H1N1",
        "Herpes",
        "Influenza",
        "Klebsiella",
        "Legionella",
        "Lipoid",
        "MERS",
        "MERS-CoV",
        "MRSA",
        "Mycoplasma",
        "Mycoplasma Bacterial Pneumonia",
        "Nocardia",
        "Pneumocystis",
        "SARS",
        "Staphylococcus",
        "Streptococcus",
        "Varicella",
    }
)
"""Causes of a pneumonia that early versions of the table write without its path."""

NOT_SAID = frozenset({"", "todo", "Unknown", "ARDS", "Tuberculosis"})
"""Entries that say neither that there is a pneumonia nor that there is none."""

NOTHING = "No Finding"


@dataclass(frozen=True, slots=True)
class _Columns:
    """How this version of the table calls what is read."""

    patient: str
    file: str
    licence: str | None


def read_covid(
    root: Path,
    *,
    missing: Literal["error", "skip"] = "error",
    lateral: bool = False,
    unknown_views: bool = False,
) -> SourceSet:
    """Read the radiographs of the collection from `metadata.csv` and the images under `root`.

    Films known to be frontal are taken, with `lateral` the lateral ones too, and with
    `unknown_views` those whose view the table does not tell. `missing` says what becomes of rows
    without an image: an error, or left out with a note.

    Raises:
        DataError: the table or images are missing, a row cannot be understood; lists all.
    """
    root = Path(root)
    table = read_table(_find_table(root), required=("finding", "view"))
    columns = _columns_of(table)
    radiographs = [
        row for row in table.rows if row.fields.get("modality", RADIOGRAPH) == RADIOGRAPH
    ]
    notes = []
    if len(radiographs) < len(table.rows):
        others = len(table.rows) - len(radiographs)
        notes.append(f"{others} of {len(table.rows)} images are no radiographs; left out")
    labels = _labels_by_line(table, radiographs, columns)
    chosen = chosen_views(lateral=lateral, unknown_views=unknown_views)
    notes.append(views_note([view_of(row.fields["view"]) for row in radiographs], chosen))
    wanted = [row for row in radiographs if view_of(row.fields["view"]) in chosen]
    files = _files_of(root, table, wanted, columns)
    absent = [row.fields[columns.file] for row in wanted if files.get(row.line) is None]
    if not wanted:
        raise DataError(f"{table.path}: lists no radiograph of the views asked for")
    notes += left_out(absent, len(wanted), f"images of {table.path}", root, missing)
    found = [(row, path) for row in wanted if (path := files.get(row.line)) is not None]
    if columns.licence is not None:
        licences = Counter(row.fields[columns.licence] or "not stated" for row, _ in found)
        stated = ", ".join(f"{name} {count}" for name, count in licences.most_common())
        notes.append(f"licences of the images: {stated}")
    return SourceSet(
        name="COVID-19 image data collection",
        findings=FINDINGS,
        radiographs=tuple(
            Radiograph(
                image_id=row.fields.get("image_id") or image_stem(path.name),
                patient_id=row.fields[columns.patient],
                path=path,
                labels=labels[row.line],
                text=" ".join(row.fields.get("clinical_notes", "").split()) or None,
            )
            for row, path in found
        ),
        source="https://github.com/ieee8023/covid-chestxray-dataset",
        licence="each image its own; see metadata.csv",
        citation=(
            "Cohen JP, Morrison P, Dao L, Roth K, Duong TQ, Ghassemi M. COVID-19 Image Data "
            "Collection: Prospective Predictions Are the Future. Journal of Machine Learning for "
            "Biomedical Imaging, 2020."
        ),
        notes=tuple(notes),
    )


def labels_of(finding: str) -> dict[Finding, bool]:
    """What an entry of the column `finding` says of COVID-19 and Pneumonia.

    Raises:
        DataError: a part of it is unknown, outside Pneumonia/….
    """
    if finding == NOTHING:
        return {"COVID-19": False, "Pneumonia": False}
    parts = [part.strip() for part in re.split(r"[/,]", finding)]
    causes = {part for part in parts if part not in KINDS and part not in NOT_SAID}
    if parts[0] != ROOT_OF_PATHS and (unknown := causes - OTHER_CAUSES - {"COVID-19"}):
        raise DataError(
            f"unknown finding {', '.join(map(repr, sorted(unknown)))}; write it as a path that "
            f"begins with Pneumonia, or {NOTHING}, or todo"
        )
    if "COVID-19" in causes:
        return {"COVID-19": True, "Pneumonia": True}
    if causes:
        return {"COVID-19": False, "Pneumonia": True}
    return {"Pneumonia": True} if KINDS & set(parts) else {}


def view_of(view: str) -> View:
    """The view that an entry of the column `view` names."""
    if re.match(r"(PA|AP)\b", view):
        return "frontal"
    return "lateral" if view in ("L", "Lateral") else "unknown"


def _find_table(root: Path) -> Path:
    if (root / TABLE).is_file():
        return root / TABLE
    found = min(root.rglob(TABLE), default=None)
    if found is None:
        raise DataError(f"{root}: holds no {TABLE}; give the folder of the collection as --root")
    return found


def _columns_of(table: Table) -> _Columns:
    def first(*names: str) -> str | None:
        return next((name for name in names if name in table.columns), None)

    patient, file = first("patientid", "patient_id"), first("filename", "file")
    if patient is None or file is None:
        raise DataError(
            f"{table.path}: no column 'patientid' or no column 'filename'; its columns are "
            f"{', '.join(map(repr, table.columns))}"
        )
    return _Columns(patient, file, first("license", "licence"))


def _labels_by_line(
    table: Table, rows: list[Row], columns: _Columns
) -> dict[int, dict[Finding, bool]]:
    """Labels by line of the table; all faults of its rows in one message."""
    labels: dict[int, dict[Finding, bool]] = {}
    faults = []
    for row in rows:
        where = f"{table.path}, line {row.line}"
        if not row.fields[columns.patient] or not row.fields[columns.file]:
            faults.append(f"{where}: no patient or no file name; fill it in")
        try:
            labels[row.line] = labels_of(row.fields["finding"])
        except DataError as fault:
            faults.append(f"{where}: {fault}")
    if faults:
        raise DataError("\n".join(faults))
    return labels


def _files_of(
    root: Path, table: Table, rows: list[Row], columns: _Columns
) -> dict[int, Path | None]:
    """The image of each row, by line: where the table says, or elsewhere by its name's stem."""
    images = find_images(root)
    files: dict[int, Path | None] = {}
    faults = []
    for row in rows:
        written = row.fields[columns.file]
        direct = table.path.parent / row.fields.get("folder", "") / written
        try:
            found = direct if direct.is_file() else only_image(image_stem(written), images)
        except DwarfError as fault:
            faults.append(str(fault))
            continue
        files[row.line] = found
    if faults:
        raise DataError("\n".join(faults))
    return files
