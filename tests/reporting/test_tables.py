import dataclasses
import statistics

import pytest

from dwarf_cxr.evaluation.bootstrap import Estimate
from dwarf_cxr.reporting.intervals import signed_ends
from dwarf_cxr.reporting.metrics import PAIRED_METRICS
from dwarf_cxr.reporting.runs import read_runs
from dwarf_cxr.reporting.tables import (
    Paired,
    has_enough_seeds,
    paired_macro_rows,
    prior_sentences,
    seed_groups,
    shown_estimate,
    summary_rows,
)
from tests.reporting.made import FINDINGS, write_run


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
        (estimate(0.4, None, None), estimate(0.25, 0.2, 0.3), "one of the two has no interval"),
        (estimate(0.4, 0.3, 0.5), estimate(0.2, 0.2, 0.2), "one of the two has no interval"),
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
        ("auc", 0.1, 0.1, 0.1 + 1e-16, "not clear"),
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


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [
        (None, None, "undefined in most draws"),
        (0.3, 0.3, "the same in every draw, as with a single film"),
        # the sums of draws of one film differ in their last digits
        (0.3, 0.1 + 0.2, "the same in every draw, as with a single film"),
    ],
)
def test_what_is_no_interval_is_a_dash_with_the_reason(runs, low, high, why):
    cell = shown_estimate(estimate(0.3, low, high))
    assert (cell.text, cell.interval) == ("0.300", "—")
    assert cell.title.endswith(f"no interval: {why}")
    macro = {one.key: Estimate(None, reason="undefined") for one in PAIRED_METRICS}
    macro["auc"] = Estimate(0.3, low, high, 3)
    (row,) = paired_macro_rows(runs[:2], [Paired({}, macro)])
    assert (row.cells[0].text, row.cells[0].interval) == ("+0.300", "—")
    assert row.cells[0].title.endswith(f"no interval: {why}")


def test_macro_means_say_in_their_cell_what_they_are_over():
    assert shown_estimate(estimate(0.3, 0.2, 0.4), of=7).counted == "5 of 7"
    assert shown_estimate(estimate(0.3, None, None), of=7).counted == "5 of 7"
    assert shown_estimate(estimate(0.3, 0.2, 0.4), of=5).counted == ""
    # of a finding n counts films
    assert shown_estimate(estimate(0.3, 0.2, 0.4)).counted == ""


def test_differences_and_seeds_say_what_they_are_over(made_data, runs, tmp_path):
    macro = {one.key: Estimate(0.1, 0.05, 0.2, 3) for one in PAIRED_METRICS}
    macro["dice"] = Estimate(0.1, 0.05, 0.2, 2)
    (row,) = paired_macro_rows(runs[:2], [Paired({}, macro)])
    place = [one.key for one in PAIRED_METRICS].index("dice")
    said = [cell.counted for cell in row.cells]
    assert said[place] == "2 of 3"
    assert {words for index, words in enumerate(said) if index != place} == {""}
    # the third finding is drawn nowhere: all means of maps are over two
    (group,) = seed_groups(runs)
    summary = summary_rows(runs)[0]
    assert (group.cells[place].counted, summary.cells[place].counted) == ("2 of 3", "2 of 3")
    assert (group.cells[0].counted, summary.cells[0].counted) == ("", "")


def test_a_run_with_fewer_findings_is_counted_against_those_of_all_runs(made_data, runs, tmp_path):
    fewer = write_run(tmp_path / "fewer", made_data, seed=5, findings=FINDINGS[1:])
    read = [runs[0], *read_runs([fewer], "test")]
    first, second = summary_rows(read)[:2]
    assert (first.cells[0].counted, second.cells[0].counted) == ("", "2 of 3")


def test_a_reference_is_one_row_for_the_runs_for_which_it_is_the_same(runs):
    other = dict(runs[1].metrics["references"])
    other["all_ones"] = {"macro": {"dice": estimate(0.5, 0.4, 0.6)}, "findings": {}}
    changed = dataclasses.replace(runs[1], metrics={**runs[1].metrics, "references": other})
    rows = summary_rows([runs[0], changed, runs[2]])
    notes = [row.note for row in rows if row.name == "whole film"]
    assert notes == ["reference of first, prior", "reference of second"]
    assert [row.note for row in rows if row.name == "train prior"] == ["reference of all runs"]


def test_an_end_that_is_not_zero_does_not_read_as_zero():
    assert signed_ends(-0.2, -0.00048) == ("-0.2000", "-0.0005")
    assert signed_ends(0.00004, 0.2) == ("+0.00004", "+0.20000")
    # where the interval holds 0 it does not matter
    assert signed_ends(-0.2, 0.00048) == ("-0.200", "+0.000")
    assert signed_ends(-0.2, -0.1) == ("-0.200", "-0.100")
