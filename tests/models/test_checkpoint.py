import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import sha256_of
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.vlm import VisionLanguageClassifier, build_classifier
from tests.tiny import (
    FINDINGS,
    SIZE,
    booby_trap,
    card_for,
    random_pixels,
    settings,
    write_bert,
    write_vit,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return write_vit(folder / "vit"), write_bert(folder / "bert")


def build(folders, assignments=()) -> VisionLanguageClassifier:
    model = build_classifier(settings(*folders, assignments).model, FINDINGS, SIZE, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.card = card_for(model)
    return model.eval()


@pytest.fixture
def saved(folders, tmp_path) -> Path:
    save_model(build(folders), tmp_path / "model")
    return tmp_path / "model"


VARIANTS = (
    [],
    ["head=prior"],
    ["head=conv3", "map_space=max", "query_context=joint", "positions=false"],
    ["head=none", "map_space=probability"],
    ["image_encoder=efficientnet-lite0", "frozen_layers=2", "head=linear-random"],
    ["image_encoder=efficientnet-lite0", "frozen_layers=0", "map_space=logit"],
)


@pytest.mark.parametrize("assignments", VARIANTS, ids=lambda value: ",".join(value) or "default")
def test_round_trip_predicts_the_same_bits(folders, tmp_path, assignments):
    model = build(folders, assignments)
    pixels = random_pixels(3)
    before = model.predict(pixels)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    after = again.predict(pixels)
    assert np.array_equal(before.probability, after.probability)
    assert np.array_equal(before.maps, after.maps)
    assert before.extras.keys() == after.extras.keys()
    for key, value in before.extras.items():
        assert np.array_equal(value, after.extras[key])
    assert (again.findings, again.image_size, again.settings) == (FINDINGS, SIZE, model.settings)
    assert not again.training


def test_the_card_comes_back(saved, folders):
    card, again = build(folders).card, load_model(saved).card
    for field in ("method", "data_fingerprint", "splits_sha256", "query_context", "map_domain"):
        assert getattr(again, field) == getattr(card, field)
    assert again.score_thresholds == dict.fromkeys(FINDINGS, 0.25)
    assert again.map_thresholds == dict.fromkeys(FINDINGS)
    assert again.train_prior.dtype == np.float32
    assert np.array_equal(again.train_prior, card.train_prior)


def test_a_model_from_before_files_were_known_is_read(folders, tmp_path):
    model = build(folders)
    model.card = dataclasses.replace(model.card, seen_patients=np.array([3, 7]))
    save_model(model, tmp_path / "old")
    weights, config = tmp_path / "old" / "model.safetensors", tmp_path / "old" / "config.json"
    tensors = load_file(weights)
    del tensors["seen_files"]
    save_file(tensors, weights)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sha256": sha256_of(weights)}))
    card = load_model(tmp_path / "old").card
    assert (card.seen_patients.tolist(), card.seen_files.tolist()) == ([3, 7], [])


def test_a_run_folder_leads_to_its_model(saved):
    (saved.parent / "config.yaml").write_text("")
    assert load_model(saved.parent).findings == FINDINGS


def test_the_folder_holds_what_is_promised(saved):
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    text = (saved / "README.md").read_text()
    for part in (*FINDINGS, "0.250", "not fitted", "Intended use", "1" * 64, "0" * 64):
        assert part in text


def test_a_model_without_card_is_not_saved(folders, tmp_path):
    model = build(folders)
    model.card = None
    with pytest.raises(CheckpointError, match="no card"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_byte_is_noticed_naming_the_hash(saved, where):
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256"):
        load_model(saved)


def rewritten(folder: Path, change) -> None:
    """Change the tensors and put their hash right, as a careless tool would."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = sha256_of(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def test_every_key_that_does_not_fit_is_listed(saved):
    def spoil(tensors):
        del tensors["score.bias"], tensors["heads.1.weight"]
        tensors["score.weight"] = torch.zeros(2, 16)
        tensors["positions"] = torch.zeros(4, 16)
        return {**tensors, "heads.9.weight": torch.zeros(1), "extra": torch.zeros(2)}

    rewritten(saved, spoil)
    with pytest.raises(CheckpointError) as caught:
        load_model(saved)
    for fault in (
        "missing score.bias",
        "missing heads.1.weight",
        "unexpected heads.9.weight",
        "unexpected extra",
        "score.weight is (2, 16), expected (1, 16)",
        "positions is (4, 16), expected (16, 16)",
    ):
        assert fault in str(caught.value)


@pytest.mark.parametrize("name", ["train_prior", "seen_patients"])
def test_a_missing_array_of_the_card_is_noticed(saved, name):
    rewritten(saved, lambda tensors: {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(CheckpointError, match=f"tensors are missing: {name}"):
        load_model(saved)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_says_what_it_wants(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(CheckpointError, match="no model there"):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "somebody else"}', b"{}"])
def test_a_foreign_or_broken_config_is_refused(saved, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(saved)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sha256",), None),
        (("architecture",), None),
        (("architecture", "settings", "width"), "wide"),
        (("card", "method"), None),
        # found by fuzzing: transformers asks torch for a type of that name
        (("architecture", "image_encoder", "config", "dtype"), "froat32"),
    ],
)
def test_a_damaged_config_is_a_checkpoint_error(saved, path, value):
    config = json.loads((saved / "config.json").read_text())
    place = config
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(saved)


def test_a_model_whose_replacement_was_killed_between_the_renames_is_found(saved, folders):
    expected = load_model(saved).predict(random_pixels(1)).probability
    (saved.parent / "config.yaml").write_text("")
    saved.rename(saved.with_name("model.old"))
    saved.with_name("model.new").mkdir()
    found = load_model(saved.parent)
    assert np.array_equal(found.predict(random_pixels(1)).probability, expected)
    save_model(build(folders, ["head=conv1"]), saved)
    assert load_model(saved).settings.head == "conv1"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["config.yaml", "model"]


def test_the_model_folder_itself_is_recovered_too(saved):
    saved.rename(saved.with_name("model.old"))
    assert load_model(saved).findings == FINDINGS


def test_an_earlier_model_outlives_a_failed_save(saved, folders, monkeypatch):
    before = (saved / "model.safetensors").read_bytes()

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dwarf_cxr.models.checkpoint.write_json", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(build(folders, ["head=conv1"]), saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert load_model(saved).settings.head == "linear"


def test_a_pickle_in_place_of_the_weights_is_never_opened(saved, tmp_path):
    mark = booby_trap(saved / "model.safetensors", tmp_path / "sprung")
    config = json.loads((saved / "config.json").read_text())
    config["sha256"] = sha256_of(saved / "model.safetensors")
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception):  # noqa: B017, PT011
        load_model(saved)
    assert not mark.exists()
    pickle.loads((saved / "model.safetensors").read_bytes())
    assert mark.exists(), "the trap does not work: the test shows nothing"


def test_pretrained_folders_by_their_usual_names(folders, tmp_path):
    model = build(folders)
    model.save_pretrained(tmp_path / "model")
    again = VisionLanguageClassifier.from_pretrained(tmp_path / "model")
    pixels = random_pixels(2)
    np.testing.assert_array_equal(
        again.predict(pixels).probability, model.predict(pixels).probability
    )


def test_the_patients_that_were_seen_come_back(saved, folders):
    seen = np.array([-5, 7], dtype=np.int64)
    model = load_model(saved)
    model.card = dataclasses.replace(model.card, seen_patients=seen)
    save_model(model, saved)
    np.testing.assert_array_equal(load_model(saved).card.seen_patients, seen)
