"""`ham` through the real command line, with the starter backbone."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.config import load_config
from dwarf_cxr.data.batches import RegionTargets
from dwarf_cxr.models.checkpoint import load_model
from tests.tiny import random_pixels, write_data

SMALL = ("width=16", "map_size=8", "batch_size=7", "accelerator=cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ham") / "data"
    write_data(folder)
    return folder


def dwarf(*words: str | Path) -> str:
    """Run the command; its output with its exit status in front."""
    result = CliRunner().invoke(app, list(map(str, words)))
    return f"{result.exit_code} {result.output} {result.exception}"


def train(data: Path, run: Path, *assignments: str) -> str:
    options = [word for one in (*SMALL, *assignments) for word in ("--set", one)]
    return dwarf("train", "ham", "--data", data, "--out", run, "--epochs", "2", *options)


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_trains_resumes_evaluates_and_predicts(data, tmp_path):
    run = tmp_path / "run"
    said = train(data, run)
    assert said.startswith("0 "), said
    weights = {"anomaly": 0.01, "bound": 0.001, "union": 0.001, "box": 0.5}
    for row in history(run):
        losses = {name: float(row[f"{name}_loss"]) for name in weights}
        assert all(0 < loss < 2 for loss in losses.values())
        expected = float(row["label_loss"]) + sum(w * losses[n] for n, w in weights.items())
        assert float(row["loss"]) == pytest.approx(expected)
    best = max(history(run), key=lambda row: float(row["val_auc"]) + float(row["val_dice"]))
    assert best["best"] == "1"

    said = dwarf("evaluate", run, "--data", data, "--draws", "5")
    assert said.startswith("0 "), said
    metrics = json.loads((run / "eval-test" / "metrics.json").read_text())
    assert metrics["protocol"]["map_domain"] == "unit"

    film = tmp_path / "film.png"
    cv2.imwrite(str(film), random_pixels(1)[0])
    said = dwarf("predict", run, film, "--out", tmp_path / "out", "--findings", "Nodule,Mass")
    assert said.startswith("0 "), said
    assert "Nodule" in (tmp_path / "out" / "predictions.json").read_text()

    model = load_model(run)
    every, some = model.predict(random_pixels(3)), model.predict(random_pixels(3), ["Nodule"])
    np.testing.assert_allclose(some.probability, every.probability[:, 2:], rtol=1e-5)
    assert 0 <= every.maps.min() < every.maps.max() <= 1


def test_labels_alone_choose_epochs_by_auc(data, tmp_path):
    run = tmp_path / "run"
    said = train(data, run, "box_weight=0")
    assert said.startswith("0 "), said
    rows = history(run)
    assert "box_loss" not in rows[0]
    assert rows[0]["best"] == "1"
    assert rows[1]["best"] == str(int(float(rows[1]["val_auc"]) > float(rows[0]["val_auc"])))


def test_a_share_of_the_annotated_images_trains_the_maps(data, tmp_path, monkeypatch):
    seen = []
    of = RegionTargets.of.__func__
    monkeypatch.setattr(
        RegionTargets,
        "of",
        classmethod(lambda cls, *given: seen.append(of(cls, *given)) or seen[-1]),
    )
    for name, assignments in (("all", []), ("half", ["region_share=.5"])):
        said = train(data, tmp_path / name, *assignments)
        assert said.startswith("0 "), said
    boxed = [int((targets.rows >= 0).any(axis=1).sum()) for targets in seen]
    assert boxed == [10, 5]
    assert load_config(tmp_path / "half" / "config.yaml").settings.objective.region_share == 0.5


def test_a_state_resumes_where_it_was(data, tmp_path):
    run = tmp_path / "run"
    assert train(data, run, "box_weight=0").startswith("0 ")
    before = load_model(run).state_dict()
    options = [word for one in (*SMALL, "box_weight=0") for word in ("--set", one)]
    words = ("train", "ham", "--data", data, "--out", run, "--epochs", "2", *options, "--resume")
    said = dwarf(*words)
    assert said.startswith("0 "), said
    after = load_model(run).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["accumulate=2"], "accumulate = 2 with bound_weight, union_weight, box_weight"),
        (["devices=2", "box_weight=0"], "devices = 2 with bound_weight, union_weight:"),
        (["schedule=cyclic"], "schedule = cyclic with bound_weight, union_weight, box_weight, an"),
        (["region_share=.5", "region_cases=3"], "region_cases = 3 and region_share = 0.5"),
        (["head=linear"], "unknown setting 'head'"),
        (["output_stride=32"], "output_stride"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(data, tmp_path, assignments, message):
    said = train(data, tmp_path / "run", *assignments)
    assert said.startswith("1 "), said
    assert message in said
    assert not (tmp_path / "run").exists()


def test_micro_batches_are_allowed_where_the_terms_are_not_used(data, tmp_path):
    off = ("bound_weight=0", "union_weight=0", "box_weight=0", "accumulate=2")
    said = train(data, tmp_path / "run", *off)
    assert said.startswith("0 "), said


def test_other_methods_have_no_such_terms(data, tmp_path):
    words = ("train", "classifier", "--data", data, "--out", tmp_path / "run")
    said = dwarf(*words, "--set", "box_weight=.5")
    assert said.startswith("1 ")
    assert "box_weight = 0.5" in said
