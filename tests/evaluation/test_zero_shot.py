"""Weights of others: asked the data's findings, calibrated on its splits, judged like any model."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.data.label_map import load_label_map
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError, DataError
from dwarf_cxr.evaluation.zero_shot import calibrated, load_for, words_for
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.outputs import Origin
from dwarf_cxr.models.vlm import build_classifier
from tests.tiny import (
    FINDINGS,
    SIZE,
    WORDS,
    random_pixels,
    settings,
    write_bert,
    write_data,
    write_vit,
)

KNOWN = ("Nodule", "Mass", "Fracture")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero-shot")
    vit, bert = write_vit(folder / "vit"), write_bert(folder / "bert", (*WORDS, "fracture"))
    write_data(folder / "data")
    joint = settings(vit, bert, ["head=none", "query_context=joint"])
    model = build_classifier(joint.model, KNOWN, SIZE, seed=4)
    model.origin = Origin("kad", "best_valid.pt", "a" * 64, ("position_ids were dropped",))
    save_model(model, folder / "foreign")
    return folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_model_without_card_keeps_its_origin(place):
    model = load_model(place / "foreign")
    assert model.card is None
    assert model.origin == Origin("kad", "best_valid.pt", "a" * 64, ("position_ids were dropped",))
    words = (place / "foreign" / "README.md").read_text()
    assert "best_valid.pt" in words
    assert "position_ids were dropped" in words


def test_neither_card_nor_origin_is_not_written(place, tmp_path):
    model = load_model(place / "foreign")
    model.origin = None
    with pytest.raises(CheckpointError, match="no card"):
        save_model(model, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_only_the_findings_asked_are_in_the_room(place):
    """A finding's score is that of a model which never knew the others."""
    model, films = load_model(place / "foreign"), random_pixels(2)
    alone = model.asking({"Mass": "Mass"}).predict(films)
    with_another = model.asking({"Mass": "Mass", "Nodule": "Nodule"}).predict(films)
    assert abs(alone.probability[:, 0] - with_another.probability[:, 0]).max() > 1e-6
    again = model.asking({"Nodule": "Nodule", "Mass": "Mass"}).predict(films)
    np.testing.assert_allclose(with_another.probability, again.probability[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(with_another.maps, again.maps[:, ::-1], atol=1e-6)


def test_known_findings_keep_their_stored_prompt_and_new_words_are_encoded(place):
    model = load_model(place / "foreign")
    with torch.no_grad():
        model.prompt_features[1] += 1  # no encoder gives this: it must come from the store
    asked = model.asking({"tumour": "Mass", "Effusion": "fluid around the lungs"})
    assert asked.findings == ("tumour", "Effusion")
    assert torch.equal(asked.prompt_features[0], model.prompt_features[1])
    assert not torch.equal(asked.prompt_features[1], model.prompt_features[0])
    assert model.findings == KNOWN


def test_heads_are_their_findings_own(place):
    model = build_classifier(settings(place / "vit", place / "bert").model, FINDINGS, SIZE, seed=0)
    with pytest.raises(ConfigError, match="heads"):
        model.asking({"Fracture": "Fracture"})


def test_the_datas_own_names_are_asked_as_the_models(place):
    model = load_model(place / "foreign")
    data = dataclasses.replace(
        load_data(place), name="VinDr-CXR", findings=("Mass", "Other lesion")
    )
    names = load_label_map().names_of(data.name)
    words = words_for(model, data, None, descriptions=False)
    assert words == {"Mass": "Mass", "Other lesion": "Other lesion"}, names
    described = words_for(model, data, None, descriptions=True)
    assert described["Mass"] == "A round opacity in the lung larger than three centimetres"


def load_data(place):
    return PreparedData.open(place / "data")


def test_thresholds_come_from_the_datas_validation_split(place):
    from dwarf_cxr.evaluation.scores import fit_score_threshold

    data = load_data(place)
    model = load_for(place / "foreign", data)
    assert model.card.zero_shot
    assert model.card.method == "kad"
    val = data.indices("val")
    scores = model.predict(data.pixels[val]).probability
    for column, finding in enumerate(FINDINGS):
        expected = fit_score_threshold(data.labels[val, column], scores[:, column])
        assert model.card.score_thresholds[finding] == expected
    for row, finding in enumerate(FINDINGS):
        drawn = [
            data.coverage(index, finding, SIZE)
            for index in data.indices("train")
            if data.regions(index, finding)
        ]
        np.testing.assert_allclose(model.card.train_prior[row], np.mean(drawn, axis=0), atol=1e-6)


def pretrained(place, folder, data):
    """A model that `dwarf pretrain` might have written: it has a card of its own."""
    model = calibrated(load_model(place / "foreign"), data, method="pretrain")
    model.card = dataclasses.replace(model.card, zero_shot=False)
    save_model(model, folder)
    return folder


def test_weights_that_saw_the_patients_are_not_asked_zero_shot(place, tmp_path):
    write_data(tmp_path / "other", seed=0, train=9, val=4)  # the same patients, split anew
    init = pretrained(place, tmp_path / "pretrained", load_data(place))
    refused = run(
        "train", "kad", "--data", tmp_path / "other", "--init", init, "--out", tmp_path / "R"
    )  # fmt: skip
    assert isinstance(refused.exception, DataError), refused.output
    assert "were in the training or validation split of this model" in str(refused.exception)
    assert not (tmp_path / "R").exists()


def test_weights_that_learned_from_the_data_are_not_called_zero_shot(place, tmp_path):
    data = load_data(place)
    known = load_model(pretrained(place, tmp_path / "pretrained", data))
    seen = known.card.seen_files
    again = calibrated(known, data, method="kad")
    assert not again.card.zero_shot
    write_data(tmp_path / "strangers", seed=8)
    others = PreparedData.open(tmp_path / "strangers")
    others = dataclasses.replace(others, patients_of="else", name="else")
    asked = calibrated(known, others, method="kad")
    assert asked.card.zero_shot
    # what the weights saw is not forgotten
    assert set(seen) < set(asked.card.seen_files)
    assert set(known.card.seen_patients) < set(asked.card.seen_patients)


def test_evaluate_predict_and_a_run_of_kad_agree(place, tmp_path):
    foreign, data = place / "foreign", place / "data"
    bare = run("evaluate", foreign, "--data", data, "--out", tmp_path / "bare", "--draws", 20)
    assert bare.exit_code == 0, bare.output
    assert "zero-shot" in bare.output
    metrics = json.loads((tmp_path / "bare" / "metrics.json").read_text())
    assert metrics["protocol"]["zero_shot"] is True
    assert metrics["findings_order"] == list(FINDINGS)

    trained = run("train", "kad", "--data", data, "--init", foreign, "--out", tmp_path / "R")
    assert trained.exit_code == 0, trained.output
    card = (tmp_path / "R" / "model" / "README.md").read_text()
    assert "not trained on these data. Its weights are those of kad, from `best_valid.pt`" in card
    assert "position_ids were dropped" in card
    as_run = run("evaluate", tmp_path / "R", "--data", data, "--draws", 20)
    assert as_run.exit_code == 0, as_run.output
    same = [
        list(csv.DictReader((folder / "cases.csv").open()))
        for folder in (tmp_path / "bare", tmp_path / "R" / "eval-test")
    ]
    assert [row["score"] for row in same[0]] == [row["score"] for row in same[1]]
    assert [row["present"] for row in same[0]] == [row["present"] for row in same[1]]

    film = next((place / "data-films").glob("*.png"))
    said = run("predict", foreign, film, "--findings", "Mass,fluid", "--out", tmp_path / "P")
    assert said.exit_code == 0, said.output
    answer = json.loads((tmp_path / "P" / "predictions.json").read_text())
    findings = answer["images"][0]["findings"]
    assert list(findings) == ["Mass", "fluid"]
    assert findings["Mass"]["threshold"] is None
    assert 0 < findings["Mass"]["score"] < 1


def test_kad_without_weights_says_what_to_give(place, tmp_path):
    answer = run("train", "kad", "--data", place / "data", "--out", tmp_path / "R")
    assert isinstance(answer.exception, ConfigError)
    assert "--init" in str(answer.exception)
    assert not (tmp_path / "R").exists()


def test_devide_asks_with_descriptions(place, tmp_path):
    done = run(
        "train", "devide", "--data", place / "data", "--init", place / "foreign",
        "--out", tmp_path / "R",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    by_name = calibrated(load_model(place / "foreign"), load_data(place), method="kad")
    described = load_model(tmp_path / "R")
    assert described.findings == by_name.findings
    assert not torch.allclose(described.prompt_features, by_name.prompt_features)


def test_another_image_size_is_refused_with_the_remedy(place):
    with pytest.raises(CheckpointError, match=f"--size {SIZE}"):
        calibrated(
            load_model(place / "foreign"),
            dataclasses.replace(load_data(place), size=96),
            method="kad",
        )
