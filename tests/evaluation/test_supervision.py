"""What runs are given, against counts film by film."""

import math
from pathlib import Path

import pytest

from dwarf_cxr.config import RunConfig, save_config, with_overrides
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.supervision import supervision_block
from dwarf_cxr.methods import find_method
from dwarf_cxr.methods.pretrain import METHOD as PRETRAIN
from tests.tiny import FINDINGS, write_data

SENTENCES = {name: f"a {name} here" for name in FINDINGS}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    return write_data(tmp_path_factory.mktemp("given") / "data", train=17, texts=True)


def config_of(data: PreparedData, method: str, *assignments: str, **more) -> RunConfig:
    chosen = PRETRAIN if method == "pretrain" else find_method(method)
    return RunConfig(
        **{
            "method": method,
            "findings": data.findings,
            "data": str(data.folder),
            "data_fingerprint": data.fingerprint,
            "settings": with_overrides(chosen.settings, None, assignments),
            **more,
        }
    )


def counted(data: PreparedData, findings=FINDINGS) -> dict[str, float]:
    """Shares of the training films' pairs, by loops."""
    pairs = assessed = absent = present = drawn = texts = films = 0
    for index, split in enumerate(data.splits):
        if split != "train":
            continue
        films += 1
        texts += data.texts[index] is not None
        for finding in findings:
            label = float(data.labels[index, data.findings.index(finding)])
            pairs += 1
            assessed += not math.isnan(label)
            absent += label == 0
            present += label == 1
            regions = data.regions_by_image.get(index, ())
            drawn += label == 1 and any(region.finding == finding for region in regions)
    return {
        "films": films,
        "labels": assessed / pairs,
        "absent_labels": absent / pairs,
        "regions": drawn / present,
        "drawn": drawn,
        "present": present,
        "text": texts,
    }


def test_the_data_has_gaps(data):
    found = counted(data)
    assert 0 < found["regions"] < 1
    assert 0 < found["labels"] < 1
    assert 0 < found["text"] < found["films"] == 17


@pytest.mark.parametrize(
    ("method", "assignments", "used"),
    [
        ("classifier", (), {"labels"}),
        ("gain", (), {"labels", "regions"}),
        ("dwarf", ("seg_weight=1",), {"regions"}),
        ("gain-am", (), {"labels"}),
        ("gain-am", ("external_weight=10",), {"labels", "regions"}),
        ("class-attention", (), {"labels"}),
        ("ham", (), {"labels", "regions"}),
        ("ham", ("box_weight=0",), {"labels"}),
        ("retinanet", (), {"absent_labels", "regions"}),
        ("pretrain", (), {"labels", "text"}),
    ],
)
def test_what_a_run_uses_is_counted_and_nothing_else(data, method, assignments, used):
    said = supervision_block(config_of(data, method, *assignments), data)
    expected = counted(data)
    for key in ("labels", "absent_labels", "regions", "text"):
        assert said[key] == pytest.approx(expected[key] if key in used else 0), key
    assert said["films"] == 17
    assert said["started_from"] is None


def test_only_the_runs_findings_count(data):
    config = config_of(data, "gain", findings=("Nodule", "Mass"))
    said, expected = supervision_block(config, data), counted(data, ("Nodule", "Mass"))
    assert said["labels"] == pytest.approx(expected["labels"])
    assert said["regions"] == pytest.approx(expected["regions"])


def test_withheld_regions_do_not_count(data):
    present = counted(data)["present"]
    few = supervision_block(config_of(data, "dwarf", "region_cases=2"), data)
    # two films of each of three findings
    assert few["regions"] == pytest.approx(6 / present)
    half = supervision_block(config_of(data, "ham", "region_share=0.5"), data)
    assert 0 < half["regions"] < counted(data)["regions"]
    none = supervision_block(config_of(data, "gain", "regions=pseudo"), data)
    assert (none["regions"], none["regions_of"]) == (0, "pseudo")


def test_a_zero_shot_model_is_given_nothing(data):
    said = supervision_block(config_of(data, "kad"), data)
    assert {said[key] for key in ("films", "labels", "absent_labels", "regions", "text")} == {0}


def test_other_data_and_bare_models_say_why_nothing_is_said(data):
    other = supervision_block(config_of(data, "gain", data_fingerprint="0" * 64), data)
    assert other == {"reason": "not evaluated on the data that it was trained on"}
    assert "bare model" in supervision_block(None, data)["reason"]


def test_report_attention_has_its_detectors_supervision_and_the_reports(data, tmp_path):
    reported = write_data(tmp_path / "reported", seed=2, texts=True, sentences=SENTENCES)
    detector = tmp_path / "detector"
    detector.mkdir()
    own = config_of(data, "retinanet", "region_cases=1")
    save_config(own, detector / "config.yaml")
    words = {"init": str(detector), "reports": (str(reported.folder), str(data.folder))}
    said = supervision_block(config_of(data, "report-attention", **words), data)
    texts = counted(reported)["text"] + counted(data)["text"]
    assert said["text"] == said["films"] == texts
    assert said["regions"] == pytest.approx(3 / counted(data)["present"])
    assert said["absent_labels"] == pytest.approx(counted(data)["absent_labels"])
    assert said["labels"] == 0
    assert said["started_from"] == str(detector)

    for change, reason in (
        ({"init": str(tmp_path / "gone")}, "detector was given is not known"),
        ({"reports": (str(tmp_path / "gone"),)}, "reports cannot be read"),
    ):
        lacking = supervision_block(config_of(data, "report-attention", **words | change), data)
        assert reason in lacking["reason"]
    elsewhere = own.model_copy(update={"data_fingerprint": "1" * 64})
    save_config(elsewhere, detector / "config.yaml")
    said = supervision_block(config_of(data, "report-attention", **words), data)
    assert said == {"reason": "the detector was trained on other data"}


def test_the_block_is_written_by_the_command(data, tmp_path):
    from dwarf_cxr.evaluation.run import evaluate_run
    from dwarf_cxr.files import read_json
    from dwarf_cxr.models.building import build_fresh
    from dwarf_cxr.models.checkpoint import save_model
    from tests.tiny import card_for

    config = config_of(data, "class-attention", "width=8")
    model = build_fresh(config.settings.model, FINDINGS, data.size, 0)
    model.card = card_for(model)
    save_model(model, Path(tmp_path) / "run" / "model")
    save_config(config, tmp_path / "run" / "config.yaml")
    for name, run in (("run", tmp_path / "run"), ("bare", tmp_path / "run" / "model")):
        evaluate_run(run, data.folder, out=tmp_path / name, draws=2)
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["supervision"] == supervision_block(config, data)
    assert "reason" in read_json(tmp_path / "bare" / "metrics.json")["supervision"]
    frozen = [value for value in model.parameters() if not value.requires_grad]
    counts = metrics["cost"]["parameters"]
    assert counts["total"] - counts["trained"] == sum(value.numel() for value in frozen) > 0
