import dataclasses
import statistics

import pytest

from dwarf_cxr.evaluation.bootstrap import Estimate
from dwarf_cxr.reporting.metrics import (
    PAIRED_METRICS,
)
from dwarf_cxr.reporting.runs import read_runs
from dwarf_cxr.reporting.tables import (
    Paired,
    has_enough_seeds,
    paired_macro_rows,
    prior_sentences,
    seed_groups,
    shown_estimate,
)
from tests.reporting.made import write_run


@pytest.fixture
def runs(made_runs):
    return read_runs(made_runs, "test")


def with_dice(run, own, prior):
    metrics = dict(run.metrics)
    metrics["macro"] = {**metrics["macro"], "dice": own}
    references = dict(metrics["references"])
    references["train_prior"] = {"macro": {"dice": prior}, "findings": {}}
    metrics["references"] = references
    return dataclasses.replace(run, metrics=metrics)


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 5}


@pytest.mark.parametrize(
    ("own", "prior", "words"),
    [
        (estimate(0.2, 0.1, 0.3), estimate(0.25, 0.2, 0.3), "does not beat the train prior"),
        (estimate(0.2, 0.1, 0.3), estimate(0.2, 0.2, 0.2), "does not beat the train prior"),
        (estimate(0.4, 0.28, 0.5), estimate(0.25, 0.2, 0.3), "but the intervals overlap"),
        (estimate(0.4, None, None), estimate(0.25, 0.2, 0.3), "but the intervals overlap"),
        (estimate(0.4, 0.31, 0.5), estimate(0.25, 0.2, 0.3), "beats the train prior"),
        (
            {"value": None, "reason": "no map threshold"},
            estimate(0.2, 0.1, 0.3),
            "no map threshold",
        ),
    ],
)
def test_outcome_against_the_train_prior_is_said(runs, own, prior, words):
    (sentence,) = prior_sentences([with_dice(runs[0], own, prior)])
    assert words in sentence


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "verdict"),
    [
        ("auc", 0.1, 0.05, 0.2, "better"),
        ("auc", -0.1, -0.2, -0.05, "worse"),
        ("auc", 0.1, -0.05, 0.2, "not clear"),
        ("auc", 0.1, 0.0, 0.2, "not clear"),
        ("auc", 0.1, None, None, "not clear"),
        ("auc", 0.1, 0.1, 0.1, "not clear"),
        ("fp_area", 0.1, 0.05, 0.2, "worse"),
        ("fp_area", -0.1, -0.2, -0.05, "better"),
    ],
)
def test_intervals_that_exclude_zero_are_marked_in_words(runs, metric, value, low, high, verdict):
    macro = {one.key: Estimate(None, reason="undefined") for one in PAIRED_METRICS}
    macro[metric] = Estimate(value, low, high, 3)
    (row,) = paired_macro_rows(runs[:2], [Paired({}, macro)])
    place = [one.key for one in PAIRED_METRICS].index(metric)
    assert row.cells[place].verdict == verdict
    others = [cell for index, cell in enumerate(row.cells) if index != place]
    assert {(cell.text, cell.verdict, cell.title) for cell in others} == {("—", "", "undefined")}


def test_undefined_metric_shows_its_reason():
    cell = shown_estimate({"value": None, "reason": "no image with the finding"})
    assert (cell.text, cell.title) == ("—", "no image with the finding")
    assert shown_estimate(None).text == "—"


def test_interval_below_zero_is_not_written_with_a_dash():
    cell = shown_estimate(estimate(-0.02, -0.1, 0.06))
    assert (cell.text, cell.interval) == ("−0.020", "−0.100 to 0.060")
    assert shown_estimate(estimate(0.02, 0.01, 0.06)).interval == "0.010–0.060"


def test_mean_and_spread_over_seeds(runs):
    (group,) = seed_groups(runs)
    assert group.runs == ("first", "second")
    assert group.seeds == 2
    values = [run.metrics["macro"]["auc"]["value"] for run in runs[:2]]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert group.cells[0].text == f"{mean:.3f} ± {spread:.3f}"


def test_three_seeds_are_enough_and_other_settings_are_another_group(
    made_data, made_runs, tmp_path
):
    third = write_run(tmp_path / "third", made_data, seed=7)
    assert has_enough_seeds(read_runs([*made_runs[:2], third], "test"))
    assert not has_enough_seeds(read_runs(made_runs[:2], "test"))
    assert not has_enough_seeds(read_runs([*made_runs, third], "test"))
