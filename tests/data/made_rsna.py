"""The RSNA challenge's tables, in exactly the official layouts."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Corners = Sequence[float]

OTHER = "No Lung Opacity / Not Normal"


def write_challenge(root: Path, images: Mapping[str, tuple[str, Sequence[Corners]]]) -> None:
    """The two tables; `images`: class, and boxes as x, y, width, height.

    Both have a row for every box, and one row for an image without.
    """
    labels = [["patientId", "x", "y", "width", "height", "Target"]]
    classes = [["patientId", "class"]]
    for image_id, (class_name, boxes) in images.items():
        for corners in boxes or [[""] * 4]:
            target = "1" if class_name == "Lung Opacity" else "0"
            labels.append([image_id, *map(str, corners), target])
            classes.append([image_id, class_name])
    _write(root / "stage_2_train_labels.csv", labels)
    _write(root / "stage_2_detailed_class_info.csv", classes)


def write_mapping(root: Path, files: Mapping[str, str]) -> Path:
    """RSNA's list of the NIH files that the challenge's images were made of."""
    entries = [
        {"img_id": nih, "subset_img_id": image_id, "orig_labels": ["No Finding"]}
        for image_id, nih in files.items()
    ]
    path = root / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(entries))
    return path


def write_by_nih_name(root: Path, images: Mapping[str, tuple[str, Sequence[Corners]]]) -> None:
    """The two tables by NIH file name; `images`: class, and boxes as x1, y1, x2, y2."""
    classes = [["Image Index", "rsna_class"]]
    classes += [[name, class_name] for name, (class_name, _) in images.items()]
    boxes = [["Image Index", "x1", "y1", "x2", "y2"]]
    boxes += [[name, *map(str, box)] for name, (_, drawn) in images.items() for box in drawn]
    _write(root / "rsna_classes.csv", classes)
    _write(root / "rsna_lung_opacity_boxes.csv", boxes)


def _write(path: Path, lines: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
