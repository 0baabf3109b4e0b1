"""Simulated studies whose truth is known, and a small one counted by hand."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from dwarf_cxr.errors import DataError
from dwarf_cxr.study.analysis import (
    agreements,
    consistencies,
    needed,
    pairs,
    preferences,
    side_biases,
    strengths,
)
from dwarf_cxr.study.answers import Given
from dwarf_cxr.study.bradley_terry import log_strengths
from dwarf_cxr.study.clustered import patient_weights
from dwarf_cxr.study.judgements import judgements
from tests.study.made import design, given_by

FINDINGS = ("Mass", "Edema")


def simulated(seed, *, films, readers, mean, spread, ties):
    """Judgements of a study in which film u is won with probability logistic(mean + u)."""
    study, key = design(("a", "b"), films, seed=seed)
    rng = np.random.default_rng([seed, 1])
    effect = dict(zip([f"f{n}" for n in range(films)], rng.normal(0, spread, films), strict=True))

    def say(one, question):
        if rng.random() < ties:
            return None
        return "a" if rng.random() < 1 / (1 + np.exp(-mean - effect[one.film])) else "b"

    given = [
        answer
        for reader in range(readers)
        for answer in given_by(study, key, f"r{reader}", say, seed=reader)
    ]
    return judgements(study, key, given)


def coverage(simulations, **settings):
    """How many of the intervals hold the truth; the truth by numerical integration."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    won = 1 / (1 + np.exp(-settings["mean"] - settings["spread"] * points))
    truth = float((won * weights).sum() / weights.sum())
    held = 0
    for seed in range(simulations):
        rows = preferences(simulated(seed, **settings), FINDINGS, draws=100, seed=0)
        (row,) = [one for one in rows if one.group == "all" and one.question == "overall"]
        held += row.interval.low <= truth <= row.interval.high
    return held / simulations


def test_intervals_hold_a_known_preference():
    held = coverage(60, films=30, readers=2, mean=1.2, spread=1.0, ties=0.1)
    assert 0.9 <= held <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"films": 20, "readers": 2, "mean": 1.5, "spread": 1.0, "ties": 0.1},
        {"films": 40, "readers": 3, "mean": 0.5, "spread": 1.5, "ties": 0.2},
        {"films": 40, "readers": 2, "mean": 0.0, "spread": 1.0, "ties": 0.0},
    ],
)
def test_intervals_hold_a_known_preference_in_95_of_100_studies(settings):
    assert 0.92 <= coverage(200, **settings) <= 0.98


def test_independent_answers_would_be_too_sure():
    """Readers who always agree add nothing: the interval is that of one reader."""
    study, key = design(("a", "b"), 24)
    rng = np.random.default_rng(2)
    won = {f"f{n}": "a" if rng.random() < 0.7 else "b" for n in range(24)}
    one, many = (
        preferences(
            judgements(
                study,
                key,
                [
                    answer
                    for reader in range(readers)
                    for answer in given_by(
                        study, key, f"r{reader}", lambda c, q: won[c.film], seed=reader
                    )
                ],
            ),
            FINDINGS,
            draws=100,
            seed=0,
        )[0]
        for readers in (1, 6)
    )
    width = one.interval.high - one.interval.low
    assert many.interval.high - many.interval.low == pytest.approx(width, rel=0.05)
    assert many.plain.high - many.plain.low < 0.6 * width


def test_sides_do_not_matter():
    """Whoever always prefers run b is counted for b, on whichever side it was."""
    study, key = design(("a", "b"), 11)
    given = given_by(study, key, "ann", lambda one, question: "b", repeats=3)
    judged = judgements(study, key, given)
    assert all(one.outcomes == {"overall": -1} for one in judged)
    (row,) = [one for one in preferences(judged, FINDINGS, draws=100, seed=0) if one.group == "all"]
    assert (row.counts.first, row.counts.second, row.counts.ties) == (0, 11, 0)
    bias = side_biases(judged)[0]
    assert bias.left + bias.right == 14
    assert {bias.left, bias.right} <= {5, 6, 7, 8, 9}


def test_whoever_always_says_left_shows_in_the_bias_alone():
    study, key = design(("a", "b"), 20)
    given = [
        Given(
            one.reader,
            one.position,
            one.comparison_id,
            one.swapped,
            one.repeat,
            {"overall": "A"},
            0,
            "now",
        )
        for one in given_by(study, key, "ann", lambda *_: None)
    ]
    judged = judgements(study, key, given)
    everyone, ann = side_biases(judged)
    assert (everyone.left, everyone.right) == (20, 0)
    assert ann.reader == "ann"
    assert ann.p < 1e-5
    (row,) = [one for one in preferences(judged, FINDINGS, draws=100, seed=0) if one.group == "all"]
    assert abs(row.counts.first - 10) <= 1


def test_groups_are_counted_by_hand():
    study, key = design(("a", "b"), 12)
    rng = np.random.default_rng(4)
    choices = {
        (reader, one.comparison_id, question): rng.choice(["a", "b", ""])
        for reader in ("ann", "bob")
        for one in study.comparisons
        for question in ("accuracy", "overall")
    }
    given = []
    for seed, reader in enumerate(("ann", "bob")):
        given += given_by(
            study,
            key,
            reader,
            lambda one, question, who=reader: choices[who, one.comparison_id, question] or None,
            seed=seed,
            questions=("accuracy", "overall"),
        )
    rows = preferences(judgements(study, key, given), FINDINGS, draws=100, seed=0)
    assert {row.question for row in rows if row.counts.total} == {"accuracy", "overall"}
    finding_of = {one.comparison_id: one.finding for one in study.comparisons}
    for row in rows:
        expected = Counter(
            said
            for (reader, comparison, question), said in choices.items()
            if question == row.question and row.name in ("", reader, finding_of[comparison])
        )
        assert (row.counts.first, row.counts.second, row.counts.ties) == (
            expected["a"],
            expected["b"],
            expected[""],
        )
    for agreement in agreements(judgements(study, key, given), draws=100, seed=0):
        if agreement.question == "specificity":
            assert (agreement.comparisons, agreement.kappa) == (0, None)
            continue
        said = [
            [choices[reader, one.comparison_id, agreement.question] for one in study.comparisons]
            for reader in ("ann", "bob")
        ]
        assert agreement.kind == "Cohen"
        assert agreement.kappa == pytest.approx(cohen_kappa_score(*said))
        assert agreement.same == sum(one == two for one, two in zip(*said, strict=True))
        assert agreement.interval.low <= agreement.kappa <= agreement.interval.high


def varied(runs, films, readers, seed):
    """Judgements without any pattern, each film of one to three answers, a third of them ties."""
    study, key = design(runs, films, seed=seed)
    rng = np.random.default_rng(seed)

    def say(one, question):
        pair = sorted({key.run_of_map[name] for name in one.maps})
        return rng.choice([*pair, None])

    given = []
    for number, reader in enumerate(readers):
        its = given_by(study, key, reader, say, seed=number)
        given += [one for one in its if number == 0 or rng.random() < 0.6]
    return judgements(study, key, given)


def test_three_runs_are_counted_two_by_two():
    judged = varied(("c", "a", "b"), 13, ("ann", "bob"), seed=2)
    expected = Counter((one.first, one.second, one.outcomes["overall"]) for one in judged)
    rows = [row for row in preferences(judged, FINDINGS, draws=100, seed=0) if row.group == "all"]
    assert [(row.first, row.second) for row in rows] == pairs(judged)
    assert {(row.first, row.second) for row in rows} == {("c", "a"), ("c", "b"), ("a", "b")}
    plans = needed(judged)
    for row, plan in zip(rows, plans, strict=True):
        counted = [expected[row.first, row.second, outcome] for outcome in (1, -1, 0)]
        assert [row.counts.first, row.counts.second, row.counts.ties] == counted
        assert plan.counts == row.counts
    for row in agreements(judged, draws=50, seed=0):
        both = Counter(
            one.comparison_id
            for one in judged
            if (one.first, one.second) == (row.first, row.second)
        )
        if row.question == "overall":
            assert row.comparisons == sum(count == 2 for count in both.values())


def test_bootstrap_repeats_the_answers_of_drawn_films():
    """Naively: the answers of each draw are put together one by one."""
    judged = varied(("a", "b"), 14, ("ann", "bob", "eve"), seed=5)
    films = sorted({one.film for one in judged})
    untied, half, kappas = [], [], []
    said = {}
    for one in judged:
        said.setdefault(one.comparison_id, {})[one.reader] = one
    for draw in patient_weights(len(films), 300, seed=9):
        times = dict(zip(films, draw, strict=True))
        drawn = [one.outcomes["overall"] for one in judged for _ in range(times[one.film])]
        won, lost = drawn.count(1), drawn.count(-1)
        untied.append(won / (won + lost))
        half.append((won + drawn.count(0) / 2) / len(drawn))
    row = preferences(judged, FINDINGS, draws=300, seed=9)[0]
    for interval, values in ((row.bootstrap, untied), (row.half_interval, half)):
        expected = np.percentile(values, [2.5, 97.5])
        np.testing.assert_allclose((interval.low, interval.high), expected)
    # kappa: of the comparisons that both answered, the films of those
    (agreement,) = [
        one
        for one in agreements(judged, draws=300, seed=9)
        if one.question == "overall" and one.readers == ("ann", "bob")
    ]
    both = [its for its in said.values() if {"ann", "bob"} <= set(its)]
    films = sorted({its["ann"].film for its in both})
    assert len(films) < 14
    for draw in patient_weights(len(films), 300, seed=9):
        times = dict(zip(films, draw, strict=True))
        drawn = [its for its in both for _ in range(times[its["ann"].film])]
        kappas.append(
            cohen_kappa_score(
                *([its[name].outcomes["overall"] for its in drawn] for name in ("ann", "bob")),
                labels=[1, 0, -1],
            )
        )
    expected = np.percentile(kappas, [2.5, 97.5])
    np.testing.assert_allclose((agreement.interval.low, agreement.interval.high), expected)


def test_ties_are_half_a_win_of_a_strength():
    runs = ("a", "b", "c")
    judged = varied(runs, 15, ("ann", "bob"), seed=3)
    wins = np.zeros((3, 3))
    for one in judged:
        first, second = runs.index(one.first), runs.index(one.second)
        won = {1: 1.0, 0: 0.5, -1: 0.0}[one.outcomes["overall"]]
        wins[first, second] += won
        wins[second, first] += 1 - won
    rows = strengths(judged, runs)
    np.testing.assert_allclose([row.log_strength for row in rows], log_strengths(wins))


def test_three_readers_have_fleiss_kappa_of_what_all_answered():
    study, key = design(("a", "b"), 8)
    given = []
    for seed, reader in enumerate(("ann", "bob", "eve")):
        given += given_by(study, key, reader, lambda one, q: "ab"[int(one.film[1:]) % 2], seed=seed)
    given = [one for one in given if (one.reader, one.comparison_id) != ("eve", "c3-0")]
    rows = [
        row
        for row in agreements(judgements(study, key, given), draws=50, seed=0)
        if row.question == "overall"
    ]
    assert [row.kind for row in rows] == ["Cohen"] * 3 + ["Fleiss"]
    assert rows[-1].readers == ("ann", "bob", "eve")
    assert (rows[-1].comparisons, rows[0].comparisons) == (7, 8)
    assert rows[-1].kappa == pytest.approx(1)


def test_repeats_tell_of_the_reader_alone():
    study, key = design(("a", "b"), 10)
    said = Counter()

    def say(one, question):
        said[one.comparison_id] += 1
        # the second time in every other film the opposite
        return "ab"[(said[one.comparison_id] == 2) and int(one.film[1:]) % 2]

    judged = judgements(study, key, given_by(study, key, "ann", say, repeats=6))
    (row,) = consistencies(judged)
    odd = sum(count == 2 and int(name[1:].split("-")[0]) % 2 for name, count in said.items())
    assert (row.repeats, row.same) == (6, 6 - odd)
    (all_,) = [
        one for one in preferences(judged, FINDINGS, draws=100, seed=0) if one.group == "all"
    ]
    assert all_.counts.total == 10
    assert consistencies([one for one in judged if not one.repeat]) == []


def test_strengths_find_the_order():
    study, key = design(("a", "b", "c"), 40)
    rng = np.random.default_rng(0)
    true = {"a": 1.0, "b": 0.0, "c": -1.0}

    def say(one, question):
        first, second = (key.run_of_map[name] for name in one.maps)
        return first if rng.random() < 1 / (1 + np.exp(true[second] - true[first])) else second

    given = [
        answer for seed in range(3) for answer in given_by(study, key, f"r{seed}", say, seed=seed)
    ]
    judged = judgements(study, key, given)
    rows = strengths(judged, ("a", "b", "c"))
    for row in rows:
        assert row.interval.low <= true[row.run] <= row.interval.high
    assert strengths(judged, ("a", "b")) == []
    always = judgements(
        study,
        key,
        given_by(study, key, "x", lambda one, q: min(key.run_of_map[name] for name in one.maps)),
    )
    assert {row.log_strength for row in strengths(always, ("a", "b", "c"))} == {None}


def test_needed_grows_with_ties_and_clusters():
    study, key = design(("a", "b"), 20)

    def say(one, question):
        number = int(one.film[1:])
        return None if number % 4 == 0 else "b" if number % 5 == 1 else "a"

    given = [
        answer for seed in range(2) for answer in given_by(study, key, f"r{seed}", say, seed=seed)
    ]
    (row,) = needed(judgements(study, key, given))
    # 2 of 15 films for b, everything said twice, a quarter ties
    assert row.design_effect == pytest.approx(2 * 15 / 14)
    assert row.total == int(np.ceil(row.decided * 2 * 15 / 14 / 0.75))
    ties = judgements(study, key, given_by(study, key, "ann", lambda *_: None))
    (row,) = needed(ties)
    assert (row.decided, row.total) == (None, None)
    assert (row.counts.decided, row.counts.ties) == (0, 20)
    (all_,) = [one for one in preferences(ties, FINDINGS, draws=100, seed=0) if one.group == "all"]
    assert (all_.interval, all_.p) == (None, None)
    assert all_.counts.half_share == 0.5


def test_needed_takes_readers_who_always_agree_for_one():
    study, key = design(("a", "b"), 10)
    given = [
        answer
        for seed in range(3)
        for answer in given_by(study, key, f"r{seed}", lambda *_: "a", seed=seed)
    ]
    (row,) = needed(judgements(study, key, given))
    assert (row.decided, row.design_effect, row.total) == (6, 3, 18)


@pytest.mark.parametrize("films", [1, 5, 6])
def test_nothing_is_planned_from_too_few(films):
    study, key = design(("a", "b"), films)
    (row,) = needed(judgements(study, key, given_by(study, key, "ann", lambda *_: "a")))
    assert (row.decided is None) == (films < 6)


def test_answers_of_another_study():
    study, key = design(("a", "b"), 3)
    strange = Given("ann", 1, "c9-9", False, False, {"overall": "A"}, 0, "now")
    with pytest.raises(DataError, match="restore the three files"):
        judgements(study, key, [strange])
