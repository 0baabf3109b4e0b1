"""`class-attention` and its baselines through the real command line, with the starter backbone."""

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
from dwarf_cxr.models.checkpoint import load_model
from tests.tiny import FINDINGS, random_pixels, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("class-attention") / "data"
    write_data(folder)
    return folder


def dwarf(*words: str | Path) -> str:
    """Run the command; its output with its exit status in front."""
    result = CliRunner().invoke(app, list(map(str, words)))
    return f"{result.exit_code} {result.output} {result.exception}"


def train(data: Path, run: Path, *assignments: str) -> str:
    settings = ["batch_size=5", "accelerator=cpu", *assignments]
    options = [word for one in settings for word in ("--set", one)]
    words = ("train", "class-attention", "--data", data, "--out", run, "--epochs", "2")
    return dwarf(*words, *options)


@pytest.fixture(scope="module")
def trained(data) -> Path:
    run = data.with_name("trained")
    assert train(data, run).startswith("0 ")
    return run


@pytest.mark.parametrize(
    ("attention", "assignments", "grid"),
    [
        ("class", [], 4),
        ("image", ["attention=image", "entropy_weight=0", "compatibility=dot"], 4),
        ("none", ["attention=none", "entropy_weight=0"], 2),
    ],
)
def test_it_trains_evaluates_and_predicts(data, tmp_path, attention, assignments, grid):
    run = tmp_path / "run"
    said = train(data, run, *assignments)
    assert said.startswith("0 "), said
    assert "no training image has a region" not in said
    with (run / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        entropy = float(row["entropy_loss"]) if attention == "class" else 0.0
        assert ("entropy_loss" in row) == (attention == "class")
        assert 0 <= entropy < 1
        expected = float(row["label_loss"]) + 0.1 * entropy
        assert float(row["loss"]) == pytest.approx(expected)

    said = dwarf("evaluate", run, "--data", data, "--draws", "5")
    assert said.startswith("0 "), said
    protocol = json.loads((run / "eval-test" / "metrics.json").read_text())["protocol"]
    assert protocol["map_domain"] == ("unit" if attention == "none" else "simplex")
    assert (run / "eval-test" / "mean-maps.npz").is_file()

    film = tmp_path / "film.png"
    cv2.imwrite(str(film), random_pixels(1)[0])
    said = dwarf("predict", run, film, "--out", tmp_path / "out", "--findings", "Nodule,Mass")
    assert said.startswith("0 "), said

    model = load_model(run)
    outputs = model.predict(random_pixels(3), ["Nodule", "Mass"])
    assert outputs.maps.shape == (3, 2, grid, grid)
    everything = model.predict(random_pixels(3))
    np.testing.assert_allclose(outputs.probability, everything.probability[:, [2, 0]], rtol=1e-5)


def test_defaults_are_those_of_the_documentation(trained):
    settings = load_config(trained / "config.yaml").settings
    assert (settings.objective.seg_weight, settings.objective.positive_weighting) == (
        0,
        "frequency",
    )
    model = load_model(trained)
    assert model.settings.compatibility == "tanh"
    assert model.findings == FINDINGS


@pytest.mark.parametrize("attention", ["image", "none"])
def test_entropy_of_masks_that_are_no_findings_own_is_refused(data, tmp_path, attention):
    said = train(data, tmp_path / "run", f"attention={attention}")
    assert said.startswith("1 ")
    assert "set entropy_weight=0" in said
    assert not (tmp_path / "run").exists()


def test_words_are_refused(trained, tmp_path):
    prompts, film = tmp_path / "prompts.yaml", tmp_path / "film.png"
    prompts.write_text("Mass: a round opacity\n")
    cv2.imwrite(str(film), random_pixels(1)[0])
    said = dwarf("predict", trained, film, "--out", tmp_path / "out", "--prompts", prompts)
    assert said.startswith("1 ")
    assert "a class-attention model has no prompts" in said


@torch.no_grad()
def test_the_starter_gives_masks_at_strides_4_8_and_16(trained):
    prediction = load_model(trained).eval()(torch.rand(2, 64, 64))
    assert prediction.extras["attention"].shape == (2, 3, 4, 4)
    assert prediction.extras["attention_1"].shape == (2, 16, 16)
    assert prediction.extras["attention_2"].shape == (2, 8, 8)
