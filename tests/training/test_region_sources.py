"""Training on pseudo regions: what they change, and that whatever judges goes by experts' alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.config import load_config
from dwarf_cxr.data.geometry import coverage
from dwarf_cxr.data.records import Box
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.training.loop import train
from dwarf_cxr.training.run import make_config
from tests.tiny import FINDINGS, SIZE, add_pseudo, run_config, write_bert, write_data, write_vit

WRONG = Box(2.0, 50.0, 12.0, 62.0)
"""Where no expert has ever drawn."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, and the same with a teacher's region on every present finding of every split."""
    folder = tmp_path_factory.mktemp("sources")
    write_vit(folder / "vit")
    write_bert(folder / "bert")
    data = write_data(folder / "data")
    everywhere = {(int(i), FINDINGS[f]): WRONG for i, f in np.argwhere(data.labels == 1)}
    add_pseudo(data, folder / "pseudo", everywhere)
    return folder


def quiet(line: str, done: int, total: int) -> None:
    pass


def trained(
    place: Path, data: str, out: Path, assignments: Sequence[str] = (), report=quiet
) -> dict[str, np.ndarray]:
    """The tensors, card included, of a training of two epochs."""
    config = run_config(
        PreparedData.open(place / data), place / "vit", place / "bert", ["epochs=2", *assignments]
    )
    train(config, out, report=report)
    return load_file(out / "model" / "model.safetensors")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one.keys() | other.keys())


def naive_prior(data: PreparedData, finding: str, source: str) -> np.ndarray:
    """Mean region over training positives: the experts', the teachers', or whichever there is."""
    shares = []
    for index in data.indices("train"):
        if data.labels[index, data.findings.index(finding)] != 1:
            continue
        its = [one for one in data.regions_by_image[int(index)] if one.finding == finding]
        experts = [one for one in its if one.kind == "expert"]
        pseudo = [one for one in its if one.kind == "pseudo"]
        chosen = {"expert": experts, "pseudo": pseudo, "both": experts or pseudo}[source]
        if chosen:
            shares.append(coverage(chosen, (SIZE, SIZE), data.size))
    return np.mean(shares, axis=0)


def test_unless_asked_for_pseudo_regions_change_nothing(place, tmp_path):
    plain = trained(place, "data", tmp_path / "plain")
    beside = trained(place, "pseudo", tmp_path / "beside")
    assert same(plain, beside)


@pytest.mark.parametrize("source", ["pseudo", "both"])
def test_the_regions_asked_for_train_the_maps_and_make_the_prior(place, tmp_path, source):
    data = PreparedData.open(place / "pseudo")
    expert = trained(place, "pseudo", tmp_path / "expert")
    other = trained(place, "pseudo", tmp_path / source, [f"regions={source}"])
    assert not same(
        {key: value for key, value in expert.items() if key.startswith("heads.")},
        {key: value for key, value in other.items() if key.startswith("heads.")},
    )
    for column, finding in enumerate(FINDINGS):
        for run, used in ((expert, "expert"), (other, source)):
            np.testing.assert_allclose(
                run["train_prior"][column], naive_prior(data, finding, used), atol=1e-6
            )


def test_validation_and_thresholds_go_by_the_experts(place, tmp_path):
    """The teachers' regions on val and test, which `dwarf teachers` never draws, count nowhere."""
    data = PreparedData.open(place / "pseudo")
    train_alone = {
        (int(i), FINDINGS[f]): WRONG
        for i, f in np.argwhere(data.labels == 1)
        if data.splits[i] == "train"
    }
    add_pseudo(PreparedData.open(place / "data"), place / "train-alone", train_alone)
    everywhere = trained(place, "pseudo", tmp_path / "a", ["regions=pseudo"])
    alone = trained(place, "train-alone", tmp_path / "b", ["regions=pseudo"])
    assert same(everywhere, alone)
    cards = [load_model(tmp_path / run).card for run in "ab"]
    for name in ("score_thresholds", "map_thresholds", "prior_thresholds"):
        assert getattr(cards[0], name) == getattr(cards[1], name)


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_is_the_same_with_pseudo_regions_and_without(place, tmp_path, split):
    results = []
    for name in ("data", "pseudo"):
        trained(place, name, tmp_path / name)
        out = tmp_path / f"{name}-{split}"
        evaluate_run(tmp_path / name, place / name, split=split, out=out, draws=20, save_maps=False)
        metrics = json.loads((out / "metrics.json").read_text())
        del metrics["protocol"]["data"], metrics["protocol"]["trained_on"]["fingerprint"]
        del metrics["cost"]["inference_seconds_per_image"]
        results.append(((out / "cases.csv").read_bytes(), metrics))
    assert results[0] == results[1]
    assert results[0][1]["macro"]["dice"]["value"] is not None


def test_a_run_on_pseudo_regions_is_evaluated_on_the_data_without_them(place, tmp_path):
    trained(place, "pseudo", tmp_path / "run", ["regions=pseudo"])
    tables = []
    for name in ("data", "pseudo"):
        out = tmp_path / name
        evaluate_run(tmp_path / "run", place / name, split="test", out=out, draws=5, save_maps=True)
        tables.append((out / "cases.csv").read_bytes())
    assert tables[0] == tables[1]


def test_a_finding_without_a_region_to_learn_from_is_named(place, tmp_path):
    data = PreparedData.open(place / "data")
    places = {
        (int(i), "Mass"): WRONG
        for i in data.indices("train")
        if data.labels[i, FINDINGS.index("Mass")] == 1
    }
    add_pseudo(data, tmp_path / "mass", places)
    lines: list[str] = []

    def keep(line: str, done: int, total: int) -> None:
        lines.append(line)

    config = run_config(
        PreparedData.open(tmp_path / "mass"),
        place / "vit",
        place / "bert",
        ["epochs=1", "regions=pseudo"],
    )
    train(config, tmp_path / "pseudo", report=keep)
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert "for Effusion, Nodule (regions = pseudo)" in warning


@pytest.mark.parametrize("source", ["pseudo", "both"])
def test_data_without_pseudo_regions_are_refused_with_the_remedy(place, tmp_path, source):
    with pytest.raises(DataError, match=r"regions = .*`dwarf teachers --data .*data --out OUT`"):
        trained(place, "data", tmp_path / "run", [f"regions={source}"])
    assert not (tmp_path / "run").exists()


def test_the_option_is_the_setting(place, tmp_path):
    by_option = make_config("dwarf", place / "pseudo", regions="both")
    by_setting = make_config("dwarf", place / "pseudo", assignments=["regions=both"])
    assert by_option == by_setting
    assert by_option.settings.objective.regions == "both"
    assert make_config("dwarf", place / "pseudo").settings.objective.regions == "expert"


def test_the_command_line_trains_on_pseudo_regions(place, tmp_path):
    small = ["width=16", "layers=1", "attention_heads=2", "feedforward=24", "map_size=8"]
    encoders = [f"image_encoder={place / 'vit'}", f"text_encoder={place / 'bert'}"]
    words = ["train", "dwarf", "--out", str(tmp_path / "run"), "--epochs", "1"]
    for setting in (*small, *encoders, "frozen_layers=1"):
        words += ["--set", setting]
    result = CliRunner().invoke(app, [*words, "--data", str(place / "pseudo"), "--regions", "both"])
    assert result.exit_code == 0, result.output
    assert load_config(tmp_path / "run" / "config.yaml").settings.objective.regions == "both"
    refused = CliRunner().invoke(app, [*words, "--data", str(place / "pseudo"), "--regions", "all"])
    assert refused.exit_code == 2
