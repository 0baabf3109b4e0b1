import csv
import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.files import sha256_of
from dwarf_cxr.findings import VOCABULARY
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.clip import ClipClassifier, ClipSettings
from dwarf_cxr.weights.clip import import_clip
from tests.models.made_towers import write_both_towers, write_tower
from tests.tiny import FINDINGS, write_data

KNOWN = ("Mass", "Effusion")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights-clip")
    write_data(root / "data")
    for family in ("clip", "siglip"):
        write_both_towers(root / family, family)
        import_clip(str(root / family), root / f"{family}-model", KNOWN)
    return root


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_evaluate_predict_and_a_run_of_clip_agree(place, tmp_path, family):
    foreign, data = place / f"{family}-model", place / "data"
    bare = run("evaluate", foreign, "--data", data, "--out", tmp_path / "bare", "--draws", 20)
    assert bare.exit_code == 0, bare.output
    metrics = json.loads((tmp_path / "bare" / "metrics.json").read_text())
    assert metrics["protocol"]["zero_shot"] is True
    assert metrics["protocol"]["query_context"] == "isolated"
    assert metrics["findings_order"] == list(FINDINGS)

    asked = run("train", "clip", "--data", data, "--init", foreign, "--out", tmp_path / "R")
    assert asked.exit_code == 0, asked.output
    model = load_model(tmp_path / "R")
    assert isinstance(model, ClipClassifier)
    assert model.card.zero_shot
    assert model.findings == FINDINGS
    assert run("evaluate", tmp_path / "R", "--data", data, "--draws", 20).exit_code == 0
    one, two = (
        list(csv.DictReader((folder / "cases.csv").open()))
        for folder in (tmp_path / "bare", tmp_path / "R" / "eval-test")
    )
    assert one == two
    pixels = PreparedData.open(data).pixels
    test = PreparedData.open(data).indices("test")
    scores = model.predict(pixels[test]).probability
    assert [float(row["score"]) for row in one] == pytest.approx(scores.ravel().tolist())

    film = next((place / "data-films").glob("*.png"))
    said = run("predict", tmp_path / "R", film, "--out", tmp_path / "P")
    assert said.exit_code == 0, said.output
    answer = json.loads((tmp_path / "P" / "predictions.json").read_text())
    assert list(answer["images"][0]["findings"]) == list(FINDINGS)
    assert answer["images"][0]["findings"]["Mass"]["threshold"] is not None


def test_predict_asks_new_words_of_the_bare_model(place, tmp_path):
    (tmp_path / "prompts.yaml").write_text("fluid: large fluid\n")
    film = next((place / "data-films").glob("*.png"))
    said = run(
        "predict", place / "clip-model", film, "--prompts", tmp_path / "prompts.yaml",
        "--findings", "fluid", "--out", tmp_path / "P",
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    answer = json.loads((tmp_path / "P" / "predictions.json").read_text())
    assert 0 < answer["images"][0]["findings"]["fluid"]["score"] < 1


def test_other_zero_shot_methods_and_settings_are_refused(place, tmp_path):
    given = ("--data", place / "data", "--init", place / "clip-model", "--out", tmp_path / "R")
    assert "kad cannot ask a ClipClassifier" in str(run("train", "kad", *given).exception)
    assert "width" in str(run("train", "clip", *given, "--set", "width=64").exception)
    assert "ClipClassifier" in str(run("train", "dwarf", *given).exception)
    assert not (tmp_path / "R" / "model").exists()


def test_origin_and_words_are_kept(place, tmp_path):
    (tmp_path / "prompts.yaml").write_text("Effusion: fluid chest\n")
    done = run(
        "weights", "import", "clip", place / "clip", "--out", tmp_path / "m",
        "--findings", "Mass,Effusion", "--prompts", tmp_path / "prompts.yaml",
        "--negative", "without {finding}", "--maps", "positive",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Effusion is asked with 'fluid chest'" in done.output
    model = load_model(tmp_path / "m")
    assert model.settings == ClipSettings("{finding}", "without {finding}", "positive")
    weights = place / "clip" / "model.safetensors"
    assert model.origin.family == "clip"
    assert model.origin.sha256 == sha256_of(weights)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "Effusion is asked with 'fluid chest'" in card
    assert "'without {finding}'" in card
    import_clip(str(place / "clip"), tmp_path / "plain", KNOWN, settings=model.settings)
    plain = load_model(tmp_path / "plain")
    films = np.random.default_rng(1).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    by_words = plain.predict(films, ["Effusion"], {"Effusion": "fluid chest"})
    stored = load_model(tmp_path / "m").predict(films, ["Effusion"])
    np.testing.assert_allclose(stored.probability, by_words.probability, rtol=0, atol=1e-6)


def test_the_vocabulary_is_asked_by_default(place, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place / "clip")
    unknown = [
        name for name in VOCABULARY if tokenizer.unk_token_id in tokenizer(name)["input_ids"]
    ]
    assert unknown  # the tiny vocabulary lacks most of them
    with pytest.raises(CheckpointError, match=f"no word of '{unknown[0].lower()}'"):
        import_clip(str(place / "clip"), tmp_path / "m")


@pytest.mark.parametrize("family", ["clip_vision_model", "dinov2"])
def test_a_model_without_a_text_tower_is_refused(tmp_path, family):
    folder = write_tower(tmp_path / "tower", family)
    with pytest.raises(ConfigError, match=r"without a text tower.*supported: clip, siglip"):
        import_clip(str(folder), tmp_path / "m", KNOWN)
    assert not (tmp_path / "m").exists()


def test_missing_weights_are_refused_and_nothing_is_written(place, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for file in (place / "clip").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if key != "text_projection.weight"}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="text_projection"):
        import_clip(str(folder), tmp_path / "m", KNOWN)
    assert not (tmp_path / "m").exists()


def test_what_is_there_is_not_overwritten(place, tmp_path):
    with pytest.raises(ConfigError, match="there already"):
        import_clip(str(place / "clip"), tmp_path, KNOWN)
    file = place / "clip" / "model.safetensors"
    with pytest.raises(ConfigError, match=r"model\.safetensors: is a file; give the folder"):
        import_clip(str(file), tmp_path / "m", KNOWN)
    with pytest.raises(ConfigError, match="Zebra"):
        import_clip(str(place / "clip"), tmp_path / "m", KNOWN, prompts={"Zebra": "a mass"})
