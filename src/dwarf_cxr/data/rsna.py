"""RSNA Pneumonia Detection Challenge, 2018.

- 26,684 of the NIH radiographs (1024×1024 DICOM, stage 2 training images), read by radiologists of
  the RSNA and the Society of Thoracic Radiology for opacities that may be pneumonia: 6,012 "Lung
  Opacity" with 9,555 boxes, 8,851 "Normal", 11,821 "No Lung Opacity / Not Normal". Both of the
  latter are the finding's absence; the last is no healthy chest. The test labels are hidden.
- `stage_2_train_labels.csv` (patientId, x, y, width, height, Target), a row per box or one without
  box, and `stage_2_detailed_class_info.csv` (patientId, class). Boxes are in 1024×1024 pixels.
- patientId is one image, not one patient: several of them may show the same patient.
  `pneumonia-challenge-dataset-mappings_2018.json` (`subset_img_id`, `img_id`), where it lies under
  the root, names their NIH files and so their patients.
- The same annotations by NIH file name, beside NIH images: `rsna_classes.csv` (Image Index,
  rsna_class) and `rsna_lung_opacity_boxes.csv` (Image Index, x1, y1, x2, y2).
- Licence: RSNA's terms of use, which ask for attribution; images are those of NIH ChestX-ray14.
- Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert
  Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 1(1):e180041, 2019.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dwarf_cxr.data.geometry import fault_of
from dwarf_cxr.data.images import find_images, image_stem, left_out, only_image
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import listed, only_file, read_table
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json

FINDING = "Lung Opacity"
ANNOTATOR = "RSNA radiologists"
NIH = "NIH ChestX-ray14"
"""Whose films these are, and whose numbers the patients bear where they are known."""
CLASSES: Mapping[str, bool] = {
    "Lung Opacity": True,
    "No Lung Opacity / Not Normal": False,
    "Normal": False,
}
"""Whether the finding is present, by class."""

LABEL_TABLE = "stage_2_train_labels.csv"
CLASS_TABLE = "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
NIH_CLASS_TABLE = "rsna_classes.csv"
NIH_BOX_TABLE = "rsna_lung_opacity_boxes.csv"
FRAME = (1024, 1024)
LICENCE = "RSNA's terms of use (attribution)"
CITATION = (
    "Shih G, Wu CC, Halabi SS, Kohli MD, Prevedello LM, Cook TS, et al. Augmenting the "
    "National Institutes of Health Chest Radiograph Dataset with Expert Annotations of "
    "Possible Pneumonia. Radiology: Artificial Intelligence 1(1):e180041, 2019."
)

_NIH_NAME = re.compile(r"(\d{8})_\d{3}")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the tables say, by image id; `faults` stop the reading, all of them listed."""

    labels: dict[str, bool] = field(default_factory=dict)
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Opacities:
    """Lung Opacity by image id; an image without a label was not assessed."""

    labels: Mapping[str, bool]
    regions: Mapping[str, tuple[Region, ...]]
    notes: tuple[str, ...]


def read_rsna(root: Path, *, missing: Literal["error", "skip"] = "error") -> SourceSet:
    """Read the challenge, or a part of it, from its tables and images anywhere under `root`.

    Images may be of any size; the challenge's tables go before those by NIH file name. `missing`
    says what becomes of listed images that are not there: an error, or left out with a note.

    Raises:
        DataError: a table or image is missing, or the tables have faults; all of them are listed.
    """
    root = Path(root)
    reading = _Reading()
    labels_path, nih_path = only_file(root, LABEL_TABLE), only_file(root, NIH_CLASS_TABLE)
    if labels_path is not None:
        _read_official(root, labels_path, reading)
    elif nih_path is not None:
        _read_by_nih_name(root, nih_path, reading)
    else:
        raise DataError(
            f"{root}: holds neither {LABEL_TABLE} nor {NIH_CLASS_TABLE}; give the folder of the "
            f"download as --root"
        )
    if reading.faults:
        raise DataError("\n".join(reading.faults))
    if not reading.labels:
        raise DataError(f"{labels_path or nih_path}: lists no image")
    images = find_images(root)
    absent = [image_id for image_id in reading.labels if image_id not in images]
    notes, regions = list(reading.notes), _regions_of(reading)
    notes += left_out(absent, len(reading.labels), "listed images", root, missing)
    radiographs = []
    for image_id, present in reading.labels.items():
        path = only_image(image_id, images)
        if path is None:
            continue
        radiographs.append(
            Radiograph(
                image_id=image_id,
                patient_id=reading.patients.get(image_id, image_id),
                path=path,
                labels={FINDING: present},
                regions=regions.get(image_id, ()),
                region_frame=FRAME,
            )
        )
    members = Counter(reading.classes.get(one.image_id) for one in radiographs)
    if reading.classes:
        notes.append(
            f"absent {FINDING} is of two kinds: {members['Normal']} images are Normal, "
            f"{members['No Lung Opacity / Not Normal']} show something else"
        )
    return SourceSet(
        name="RSNA Pneumonia Detection Challenge",
        findings=(FINDING,),
        radiographs=tuple(radiographs),
        source="https://www.rsna.org/artificial-intelligence/ai-image-challenge/"
        "rsna-pneumonia-detection-challenge-2018",
        licence=f"{LICENCE}; images as NIH ChestX-ray14",
        citation=CITATION,
        notes=tuple(notes),
        patients_of=NIH if reading.patients else None,
    )


def read_nih_opacities(root: Path) -> Opacities:
    """Lung Opacity of NIH images under `root`, from the annotations by NIH file name.

    Raises:
        DataError: the tables are not there or have faults; all of them are listed.
    """
    path = only_file(root, NIH_CLASS_TABLE)
    if path is None:
        raise DataError(
            f"{root}: holds no {NIH_CLASS_TABLE}, which tells on which images RSNA's radiologists "
            f"saw {FINDING}; put it there, with {NIH_BOX_TABLE}"
        )
    reading = _Reading()
    _read_by_nih_name(root, path, reading)
    if reading.faults:
        raise DataError("\n".join(reading.faults))
    return Opacities(reading.labels, _regions_of(reading), tuple(reading.notes))


def _regions_of(reading: "_Reading") -> dict[str, tuple[Region, ...]]:
    return {
        image_id: tuple(Region(FINDING, box, ANNOTATOR) for box in boxes)
        for image_id, boxes in reading.boxes.items()
    }


def _read_official(root: Path, labels_path: Path, reading: _Reading) -> None:
    """The challenge's tables, and the list of NIH files where it is there."""
    corners = ("x", "y", "width", "height")
    table = read_table(labels_path, required=("patientId", *corners, "Target"))
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        image_id, target = image_stem(row.fields["patientId"]), row.fields["Target"]
        written = [row.fields[corner] for corner in corners]
        if not image_id or target not in ("0", "1"):
            reading.faults.append(
                f"{where}: patientId {image_id!r}, Target {target!r}; fill them in, Target 1 or 0"
            )
            continue
        present = target == "1"
        if reading.labels.setdefault(image_id, present) != present:
            reading.faults.append(f"{where}: image {image_id} has Target 0 and 1; correct one row")
        elif present:
            x, y, width, height = map(_number, written)
            _add_box(Box(x, y, x + width, y + height), written, image_id, where, reading)
        elif any(written):
            reading.faults.append(f"{where}: a box with Target 0; empty it, or write Target 1")
    classes_path = only_file(root, CLASS_TABLE)
    if classes_path is None:
        reading.notes.append(f"no {CLASS_TABLE} under {root}: healthy images are not told apart")
    else:
        _read_classes(classes_path, "patientId", "class", reading)
        without = [one for one in reading.labels if one not in reading.classes]
        if without:
            reading.notes.append(f"{len(without)} images have no class: {listed(without)}")
        others = [one for one in reading.classes if one not in reading.labels]
        if others:
            reading.notes.append(f"{len(others)} images have a class, but no label; not used")
        for image_id, present in reading.labels.items():
            class_name = reading.classes.get(image_id)
            if class_name is not None and CLASSES[class_name] != present:
                reading.faults.append(
                    f"{classes_path}: image {image_id} is {class_name!r}, but {LABEL_TABLE} has "
                    f"Target {int(present)}; correct one of them"
                )
    mapping = only_file(root, MAPPING)
    if mapping is None:
        reading.notes.append(
            f"no {MAPPING} under {root}, so that no patient is known: every image counts as its "
            f"own, though some are of one patient; splits are not patient-disjoint"
        )
    else:
        _read_mapping(mapping, reading)


def _read_by_nih_name(root: Path, classes_path: Path, reading: _Reading) -> None:
    """Annotations by NIH file name, whose first eight digits are the patient."""
    _read_classes(classes_path, "Image Index", "rsna_class", reading)
    for image_id, class_name in reading.classes.items():
        reading.labels[image_id] = CLASSES[class_name]
        _add_patient(image_id, image_id, str(classes_path), reading)
    boxes_path = only_file(root, NIH_BOX_TABLE)
    if boxes_path is None:
        reading.notes.append(f"no {NIH_BOX_TABLE} under {root}: no image has a region")
        return
    corners = ("x1", "y1", "x2", "y2")
    table = read_table(boxes_path, required=("Image Index", *corners))
    others = 0
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        image_id = image_stem(row.fields["Image Index"])
        written = [row.fields[corner] for corner in corners]
        present = reading.labels.get(image_id)
        if present is None:
            others += 1
        elif not present:
            reading.faults.append(
                f"{where}: a box on image {image_id}, which is {reading.classes[image_id]!r} in "
                f"{classes_path.name}; correct one of them"
            )
        else:
            _add_box(Box(*map(_number, written)), written, image_id, where, reading)
    if others:
        reading.notes.append(f"{others} boxes are of images without a class; not used")


def _add_box(box: Box, written: list[str], image_id: str, where: str, reading: _Reading) -> None:
    if fault := fault_of(box):
        reading.faults.append(f"{where}: {fault}: {', '.join(map(repr, written))}; correct the row")
    else:
        reading.boxes.setdefault(image_id, []).append(box)


def _read_classes(path: Path, image: str, column: str, reading: _Reading) -> None:
    """Classes by image id; the challenge's table repeats the row for every box."""
    table = read_table(path, required=(image, column))
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        image_id, class_name = image_stem(row.fields[image]), row.fields[column]
        if not image_id:
            reading.faults.append(f"{where}: {image!r} is empty; fill it in")
        elif class_name not in CLASSES:
            reading.faults.append(
                f"{where}: unknown class {class_name!r}; known: {', '.join(CLASSES)}"
            )
        elif reading.classes.setdefault(image_id, class_name) != class_name:
            reading.faults.append(
                f"{where}: image {image_id} is {class_name!r} here, but "
                f"{reading.classes[image_id]!r} above; correct one of the rows"
            )


def _read_mapping(path: Path, reading: _Reading) -> None:
    """Patients of the challenge's images, from the NIH files that they were made of."""
    document = read_json(path)
    if not isinstance(document, list):
        raise DataError(f"{path}: must be a list of images, as RSNA's file is")
    for number, entry in enumerate(document):
        where = f"{path}, entry {number}"
        challenge = entry.get("subset_img_id") if isinstance(entry, dict) else None
        nih = entry.get("img_id") if isinstance(entry, dict) else None
        if not isinstance(challenge, str) or not isinstance(nih, str):
            reading.faults.append(f"{where}: needs the texts 'subset_img_id' and 'img_id'")
        elif image_stem(challenge) in reading.labels:
            _add_patient(image_stem(challenge), image_stem(nih), where, reading)
    without = [one for one in reading.labels if one not in reading.patients]
    if without and not reading.faults:
        reading.faults.append(
            f"{path}: does not name {len(without)} of the labelled images: {listed(without)}; "
            f"fetch the whole file, or remove it to do without patients"
        )


def _add_patient(image_id: str, nih_name: str, where: str, reading: _Reading) -> None:
    """The patient as the NIH table numbers them: of 00000032_037, 32."""
    match = _NIH_NAME.fullmatch(nih_name)
    if match is None:
        reading.faults.append(f"{where}: {nih_name!r} is no NIH file name, as 00000032_037.png is")
    else:
        reading.patients[image_id] = str(int(match[1]))


def _number(written: str) -> float:
    """The number, or NaN for what is none."""
    try:
        return float(written)
    except ValueError:
        return math.nan
