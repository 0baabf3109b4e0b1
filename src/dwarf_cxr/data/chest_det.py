"""ChestX-Det.

- 3,578 of the NIH radiographs (3,025 train, 553 test), annotated anew by three radiologists with
  boxes and polygons, one of each per instance, for 13 findings; every finding is assessed on
  every image. 547 training and 64 test images have no finding and are kept as negatives.
- `ChestX_Det_train.json` and `ChestX_Det_test.json`, also as `.json.gz`: lists of `file_name`,
  `syms` (findings), `boxes` [x1, y1, x2, y2] and `polygons` (lists of [x, y]), which run in
  parallel; an optional `split` overrides the one that the file's name says.
- Coordinates are in the 1024×1024 frame, whatever the size of the image files.
- Names are renumbered (36199.png), so no patient is known: every image counts as its own, and a
  patient may lie in both splits without our knowing.
- Licence: Apache-2.0 (annotations); the images are those of NIH ChestX-ray14.
- Lian et al., A Structure-Aware Relation Network for Thoracic Diseases Detection and
  Segmentation, IEEE Transactions on Medical Imaging 40(8), 2021.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dwarf_cxr.data.geometry import fault_of
from dwarf_cxr.data.images import find_images, image_stem, left_out, only_image
from dwarf_cxr.data.records import Box, Polygon, Radiograph, Region, Shape, SourceSet
from dwarf_cxr.data.rows import doubles, listed
from dwarf_cxr.data.splits import NAMES as SPLIT_NAMES
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import CHESTX_DET_13

OFFICIAL_FILES = ("ChestX_Det_train.json", "ChestX_Det_test.json")
FRAME = (1024, 1024)

NAMES: Mapping[str, str] = {
    "Atelectasis": "Atelectasis",
    "Calcification": "Calcification",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Diffuse Nodule": "Diffuse Nodule",
    "Effusion": "Effusion",
    "Emphysema": "Emphysema",
    "Fibrosis": "Fibrosis",
    "Fracture": "Fracture",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Pleural Thickening": "Pleural Thickening",
    "Pneumothorax": "Pneumothorax",
}
"""The files' names of the findings; any other is an error."""


def read_chest_det(root: Path, *, missing: Literal["error", "skip"] = "error") -> SourceSet:
    """Read ChestX-Det from its annotation files and images, anywhere under `root`.

    Where the official files are absent, one other JSON file is read whose entries carry `split`.
    Regions are the polygons; an instance without polygon has its box. `missing` says what becomes
    of entries without an image: an error, or left out with a note.

    Raises:
        DataError: a file or image is missing, an entry is malformed or of an unknown finding.
    """
    root = Path(root)
    files = _annotation_files(root)
    faults: list[str] = []
    entries: list[tuple[str, str, tuple[Region, ...]]] = []
    for path in files:
        for position, entry in enumerate(_read_entries(path)):
            try:
                entries.append(_read_entry(entry, path, position))
            except DataError as fault:
                faults.append(str(fault))
    doubled = doubles([image_id for image_id, _, _ in entries])
    if doubled:
        faults.append(f"{root}: annotated twice: {listed(doubled)}; keep one entry of each")
    if faults:
        raise DataError("\n".join(faults))
    images = find_images(root)
    absent = [image_id for image_id, _, _ in entries if image_id not in images]
    notes = [
        "no patient ids: every image counts as a patient of its own, so that splits cannot be "
        "shown to be patient-disjoint"
    ]
    notes += left_out(absent, len(entries), "annotated images", root, missing)
    radiographs = []
    for image_id, split, regions in entries:
        image = only_image(image_id, images)
        if image is None:
            continue
        present = {region.finding for region in regions}
        radiographs.append(
            Radiograph(
                image_id=image_id,
                patient_id=image_id,
                path=image,
                labels={finding: finding in present for finding in CHESTX_DET_13},
                regions=regions,
                region_frame=FRAME,
                split=split,
            )
        )
    return SourceSet(
        name="ChestX-Det",
        findings=CHESTX_DET_13,
        radiographs=tuple(radiographs),
        source="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
        licence="Apache-2.0 (annotations); images as NIH ChestX-ray14",
        citation=(
            "Lian J, Liu J, Zhang S, Gao K, Liu X, Zhang D, Yu Y. A Structure-Aware Relation "
            "Network for Thoracic Diseases Detection and Segmentation. IEEE TMI 40(8), 2021."
        ),
        notes=tuple(notes),
    )


def read_annotations(path: Path) -> dict[str, tuple[Region, ...]]:
    """The regions of every image of one official file, by image id, in the 1024×1024 frame.

    Raises:
        DataError: the file cannot be read, or an entry is malformed.
    """
    read = (_read_entry(entry, path, n) for n, entry in enumerate(_read_entries(path)))
    return {image_id: regions for image_id, _, regions in read}


def _annotation_files(root: Path) -> list[Path]:
    files = []
    for name in OFFICIAL_FILES:
        found = sorted([*root.rglob(name), *root.rglob(f"{name}.gz")])
        if len(found) > 1:
            raise DataError(f"{root}: several files {name}: {listed(list(map(str, found)))}")
        files += found
    if files:
        return files
    others = sorted([*root.rglob("*.json"), *root.rglob("*.json.gz")])
    if len(others) != 1:
        raise DataError(
            f"{root}: holds neither {' nor '.join(OFFICIAL_FILES)} (nor .gz) and not exactly one "
            f"other JSON file; give the folder of the official download as --root"
        )
    return others


def _read_entries(path: Path) -> list[Any]:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        entries = json.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise DataError(f"{path}: damaged, or not JSON ({fault}); fetch it again") from None
    if not isinstance(entries, list):
        raise DataError(f"{path}: must be a list of images, as the official files are")
    return entries


def _read_entry(entry: Any, path: Path, position: int) -> tuple[str, str, tuple[Region, ...]]:
    """Image id, split and regions of one image."""
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}, entry {position}: no 'file_name'; add it")
    where = f"{path}, entry {position} ({name})"
    parts = [entry.get(key) for key in ("syms", "boxes", "polygons")]
    findings, boxes = parts[0], parts[1]
    polygons = parts[2] if parts[2] is not None else [[]] * len(findings or [])
    if not all(isinstance(part, list) for part in (findings, boxes, polygons)) or not (
        len(findings) == len(boxes) == len(polygons)
    ):
        raise DataError(f"{where}: 'syms', 'boxes' and 'polygons' must be lists of equal length")
    named = entry.get("split", "train" if "train" in path.name else "test")
    split = SPLIT_NAMES.get(named) if isinstance(named, str) else None
    if split is None:
        raise DataError(f"{where}: unknown split {named!r}; write train, val or test")
    regions = []
    for number, (finding, box, polygon) in enumerate(
        zip(findings, boxes, polygons, strict=True), start=1
    ):
        what = f"{where}, instance {number}"
        if not isinstance(finding, str) or finding not in NAMES:
            raise DataError(f"{what}: unknown finding {finding!r}; known: {', '.join(NAMES)}")
        try:
            if isinstance(box, str):
                raise TypeError("text has characters, not numbers")
            shape: Shape = (
                Polygon(np.array(polygon, dtype=np.float64).reshape(-1, 2))
                if polygon
                else Box(*map(float, box))
            )
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{what}: needs a box of four numbers or a polygon of (x, y) pairs"
            ) from None
        if fault := fault_of(shape):
            raise DataError(f"{what}: {fault}; correct or drop it")
        regions.append(Region(NAMES[finding], shape, "ChestX-Det radiologist"))
    return image_stem(name), split, tuple(regions)
