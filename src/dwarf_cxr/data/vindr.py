"""VinDr-CXR.

- 18,000 posterior-anterior radiographs (DICOM) of two hospitals in Hanoi: 15,000 for training, each
  read by three of 17 radiologists, and 3,000 for testing with the consensus of five.
- PhysioNet's layout, 22 local findings (with boxes) and 5 global ones (without):
  `image_labels_train.csv` (image_id, rad_id, a column per finding, "No finding"),
  `annotations_train.csv` (image_id, rad_id, class_name, x_min, y_min, x_max, y_max), and the same
  for test without `rad_id`. Test writes "Other disease" where train writes "Other diseases".
- The challenge's layout (VinBigData, Kaggle): `train.csv` (image_id, class_name, class_id, rad_id,
  x_min, …), 14 local findings on the 15,000 training images; its test labels are hidden. Global
  findings were not assessed there.
- A row "No finding" has no box. One rater may say it of an image where another sees a finding.
- Boxes are in pixels of the original DICOM, also beside resized PNG or JPEG releases. Those bring
  the original sizes: `train_meta.csv` (image_id, dim0 = height, dim1 = width), or the columns
  `width` and `height` in `train.csv`.
- No patient is known: every image counts as its own.
- Fusion of raters: a finding is present when at least two raters say so; its region is what at
  least two of them boxed, exactly, as boxes whose union is meant. Where they agree that it is
  there, but nowhere on the same spot, it is all their boxes. What each rater said:
  `read_vindr_raters`.
- Licence: PhysioNet Credentialed Health Data License 1.5.0; the challenge has rules of its own.
- Nguyen et al., VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations,
  Scientific Data 9:429, 2022.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dwarf_cxr.data.geometry import Frame, clip, fault_of, is_inside
from dwarf_cxr.data.images import find_images, image_stem, left_out, only_image
from dwarf_cxr.data.raters import Reading, fuse
from dwarf_cxr.data.records import Box, Finding, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import Row, Table, listed, only_file, read_table
from dwarf_cxr.errors import DataError, ImageError

LOCAL_22 = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
)
"""The tables' names of the findings that have boxes."""

GLOBAL_5 = ("COPD", "Lung tumor", "Other diseases", "Pneumonia", "Tuberculosis")
"""The tables' names of the findings that do not."""

CHALLENGE_14 = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
"""The challenge's findings in the order of their class_id, which starts at 0."""

NO_FINDING = "No finding"
"""In the challenge with the class_id 14."""

_NUMBERS = {name: str(number) for number, name in enumerate((*CHALLENGE_14, NO_FINDING))}

NAMES: Mapping[str, Finding] = {
    **{name: name for name in (*LOCAL_22, *GLOBAL_5)},
    "Other disease": "Other diseases",
    "Pleural effusion": "Effusion",
    "Pleural thickening": "Pleural Thickening",
    "Pulmonary fibrosis": "Fibrosis",
}
"""Findings by the tables' names; any other name is an error."""

CONSENSUS = "VinDr-CXR consensus"
"""The rater of tables without `rad_id`."""

RATERS = 3
"""Of every training image."""

CHALLENGE_TABLE = "train.csv"
SIZE_TABLES = ("train_meta.csv", "test_meta.csv")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_LABELS: Mapping[str, bool] = {"1": True, "1.0": True, "0": False, "0.0": False}
_SIZE_TAGS = (0x00280010, 0x00280011)
"""Rows and Columns of a DICOM file."""
_RESIZED = (".png", ".jpg", ".jpeg")

PHYSIONET = "https://physionet.org/content/vindr-cxr/1.0.0/"
CHALLENGE = "https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection"

_NO_AREA = "boxes have no area inside their image; skipped"
_CLIPPED = "boxes reached out of their image; clipped"
_APART = "findings were boxed by their raters on no common spot; all their boxes were kept"
_UNLISTED = "rows of boxes are of images that the labels do not list; not used"
_UNLABELLED = "boxes lie on findings that their rater's label does not call present; not used"
_CONTRADICTED = f'readings say both "{NO_FINDING}" and a finding; the finding stands'
_FEWER = f"images were read by fewer than {RATERS} raters"


@dataclass(frozen=True, slots=True)
class _Part:
    """The images of a split, or of the challenge, which has none; readings by image and rater."""

    split: str | None
    findings: tuple[Finding, ...]
    readings: Mapping[str, Mapping[str, Reading]]


@dataclass(frozen=True, slots=True)
class _Annotation:
    """A row of boxes; no finding: the row says "No finding"; no box: it has no area."""

    where: str
    image_id: str
    rater: str
    finding: Finding | None
    box: Box | None


@dataclass(frozen=True, slots=True)
class _Remarks:
    """What was met while reading: faults, notes, and how often something odd occurred."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def read_vindr(root: Path, *, missing: Literal["error", "skip"] = "error") -> SourceSet:
    """Read VinDr-CXR, or one of its splits, from tables and images anywhere under `root`.

    PhysioNet's tables go before the challenge's. The raters of an image are fused as the module
    says. `missing` says what becomes of listed images that are not there: an error, or left out
    with a note.

    Raises:
        DataError: no table, faults in the tables (all of them listed), a missing image, or a
            PNG or JPEG with boxes whose original size no table gives.
    """
    root = Path(root)
    remarks = _Remarks()
    parts, challenge = _read_parts(root, remarks)
    sizes = _read_sizes(root, challenge)
    images = find_images(root)
    everyone = [image_id for part in parts for image_id in part.readings]
    absent = [image_id for image_id in everyone if image_id not in images]
    remarks.notes.extend(left_out(absent, len(everyone), "listed images", root, missing))
    paths = {one: path for one in everyone if (path := only_image(one, images)) is not None}
    frames = _frames(root, parts, paths, sizes)
    radiographs = []
    for part in parts:
        for image_id, readings in part.readings.items():
            if image_id not in paths:
                continue
            frame = frames.get(image_id)
            inside = {
                rater: _clipped(reading, frame, remarks.counts)
                for rater, reading in readings.items()
            }
            fusion = fuse(inside, part.findings)
            remarks.counts[_APART] += len(fusion.apart)
            radiographs.append(
                Radiograph(
                    image_id=image_id,
                    patient_id=image_id,
                    path=paths[image_id],
                    labels=fusion.labels,
                    regions=fusion.regions,
                    region_frame=frame,
                    split=part.split,
                )
            )
    official = challenge is None
    return SourceSet(
        name="VinDr-CXR",
        findings=_in_order({finding for part in parts for finding in part.findings}),
        radiographs=tuple(radiographs),
        source=PHYSIONET if official else CHALLENGE,
        licence=(
            "PhysioNet Credentialed Health Data License 1.5.0"
            if official
            else "Rules of the VinBigData Chest X-ray Abnormalities Detection challenge"
        ),
        citation=(
            "Nguyen HQ, Lam K, Le LT, Pham HH, Tran DQ, Nguyen DB, et al. VinDr-CXR: An open "
            "dataset of chest X-rays with radiologist's annotations. Scientific Data 9:429, 2022."
        ),
        notes=(
            "no patient ids: every image counts as a patient of its own, so that splits cannot be "
            "shown to be patient-disjoint",
            *remarks.notes,
            *(f"{count} {what}" for what, count in remarks.counts.items() if count),
        ),
    )


def read_vindr_raters(root: Path) -> dict[str, dict[str, Reading]]:
    """What every rater said, by image id and rater; the images themselves are not needed.

    The rater of the test images is `CONSENSUS`.

    Raises:
        DataError: no table, or faults in the tables; all of them are listed.
    """
    parts, _ = _read_parts(Path(root), _Remarks())
    return {one: dict(readings) for part in parts for one, readings in part.readings.items()}


def _clipped(reading: Reading, frame: Frame | None, counts: Counter[str]) -> Reading:
    """A reading with its boxes clipped to the image."""
    if frame is None:
        return reading
    regions = []
    for region in reading.regions:
        cut = clip(region.shape, frame)
        if cut is None:
            counts[_NO_AREA] += 1
            continue
        counts[_CLIPPED] += not is_inside(region.shape, frame)
        regions.append(replace(region, shape=cut))
    return Reading(reading.labels, tuple(regions))


def _in_order(findings: set[Finding]) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys(name for name in NAMES.values() if name in findings))


def _read_parts(root: Path, remarks: _Remarks) -> tuple[list[_Part], Table | None]:
    """The readings of every split that is there, and the challenge's table where they are its."""
    faults = remarks.faults
    parts = [
        part
        for split in ("train", "test")
        if (part := _read_official(root, split, remarks)) is not None
    ]
    challenge = None
    if not parts and not faults:
        challenge = _challenge_table(root)
        parts = [_read_challenge(challenge, remarks)]
    seen: set[str] = set()
    for part in parts:
        both = sorted(seen & part.readings.keys())
        if both:
            faults.append(f"{root}: images in train and in test: {listed(both)}; keep one")
        seen |= part.readings.keys()
    if faults:
        raise DataError("\n".join(faults))
    if not seen:
        raise DataError(f"{root}: the tables list no image")
    for part in parts:
        fewer = sum(len(readings) < RATERS for readings in part.readings.values())
        if fewer and not any(CONSENSUS in readings for readings in part.readings.values()):
            remarks.counts[_FEWER] += fewer
    return parts, challenge


def _read_official(root: Path, split: str, remarks: _Remarks) -> _Part | None:
    """PhysioNet's tables of one split, or None when they are not there."""
    labels_path = only_file(root, f"image_labels_{split}.csv")
    boxes_path = only_file(root, f"annotations_{split}.csv")
    if labels_path is None:
        if boxes_path is not None:
            remarks.faults.append(
                f"{boxes_path}: its image_labels_{split}.csv is not there; add it"
            )
        return None
    findings, labels = _read_labels(read_table(labels_path), remarks)
    annotations: list[_Annotation] = []
    if boxes_path is None:
        remarks.notes.append(f"no annotations_{split}.csv under {root}: {split} has no region")
    else:
        annotations = _read_annotations(read_table(boxes_path), LOCAL_22, remarks)
    regions: dict[tuple[str, str], list[Region]] = {}
    for one in annotations:
        if one.image_id not in labels:
            remarks.counts[_UNLISTED] += 1
            continue
        said = labels[one.image_id].get(one.rater)
        if said is None:
            remarks.faults.append(
                f"{one.where}: {one.rater} has no row for image {one.image_id} in "
                f"{labels_path.name}; use tables of one release"
            )
            continue
        if one.finding is None or one.box is None:
            continue
        remarks.counts[_UNLABELLED] += said.get(one.finding) is not True
        region = Region(one.finding, one.box, one.rater)
        regions.setdefault((one.image_id, one.rater), []).append(region)
    readings = {
        image_id: {
            rater: Reading(said, tuple(regions.get((image_id, rater), ())))
            for rater, said in raters.items()
        }
        for image_id, raters in labels.items()
    }
    return _Part(split, findings, readings)


def _read_labels(
    table: Table, remarks: _Remarks
) -> tuple[tuple[Finding, ...], dict[str, dict[str, dict[Finding, bool]]]]:
    """The findings of a table of labels, and its labels by image and rater."""
    faults = remarks.faults
    columns = [one for one in table.columns if one not in ("image_id", "rad_id", NO_FINDING)]
    unknown = [column for column in columns if column not in NAMES]
    if "image_id" not in table.columns or unknown or not columns:
        faults.append(
            f"{table.path}: needs a column 'image_id' and columns of findings; unknown: "
            f"{listed(unknown) or 'none'}; known: {', '.join(NAMES)}"
        )
        return (), {}
    labels: dict[str, dict[str, dict[Finding, bool]]] = {}
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        image_id, rater = _who(row)
        if not image_id or not rater:
            faults.append(f"{where}: 'image_id' or 'rad_id' is empty; fill it in")
            continue
        if rater in labels.get(image_id, ()):
            faults.append(f"{where}: image {image_id} and rater {rater} stand twice; drop a row")
            continue
        said = {}
        for column in columns:
            written = row.fields[column]
            if written in _LABELS:
                said[NAMES[column]] = _LABELS[written]
            elif written:
                faults.append(f"{where}, column {column!r}: label {written!r}; write 1 or 0")
        if _LABELS.get(row.fields.get(NO_FINDING, "")) and any(said.values()):
            remarks.counts[_CONTRADICTED] += 1
        labels.setdefault(image_id, {})[rater] = said
    return _in_order({NAMES[column] for column in columns}), labels


def _challenge_table(root: Path) -> Table:
    """The challenge's table of boxes, known by its columns."""
    wanted = ("image_id", "class_name", "class_id", "rad_id", *_CORNERS)
    tables = [read_table(path) for path in sorted(root.rglob(CHALLENGE_TABLE))]
    tables = [table for table in tables if set(wanted) <= set(table.columns)]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(
            f"{root}: several challenge tables: {listed([str(one.path) for one in tables])}; "
            f"keep one"
        )
    raise DataError(
        f"{root}: holds neither image_labels_train.csv nor image_labels_test.csv (PhysioNet), nor "
        f"a {CHALLENGE_TABLE} with the columns {', '.join(wanted)} (challenge); give the folder of "
        f"the download as --root"
    )


def _read_challenge(table: Table, remarks: _Remarks) -> _Part:
    """The challenge's table: a rater's finding is present when a row of his says so."""
    annotations = _read_annotations(table, CHALLENGE_14, remarks)
    stated: dict[str, dict[str, list[_Annotation]]] = {}
    for one in annotations:
        stated.setdefault(one.image_id, {}).setdefault(one.rater, []).append(one)
    findings = _in_order({NAMES[name] for name in CHALLENGE_14})
    readings: dict[str, dict[str, Reading]] = {}
    for image_id, raters in stated.items():
        for rater, ones in raters.items():
            present = {one.finding for one in ones}
            if None in present and len(present) > 1:
                remarks.counts[_CONTRADICTED] += 1
            readings.setdefault(image_id, {})[rater] = Reading(
                {finding: finding in present for finding in findings},
                tuple(
                    Region(one.finding, one.box, rater)
                    for one in ones
                    if one.finding is not None and one.box is not None
                ),
            )
    return _Part(None, findings, readings)


def _read_annotations(table: Table, names: Sequence[str], remarks: _Remarks) -> list[_Annotation]:
    """The rows of a table of boxes that are in order."""
    needed = ("image_id", "class_name", *_CORNERS)
    lacking = [column for column in needed if column not in table.columns]
    if lacking:
        remarks.faults.append(f"{table.path}: no column {listed(lacking)}; use the official file")
        return []
    faults, annotations = remarks.faults, []
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        (image_id, rater), name = _who(row), row.fields["class_name"]
        if not image_id or not rater:
            faults.append(f"{where}: 'image_id' or 'rad_id' is empty; fill it in")
            continue
        if name not in names and name != NO_FINDING:
            faults.append(
                f"{where}: unknown finding {name!r}; known: {', '.join(names)}, {NO_FINDING}"
            )
            continue
        number = row.fields.get("class_id", _NUMBERS.get(name))
        if number != _NUMBERS.get(name):
            faults.append(
                f"{where}: class_id {number!r} is not that of {name!r}, which is "
                f"{_NUMBERS.get(name)!r}; correct one of them"
            )
            continue
        if name == NO_FINDING:
            annotations.append(_Annotation(where, image_id, rater, None, None))
            continue
        try:
            corners = [float(row.fields[corner]) for corner in _CORNERS]
        except ValueError:
            corners = [math.nan]
        if not all(map(math.isfinite, corners)):
            written = ", ".join(f"{corner}={row.fields[corner]!r}" for corner in _CORNERS)
            faults.append(f"{where}: {written} must be numbers; correct or drop the row")
            continue
        box: Box | None = Box(*corners)
        if fault_of(Box(*corners)):
            remarks.counts[_NO_AREA] += 1
            box = None
        annotations.append(_Annotation(where, image_id, rater, NAMES[name], box))
    return annotations


def _who(row: Row) -> tuple[str, str]:
    """Image id and rater of a row; tables without raters hold the consensus."""
    return image_stem(row.fields["image_id"]), row.fields.get("rad_id", CONSENSUS)


def _read_sizes(root: Path, challenge: Table | None) -> dict[str, Frame]:
    """Original (width, height) by image id, from the tables that resized releases bring."""
    tables = [
        (read_table(path, required=("image_id", "dim0", "dim1")), "dim1", "dim0")
        for name in SIZE_TABLES
        for path in sorted(root.rglob(name))
    ]
    if challenge is not None and {"width", "height"} <= set(challenge.columns):
        tables.append((challenge, "width", "height"))
    sizes: dict[str, Frame] = {}
    faults = []
    for table, width, height in tables:
        for row in table.rows:
            where, image_id = f"{table.path}, line {row.line}", image_stem(row.fields["image_id"])
            try:
                frame = int(row.fields[width]), int(row.fields[height])
            except ValueError:
                frame = 0, 0
            if min(frame) < 1:
                faults.append(
                    f"{where}: {width}={row.fields[width]!r}, {height}={row.fields[height]!r} must "
                    f"be whole numbers above 0"
                )
            elif sizes.setdefault(image_id, frame) != frame:
                faults.append(
                    f"{where}: image {image_id} has {frame[0]}×{frame[1]} pixels here, but "
                    f"{sizes[image_id][0]}×{sizes[image_id][1]} elsewhere; correct one of them"
                )
    if faults:
        raise DataError("\n".join(faults))
    return sizes


def _frames(
    root: Path,
    parts: Sequence[_Part],
    paths: Mapping[str, Path],
    sizes: Mapping[str, Frame],
) -> dict[str, Frame]:
    """The original (width, height) of every image with boxes; unreadable DICOM files are left out.

    Raises:
        DataError: an image is no DICOM file and no table gives its original size.
    """
    frames: dict[str, Frame] = {}
    unknown = []
    boxed = [
        image_id
        for part in parts
        for image_id, readings in part.readings.items()
        if image_id in paths and any(reading.regions for reading in readings.values())
    ]
    for image_id in boxed:
        path = paths[image_id]
        resized = path.suffix.lower() in _RESIZED
        frame = sizes.get(image_id) if resized else _dicom_frame(path)
        if frame is not None:
            frames[image_id] = frame
        elif resized:
            unknown.append(path.name)
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(boxed)} images with boxes are PNG or JPEG, and no table says "
            f"how large their DICOM files are: {listed(unknown)}; boxes are in pixels of those: "
            f"put the {SIZE_TABLES[0]} of the resized release under {root} (columns image_id, "
            f"dim0 = height, dim1 = width; of images that were not resized, their own)"
        )
    return frames


def _dicom_frame(path: Path) -> Frame | None:
    """(width, height) from a DICOM header; None when it cannot be read: decoding says why."""
    from dwarf_cxr.data.dicom import guarded, parse

    where = str(path)

    def frame() -> Frame:
        with path.open("rb") as stream:
            header = parse(stream, where, only=_SIZE_TAGS)
        return int(header.Columns), int(header.Rows)

    try:
        size = guarded(frame, where)
    except ImageError:
        return None
    return size if min(size) > 0 else None
