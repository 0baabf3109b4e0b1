"""A hospital's export: a folder tree, or a DICOMDIR, of DICOM files.

Files are known by their content; what is no radiograph (other modalities, raw detector images,
reports, files that are no DICOM) is left out and counted. Labels come from a CSV table, or there
are none. Nobody's name or id, and no path, which may hold one, leaves here but for the link table
(`data/identity.py`): an image is called by the pseudonym of its SOPInstanceUID, a patient by that
of their PatientID. Names are not even read.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID

from dwarf_cxr.data.dicom import MODALITIES, guarded, parse
from dwarf_cxr.data.identity import LinkTable, link_table
from dwarf_cxr.data.images import DICOM_MARK, is_dicom
from dwarf_cxr.data.records import Radiograph, SourceSet
from dwarf_cxr.data.rows import Row, doubles, listed, read_table
from dwarf_cxr.data.splits import NAMES as SPLIT_NAMES
from dwarf_cxr.data.table import LABELS
from dwarf_cxr.errors import ConfigError, DataError, ImageError
from dwarf_cxr.files import sha256_of
from dwarf_cxr.findings import SYNONYMS

KEYS = ("SOPInstanceUID", "StudyInstanceUID", "path", "image_id")
"""Columns of a table of labels that can say which image, or which study, a row is about."""

_REFUSED_COLUMNS = ("text", "patient_id", "PatientID", "PatientName")
"""Columns that would carry identities into the data; as findings they make no sense anyway."""

_READ = tuple(
    int(tag_for_keyword(keyword) or 0)
    for keyword in (
        "FileSetID",
        "SOPClassUID",
        "SOPInstanceUID",
        "Modality",
        "PresentationIntentType",
        "PatientID",
        "ViewPosition",
        "StudyInstanceUID",
        "NumberOfFrames",
        "PhotometricInterpretation",
        "Rows",
        "BurnedInAnnotation",
    )
)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that holds a radiograph: its ids, and what users should know of it."""

    path: Path
    sop_uid: str
    study_uid: str
    patient_id: str
    view: str
    burned_in: bool


@dataclass(frozen=True, slots=True)
class _Said:
    """What a table of labels says of an image."""

    labels: Mapping[str, bool]
    split: str | None


def read_dicom(
    root: Path,
    *,
    links: Path,
    labels: Path | None = None,
    findings: Sequence[str] | None = None,
    name: str | None = None,
) -> SourceSet:
    """Read the DICOM files under the folder `root`, or those that the DICOMDIR `root` lists.

    Args:
        links: the link table, read and added to.
        labels: a CSV table with one of the columns `KEYS`, optionally `split`, and a column per
            finding: 1, 0 or nothing.
        findings: the findings where no labels are given; all are then never assessed.
        name: of the data set; "dicom" without. Patients are known by the link table in any case.

    Raises:
        ConfigError: neither labels nor findings.
        DataError: damaged files, different images of one id, or faults of the table; all of them,
            files by their pseudonyms.
    """
    if labels is None and not findings:
        raise ConfigError(
            "data prepare dicom: give a table of labels with --labels, or, where there are none, "
            "name the findings with --findings (all are then never assessed)"
        )
    with link_table(links) as table:
        return _read(Path(root).absolute(), table, labels, findings or (), name)


def _read(
    root: Path,
    links: LinkTable,
    labels: Path | None,
    findings: Sequence[str],
    name: str | None,
) -> SourceSet:
    faults: list[str] = []
    skipped: Counter[str] = Counter()
    files: dict[str, _File] = {}
    for path in _candidates(root, links, faults, skipped):
        try:
            found = _scan(path, links)
            if isinstance(found, str):
                skipped[found] += 1
                links.note_file(str(path), found)
                continue
            image_id = links.pseudonym("image", found.sop_uid or str(path), str(path))
            other = files.setdefault(image_id, found)
            if other is found:
                continue
            if _sha256(other.path, links) == _sha256(path, links):
                skipped["copies of another file"] += 1
                links.pseudonym("image", other.sop_uid, str(other.path))
            else:
                second = links.note_file(str(path), f"the same SOPInstanceUID as {image_id}")
                faults.append(
                    f"{image_id} and {second}: different files with the same SOPInstanceUID; "
                    "keep one"
                )
        except ImageError as fault:
            faults.append(str(fault))
    said: dict[str, _Said] = {}
    columns, notes = tuple(findings), list(_notes(files, skipped))
    if labels is not None:
        base = root.parent if root.is_file() else root
        said, columns, table_notes = _read_labels(labels, files, base, faults)
        notes += table_notes
    if not files and not faults:
        left_out = "; ".join(f"{count} {reason}" for reason, count in skipped.items())
        faults.append(f"no radiograph among the files ({left_out or 'no file at all'})")
    if faults:
        raise DataError("\n".join([*faults, f"(paths are in the link table {links.path})"]))
    radiographs = []
    for image_id, file in sorted(files.items()):
        owner = file.patient_id or f"study {file.study_uid or file.sop_uid or file.path}"
        its = said.get(image_id, _Said({}, None))
        radiographs.append(
            Radiograph(
                image_id=image_id,
                patient_id=links.pseudonym("patient", owner),
                path=file.path,
                labels=its.labels,
                split=its.split,
                alias=image_id,
            )
        )
    return SourceSet(
        name=name or "dicom",
        findings=columns,
        radiographs=tuple(radiographs),
        source="DICOM files; the link table of whoever prepared them leads to them",
        licence="as stated by their owner",
        citation="",
        notes=tuple(notes),
        patients_of=links.patients_of,
    )


def _candidates(
    root: Path, links: LinkTable, faults: list[str], skipped: Counter[str]
) -> Iterator[Path]:
    """All files under a folder, or all images that a DICOMDIR lists, in sorted order.

    What is hidden, or no file in the end, goes to `skipped`; what cannot be looked at to `faults`.
    """
    if root.is_file():
        yield from _listed_in_directory(root, faults)
        return

    def unreadable(path: object, fault: OSError) -> None:
        where = links.note_file(str(path), "cannot be read")
        faults.append(
            f"{where}: a file or folder that cannot be read ({fault.strerror}); make it readable"
        )

    def leave_out(path: Path, reason: str) -> None:
        skipped[reason] += 1
        links.note_file(str(path), reason)

    visited = set()
    for folder, subfolders, names in os.walk(
        root, onerror=lambda fault: unreadable(fault.filename, fault), followlinks=True
    ):
        real = os.path.realpath(folder)
        if real in visited:  # a link back up
            subfolders.clear()
            continue
        visited.add(real)
        hidden = sorted(name for name in (*subfolders, *names) if name.startswith("."))
        for name in hidden:
            leave_out(Path(folder, name), "hidden files or folders")
        subfolders[:] = sorted(set(subfolders).difference(hidden))
        for name in sorted(set(names).difference(hidden)):
            path = Path(folder, name)
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                leave_out(path, "links that lead nowhere")
            except OSError as fault:
                unreadable(path, fault)
            else:
                if stat.S_ISREG(mode):
                    yield path
                else:
                    leave_out(path, "neither files nor folders")


def _listed_in_directory(dicomdir: Path, faults: list[str]) -> list[Path]:
    """The images of a DICOMDIR."""
    where = f"--root {dicomdir.name}"
    with dicomdir.open("rb") as stream:
        directory = guarded(lambda: parse(stream, where), where)
        records = guarded(lambda: list(directory.get("DirectoryRecordSequence") or ()), where)
        listed_parts = guarded(lambda: [_file_id(record) for record in records], where)
    paths, absent = set(), 0
    for parts in listed_parts:
        if not parts:
            continue
        # the standard writes capitals, copies of a disc often have none
        names = (parts, tuple(part.lower() for part in parts))
        present = [
            path for name in names if os.path.isfile(path := dicomdir.parent.joinpath(*name))
        ]
        if present and not any(part in ("", ".", "..") or "/" in part for part in parts):
            paths.add(present[0])
        else:
            absent += 1
    if not paths:
        faults.append(f"{where}: lists no image that is there; give the folder itself")
    elif absent:
        faults.append(
            f"{where}: {absent} listed images are not there; copy the whole medium, or give the "
            "folder to read what is there"
        )
    return sorted(paths)


def _file_id(record: Dataset) -> tuple[str, ...]:
    """The path of an image's directory record; of other records nothing."""
    parts = record.get("ReferencedFileID")
    if record.get("DirectoryRecordType") != "IMAGE" or not parts:
        return ()
    return (parts,) if isinstance(parts, str) else tuple(str(part) for part in parts)


def _scan(path: Path, links: LinkTable) -> _File | str:
    """The radiograph in a file, or why there is none.

    Raises:
        ImageError: a damaged or unreadable file; names its pseudonym.
    """
    place, mark = DICOM_MARK
    try:
        with path.open("rb") as stream:
            if not is_dicom(stream.read(place + len(mark))):
                return "not DICOM files"
            stream.seek(0)
            where = links.note_file(str(path), "damaged")
            found = guarded(lambda: _found(parse(stream, where, only=_READ), path, where), where)
    except OSError as fault:
        where = links.note_file(str(path), "cannot be read")
        raise ImageError(f"{where}: cannot be read ({fault.strerror})") from None
    del links.rows["file", where]
    return found


def _sha256(path: Path, links: LinkTable) -> str:
    try:
        return sha256_of(path)
    except OSError as fault:
        where = links.note_file(str(path), "cannot be read")
        raise ImageError(f"{where}: cannot be read ({fault.strerror})") from None


def _found(dataset: Dataset, path: Path, where: str) -> _File | str:
    kind = UID(str(dataset.get("SOPClassUID") or "")).name
    modality = str(dataset.get("Modality") or "")
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if "Rows" not in dataset:
        if "FileSetID" not in dataset and (not kind or "Image" in kind):
            raise ImageError(f"{where}: cut off before its pixels; fetch it again")
        return "DICOM objects without an image (directories, reports, …)"
    if modality and modality not in MODALITIES:
        known = modality if re.fullmatch(r"[A-Z]{2,4}", modality) else "an unknown kind"
        return f"of modality {known}"
    if dataset.get("PresentationIntentType") == "FOR PROCESSING":
        return "raw detector images (FOR PROCESSING)"
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return "of several frames"
    if photometric and not photometric.startswith("MONOCHROME"):
        return "in colour"
    view = str(dataset.get("ViewPosition") or "")
    return _File(
        path=path,
        sop_uid=str(dataset.get("SOPInstanceUID") or ""),
        study_uid=str(dataset.get("StudyInstanceUID") or ""),
        patient_id=str(dataset.get("PatientID") or "").strip(),
        view=view if re.fullmatch(r"[A-Z]{1,4}|LATERAL", view) else "",
        burned_in=dataset.get("BurnedInAnnotation") == "YES",
    )


def _notes(files: Mapping[str, _File], skipped: Mapping[str, int]) -> Iterator[str]:
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        yield f"{sum(skipped.values())} files were left out: {reasons}"
    views = Counter(file.view or "not stated" for file in files.values())
    yield "views: " + ", ".join(f"{view} {count}" for view, count in views.most_common())
    anonymous = [image_id for image_id, file in files.items() if not file.patient_id]
    if anonymous:
        yield (
            f"{len(anonymous)} films without a PatientID: each study counts as a patient of its "
            f"own: {listed(anonymous)}"
        )
    burned = [image_id for image_id, file in files.items() if file.burned_in]
    if burned:
        yield (
            f"{len(burned)} films say that text is burned into their pixels, which may be a "
            f"name: {listed(burned)}"
        )
    patients = {file.patient_id for file in files.values()}
    if len(files) > 1 and len(patients) == 1 and not anonymous:
        yield (
            "all films carry the same PatientID, as after a careless de-identification; they "
            "count as one patient"
        )


def _read_labels(
    path: Path, files: Mapping[str, _File], base: Path, faults: list[str]
) -> tuple[dict[str, _Said], tuple[str, ...], list[str]]:
    """What the table says by image id, its findings, and notes; faults go to `faults`.

    What is written in the table is never quoted: keys are ids.
    """
    table = read_table(path)
    keys = [column for column in table.columns if column in KEYS]
    if len(keys) != 1:
        raise DataError(f"{path}: needs exactly one of the columns {', '.join(KEYS)}")
    refused = [column for column in table.columns if column in _REFUSED_COLUMNS]
    if refused:
        raise DataError(
            f"{path}: column {', '.join(map(repr, refused))}: may hold names, which must not get "
            "into the data; leave it out (reports that hold none: see the format csv)"
        )
    columns = [column for column in table.columns if column not in (*KEYS, "split")]
    findings = tuple(SYNONYMS.get(column, column) for column in columns)
    if not columns or "" in columns or doubles(findings):
        raise DataError(f"{path}: needs one named column per finding, none of them twice")
    by_key = _images_by_key(keys[0], files, base)
    said: dict[str, _Said] = {}
    lines: dict[str, int] = {}
    unmatched = []
    for row in table.rows:
        where = f"{path}, line {row.line}"
        one = _labels_of(row, dict(zip(columns, findings, strict=True)), where, faults)
        meant = by_key.get(row.fields[keys[0]], ())
        if not meant:
            unmatched.append(str(row.line))
        for image_id in meant:
            if image_id in lines:
                faults.append(f"{where}: {image_id} already stands in line {lines[image_id]}")
            lines[image_id] = row.line
            said[image_id] = one
    notes = []
    if unmatched:
        notes.append(f"{len(unmatched)} rows of labels match no film: lines {listed(unmatched)}")
    bare = sorted(set(files) - set(said))
    if bare:
        notes.append(f"{len(bare)} films without labels, never assessed: {listed(bare)}")
    if files and not said:
        faults.append(f"{path}: no row matches a film by its {keys[0]}; correct the column")
    return said, findings, notes


def _images_by_key(key: str, files: Mapping[str, _File], base: Path) -> dict[str, tuple[str, ...]]:
    """Image ids by what the column `key` writes for them."""
    by_key: dict[str, tuple[str, ...]] = {}
    for image_id, file in files.items():
        relative = os.path.relpath(file.path, base).replace(os.sep, "/")
        written = {
            "SOPInstanceUID": (file.sop_uid,),
            "StudyInstanceUID": (file.study_uid,),
            "path": (relative, str(file.path.absolute())),
            "image_id": (image_id,),
        }[key]
        for one in written:
            if one:
                by_key[one] = (*by_key.get(one, ()), image_id)
    return by_key


def _labels_of(row: Row, findings: Mapping[str, str], where: str, faults: list[str]) -> _Said:
    labels = {}
    for column, finding in findings.items():
        written = row.fields[column]
        if written not in LABELS:
            faults.append(
                f"{where}, column {column!r}: not a label; write 1 (present), 0 (absent) or "
                "nothing (never assessed)"
            )
        elif (label := LABELS[written]) is not None:
            labels[finding] = label
    split = row.fields.get("split") or None
    if split is not None and split.lower() not in SPLIT_NAMES:
        faults.append(f"{where}, column 'split': write train, val or test")
        split = None
    return _Said(labels, None if split is None else SPLIT_NAMES[split.lower()])
