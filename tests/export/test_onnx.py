"""Exported files: they answer as the network, carry its card, and are refused when damaged."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.export import onnx as module
from dwarf_cxr.export.onnx import export_onnx
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.onnx_classifier import open_onnx
from dwarf_cxr.models.vlm import build_classifier
from tests.tiny import (
    FINDINGS,
    SIZE,
    card_for,
    random_pixels,
    settings,
    write_bert,
    write_data,
    write_vit,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "data")


def write_model(folder, *assignments):
    vit, bert = write_vit(folder / "vit"), write_bert(folder / "bert")
    model = build_classifier(settings(vit, bert, assignments).model, FINDINGS, SIZE, 3)
    for head in model.heads.parameters():  # no identity, no map as another
        torch.nn.init.normal_(head, std=0.5)
    model.card = card_for(model)
    save_model(model, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    """A model folder, its file and the file in 8 bits."""
    folder = tmp_path_factory.mktemp("dwarf")
    model = write_model(folder)
    lines = export_onnx(model, folder / "m.onnx", data=data.folder, int8=True)
    assert [line.split(":")[0] for line in lines] == [
        str(folder / "m.onnx"),
        str(folder / "m-int8.onnx"),
    ]
    assert all("4 films of noise" in line and "8 films of tiny" in line for line in lines)
    return model, folder / "m.onnx", folder / "m-int8.onnx"


@pytest.fixture(scope="module")
def exported_prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    model = write_model(folder, "head=prior", "query_context=joint")
    export_onnx(model, folder / "m.onnx", pixels="float32")
    return model, folder / "m.onnx"


@pytest.mark.parametrize("films", [1, 3, 7])
def test_any_batch_is_answered_as_by_the_network(exported, films):
    model, file, _ = exported
    pixels = random_pixels(films, seed=40 + films)
    session = onnxruntime.InferenceSession(file)
    probability, maps = session.run(["probability", "maps"], {"pixels": pixels})
    expected = load_model(model).predict(pixels)
    assert probability.shape == (films, 3)
    assert maps.shape == (films, 3, 4, 4)
    np.testing.assert_allclose(probability, expected.probability, atol=1e-4)
    np.testing.assert_allclose(maps, expected.maps, atol=1e-4)
    assert np.ptp(expected.maps) > 0.1


def test_some_findings_in_another_order(exported):
    model, file, _ = exported
    pixels, asked = random_pixels(35, seed=8), [FINDINGS[2], FINDINGS[0]]
    expected, answered = (
        one.predict(pixels, asked) for one in (load_model(model), open_onnx(file))
    )
    np.testing.assert_allclose(answered.probability, expected.probability, atol=1e-4)
    np.testing.assert_allclose(answered.maps, expected.maps, atol=1e-4)
    assert answered.probability.dtype == np.float64
    assert open_onnx(file).predict(pixels[:0], asked).maps.shape == (0, 2, 4, 4)
    with pytest.raises(ConfigError, match="Hernia"):
        open_onnx(file).predict(pixels, ["Hernia"])


def test_prior_and_evidence_from_pixels_in_the_unit_range(exported_prior):
    model, file = exported_prior
    pixels, asked = random_pixels(5, seed=9), [FINDINGS[1], FINDINGS[2]]
    expected, answered = (
        one.predict(pixels, asked) for one in (load_model(model), open_onnx(file))
    )
    assert set(answered.extras) == {"prior", "evidence"}
    for name, values in expected.extras.items():
        np.testing.assert_allclose(answered.extras[name], values, atol=1e-4)
    session = onnxruntime.InferenceSession(file)
    given = pixels.astype(np.float32) / 255
    (probability,) = session.run(["probability"], {"pixels": given})
    np.testing.assert_allclose(probability[:, 1:], expected.probability, atol=1e-4)


def test_the_card_comes_back(exported):
    model, file, small = exported
    card = load_model(model).card
    for path, precision in ((file, "fp32"), (small, "int8")):
        opened = open_onnx(path)
        assert opened.findings == FINDINGS
        assert (opened.image_size, opened.precision, opened.grid) == (SIZE, precision, (4, 4))
        for name, value in vars(card).items():
            np.testing.assert_array_equal(getattr(opened.card, name), value)


def test_metadata_are_plain_words_and_name_no_folder(exported):
    model, file, _ = exported
    told = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert json.loads(told["findings"]) == list(FINDINGS)
    assert json.loads(told["score_thresholds"]) == dict.fromkeys(FINDINGS, 0.25)
    assert json.loads(told["map_thresholds"]) == dict.fromkeys(FINDINGS)
    assert (told["map_domain"], told["method"], told["image_size"]) == ("unit", "dwarf", "64")
    assert told["data_fingerprint"] == "0" * 64
    assert told["weights_sha256"] == json.loads((model / "config.json").read_text())["sha256"]
    assert str(model.parent).encode() not in file.read_bytes()
    assert module.__file__.encode() not in file.read_bytes()


def test_products_are_quantised_but_not_those_of_heads(exported):
    _, file, small = exported
    assert small.stat().st_size < file.stat().st_size
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    assert "MatMulInteger" in kinds
    assert "MatMul" in kinds


@pytest.mark.parametrize("place", [200, -3000, -20])
def test_a_flipped_bit_is_noticed(exported, tmp_path, place):
    content = bytearray(exported[1].read_bytes())
    content[place] ^= 1
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.onnx.*damaged"):
        open_onnx(tmp_path / "m.onnx")


def test_files_that_are_none_are_refused(exported, tmp_path):
    content = exported[1].read_bytes()
    for name, part in (("cut", content[:-100]), ("empty", b""), ("page", b"<html>")):
        (tmp_path / f"{name}.onnx").write_bytes(part)
        with pytest.raises(CheckpointError, match=rf"{name}\.onnx: not written by"):
            open_onnx(tmp_path / f"{name}.onnx")
    with pytest.raises(CheckpointError, match="no such file"):
        open_onnx(tmp_path / "none.onnx")


def test_a_file_that_answers_otherwise_is_not_written(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_differences", lambda *words: {"noise": (0.0, 2e-4)})
    monkeypatch.setattr(module, "_traced", lambda *words: onnx.load(exported[1]))
    with pytest.raises(CheckpointError, match=r"by up to 2\.0e-04"):
        export_onnx(exported[0], tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(exported, data, tmp_path):
    with pytest.raises(ConfigError, match=r"NAME\.onnx"):
        export_onnx(exported[0], tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="no model there"):
        export_onnx(tmp_path, tmp_path / "m.onnx")


def test_a_missing_package_is_named(exported, tmp_path):
    words = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from pathlib import Path\n"
        "from dwarf_cxr.models.onnx_classifier import open_onnx\n"
        "from dwarf_cxr.export.onnx import export_onnx\n"
        "for work in (lambda: open_onnx(Path(sys.argv[1])),\n"
        "             lambda: export_onnx(Path('m'), Path('m.onnx'))):\n"
        "    try: work()\n"
        "    except Exception as fault: print(type(fault).__name__, fault)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", words, exported[1]], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(told) == 2
    assert all("ConfigError" in line and "pip install 'dwarf-cxr[onnx]'" in line for line in told)


def test_evaluate_and_predict_take_the_file(exported, data, tmp_path):
    model, file, _ = exported
    run = CliRunner()
    outs = []
    for name, asked in (("torch", model), ("onnx", file)):
        out = tmp_path / name
        words = [str(asked), "--data", str(data.folder), "--draws", "5", "--out", str(out)]
        done = run.invoke(app, ["evaluate", *words])
        assert done.exit_code == 0, done.output
        assert (out / "report.html").is_file()
        outs.append(json.loads((out / "metrics.json").read_text()))
    one, two = outs
    assert one["macro"]["auc"]["value"] == pytest.approx(two["macro"]["auc"]["value"])
    assert one["macro"]["dice"]["value"] == pytest.approx(two["macro"]["dice"]["value"], abs=1e-3)
    film = next(data.folder.with_name("data-films").glob("*.png"))
    for name, asked in (("a", model), ("b", file)):
        words = ["predict", str(asked), str(film), "--out", str(tmp_path / name)]
        done = run.invoke(app, words)
        assert done.exit_code == 0, done.output
    first, second = (
        json.loads((tmp_path / name / "predictions.json").read_text())["images"][0]
        for name in ("a", "b")
    )
    for finding in FINDINGS:
        scores = [image["findings"][finding]["score"] for image in (first, second)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    prompts = tmp_path / "words.yaml"
    prompts.write_text("Mass: round opacity\n")
    words = ["predict", str(file), str(film), "--out", str(tmp_path / "c")]
    refused = run.invoke(app, [*words, "--prompts", str(prompts)])
    assert "an exported model has no prompts" in str(refused.exception)
    refused = run.invoke(app, [*words, "--precision", "bf16"])
    assert "an exported model runs at the precision of its file" in str(refused.exception)
