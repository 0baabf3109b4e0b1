"""`gain-am` and `dwarf pretrain` through the real command line."""

import csv
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.config import load_config
from dwarf_cxr.methods import METHODS
from dwarf_cxr.models.checkpoint import load_model
from tests.tiny import FINDINGS, random_pixels, write_bert, write_data, write_vit


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    write_vit(folder / "vit")
    write_bert(folder / "bert")
    write_data(folder / "data", texts=True)
    write_data(folder / "silent")
    return folder


def dwarf(place: Path, *words: str | Path) -> str:
    """Run a training of a tiny model; its output with its exit status in front."""
    small = {
        "image_encoder": place / "vit",
        "text_encoder": place / "bert",
        "width": 16,
        "layers": 1,
        "attention_heads": 2,
        "feedforward": 24,
        "batch_size": 5,
        "accelerator": "cpu",
    }
    options = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, [*map(str, words), *options, "--epochs", "2"])
    error = result.exception
    return f"{result.exit_code} {result.output} {error}"


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_gain_am_is_a_method_that_trains_on_labels(place, tmp_path):
    assert "gain-am" in CliRunner().invoke(app, ["methods"]).output
    run = tmp_path / "run"
    said = dwarf(place, "train", "gain-am", "--data", place / "silent", "--out", run)
    assert said.startswith("0 "), said
    assert "no training image has a region" not in said
    for row in history(run):
        assert 0 < float(row["mining_loss"]) < 1
        assert "external_loss" not in row
        assert float(row["loss"]) == pytest.approx(
            float(row["label_loss"]) + float(row["mining_loss"])
        )
    objective = load_config(run / "config.yaml").settings.objective
    assert (objective.seg_weight, objective.mining_weight) == (0, 1)
    assert load_model(run).settings.query_context == "isolated"


def test_pretraining_writes_an_ordinary_model(place, tmp_path):
    run = tmp_path / "run"
    words = ("pretrain", "--data", place / "data", "--out", run, "--findings", "Nodule,Mass")
    said = dwarf(place, *words)
    assert said.startswith("0 "), said
    assert "contrastive_loss" in history(run)[0]
    assert load_config(run / "config.yaml").method == "pretrain"
    model = load_model(run)
    assert model.findings == ("Nodule", "Mass")
    assert model.predict(random_pixels(3)).probability.shape == (3, 2)
    with torch.no_grad():
        vectors = model(torch.rand(2, 64, 64)).extras["image_vector"]
        lengths = torch.cat([vectors, model.text_vectors(torch.randn(3, 24))]).norm(dim=-1)
    assert lengths.tolist() == pytest.approx([1.0] * 5)
    again = dwarf(place, *words, "--resume")
    assert again.startswith("0 "), again


def test_pretraining_is_not_offered_as_a_method(place, tmp_path):
    assert "pretrain" not in CliRunner().invoke(app, ["methods"]).output
    said = dwarf(place, "train", "pretrain", "--data", place / "data", "--out", tmp_path / "run")
    assert "unknown method 'pretrain'" in said


def test_data_without_text_are_refused(place, tmp_path):
    said = dwarf(place, "pretrain", "--data", place / "silent", "--out", tmp_path / "run")
    assert said.startswith("1 ")
    assert "no training image has a text" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [("accumulate=2", "accumulate = 2 with a"), ("contrastive=false", "needs contrastive = true")],
)
def test_settings_that_do_not_go_with_contrast_are_refused(place, tmp_path, assignment, message):
    words = ("pretrain", "--data", place / "data", "--out", tmp_path / "run", "--set", assignment)
    said = dwarf(place, *words)
    assert said.startswith("1 ")
    assert message in said
    assert "{" not in said, "the message must not be hidden in all settings"
    assert not (tmp_path / "run").exists()


def test_models_of_other_methods_have_no_temperature(place, tmp_path):
    said = dwarf(place, "train", "classifier", "--data", place / "data", "--out", tmp_path / "run")
    assert said.startswith("0 "), said
    model = load_model(tmp_path / "run")
    assert "log_scale" not in model.state_dict()
    assert model.findings == FINDINGS


def test_the_documented_methods_are_those_of_the_command_in_its_words():
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    documented = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1].startswith("methods/"):
            documented[cells[0]] = cells[2]
    assert documented == {method.name: method.supervision for method in METHODS}
    shown = CliRunner().invoke(app, ["methods"]).output
    for name, supervision in documented.items():
        assert any(line.split()[0] == name and supervision in line for line in shown.splitlines())
