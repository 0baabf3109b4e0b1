"""Faults 22 to 31: labels, regions, splits."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np

from dwarf_cxr.data.records import Box
from tests.faults.fault import Fault, done, dwarf, need, refused, shortened
from tests.faults.films import (
    FINDINGS,
    SIZE,
    change,
    prepare,
    refuse_again,
    refuse_prepared,
    write_films,
)
from tests.faults.runs import train_tiny, write_tiny
from tests.tiny import SIZE as TINY_SIZE


def duplicate_ids(place: Path) -> str:
    """Two rows with one id."""
    return refuse_prepared(
        place,
        lambda root: change(root / "images.csv", "film5,", "film3,"),
        names=["images.csv, line 7", "'film3'", "line 5"],
        remedy="ids must differ",
    )


def patient_in_two_splits(place: Path) -> str:
    """A patient in train and test."""
    return refuse_prepared(
        place,
        lambda root: change(root / "images.csv", "patient5", "patient0"),
        names=["patient0", "train", "test"],
        remedy="into one",
    )


def image_in_two_splits(place: Path) -> str:
    """The same film under two names."""
    return refuse_prepared(
        place,
        lambda root: (root / "film5.png").write_bytes((root / "film0.png").read_bytes()),
        names=["film5.png", "film0.png", "train", "test"],
        remedy="into one",
    )


def box_outside(place: Path) -> str:
    """A box that reaches over the edge."""
    root, out = write_films(place / "films"), place / "data"
    change(root / "regions.csv", "film0,Mass,4,6,20,18", "film0,Mass,-4,6,20,60")
    said, data = prepare(root, out)
    note = next((line for line in said.splitlines() if "film0" in line), "")
    need("clipped" in note, f"not reported: {said}")
    need(data.regions(0, "Mass")[0].shape == Box(0.0, 6.0, 20.0, 48.0), "not clipped")
    strict = refuse_again(root, out, "--strict", names=["film0", "region 1"], remedy="clipped")
    need(strict, "no message")
    return f"{shortened(note)}; refused with --strict"


def box_without_area(place: Path) -> str:
    """Corners in the wrong order, and one that is no number."""
    wrong = {"20,6,4,18": "has no area", "4,6,nan,18": "not finite"}
    got = []
    for number, (corners, what) in enumerate(wrong.items()):
        (place / str(number)).mkdir()
        got.append(
            refuse_prepared(
                place / str(number),
                lambda root, corners=corners: change(root / "regions.csv", "4,6,20,18", corners),
                names=["regions.csv, line 2", what],
                remedy="correct or drop the row",
            )
        )
    return got[0]


def unknown_finding(place: Path) -> str:
    """A region of a finding that the table does not have."""
    return refuse_prepared(
        place,
        lambda root: change(root / "regions.csv", "film0,Mass", "film0,Masse"),
        names=["regions.csv, line 2", "'Masse'"],
        remedy=f"known: {', '.join(FINDINGS)}",
    )


def odd_labels(place: Path) -> str:
    """Labels that every tool reads otherwise."""
    got = ""
    for number, label in enumerate(("nan", "-1", "0.5")):
        (place / str(number)).mkdir()
        got = refuse_prepared(
            place / str(number),
            lambda root, label=label: change(
                root / "images.csv", "film0.png,train,1", f"film0.png,train,{label}"
            ),
            names=["images.csv, line 2, column 'Mass'", f"'{label}'"],
            remedy="write 1 (present), 0 (absent) or nothing (never assessed)",
        )
    return got


def mask_of_another_size(place: Path) -> str:
    """A COCO mask that was drawn on a shrunken film."""
    root, out = write_films(place / "films"), place / "data"
    prepare(root, out)
    document = {
        "images": [
            {"id": 1, "file_name": "film0.png", "width": SIZE, "height": SIZE, "split": "train"}
        ],
        "annotations": [
            {
                "id": 7,
                "image_id": 1,
                "category_id": 1,
                "segmentation": {"size": [24, 24], "counts": [100, 20, 456]},
                "iscrowd": 1,
            }
        ],
        "categories": [{"id": 1, "name": "Mass"}],
    }
    (root / "annotations.json").write_text(json.dumps(document))
    command = ("data", "prepare", "coco", "--root", root, "--out", out, "--size", SIZE)
    return refused(
        *command,
        names=["film0", "24×24", f"{SIZE}×{SIZE}"],
        remedy="give the mask in the image's size",
        untouched=out,
    )


def odd_text(place: Path) -> str:
    """What spreadsheets make of a table: read as it is meant, or refused by line and byte."""
    root, out = write_films(place / "films"), place / "data"
    _, plain = prepare(root, out)
    table = root / "images.csv"
    text = table.read_bytes()
    table.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    _, marked = prepare(root, place / "marked")
    same = plain.image_ids == marked.image_ids and np.array_equal(plain.labels, marked.labels)
    need(same and plain.findings == marked.findings, "read otherwise")
    table.write_bytes(text.replace(b"patient3", b"pati\xe9nt3"))
    got = refuse_again(root, out, names=["images.csv, line 5", "0xe9"], remedy="CSV UTF-8")
    return f"BOM and CRLF read; {got}"


def no_positives(place: Path) -> str:
    """A finding that no film of the evaluated split has."""
    write_tiny(place)
    root = without_positives(place, "Nodule", "test")
    train_tiny(place, epochs=1)
    done("evaluate", place / "run", "--data", root, "--draws", 10)
    metrics = json.loads((place / "run" / "eval-test" / "metrics.json").read_text())
    nodule, mass = (metrics["findings"][name]["auc"] for name in ("Nodule", "Mass"))
    need(nodule["value"] is None, f"AUC of a finding without positives: {nodule}")
    need(nodule.get("reason"), "no reason")
    need(mass["value"] is not None, "the other findings are undefined too")
    reasons = {
        name: metric.get("reason")
        for name, metric in metrics["findings"]["Nodule"].items()
        if isinstance(metric, dict) and metric.get("value") is None
    }
    need({"auc", "ap", "f1", "max_dice"} <= reasons.keys(), f"undefined: {sorted(reasons)}")
    checked = dwarf("data", "check", root)
    need("'Nodule' has no positive image in the split 'test'" in checked.text, checked.text)
    return shortened(f"auc: {json.dumps(nodule)}")


def without_positives(place: Path, finding: str, split: str) -> Path:
    """Prepare `place`/data again with a finding absent on all films of a split."""
    data, source = place / "data", place / "source"
    source.mkdir()
    with (data / "images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if row["split"] == split:
            row[finding] = "0"
    with (source / "images.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shutil.rmtree(data)
    done("data", "prepare", "csv", "--root", source, "--out", data, "--size", TINY_SIZE)
    return data


FAULTS = (
    Fault(22, "duplicate ids", "refused, names both rows", duplicate_ids),
    Fault(
        23, "one patient in two splits", "refused, names patient and splits", patient_in_two_splits
    ),
    Fault(24, "one image in two splits", "refused, names both files", image_in_two_splits),
    Fault(25, "box outside the image", "clipped and reported; refused with --strict", box_outside),
    Fault(26, "x2 <= x1, NaN in a box", "refused, names the row", box_without_area),
    Fault(27, "unknown finding", "refused, names row and finding", unknown_finding),
    Fault(28, "label nan, -1, 0.5", "refused, names row and column", odd_labels),
    Fault(29, "mask of another size", "refused, names image and sizes", mask_of_another_size),
    Fault(30, "BOM, CRLF, bad UTF-8", "read; refused by line and byte", odd_text),
    Fault(31, "finding without positives", "undefined with the reason", no_positives),
)
