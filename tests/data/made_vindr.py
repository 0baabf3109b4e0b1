"""VinDr-CXR's tables, in exactly the official layouts, with what a test says is in them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

LOCAL = (
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
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
)

CLASS_IDS = {
    "Aortic enlargement": 0,
    "Atelectasis": 1,
    "Calcification": 2,
    "Cardiomegaly": 3,
    "Consolidation": 4,
    "ILD": 5,
    "Infiltration": 6,
    "Lung Opacity": 7,
    "Nodule/Mass": 8,
    "Other lesion": 9,
    "Pleural effusion": 10,
    "Pleural thickening": 11,
    "Pneumothorax": 12,
    "Pulmonary fibrosis": 13,
    "No finding": 14,
}

Drawn = tuple[str, Sequence[float]]
"""A finding and its corners x_min, y_min, x_max, y_max."""


def label_columns(split: str) -> list[str]:
    others = "Other diseases" if split == "train" else "Other disease"
    return [*LOCAL, "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", others, "No finding"]


def write_labels(
    path: Path, split: str, rows: Sequence[tuple[str, str | None, Sequence[str]]]
) -> Path:
    """image_labels_SPLIT.csv; rows: image, rater (None in test), findings that are present."""
    columns = label_columns(split)
    named = [] if split == "test" else ["rad_id"]
    lines = [["image_id", *named, *columns]]
    for image_id, rater, present in rows:
        assert set(present) <= set(columns)
        who = [image_id] if rater is None else [image_id, rater]
        lines.append([*who, *(str(int(column in present)) for column in columns)])
    return _write(path / f"image_labels_{split}.csv", lines)


def write_boxes(
    path: Path, split: str, rows: Sequence[tuple[str, str | None, str, Sequence[float]]]
) -> Path:
    """annotations_SPLIT.csv; rows: image, rater (None in test), finding, corners or nothing."""
    named = [] if split == "test" else ["rad_id"]
    lines = [["image_id", *named, "class_name", "x_min", "y_min", "x_max", "y_max"]]
    for image_id, rater, finding, corners in rows:
        who = [image_id] if rater is None else [image_id, rater]
        lines.append([*who, finding, *(map(str, corners) if corners else [""] * 4)])
    return _write(path / f"annotations_{split}.csv", lines)


def write_train(root: Path, readings: Mapping[str, Mapping[str, Sequence[Drawn]]]) -> None:
    """PhysioNet's two tables of train: by image and rater, the boxes; none is "No finding"."""
    write_labels(
        root,
        "train",
        [
            (image_id, rater, [finding for finding, _ in drawn] or ["No finding"])
            for image_id, raters in readings.items()
            for rater, drawn in raters.items()
        ],
    )
    write_boxes(root, "train", _box_rows(readings))


def write_test(root: Path, consensus: Mapping[str, Sequence[Drawn]]) -> None:
    """PhysioNet's two tables of test."""
    write_labels(
        root,
        "test",
        [
            (image_id, None, [finding for finding, _ in drawn] or ["No finding"])
            for image_id, drawn in consensus.items()
        ],
    )
    rows = _box_rows({image_id: {"": drawn} for image_id, drawn in consensus.items()})
    write_boxes(root, "test", [(one, None, finding, box) for one, _, finding, box in rows])


def write_challenge(
    root: Path,
    readings: Mapping[str, Mapping[str, Sequence[Drawn]]],
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Path:
    """The challenge's train.csv; `sizes` (width, height) add the columns of a resized release."""
    named = ["width", "height"] if sizes else []
    corner_names = ["x_min", "y_min", "x_max", "y_max"]
    lines = [["image_id", "class_name", "class_id", "rad_id", *corner_names, *named]]
    for image_id, rater, finding, corners in _box_rows(readings):
        box = list(map(str, corners)) if corners else [""] * 4
        size = list(map(str, sizes[image_id])) if sizes else []
        lines.append([image_id, finding, str(CLASS_IDS[finding]), rater, *box, *size])
    return _write(root / "train.csv", lines)


def write_sizes(root: Path, split: str, sizes: Mapping[str, tuple[int, int]]) -> Path:
    """SPLIT_meta.csv of a resized release, from (width, height)."""
    rows = [[one, str(height), str(width)] for one, (width, height) in sizes.items()]
    return _write(root / f"{split}_meta.csv", [["image_id", "dim0", "dim1"], *rows])


def _box_rows(
    readings: Mapping[str, Mapping[str, Sequence[Drawn]]],
) -> list[tuple[str, str, str, Sequence[float]]]:
    return [
        (image_id, rater, finding, corners)
        for image_id, raters in readings.items()
        for rater, drawn in raters.items()
        for finding, corners in (drawn or [("No finding", ())])
    ]


def _write(path: Path, lines: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path
