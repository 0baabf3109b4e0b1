"""`report-attention` through the real command line, on films whose reports say where they are."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.config import load_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.report_attention import ReportAttention
from dwarf_cxr.reports.attributes import ATTRIBUTES
from tests.tiny import FINDINGS, random_pixels, write_data

SENTENCES = {
    "Mass": "There is a focal opacity in the right middle lung.",
    "Effusion": "Patchy consolidation of the left upper lobe.",
    "Nodule": "Hazy infiltrate at the right base.",
}
TINY = ("width=8", "best_regions=6", "worst_regions=4", "batch_size=5", "accelerator=cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    write_data(folder / "data")
    write_data(folder / "reported", seed=1, texts=True, sentences=SENTENCES)
    (folder / "corpus.txt").write_text("\n".join([*SENTENCES.values()] * 4), encoding="utf-8")
    words = ["train", "retinanet", "--data", folder / "data", "--out", folder / "detector"]
    small = ("width=16", "depth=1", "batch_size=5", "accelerator=cpu", "map_size=64")
    said = dwarf(*words, "--epochs", "1", *settings(small))
    assert said.startswith("0 "), said
    return folder


def dwarf(*words: str | Path) -> str:
    """The output of a command with its exit status in front."""
    result = CliRunner().invoke(app, [*map(str, words)])
    return f"{result.exit_code} {result.output} {result.exception}"


def settings(assignments) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def train(place: Path, run: Path, *more: str | Path, epochs: int = 3) -> str:
    words = ["train", "report-attention", "--data", place / "data", "--out", run]
    words += ["--init", place / "detector", "--reports", place / "reported"]
    words += ["--corpus", place / "corpus.txt", "--epochs", str(epochs)]
    return dwarf(*words, *settings(TINY), *more)


@pytest.fixture(scope="module")
def run(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    said = train(place, folder)
    assert said.startswith("0 "), said
    assert "attributes without a word of their own" in said
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_trains_on_reports_and_leaves_the_detector_as_it_was(place, run):
    history = rows(run / "history.csv")
    assert len(history) == 3
    for row in history:
        parts = float(row["attribute_loss"]) + float(row["triplet_loss"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-5)
        assert float(row["triplet_loss"]) > 0
    assert min(float(row["val_loss"]) for row in history) == pytest.approx(
        min(float(row["val_loss"]) for row in history if row["best"] == "1")
    )
    model, detector = load_model(run), load_model(place / "detector")
    assert isinstance(model, ReportAttention)
    assert model.findings == FINDINGS
    for key, value in detector.state_dict().items():
        assert torch.equal(model.detector.state_dict()[key], value), key
    config = load_config(run / "config.yaml")
    assert config.reports == (str(place / "reported"),)
    assert config.corpus == str(place / "corpus.txt")


def test_the_card_knows_the_patients_of_the_reports_too(place, run):
    card, detector = load_model(run).card, load_model(place / "detector").card
    assert set(detector.seen_files) < set(card.seen_files)
    reported = PreparedData.open(place / "reported")
    seen = np.isin(reported.splits, ("train", "val"))
    assert set(reported.file_hashes[seen]) <= set(card.seen_files)


def test_resumed_equals_uninterrupted(place, run, tmp_path):
    folder = tmp_path / "resumed"
    # three epochs planned, one done: as an interruption after the first leaves it
    original = rows(run / "history.csv")
    said = train(place, folder, epochs=3)
    assert said.startswith("0 "), said
    assert [row["loss"] for row in rows(folder / "history.csv")] == [
        row["loss"] for row in original
    ]
    state = json.loads((folder / "last" / "progress.json").read_text())
    assert state["progress"]["epoch"] == 3
    again = train(place, folder, "--resume", epochs=3)
    assert again.startswith("0 "), again
    assert "a run is there already" in train(place, folder, epochs=3)
    other = train(place, folder, "--resume", "--seed", "4", epochs=3)
    assert "seed: 0 -> 4" in other


def test_an_interrupted_training_continues_where_it_stood(place, run, tmp_path, monkeypatch):
    import dwarf_cxr.training.report_attention as training

    folder = tmp_path / "run"
    kept, calls = training.save_state, []

    def stop_after_two(*words):
        kept(*words)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_state", stop_after_two)
    train(place, folder)
    assert len(rows(folder / "history.csv")) == 2
    monkeypatch.setattr(training, "save_state", kept)
    said = train(place, folder, "--resume")
    assert said.startswith("0 "), said
    columns = ("loss", "val_loss", "triplet_loss")
    resumed, whole = rows(folder / "history.csv"), rows(run / "history.csv")
    assert [[row[name] for name in columns] for row in resumed] == [
        [row[name] for name in columns] for row in whole
    ]


def test_evaluating_scores_boxes_and_where_there_are_reports_attributes(place, run, tmp_path):
    said = dwarf("evaluate", run, "--data", place / "data", "--out", tmp_path / "ev")
    assert said.startswith("0 "), said
    metrics = json.loads((tmp_path / "ev" / "metrics.json").read_text())
    assert "recall_25" in metrics["boxes"]["macro"]
    assert "attributes" not in metrics
    said = dwarf("evaluate", run, "--data", place / "reported", "--out", tmp_path / "ev2")
    assert "attributes of 4 reports" in said, said
    told = json.loads((tmp_path / "ev2" / "metrics.json").read_text())["attributes"]
    assert list(told["attributes"]) == list(ATTRIBUTES)
    assert "reason" in told["attributes"]["lingular"]["auc"]
    assert list(told["present"]) == list(ATTRIBUTES)
    assert told["present"]["lingular"] == 0


def test_predicting_tells_boxes_and_attributes_from_the_film_alone(place, run, tmp_path):
    film = sorted((place / "data-films").glob("*.png"))[0]
    said = dwarf("predict", run, film, "--out", tmp_path / "p")
    assert said.startswith("0 "), said
    record = json.loads((tmp_path / "p" / "predictions.json").read_text())["images"][0]
    assert list(record["attributes"]) == list(ATTRIBUTES)
    assert all(0 < value < 1 for value in record["attributes"].values())
    for finding in record["findings"].values():
        for box in finding["boxes"]:
            assert 0 <= box["x1"] < box["x2"] <= 64
            assert box["score"] >= finding["map_threshold"]


def test_regions_of_both_kinds_are_different_and_answers_are_consistent(run):
    model = load_model(run)
    pixels = random_pixels(5)
    images = torch.from_numpy(pixels).float() / 255
    found = model.regions(images)
    assert (
        not (found.worst.geometry[:, :, None] == found.best.geometry[:, None])
        .all(-1)[found.worst.there[:, :, None] & found.best.there[:, None]]
        .any()
    )
    # the detector ranks every region of the one kind above every one of the other
    lowest = found.best.scores.amax(-1).masked_fill(~found.best.there, 2).amin(dim=1)
    highest = found.worst.scores.amax(-1).masked_fill(~found.worst.there, -1).amax(dim=1)
    assert bool((lowest >= highest).all())
    with torch.no_grad():
        said = model.eval()(images)
    whole, part = model.predict(pixels), model.predict(pixels, ["Nodule", "Mass"])
    np.testing.assert_allclose(part.probability, whole.probability[:, [2, 0]])
    np.testing.assert_allclose(part.maps, whole.maps[:, [2, 0]])
    one = model.predict(pixels[3:4])
    np.testing.assert_allclose(one.probability[0], whole.probability[3], rtol=1e-4)
    for film, detections in enumerate(model.predict(pixels).detections):
        for finding in range(3):
            scores = detections.scores[detections.findings == finding]
            assert list(scores) == sorted(scores, reverse=True)
            scored = said.extras["box_scores"][film, finding]
            np.testing.assert_allclose(scores, scored[scored > 0].sort(descending=True).values)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.clip(sides, 0, None).prod())
    areas = [float((one[2:] - one[:2]).prod()) for one in (first, second)]
    return shared / (sum(areas) - shared)


def test_boxes_are_scored_by_attention_times_the_detectors_score(run):
    model = load_model(run).eval()
    pixels = random_pixels(4)
    images = torch.from_numpy(pixels).float() / 255
    with torch.no_grad():
        found = model.regions(images)
        attention = model(images).extras["attention"].numpy()
    for film, detections in enumerate(model.predict(pixels).detections):
        there = found.best.there[film].numpy()
        boxes, detector = (part[film].numpy()[there] for part in (found.boxes, found.best.scores))
        relative = attention[film][there] / attention[film].max()
        for finding in range(3):
            own = [row for row in range(len(boxes)) if detector[row].argmax() == finding]
            most = max((relative[row] for row in own), default=0.0)
            kept = [row for row in own if relative[row] >= model.settings.keep_share * most]
            kept.sort(key=lambda row: -relative[row] * detector[row, finding])
            stays: list[int] = []
            for row in kept:
                if all(overlap(boxes[row], boxes[one]) <= 0.3 for one in stays):
                    stays.append(row)
            chosen = detections.findings == finding
            np.testing.assert_allclose(
                detections.scores[chosen],
                [relative[row] * detector[row, finding] for row in stays],
                rtol=1e-4,
            )
            np.testing.assert_allclose(detections.boxes[chosen], boxes[stays], rtol=1e-4)
            assert bool(own) == bool(len(stays))  # no finding loses its only box


def test_two_films_boxes_differ_as_the_detector_does_of_them(run):
    """The attention of both films is the same; only how sure the detector is differs."""
    model = load_model(run).eval()
    found = model.regions(torch.from_numpy(random_pixels(1)).float() / 255)
    both = found._replace(
        best=found.best._replace(
            **{name: torch.cat([part] * 2) for name, part in found.best._asdict().items()}
        ),
        boxes=torch.cat([found.boxes] * 2),
    )
    both.best.scores[1] /= 4
    even = torch.where(both.best.there, 1.0, 0.0)
    scores = model._box_scores(both, even / even.sum(dim=1, keepdim=True))
    assert bool((scores[0] > 0).any())
    torch.testing.assert_close(scores[1], scores[0] / 4)


def test_the_detector_is_asked_once_for_scores_boxes_and_attributes(place, run, monkeypatch):
    asked = []
    real = ReportAttention.regions
    monkeypatch.setattr(
        ReportAttention,
        "regions",
        lambda self, images: asked.append(len(images)) or real(self, images),
    )
    film = sorted((place / "data-films").glob("*.png"))[0]
    said = dwarf("predict", run, film, "--out", place / "once")
    assert said.startswith("0 "), said
    assert asked == [1]
    lines = evaluate_run(run, place / "reported", out=place / "once-ev", draws=5)
    assert any("attributes of 4 reports" in line for line in lines)
    assert (place / "once-ev" / "boxes.csv").is_file()
    assert asked == [1, 4]


def test_average_precision_over_films_is_not_that_of_ties(run):
    model = load_model(run)
    best = [found.scores.max() for found in model.predict(random_pixels(8)).detections]
    assert len(np.unique(best)) == 8


def test_wrong_uses_say_what_is_lacking(place, run, tmp_path):
    out = tmp_path / "run"
    plain = ["train", "report-attention", "--data", place / "data", "--out", out]
    assert "give it with --init RUN" in dwarf(*plain)
    assert "is no detector" in dwarf(*plain, "--init", run)
    silent = dwarf(*plain, "--init", place / "detector")
    assert "no film of the train split" in silent or "no word occurs" in silent
    assert not out.exists()
    said = train(place, tmp_path / "other", "--findings", "Mass")
    assert "those of its detector" in said
    words = ["train", "gain", "--data", place / "data", "--out", tmp_path / "gain"]
    assert "for report-attention, not gain" in dwarf(*words, "--reports", place / "reported")
    assert "cannot start from a RetinaNet" in dwarf(*words, "--init", place / "detector")
    watching = dwarf(*plain, "--init", place / "detector", "--set", "watch_test=true")
    assert "settings: watch_test = true: report-attention does not watch" in watching
    lost = dwarf(*plain, "--init", place / "detector", "--corpus", tmp_path / "none.txt")
    assert f"--corpus {tmp_path / 'none.txt'}: no such file; give a file of one report" in lost
    assert "Errno" not in lost
