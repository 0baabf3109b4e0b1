"""Tiny files in exactly the layouts of CheXpert, CheXlocalize and HAM's boxes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

LABEL_COLUMNS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
TASKS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)
"""The ten findings by the names and in the order of CheXlocalize's scripts."""

Outline = Sequence[Sequence[float]]


def rectangle(x1: float, y1: float, x2: float, y2: float) -> Outline:
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_view(path: Path, width: int, height: int, *, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def write_valid_table(path: Path, rows: Mapping[str, Mapping[str, str]], otherwise: str) -> None:
    """train.csv, valid.csv, val_labels.csv: five columns of who and how, then the 14 labels."""
    lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(LABEL_COLUMNS)]
    for view, labels in rows.items():
        side = "Lateral," if "lateral" in view else "Frontal,AP"
        values = [labels.get(column, otherwise) for column in LABEL_COLUMNS]
        lines.append(f"{view},Female,63,{side},{','.join(values)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_test_table(path: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    """test_labels.csv: the path and the 14 labels, no more."""
    lines = ["Path," + ",".join(LABEL_COLUMNS)]
    for view, labels in rows.items():
        lines.append(",".join([view, *(labels.get(column, "0.0") for column in LABEL_COLUMNS)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def segmentations(annotations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """gt_segmentations of gt_annotations, drawn and encoded as CheXlocalize says it does."""
    encoded: dict[str, Any] = {}
    for view, entry in annotations.items():
        height, width = entry["img_size"]
        encoded[view] = {}
        for task in TASKS:
            picture = Image.new("1", (width, height))
            for outline in entry.get(task, []):
                corners = [tuple(point) for point in outline]
                ImageDraw.Draw(picture).polygon(corners, outline=1, fill=1)
            encoded[view][task] = run_lengths(np.array(picture))
    return encoded


def run_lengths(pixels: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


VAL_FRONTAL = "patient64541_study1_view1_frontal"
VAL_NORMAL = "patient64542_study1_view1_frontal"
VAL_LATERAL = "patient64542_study1_view2_lateral"
TEST_FRONTAL = "patient64741_study1_view1_frontal"
TEST_OTHER = "patient64742_study2_view1_frontal"

ORIGINALS = {
    VAL_FRONTAL: (60, 40),
    VAL_NORMAL: (50, 60),
    VAL_LATERAL: (40, 40),
    TEST_FRONTAL: (80, 60),
    TEST_OTHER: (40, 80),
}
"""(width, height) of the original images."""

ANNOTATIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "val": {
        VAL_FRONTAL: {
            "img_size": [40, 60],
            "Airspace Opacity": [rectangle(12.0, 8.0, 36.0, 24.0)],
            "Pleural Effusion": [rectangle(0.0, 28.0, 12.0, 40.0), rectangle(48, 20, 60, 40)],
        },
        VAL_LATERAL: {"img_size": [40, 40], "Cardiomegaly": [rectangle(4, 8, 20, 24)]},
    },
    "test": {
        TEST_FRONTAL: {
            "img_size": [60, 80],
            "Cardiomegaly": [rectangle(24.0, 12.0, 56.0, 48.0)],
            "Support Devices": [[[8.0, 6.0], [40.0, 6.0], [8.0, 54.0]]],
        }
    },
}


def write_chexlocalize(root: Path, *, shrink: float = 1, splits: Sequence[str] = ("val", "test")):
    """The official download; image files are `shrink` times as large as the originals."""
    for number, (view, (width, height)) in enumerate(ORIGINALS.items()):
        split = "val" if number < 3 else "test"
        if split not in splits:
            continue
        path = root / "CheXpert" / split / (view.replace("_view", "/view").replace("_s", "/s"))
        sides = round(width * shrink), round(height * shrink)
        write_view(path.with_name(path.name + ".jpg"), *sides, seed=number)
    if "val" in splits:
        write_valid_table(
            root / "CheXpert" / "val_labels.csv",
            {
                "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg": {
                    "Lung Opacity": "1.0",
                    "Pleural Effusion": "1.0",
                    "Pneumonia": "1.0",
                },
                "CheXpert-v1.0/valid/patient64542/study1/view1_frontal.jpg": {"No Finding": "1.0"},
                "CheXpert-v1.0/valid/patient64542/study1/view2_lateral.jpg": {
                    "Cardiomegaly": "1.0"
                },
            },
            otherwise="0.0",
        )
    if "test" in splits:
        write_test_table(
            root / "CheXpert" / "test_labels.csv",
            {
                "test/patient64741/study1/view1_frontal.jpg": {
                    "Cardiomegaly": "1.0",
                    "Support Devices": "1.0",
                },
                "test/patient64742/study2/view1_frontal.jpg": {"Edema": "1.0"},
            },
        )
    for split in splits:
        drawn, folder = ANNOTATIONS[split], root / "CheXlocalize"
        write_json(folder / f"gt_annotations_{split}.json", drawn)
        write_json(folder / f"gt_segmentations_{split}.json", segmentations(drawn))


BOXED_SIZES = {
    "train/patient40093/study4/view1_frontal.jpg": (100, 80),
    "train/patient16149/study2/view1_frontal.jpg": (60, 90),
    "train/patient04978/study1/view2_lateral.jpg": (70, 70),
    "train/patient01844/study23/view1_frontal.jpg": (50, 40),
    "valid/patient64692/study1/view1_frontal.jpg": (120, 90),
}
BOXES: Mapping[str, Mapping[str, Sequence[Sequence[int]]]] = {
    "train/patient40093/study4/view1_frontal.jpg": {
        "Cardiomegaly": [[40, 20, 80, 60]],
        "edema": [[10, 16, 30, 56], [60, 8, 90, 48]],
    },
    "train/patient16149/study2/view1_frontal.jpg": {
        "Enlarg_Cardiomediastinum": [[12, 18, 48, 54]],
        "Pleural_Effusion": [[6, 63, 24, 81]],
    },
    "train/patient04978/study1/view2_lateral.jpg": {"Fracture": [[35, 7, 49, 21]]},
    "train/patient01844/study23/view1_frontal.jpg": {"Atelectasis": [[5, 4, 25, 20]]},
    "valid/patient64692/study1/view1_frontal.jpg": {
        "Enlarged_Cardiomediastinum": [[24, 9, 96, 81]],
        "Pneumonia": [[60, 18, 84, 45]],
    },
}


def write_chexpert_boxes(root: Path, *, folder: str = "CheXpert-v1.0") -> None:
    """CheXpert's training and validation part with their tables, and the box file."""
    for number, (key, (width, height)) in enumerate(BOXED_SIZES.items()):
        write_view(root / folder / key, width, height, seed=number)
    write_valid_table(
        root / folder / "train.csv",
        {
            f"{folder}/train/patient40093/study4/view1_frontal.jpg": {
                "Cardiomegaly": "1.0",
                "Edema": "-1.0",
                "Pneumonia": "-1.0",
                "Pneumothorax": "0.0",
            },
            f"{folder}/train/patient16149/study2/view1_frontal.jpg": {"Pleural Effusion": "1.0"},
            f"{folder}/train/patient04978/study1/view2_lateral.jpg": {"Fracture": "1.0"},
            f"{folder}/train/patient01844/study23/view1_frontal.jpg": {"Atelectasis": "0.0"},
            f"{folder}/train/patient00001/study1/view1_frontal.jpg": {"No Finding": "1.0"},
        },
        otherwise="",
    )
    write_valid_table(
        root / folder / "valid.csv",
        {
            f"{folder}/valid/patient64692/study1/view1_frontal.jpg": {
                "Enlarged Cardiomediastinum": "1.0",
                "Pneumonia": "1.0",
            }
        },
        otherwise="0.0",
    )
    write_json(root / "BBoxes.json", BOXES)
