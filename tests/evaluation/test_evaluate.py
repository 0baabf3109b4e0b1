"""Evaluation through its files, with a classifier whose answers are known."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as sk

from dwarf_cxr.data.chexlocalize import read_chexlocalize
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.splits import patient_hashes
from dwarf_cxr.errors import CheckpointError, DataError
from dwarf_cxr.evaluation.cases import COLUMNS, METRICS, read_cases, write_cases
from dwarf_cxr.evaluation.evaluate import (
    QuickScorer,
    _Collected,
    evaluate,
    fit_card_thresholds,
)
from dwarf_cxr.evaluation.maps import score_map, upsample
from dwarf_cxr.evaluation.paired import compare_runs
from dwarf_cxr.models.merged import MergedClassifier
from dwarf_cxr.models.outputs import ModelCard, Outputs
from tests.data import made_chexpert
from tests.reporting.made import tiny_model

FINDINGS = ("Mass", "Edema", "Hernia")
SIZE = 32


@pytest.fixture
def data(tmp_path):
    """30 test films of 15 patients, 10 for validation and 2 for training.

    Mass has boxes, Hernia has no positive.
    """
    import cv2

    rng = np.random.default_rng(21)
    radiographs = []
    for number in range(42):
        path = tmp_path / f"film{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (64, 64), dtype=np.uint8))
        mass = number % 3 == 0
        x, y = (float(v) for v in rng.integers(0, 40, 2))
        regions = (Region("Mass", Box(x, y, x + 20, y + 14), "reader"),) if mass else ()
        labels = {"Mass": mass, "Hernia": False}
        if number % 5:
            labels["Edema"] = number % 2 == 0
        radiographs.append(
            Radiograph(
                image_id=f"film{number}",
                patient_id=f"p{number // 2}",
                path=path,
                labels=labels,
                regions=regions,
                split="test" if number < 30 else "val" if number < 40 else "train",
            )
        )
    source = SourceSet("known", FINDINGS, tuple(radiographs), "generated", "none", "none")
    return prepare(source, tmp_path / "data", size=SIZE)


class Known:
    """Answers drawn once at random, by the film's pixels."""

    findings = FINDINGS
    image_size = SIZE

    def __init__(self, data, seed=0):
        rng = np.random.default_rng(seed)
        self.answers = {}
        for index in range(len(data.image_ids)):
            scores = rng.random(3) * 0.6 + 0.4 * np.nan_to_num(data.labels[index], nan=0.5)
            self.answers[data.pixels[index].tobytes()] = (
                scores,
                rng.random((3, 4, 4)).astype(np.float32),
            )
        prior = np.zeros((3, SIZE, SIZE), np.float32)
        prior[0, 8:20, 8:20] = 0.6
        thresholds = dict.fromkeys(FINDINGS, 0.5)
        self.card = ModelCard(
            "known", "known", "f", "s", "isolated", "unit", thresholds,
            {**thresholds, "Hernia": None}, thresholds, prior,
        )  # fmt: skip

    def predict(self, pixels, findings=None):
        chosen = [FINDINGS.index(name) for name in findings or FINDINGS]
        answers = [self.answers[one.tobytes()] for one in pixels]
        return Outputs(
            np.array([scores[chosen] for scores, _ in answers]),
            np.array([maps[chosen] for _, maps in answers]),
            {},
        )


def test_files_say_what_sklearn_and_a_loop_say(data, tmp_path):
    model = Known(data)
    metrics = evaluate(model, data, split="test", out=tmp_path / "eval", draws=50, save_maps=True)
    assert metrics == json.loads((tmp_path / "eval" / "metrics.json").read_text())
    indices = data.indices("test")
    answers = [model.answers[data.pixels[index].tobytes()] for index in indices]
    scores = np.array([one[0] for one in answers])
    for column, name in ((0, "Mass"), (1, "Edema")):
        labels = data.labels[indices, column]
        kept = ~np.isnan(labels)
        entry = metrics["findings"][name]
        assert entry["auc"]["n"] == kept.sum()
        for metric, oracle in (
            ("auc", sk.roc_auc_score(labels[kept], scores[kept, column])),
            ("ap", sk.average_precision_score(labels[kept], scores[kept, column])),
            ("f1", sk.f1_score(labels[kept], scores[kept, column] >= 0.5)),
            ("mcc", sk.matthews_corrcoef(labels[kept], scores[kept, column] >= 0.5)),
            ("accuracy", sk.accuracy_score(labels[kept], scores[kept, column] >= 0.5)),
        ):
            assert entry[metric]["value"] == pytest.approx(oracle, abs=1e-12)
            assert entry[metric]["low"] <= entry[metric]["value"] <= entry[metric]["high"]
    macro = metrics["macro"]["auc"]["value"]
    both = [metrics["findings"][name]["auc"]["value"] for name in ("Mass", "Edema")]
    assert macro == pytest.approx(np.mean(both))
    assert metrics["macro"]["auc"]["n"] == 2
    with np.load(tmp_path / "eval" / "maps.npz") as maps:
        assert maps["maps"].shape == (30, 3, 4, 4)
        assert maps["maps"].dtype == np.float32
        assert list(maps["images"]) == [data.image_ids[index] for index in indices]
        assert list(maps["findings"]) == list(FINDINGS)
        assert str(maps["domain"]) == "unit"


def test_undefined_metrics_say_why(data, tmp_path):
    metrics = evaluate(Known(data), data, split="test", out=tmp_path / "eval", draws=20)
    assert metrics["findings"]["Hernia"]["auc"] == {
        "value": None,
        "reason": "no image with the finding",
    }
    assert metrics["findings"]["Edema"]["dice"] == {
        "value": None,
        "reason": "no image with the finding has a region",
    }
    assert set(metrics["macro"]) == set(METRICS)


def test_references_are_there_and_do_not_depend_on_the_scores(data, tmp_path):
    one = evaluate(Known(data, 1), data, split="test", out=tmp_path / "one", draws=20)
    two = evaluate(Known(data, 2), data, split="test", out=tmp_path / "two", draws=20)
    assert set(one["references"]) == {"all_ones", "train_prior", "best_grid", "shuffled"}
    for name in ("all_ones", "train_prior", "best_grid"):
        assert one["references"][name] == two["references"][name]
    assert one["references"]["shuffled"] != two["references"]["shuffled"]
    macro = {name: block["macro"]["dice"]["value"] for name, block in one["references"].items()}
    assert macro["best_grid"] == max(macro.values())


def test_dice_lost_is_the_own_less_that_of_other_films_maps(data, tmp_path):
    """With two films that have the finding, the shuffled map can only be the other one's."""
    model = Known(data)
    indices = [index for index in data.indices("test") if data.labels[index, 0] == 1][:2]
    splits = tuple("pair" if index in indices else "test" for index in range(len(data.splits)))
    pair = dataclasses.replace(data, splits=splits)
    metrics = evaluate(model, pair, split="pair", out=tmp_path / "eval", draws=20)
    maps = [model.answers[data.pixels[index].tobytes()][1][0] for index in indices]
    truths = [data.coverage(int(index), "Mass", SIZE) for index in indices]
    own, moved = (
        [
            score_map(upsample(map_, SIZE), truth, 0.5)
            for map_, truth in zip(order, truths, strict=True)
        ]
        for order in (maps, maps[::-1])
    )
    cases = read_cases(tmp_path / "eval" / "cases.csv")
    for column, of in (("shuffled_dice", "dice"), ("shuffled_hit", "hit")):
        np.testing.assert_allclose(
            cases.maps[column][:, 0], [getattr(one, of) for one in moved], rtol=1e-6
        )
    lost = np.mean([a.dice - b.dice for a, b in zip(own, moved, strict=True)])
    entry = metrics["findings"]["Mass"]["dice_lost_shuffled"]
    assert entry["value"] == pytest.approx(lost)
    assert entry["n"] == 2
    shuffled = metrics["references"]["shuffled"]["findings"]["Mass"]["dice"]["value"]
    assert entry["value"] == pytest.approx(metrics["findings"]["Mass"]["dice"]["value"] - shuffled)
    assert metrics["macro"]["dice_lost_shuffled"]["value"] == entry["value"]


def test_one_map_for_every_film_loses_nothing(data, tmp_path):
    model = Known(data)
    for _, maps in model.answers.values():
        maps[:] = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    metrics = evaluate(model, data, split="test", out=tmp_path / "eval", draws=20)
    entry = metrics["findings"]["Mass"]["dice_lost_shuffled"]
    assert metrics["findings"]["Mass"]["dice"]["value"] > 0
    assert [entry[key] for key in ("value", "low", "high")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_lost_dice_says_why_it_is_undefined(data, tmp_path):
    model = Known(data)
    pair = dataclasses.replace(data, splits=("pair", "pair", *data.splits[2:]))
    metrics = evaluate(model, pair, split="pair", out=tmp_path / "eval", draws=5)
    reasons = {name: metrics["findings"][name]["dice_lost_shuffled"]["reason"] for name in FINDINGS}
    assert reasons == {
        "Mass": "only one image with the finding has a region",
        "Edema": "no image with the finding",
        "Hernia": "no image with the finding",
    }
    model.card = dataclasses.replace(model.card, map_thresholds=dict.fromkeys(FINDINGS))
    metrics = evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    assert metrics["findings"]["Mass"]["dice_lost_shuffled"]["reason"] == "no map threshold"


def test_accuracy_says_why_it_is_undefined(data, tmp_path):
    model = Known(data)
    unknown = dataclasses.replace(data, labels=data.labels.copy())
    unknown.labels[:, 1] = np.nan
    model.card.score_thresholds["Mass"] = None
    metrics = evaluate(model, unknown, split="test", out=tmp_path / "eval", draws=5)
    entries = {name: metrics["findings"][name]["accuracy"] for name in FINDINGS}
    assert entries["Mass"] == {"value": None, "reason": "no score threshold"}
    assert entries["Edema"] == {"value": None, "reason": "no image was assessed"}
    assert entries["Hernia"]["n"] == 30


def test_cases_have_a_row_per_image_and_finding(data, tmp_path):
    evaluate(Known(data), data, split="test", out=tmp_path / "eval", draws=20)
    with (tmp_path / "eval" / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 30 * 3
    assert tuple(rows[0]) == COLUMNS
    masses = [row for row in rows if row["finding"] == "Mass"]
    for row in masses:
        assert (row["dice"] != "") == (row["label"] == "1")
        assert (row["fp_area"] != "") == (row["label"] == "0")
        assert row["present"] == str(int(float(row["score"]) >= 0.5))
    assert {row["label"] for row in rows if row["finding"] == "Edema"} == {"", "0", "1"}


def test_localisation_follows_from_the_table_of_cases(data, tmp_path):
    """Of every film with a region, also where the score is below its threshold."""
    metrics = evaluate(Known(data), data, split="test", out=tmp_path / "eval", draws=20)
    with (tmp_path / "eval" / "cases.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["finding"] == "Mass" and row["iou"]]
    assert len(rows) == 10
    assert {row["present"] for row in rows} == {"0", "1"}
    for policy, measure, column, mean in (
        ("validation", "iou", "iou", "t_iou"),
        ("validation", "ior", "ior", "t_ior"),
        ("ham", "iou", "ham_iou", "ham_t_iou"),
        ("ham", "ior", "ham_ior", "ham_t_ior"),
    ):
        block = metrics["localisation"][policy][measure]
        for threshold, entry in block["findings"]["Mass"].items():
            reached = [float(row[column]) >= float(threshold) for row in rows]
            assert (entry["value"], entry["n"]) == (pytest.approx(np.mean(reached)), 10)
            # the only finding with regions: the others are no zeros in the mean
            assert block["macro"][threshold]["value"] == entry["value"]
        shares = [entry["value"] for entry in block["macro"].values()]
        assert metrics["macro"][mean]["value"] == pytest.approx(np.mean(shares))
        assert 0 < np.mean(shares) < 1
        for reference in metrics["references"].values():
            assert reference["findings"]["Mass"][mean]["n"] == 10


def test_cases_survive_writing_and_reading(data, tmp_path):
    evaluate(Known(data), data, split="test", out=tmp_path / "eval", draws=20)
    cases = read_cases(tmp_path / "eval" / "cases.csv")
    write_cases(cases, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "eval" / "cases.csv").read_text()


def test_paired_differences(data, tmp_path):
    one = evaluate(Known(data, 1), data, split="test", out=tmp_path / "one", draws=20)
    two = evaluate(Known(data, 2), data, split="test", out=tmp_path / "two", draws=20)
    paths = tmp_path / "one" / "cases.csv", tmp_path / "two" / "cases.csv"
    findings, macro = compare_runs(*paths, draws=200)
    assert findings["Mass"]["dice"].value == pytest.approx(
        two["findings"]["Mass"]["dice"]["value"] - one["findings"]["Mass"]["dice"]["value"]
    )
    assert macro["auc"].value == pytest.approx(
        two["macro"]["auc"]["value"] - one["macro"]["auc"]["value"]
    )
    _, same = compare_runs(paths[0], paths[0], draws=50)
    for estimate in same.values():
        assert estimate.value is None or (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_paired_refuses_other_films(data, tmp_path):
    evaluate(Known(data), data, split="test", out=tmp_path / "test", draws=5)
    evaluate(Known(data), data, split="val", out=tmp_path / "val", draws=5)
    with pytest.raises(DataError, match="different films"):
        compare_runs(tmp_path / "test" / "cases.csv", tmp_path / "val" / "cases.csv")


def test_what_cannot_be_evaluated_is_refused(data, tmp_path):
    model = Known(data)
    with pytest.raises(DataError, match="no image in split 'dev'"):
        evaluate(model, data, split="dev", out=tmp_path / "eval")
    model.image_size = 224
    with pytest.raises(CheckpointError, match="--size 224"):
        evaluate(model, data, split="test", out=tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


def test_patients_the_model_was_trained_on_are_refused(data, tmp_path):
    model = Known(data)
    trained_on = [data.patient_ids[index] for index in data.indices("test")[:3]]
    model.card = dataclasses.replace(
        model.card, seen_patients=patient_hashes(data.name, trained_on)
    )
    with pytest.raises(DataError, match="2 patients of split 'test' were in the training"):
        evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    evaluate(model, data, split="val", out=tmp_path / "eval", draws=5)
    model.card = dataclasses.replace(model.card, data_fingerprint=data.fingerprint)
    evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)


def test_patients_of_another_set_with_the_same_number_are_others(data):
    mine, other = patient_hashes(data.name, ["1", "2", "1"]), patient_hashes("other", ["1", "2"])
    assert len(mine) == 2
    assert not len(np.intersect1d(mine, other))


def test_a_nan_score_stops_the_evaluation(data, tmp_path):
    model = Known(data)
    for scores, _ in model.answers.values():
        scores[1] = np.nan
    with pytest.raises(DataError, match="score of Edema"):
        evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    assert not (tmp_path / "eval").exists()


def test_quick_scores_agree_with_the_evaluation_where_they_must(data, tmp_path):
    model, indices = Known(data), data.indices("test")
    outputs = model.predict(data.pixels[indices])
    quick = QuickScorer(data, indices)(outputs.probability, outputs.maps)
    metrics = evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    assert quick["auc"] == pytest.approx(metrics["macro"]["auc"]["value"], abs=1e-12)
    assert quick["dice"] >= metrics["macro"]["dice"]["value"] - 0.02


def test_card_thresholds_come_from_the_images_given(data):
    model, indices = Known(data), data.indices("val")
    outputs = model.predict(data.pixels[indices])
    score, maps, prior = fit_card_thresholds(
        outputs.probability, outputs.maps, data, indices, model.card.train_prior
    )
    labels = data.labels[indices, 0]
    best = max(
        sk.f1_score(labels, outputs.probability[:, 0] >= t) for t in outputs.probability[:, 0]
    )
    assert sk.f1_score(labels, outputs.probability[:, 0] >= score["Mass"]) == pytest.approx(best)
    assert maps["Mass"] is not None
    assert 0 < prior["Mass"] <= 0.6
    assert (score["Hernia"], maps["Edema"], prior["Edema"]) == (None, None, None)


def test_references_say_their_own_reason(data, tmp_path):
    model = Known(data)
    model.card.train_prior[:] = 0
    metrics = evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    for metric in ("soft_dice", "dice", "hit_rate"):
        entry = metrics["references"]["train_prior"]["findings"]["Mass"][metric]
        assert entry == {"value": None, "reason": "the training set has no region of the finding"}
    # of the first two films one has the finding: its map has no partner
    pair = dataclasses.replace(data, splits=("pair", "pair", *data.splits[2:]))
    metrics = evaluate(model, pair, split="pair", out=tmp_path / "eval", draws=5)
    entry = metrics["references"]["shuffled"]["findings"]["Mass"]["max_dice"]
    assert entry == {"value": None, "reason": "only one image with the finding has a region"}


def test_findings_of_one_side_only_are_listed(data, tmp_path):
    model = Known(data)
    model.findings = ("Mass", "Hernia", "Cyst")
    metrics = evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    assert list(metrics["findings"]) == ["Mass", "Hernia"]
    assert metrics["protocol"]["findings_not_evaluated"] == {
        "only_in_model": ["Cyst"],
        "only_in_data": ["Edema"],
    }


def test_a_nan_map_stops_the_evaluation_by_name(data, tmp_path):
    model = Known(data)
    for _, maps in model.answers.values():
        maps[0, 1, 1] = np.nan
    with pytest.raises(DataError, match=r"image film0, Mass: .* not a number"):
        evaluate(model, data, split="test", out=tmp_path / "eval", draws=5)
    assert not (tmp_path / "eval").exists()


def test_only_the_maps_of_regions_are_kept(data):
    indices = data.indices("test")
    judge = MergedClassifier(Known(data), {name: (name,) for name in FINDINGS})
    outputs = judge.predict(data.pixels[indices])
    collected = _Collected(judge, data, indices)
    collected.add(0, indices, outputs)
    assert len(collected.positive_maps) == 10
    assert not any(
        np.shares_memory(kept, outputs.own.maps) for kept in collected.positive_maps.values()
    )


def test_a_set_without_training_images_is_evaluated(tmp_path):
    made_chexpert.write_chexlocalize(tmp_path / "set", splits=("test",))
    source = read_chexlocalize(tmp_path / "set")
    data = prepare(source, tmp_path / "data", size=64, progress=lambda done, total: None)
    model = tiny_model(data, findings=("Mass", "Cardiomegaly", "Support Devices"))
    model.card = dataclasses.replace(model.card, data_name="other", data_fingerprint="0" * 64)
    metrics = evaluate(model, data, split="test", out=tmp_path / "out", draws=5)
    assert metrics["findings_order"] == ["Cardiomegaly", "Support Devices"]
    assert metrics["protocol"]["images"] == 2
    assert metrics["findings"]["Cardiomegaly"]["max_dice"]["value"] > 0
