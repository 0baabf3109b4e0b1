"""Indiana University chest X-ray collection (Open-i).

- 7,470 films, frontal and lateral, of 3,955 reports; 104 reports have no film. No patient is known
  but by report, so every report counts as a patient of its own.
- `NLMCXR_reports.tgz`, or what it unpacks to, `ecgen-radiology/*.xml`: one file per report, with
  its id (`uId`), the sections FINDINGS and IMPRESSION, indexing terms (`MeSH`) and its films
  (`parentImage`, with the name of the file in `NLMCXR_png.tgz`).
- Text is FINDINGS and IMPRESSION. Words that were removed to hide the patient read XXXX and stay.
- Labels come from the terms under `major`, which people assigned: `normal` alone means that every
  finding is absent; a term of `TERMS` means that its finding is present; all else was not assessed,
  since a report that is indexed with one finding may well describe another. The terms under
  `automatic` are a program's and are not used.
- Views: `nlmcxr_dicom_metadata.csv`, also as `.gz`, has the View Position of the DICOM originals.
  It is empty for a third of the films, and often wrong: of 1,220 reports with two films that it
  both calls PA or AP, 1,018 announce a lateral view. So a film counts as lateral where it says so,
  and as frontal only where it also calls another film of the same report lateral; others are
  unknown. A table `indiana_projections.csv` (columns `filename`, `projection`: Frontal or Lateral),
  such as the one that came with a copy of the set on Kaggle, goes before it.
- No regions.
- Licence: CC BY-NC-ND 4.0.
- Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and
  retrieval, Journal of the American Medical Informatics Association 23(2), 2016.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from dwarf_cxr.data.images import find_images, image_stem, left_out
from dwarf_cxr.data.records import Finding, Radiograph, SourceSet
from dwarf_cxr.data.rows import listed, read_table
from dwarf_cxr.data.views import View, chosen_views, views_note
from dwarf_cxr.errors import DataError

ARCHIVE = "NLMCXR_reports.tgz"
FOLDER = "ecgen-radiology"
DICOM_TABLES = ("nlmcxr_dicom_metadata.csv", "nlmcxr_dicom_metadata.csv.gz")
PROJECTIONS_TABLE = "indiana_projections.csv"

FINDINGS: tuple[Finding, ...] = (
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Fracture",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumonia",
    "Pneumothorax",
)

TERMS: Mapping[str, tuple[Finding, ...]] = {
    "Bullous Emphysema": ("Emphysema",),
    "Calcified Granuloma": ("Calcification",),
    "Calcinosis": ("Calcification",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Consolidation": ("Consolidation",),
    "Emphysema": ("Emphysema",),
    "Fractures, Bone/clavicle": ("Fracture",),
    "Fractures, Bone/ribs": ("Fracture",),
    "Hemopneumothorax": ("Pneumothorax", "Effusion"),
    "Hernia, Diaphragmatic": ("Hernia",),
    "Hernia, Hiatal": ("Hernia",),
    "Hydropneumothorax": ("Pneumothorax", "Effusion"),
    "Infiltrate": ("Infiltration",),
    "Mass/lung": ("Mass",),
    "Nodule/lung": ("Nodule",),
    "Pleural Effusion": ("Effusion",),
    "Pneumonia": ("Pneumonia",),
    "Pneumothorax": ("Pneumothorax",),
    "Pulmonary Atelectasis": ("Atelectasis",),
    "Pulmonary Edema": ("Edema",),
    "Pulmonary Emphysema": ("Emphysema",),
    "Pulmonary Fibrosis": ("Fibrosis",),
    "Thickening/pleura": ("Pleural Thickening",),
}
"""Indexing terms that clearly are a finding. A term also stands for all that qualifies it further:
"Nodule/lung" for "Nodule/lung/apex/right", but not for "Nodule/thorax/left"."""

NORMAL = "normal"

POSITIONS: Mapping[str, View] = {
    "PA": "frontal",
    "AP": "frontal",
    "LL": "lateral",
    "RL": "lateral",
    "LATERAL": "lateral",
    "LARGE LATERAL": "lateral",
    "": "unknown",
}
"""Values of View Position; any other is an error."""

PROJECTIONS: Mapping[str, View] = {"Frontal": "frontal", "Lateral": "lateral"}

SECTIONS = ("FINDINGS", "IMPRESSION")

_SAME_NUMBER_TWICE = re.compile(r"^(\d+)_\1_")


@dataclass(frozen=True, slots=True)
class Report:
    """One report: its id, its text, the terms that people indexed it with, its films."""

    uid: str
    text: str | None
    terms: tuple[str, ...]
    images: tuple[str, ...]


def read_openi(
    root: Path,
    *,
    missing: Literal["error", "skip"] = "error",
    lateral: bool = False,
    unknown_views: bool = False,
) -> SourceSet:
    """Read the collection from its reports, view tables and images, anywhere under `root`.

    Films known to be frontal are taken, with `lateral` the lateral ones too, and with
    `unknown_views` those whose view no table tells. `missing` says what becomes of films without an
    image file: an error, or left out with a note.

    Raises:
        DataError: reports or images are missing, a report or row cannot be understood; lists all.
    """
    root = Path(root)
    reports = read_reports(root)
    views = _views(root, reports)
    chosen = chosen_views(lateral=lateral, unknown_views=unknown_views)
    notes = [
        "every report counts as a patient of its own: nobody is known by more than one report",
        views_note(views.values(), chosen),
    ]
    wanted = [
        (report, image) for report in reports for image in report.images if views[image] in chosen
    ]
    if not wanted:
        raise DataError(
            f"{root}: none of {len(views)} films is of a view that was asked for; put "
            f"{DICOM_TABLES[0]} or {PROJECTIONS_TABLE} there, or use --unknown-views"
        )
    files = _files_by_film(root)
    absent = [image for _, image in wanted if _film(image) not in files]
    notes += left_out(absent, len(wanted), "films", root, missing)
    radiographs = tuple(
        Radiograph(
            image_id=image,
            patient_id=report.uid,
            path=files[_film(image)],
            labels=labels_of(report.terms),
            text=report.text,
        )
        for report, image in wanted
        if _film(image) in files
    )
    silent = sum(one.text is None for one in radiographs)
    if silent:
        notes.append(f"{silent} films have a report without findings and impression: no text")
    return SourceSet(
        name="Indiana University chest X-rays",
        findings=FINDINGS,
        radiographs=radiographs,
        source="https://openi.nlm.nih.gov/faq",
        licence="CC BY-NC-ND 4.0",
        citation=(
            "Demner-Fushman D, Kohli MD, Rosenman MB, Shooshan SE, Rodriguez L, Antani S, Thoma "
            "GR, McDonald CJ. Preparing a collection of radiology examinations for distribution "
            "and retrieval. J Am Med Inform Assoc 23(2):304-310, 2016."
        ),
        notes=tuple(notes),
    )


def read_reports(root: Path) -> tuple[Report, ...]:
    """The reports in `root`, in the order of their numbers: unpacked, or else from the archive.

    Raises:
        DataError: there are none, or some cannot be understood; lists all.
    """
    root = Path(root)
    faults: list[str] = []
    reports: list[Report] = []
    seen: dict[str, str] = {}
    for where, content in _documents(root):
        try:
            report = _read_report(content, where)
        except DataError as fault:
            faults.append(str(fault))
            continue
        for key in (report.uid, *report.images):
            if key in seen:
                faults.append(f"{where}: {key!r} also stands in {seen[key]}; keep one")
            seen.setdefault(key, where)
        reports.append(report)
    if faults:
        raise DataError("\n".join(faults))
    if not reports:
        raise DataError(f"{root}: the reports are empty; fetch {ARCHIVE} again")
    return tuple(sorted(reports, key=lambda report: (len(report.uid), report.uid)))


def labels_of(terms: Sequence[str]) -> dict[Finding, bool]:
    """What indexing terms say: a finding is present, or all are absent; the others not assessed."""
    if [term.lower() for term in terms] == [NORMAL]:
        return dict.fromkeys(FINDINGS, False)
    present = {
        finding
        for term in terms
        for known, findings in TERMS.items()
        if term == known or term.startswith(f"{known}/")
        for finding in findings
    }
    return {finding: True for finding in FINDINGS if finding in present}


def _documents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every report file."""
    folders = [root] if root.name == FOLDER else sorted(root.rglob(FOLDER))
    folders = [folder for folder in folders if folder.is_dir()]
    archives = sorted(root.rglob(ARCHIVE))
    if len(folders) > 1 or (not folders and len(archives) > 1):
        several = listed([str(path) for path in (folders or archives)])
        raise DataError(f"{root}: the reports lie there more than once: {several}; keep one")
    if folders:
        for path in sorted(folders[0].glob("[!.]*.xml")):
            try:
                yield str(path), path.read_bytes()
            except OSError as fault:
                raise DataError(f"{path}: cannot be read ({fault.strerror})") from None
    elif archives:
        yield from _members(archives[0])
    else:
        raise DataError(
            f"{root}: holds neither {ARCHIVE} nor the folder {FOLDER}; give the folder of the "
            f"official download as --root"
        )


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive) as files:
            for member in files:
                name = member.name.rsplit("/", 1)[-1]
                content = files.extractfile(member) if member.isfile() else None
                if content is not None and name.endswith(".xml") and not name.startswith("."):
                    yield f"{archive}, {member.name}", content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as fault:
        raise DataError(f"{archive}: damaged archive ({fault}); fetch it again") from None


def _read_report(content: bytes, where: str) -> Report:
    try:
        document = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as fault:
        raise DataError(f"{where}: not XML ({fault}); fetch it again") from None
    uid = document.find("uId")
    number = "" if uid is None else uid.get("id", "").strip()
    images = [image.get("id", "").strip() for image in document.iter("parentImage")]
    if not number or not all(images):
        raise DataError(f"{where}: a report or film without id; fetch it again")
    sections = {
        section.get("Label", "").upper(): " ".join("".join(section.itertext()).split())
        for section in document.iter("AbstractText")
    }
    text = " ".join(sections[name] for name in SECTIONS if sections.get(name))
    terms = [(term.text or "").strip() for term in document.iterfind("MeSH/major")]
    return Report(number, text or None, tuple(term for term in terms if term), tuple(images))


def _film(name: str) -> str:
    """What the names of one film have in common.

    The reports say CXR1_1_IM-0001-3001, the DICOM table CXR1_IM-0001-3001, and copies of the files
    1_IM-0001-3001.dcm.png.
    """
    stem = image_stem(image_stem(name))
    return _SAME_NUMBER_TWICE.sub(r"\1_", stem.removeprefix("CXR"))


def _files_by_film(root: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    faults = []
    for paths in find_images(root).values():
        for path in paths:
            other = files.setdefault(_film(path.name), path)
            if other is not path:
                faults.append(f"{path}: the same film as {other}; keep one of them")
    if faults:
        raise DataError("\n".join(faults))
    return files


def _views(root: Path, reports: Sequence[Report]) -> dict[str, View]:
    """The view of every film, by image id; see the head of this file for the rule."""
    called = _called_by_dicom(root)
    projected = _called_by_projections(root)
    views: dict[str, View] = {}
    for report in reports:
        words = {image: called.get(_film(image), "unknown") for image in report.images}
        told_apart = "lateral" in words.values()
        for image, view in words.items():
            trusted: View = view if told_apart or view == "lateral" else "unknown"
            views[image] = projected.get(_film(image), trusted)
    return views


def _called_by_dicom(root: Path) -> dict[str, View]:
    paths = [path for name in DICOM_TABLES for path in sorted(root.rglob(name))]
    if not paths:
        return {}
    table = read_table(paths[0], required=("imageid", "View Position"))
    views: dict[str, View] = {}
    faults = []
    for row in table.rows:
        position = row.fields["View Position"]
        if position in POSITIONS:
            views[_film(row.fields["imageid"])] = POSITIONS[position]
        else:
            faults.append(
                f"{table.path}, line {row.line}: unknown View Position {position!r}; known: "
                f"{', '.join(filter(None, POSITIONS))}, or nothing"
            )
    if faults:
        raise DataError("\n".join(faults))
    return views


def _called_by_projections(root: Path) -> dict[str, View]:
    path = min(root.rglob(PROJECTIONS_TABLE), default=None)
    if path is None:
        return {}
    table = read_table(path, required=("filename", "projection"))
    views: dict[str, View] = {}
    faults = []
    for row in table.rows:
        projection = row.fields["projection"]
        if projection.capitalize() in PROJECTIONS:
            views[_film(row.fields["filename"])] = PROJECTIONS[projection.capitalize()]
        else:
            faults.append(
                f"{path}, line {row.line}: unknown projection {projection!r}; write "
                f"{' or '.join(PROJECTIONS)}"
            )
    if faults:
        raise DataError("\n".join(faults))
    return views
