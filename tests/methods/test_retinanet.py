"""`retinanet` through the real command line: train, evaluate, predict."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.config import load_config
from dwarf_cxr.evaluation.boxes import METRICS
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.retinanet import RetinaNet
from tests.tiny import FINDINGS, SIZE, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("retinanet") / "data"
    write_data(folder)
    return folder


def dwarf(*words: str | Path) -> str:
    """The output of a command with its exit status in front."""
    result = CliRunner().invoke(app, [*map(str, words)])
    return f"{result.exit_code} {result.output} {result.exception}"


def train(data: Path, run: Path, *assignments: str) -> str:
    small = ("width=16", "depth=1", "batch_size=5", "accelerator=cpu", "map_size=64", *assignments)
    options = [word for assignment in small for word in ("--set", assignment)]
    return dwarf("train", "retinanet", "--data", data, "--out", run, "--epochs", "2", *options)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    said = train(data, folder)
    assert said.startswith("0 "), said
    assert re.search(r"training epoch 1/2: detection loss \d\.\d{3}\n", said), said
    assert "label loss" not in said
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_trains_on_boxes_alone(run):
    history = rows(run / "history.csv")
    for row in history:
        assert 0 < float(row["detection_loss"]) == pytest.approx(float(row["loss"]))
    objective = load_config(run / "config.yaml").settings.objective
    assert (objective.seg_weight, objective.label_weight) == (0, 0)
    model = load_model(run)
    assert isinstance(model, RetinaNet)
    assert model.findings == FINDINGS
    assert "retinanet" in dwarf("methods")


def test_evaluation_writes_its_boxes_and_their_metrics(run, data, tmp_path):
    said = dwarf("evaluate", run, "--data", data, "--out", tmp_path, "--draws", "20")
    assert said.startswith("0 "), said
    assert "boxes: recall_25" in said
    block = json.loads((tmp_path / "metrics.json").read_text())["boxes"]
    assert tuple(block["macro"]) == METRICS
    assert tuple(block["findings"]) == FINDINGS
    boxes = rows(tmp_path / "boxes.csv")
    assert {row["image_id"] for row in boxes} == {f"film{number}" for number in range(21, 25)}
    kept: dict[tuple[str, str], list[float]] = {}
    for row in boxes:
        x1, y1, x2, y2, score = (float(row[name]) for name in ("x1", "y1", "x2", "y2", "score"))
        assert 0 <= x1 <= x2 <= SIZE
        assert 0 <= y1 <= y2 <= SIZE
        kept.setdefault((row["image_id"], row["finding"]), []).append(score)
    assert all(one == sorted(one, reverse=True) and len(one) <= 10 for one in kept.values())
    # the films' finding's score is that of its best box
    for row in rows(tmp_path / "cases.csv"):
        assert float(row["score"]) == pytest.approx(max(kept[row["image_id"], row["finding"]]))


def test_prediction_says_its_own_boxes(run, tmp_path):
    film = next(run.parent.parent.glob("retinanet*/data-films/film3.png"))
    said = dwarf("predict", run, film, "--out", tmp_path / "said")
    assert said.startswith("0 "), said
    record = json.loads((tmp_path / "said" / "predictions.json").read_text())["images"][0]
    model = load_model(run)
    pixels = cv2.imread(str(film), cv2.IMREAD_GRAYSCALE)[None]
    found = model.predict(pixels).detections[0]
    assert (record["width"], record["height"]) == (SIZE, SIZE)
    for name, said in record["findings"].items():
        own = found.findings == FINDINGS.index(name)
        expected = [
            [*box, score]
            for box, score in zip(found.boxes[own], found.scores[own], strict=True)
            if score >= said["map_threshold"]
        ]
        corners = ("x1", "y1", "x2", "y2", "score")
        boxes = [[box[corner] for corner in corners] for box in said["boxes"]]
        assert len(boxes) == len(expected)
        np.testing.assert_allclose(
            np.array(boxes).reshape(-1, 5), np.array(expected).reshape(-1, 5), rtol=1e-4, atol=1e-3
        )
    assert any(said["boxes"] for said in record["findings"].values())


def test_other_networks_have_no_detection_loss(data, tmp_path):
    words = ("train", "classifier", "--data", data, "--out", tmp_path / "run")
    said = dwarf(*words, "--set", "detection_weight=1")
    assert said.startswith("1 ")
    assert "detection_weight = 1" in said
