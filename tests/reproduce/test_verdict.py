import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dwarf_cxr.config import MethodSettings, RunConfig
from dwarf_cxr.reporting.intervals import NO_INTERVAL_RULE, VERDICT_RULE
from dwarf_cxr.reproduce.plan import PlannedRow, Training
from dwarf_cxr.reproduce.recipes import DIRECT, DWARF, GAIN, Numbers, Published, find_recipe
from dwarf_cxr.reproduce.results import METRICS, RowResult
from dwarf_cxr.reproduce.statistics import SeedMean, Summary
from dwarf_cxr.reproduce.tables import (
    Difference,
    markdown,
    shown,
    shown_spread,
    tables_of,
    verdict_of,
)
from dwarf_cxr.reproduce.verdict import verdict_sentences


def result(row, dice: list[float], *, prior: float = 0.3, width: float = 0.02) -> RowResult:
    """A row whose trainings have this Dice (and AUC), in draws as far from it as `width`."""
    draws = np.linspace(-width, width, 101)[:, None] + np.mean(dice)
    mean = SeedMean(("Mass",), np.array(dice)[:, None], draws)
    config = RunConfig(
        method=row.method,
        findings=("Mass",),
        data="data",
        data_fingerprint="0" * 64,
        settings=MethodSettings(),
    )
    trainings = tuple(
        Training(Path(f"{row.name}-{seed}"), config.model_copy(update={"seed": seed}), ())
        for seed in range(len(dice))
    )
    data = Path("data")
    planned = PlannedRow(row, row.name, ("Mass",), data, "ChestX-Det", trainings, row.against)
    entry = {"value": prior, "low": prior - width, "high": prior + width}
    metrics = {"references": {"train_prior": {"macro": {"dice": entry}}}}
    return RowResult(
        planned=planned,
        trainings=trainings,
        cases=(),
        metrics=(metrics,) * len(dice),
        means={metric.key: mean for metric in METRICS},
        oracle={key: Summary(0.5, sd=0.1, seeds=3) for key in ("auc", "f1", "mcc", "dice")},
        validation={
            key: Summary(4.0, seeds=3) for key in ("epoch", "val_auc", "val_dice", "val_hit_rate")
        },
        minutes=2.0,
    )


def compared(one: RowResult, other: RowResult, summary: Summary) -> Difference:
    return Difference(one, other, {metric.key: summary for metric in METRICS})


def published(row, dice: float):
    return dataclasses.replace(row, published=(Published("Table 9", Numbers(dice=dice)),))


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.1, 0.05, 0.15, "the same order is found here"),
        (-0.1, -0.15, -0.05, "the opposite order is found here"),
        (
            0.02,
            -0.05,
            0.09,
            "neither confirmed nor refuted here, and a difference of +0.200 lies out",
        ),
        (0.02, -0.25, 0.29, "neither confirmed nor refuted here."),
    ],
)
def test_the_papers_order_is_found_reversed_or_neither(value, low, high, said):
    one, other = result(published(DWARF, 0.4), [0.5]), result(published(GAIN, 0.2), [0.4])
    sentences = verdict_sentences(
        [one, other], [compared(one, other, Summary(value, low, high, seeds=1))]
    )
    assert any(said in sentence for sentence in sentences), sentences
    assert any("The paper has best Dice 0.400 against 0.200" in each for each in sentences)


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (-0.1, -0.15, -0.05, "the same order is found here"),
        (0.1, 0.05, 0.15, "the opposite order is found here"),
        (0.02, -0.05, 0.09, "neither confirmed nor refuted here, and a difference of -0.200 lies"),
    ],
)
def test_an_order_in_which_the_paper_has_the_baseline_ahead(value, low, high, said):
    one, other = result(published(DWARF, 0.2), [0.5]), result(published(GAIN, 0.4), [0.4])
    sentences = verdict_sentences(
        [one, other], [compared(one, other, Summary(value, low, high, seeds=1))]
    )
    assert any(said in sentence for sentence in sentences), sentences


def test_without_published_numbers_no_order_is_claimed():
    one, other = result(DIRECT, [0.5]), result(published(GAIN, 0.2), [0.4])
    sentences = verdict_sentences(
        [one, other], [compared(one, other, Summary(0.1, 0.05, 0.15, seeds=1))]
    )
    assert not any("The paper" in sentence for sentence in sentences)


def test_overlapping_trainings_are_said():
    summary = Summary(0.1, 0.05, 0.15, seeds=2)
    for own, words in (
        ([0.5, 0.6], "no training of one is between"),
        ([0.1, 0.15], "no training of one is between"),
        ([0.3, 0.6], "overlap"),
        ([0.1, 0.3], "overlap"),
    ):
        one, other = result(DWARF, own), result(GAIN, [0.2, 0.4])
        sentence = verdict_sentences([one, other], [compared(one, other, summary)])[0]
        assert words in sentence
        assert sentence.startswith("DWARF minus GAIN, 1 finding: AUC +0.100 [+0.050, +0.150]")


@pytest.mark.parametrize(
    ("dice", "said"),
    [(0.5, "intervals apart"), (0.33, "overlapping intervals"), (0.2, "Dice not above the train")],
)
def test_the_train_prior_is_always_compared(dice, said):
    sentences = verdict_sentences([result(DWARF, [dice])], [])
    assert said in sentences[0]
    assert f"({dice:.3f} against 0.300)" in sentences[0]


def test_one_training_or_an_unclear_difference_says_nothing_of_seeds():
    for summary in (Summary(0.1, 0.05, 0.15, seeds=1), Summary(0.1, -0.05, 0.25, seeds=2)):
        one, other = result(DWARF, [0.5, 0.6]), result(GAIN, [0.2, 0.4])
        sentence = verdict_sentences([one, other], [compared(one, other, summary)])[0]
        assert "training" not in sentence


def test_what_is_better():
    assert verdict_of(Summary(0.1, 0.05, 0.2)) == "better"
    assert verdict_of(Summary(-0.1, -0.2, -0.05)) == "worse"
    for unclear in (
        Summary(0.1, -0.05, 0.2),
        Summary(0.1),
        Summary(None),
        Summary(0.1, 0.1, 0.1),  # all rests on a single film
        Summary(0.3, 0.3, 0.1 + 0.2),
    ):
        assert verdict_of(unclear) == "not clear"


def test_numbers_as_they_are_shown():
    cell = shown(Summary(0.12345, 0.1, 0.2, 0.01, 3), signed=True)
    assert (cell.text, cell.interval) == ("+0.123 ± 0.010", "[+0.100, +0.200]")
    assert shown(Summary(None)).text == "—"
    assert shown_spread(Summary(0.5, sd=0.0, seeds=3)).text == "0.500"
    assert shown_spread(Summary(0.5, sd=0.0, seeds=3)).interval == ""


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [(None, None, "undefined in most draws"), (0.5, 0.5, "the same in every draw")],
)
def test_what_is_no_interval_is_a_dash_with_the_reason(low, high, why):
    cell = shown(Summary(0.5, low, high, seeds=3))
    assert (cell.text, cell.interval) == ("0.500", "[—]")
    assert f"no interval: {why}" in cell.title


def test_a_value_says_over_how_many_findings_it_is():
    summary = Summary(0.5, 0.4, 0.6, seeds=3, findings=5)
    assert shown(summary, of=7).counted == "5 of 7"
    assert shown(summary, of=5).counted == ""
    assert shown(Summary(0.5, 0.4, 0.6, seeds=3), of=7).counted == ""


def test_tables_say_what_a_mean_is_over_and_the_rule_of_their_words():
    recipe = find_recipe("table2")
    rows = [result(recipe.rows[1], [0.5, 0.6]), result(recipe.rows[0], [0.4, 0.5])]
    # both know two findings, of which one is defined
    rows = [
        dataclasses.replace(
            one,
            planned=dataclasses.replace(one.planned, findings=("Mass", "Nodule")),
            means={
                key: SeedMean(
                    ("Mass", "Nodule"),
                    np.concatenate([mean.points, np.full_like(mean.points, np.nan)], axis=1),
                    np.concatenate([mean.draws, np.full_like(mean.draws, np.nan)], axis=1),
                )
                for key, mean in one.means.items()
            },
        )
        for one in rows
    ]
    summary = Summary(0.1, 0.05, 0.15, seeds=2, findings=1)
    honest, _, differences, _ = tables_of(rows, [compared(*rows, summary)])
    assert {cell.counted for cell in honest.lines[0].cells[:-1]} == {"1 of 2"}
    assert {cell.counted for cell in differences.lines[0].cells} == {"1 of 2"}
    assert "(1 of 2) better" in markdown(differences)
    assert VERDICT_RULE in differences.note
    assert NO_INTERVAL_RULE in differences.note
    assert NO_INTERVAL_RULE in honest.note


def test_a_prior_without_an_interval_is_not_beaten():
    sentences = verdict_sentences([result(DWARF, [0.5], width=0.0)], [])
    assert "one of the two has no interval" in sentences[0]


def test_markdown_has_a_cell_for_every_column():
    recipe = find_recipe("table2")
    one, other = result(recipe.rows[1], [0.5, 0.6]), result(recipe.rows[0], [0.4, 0.5])
    tables = tables_of([one, other], [compared(one, other, Summary(0.1, 0.05, 0.15, seeds=2))])
    assert len(tables) == 4
    for table in tables:
        rows = [line for line in markdown(table).splitlines() if line.startswith("|")]
        assert {row.count("|") for row in rows} == {rows[0].count("|")}
    assert "[paper 0.415]" in markdown(tables[1])
