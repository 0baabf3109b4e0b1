"""Starting from a model: what is taken over, what starts fresh, what is refused."""

import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.config import load_config
from dwarf_cxr.data.records import Box
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.heads import LinearHead
from dwarf_cxr.models.initial import (
    classifier_from,
    refuse_other_architecture,
    settings_from,
)
from dwarf_cxr.models.outputs import Origin
from dwarf_cxr.models.vlm import build_classifier
from tests.tiny import FINDINGS, SIZE, add_pseudo, settings, write_bert, write_data, write_vit


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("initial")
    write_vit(folder / "vit")
    write_bert(folder / "bert")
    write_data(folder / "data")
    return folder


def build(place, assignments=(), findings=FINDINGS, seed=1):
    own = settings(place / "vit", place / "bert", assignments).model
    return build_classifier(own, findings, SIZE, seed)


def test_all_weights_but_fresh_heads_are_taken_over(place):
    initial = build(place, ["head=none"], findings=("Nodule", "Mass"))
    wanted = settings_from(initial, settings(place / "vit", place / "bert").model)
    model = classifier_from(initial, wanted, FINDINGS, SIZE, seed=2)
    ours, theirs = model.state_dict(), initial.state_dict()
    shared = theirs.keys() - {"prompt_features"}
    assert shared <= ours.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in shared)
    assert torch.equal(model.prompt_features[0], initial.prompt_features[1])  # Mass
    tokens = model.grid[0] * model.grid[1]
    for head in model.heads:
        assert isinstance(head, LinearHead)
        assert torch.equal(head.weight, torch.eye(tokens))


def test_a_pretrained_models_temperature_stays_behind(place):
    initial = build(place, ["head=none", "contrastive=true"])
    assert "log_scale" in initial.state_dict()
    wanted = settings_from(initial, settings(place / "vit", place / "bert").model)
    model = classifier_from(initial, wanted, FINDINGS, SIZE, seed=2)
    assert "log_scale" not in model.state_dict()
    assert torch.equal(model.score.weight, initial.score.weight)


def test_heads_of_shared_findings_go_on(place):
    initial = build(place, findings=("Nodule", "Mass"))
    with torch.no_grad():
        initial.heads[1].bias += 0.5
    model = classifier_from(initial, initial.settings, ("Mass", "Effusion"), SIZE, seed=2)
    assert torch.equal(model.heads[0].bias, initial.heads[1].bias)
    assert bool((model.heads[1].bias == 0).all())


def test_settings_that_the_weights_fix_are_refused_with_their_names(place):
    initial = build(place)
    other = settings(place / "vit", place / "bert", ["width=32", "layers=2"]).model
    with pytest.raises(ConfigError, match=r"width: 16 -> 32; layers: 1 -> 2"):
        refuse_other_architecture(initial, other)
    assert settings_from(initial, other).width == 16


def test_training_starts_from_a_run_through_the_command(place, tmp_path):
    initial = build(place, ["head=none"])
    initial.origin = Origin("kad", "file.pt", "b" * 64)
    save_model(initial, tmp_path / "foreign")
    words = ["train", "dwarf", "--data", place / "data", "--init", tmp_path / "foreign", "--out"]
    words += [tmp_path / "R", "--epochs", 1, "--set", "batch_size=7", "--set", "map_size=8"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    config = load_config(tmp_path / "R" / "config.yaml")
    assert config.settings.model.width == 16  # the weights', not the method's 192
    assert config.init_sha256 is not None
    trained = load_model(tmp_path / "R")
    assert trained.card is not None
    assert not trained.card.zero_shot
    before, after = initial.state_dict(), trained.state_dict()
    moved = (after["score.weight"] - before["score.weight"]).abs().max()
    assert 0 < float(moved) < 0.05  # started there: a few steps away, not anew


def test_a_model_that_saw_the_test_patients_is_no_start(place, tmp_path):
    words = ["train", "classifier", "--data", place / "data", "--out", tmp_path / "first"]
    words += ["--epochs", 1, "--set", f"image_encoder={place / 'vit'}", "--set"]
    words += [f"text_encoder={place / 'bert'}", "--set", "map_size=8"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    write_data(tmp_path / "other", seed=0, train=9, val=4)  # the same patients, split anew
    again = ["train", "dwarf", "--data", tmp_path / "other", "--init", tmp_path / "first"]
    again += ["--out", tmp_path / "second", "--epochs", 1]
    refused = CliRunner().invoke(app, [str(word) for word in again])
    assert isinstance(refused.exception, DataError), refused.output
    assert not (tmp_path / "second").exists()


def test_the_same_films_in_the_same_splits_are_a_start_also_with_teachers_regions(place, tmp_path):
    data = PreparedData.open(place / "data")
    drawn = next(int(i) for i in data.indices("train") if data.labels[i, 0] == 1)
    box = Box(4.0, 4.0, 20.0, 20.0)
    taught = add_pseudo(data, tmp_path / "taught", {(drawn, FINDINGS[0]): box})
    first = ["train", "classifier", "--data", place / "data", "--out", tmp_path / "first"]
    first += ["--set", f"image_encoder={place / 'vit'}", "--set", f"text_encoder={place / 'bert'}"]
    again = ["train", "dwarf", "--data", taught, "--regions", "pseudo", "--out", tmp_path / "again"]
    again += ["--init", tmp_path / "first"]
    for words in (first, again):
        words += ["--epochs", 1, "--set", "map_size=8"]
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.exception


def test_positions_of_another_grid_are_refused(place):
    initial = build(place)
    with pytest.raises(ConfigError, match=f"--size {SIZE}"):
        classifier_from(initial, initial.settings, FINDINGS, 96, seed=0)
