"""Simulated studies whose preference is known: how many of the intervals hold it.

A test of coverage that cannot fail is none: intervals that ignore the films fail here, and so would
ones that are simply long.
"""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

from dwarf_cxr.study.analysis import preferences, strengths
from dwarf_cxr.study.clustered import (
    bootstrap_share,
    clustered_wilson,
    patient_weights,
)
from dwarf_cxr.study.judgements import judgements
from dwarf_cxr.study.preference import wilson
from tests.study.made import design, given_by


def studies(count, *, films, readers, mean, spread, seed):
    """The true share, and answers for the first run by study and film.

    The share of a film is normal on the logit scale; its readers answer independently by it.
    """
    rng = np.random.default_rng(seed)
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    truth = (weights / (1 + np.exp(-mean - spread * points))).sum() / weights.sum()
    shares = 1 / (1 + np.exp(-mean - spread * rng.normal(size=(count, films))))
    return float(truth), rng.binomial(readers, shares).astype(float)


def held(truth, intervals):
    """The share of intervals that hold the truth, and their mean length."""
    low, high = np.array(intervals).T
    return float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean())


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 2.0), (1.0, 2.0), (0.7, 1.0)])
def test_clustered_intervals_hold_the_truth_and_independent_ones_do_not(mean, spread):
    films, readers = 30, 5
    truth, won = studies(600, films=films, readers=readers, mean=mean, spread=spread, seed=3)
    trials = np.full(films, float(readers))
    clustered = [clustered_wilson(one, trials) for one in won]
    coverage, length = held(truth, [(one.low, one.high) for one in clustered])
    assert 0.93 <= coverage <= 0.98
    plain, shorter = held(truth, [wilson(one.sum(), trials.sum()) for one in won])
    assert plain < 0.9 if spread == 2.0 else plain < coverage - 0.01
    # no longer than the films' own variance asks for
    shares = won / readers
    needed = 2 * 2.045 * shares.std(axis=1, ddof=1).mean() / np.sqrt(films)
    assert shorter < length < 1.15 * needed


def test_several_films_of_a_patient_are_one_cluster():
    """Through the analysis: films of a patient are alike, so that by film it would be too sure."""
    patients, each, mean, spread = 20, 4, 0.8, 4.0
    runs = ("a", "b")
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    truth = (weights / (1 + np.exp(-mean - spread * points))).sum() / weights.sum()
    study, key = design(runs, patients * each)
    whose = {f"f{number}": number // each for number in range(patients * each)}
    rng = np.random.default_rng(5)
    by_patient, by_film = [], []
    for _ in range(150):
        chances = 1 / (1 + np.exp(-mean - spread * rng.normal(size=patients)))
        said = {film: "ab"[int(rng.random() > chances[one])] for film, one in whose.items()}
        given = given_by(study, key, "ann", lambda one, question, said=said: said[one.film])
        for known, intervals in (({}, by_film), (whose, by_patient)):
            judged = judgements(study, dataclasses.replace(key, patient_of_film=known), given)
            row = preferences(judged, (), draws=100, seed=0)[0]
            assert (row.films, row.patients) == (80, 20 if known else 80)
            intervals.append((row.interval.low, row.interval.high))
    coverage, _ = held(truth, by_patient)
    assert 0.91 <= coverage <= 0.99
    assert held(truth, by_film)[0] < coverage - 0.1


def test_bootstrap_holds_nearly_as_much_as_it_says():
    truth, won = studies(400, films=40, readers=3, mean=0.5, spread=1.5, seed=4)
    trials = np.full(40, 3.0)
    drawn = [bootstrap_share(one, trials, patient_weights(40, 400, seed=0)) for one in won]
    coverage, _ = held(truth, [(one.low, one.high) for one in drawn])
    assert 0.9 <= coverage <= 0.97


@pytest.mark.parametrize("trials", [10, 20, 40, 150])
def test_wilson_holds_95_of_100_over_all_shares(trials):
    """Without chance: the binomial probabilities of the outcomes whose interval holds the share."""
    shares = np.linspace(0.02, 0.98, 193)
    intervals = np.array([wilson(successes, trials) for successes in range(trials + 1)])
    inside = (intervals[:, :1] <= shares) & (shares <= intervals[:, 1:])
    coverage = (binom.pmf(np.arange(trials + 1)[:, None], trials, shares) * inside).sum(axis=0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.012)
    assert coverage.min() > 0.83


@pytest.mark.slow
def test_strengths_hold_the_truth_where_runs_are_far_apart():
    """A bootstrap held the middle run's in .87 of studies: a fifth of its draws had no maximum."""
    runs, true = ("a", "b", "c"), {"a": 1.8, "b": 0.0, "c": -1.8}
    study, key = design(runs, 15)
    rng = np.random.default_rng(11)

    def say(one, question):
        first, second = (key.run_of_map[name] for name in one.maps)
        return first if rng.random() < 1 / (1 + np.exp(true[second] - true[first])) else second

    held_by = {run: [] for run in runs}
    for _ in range(250):
        judged = judgements(study, key, given_by(study, key, "ann", say))
        for row in strengths(judged, runs):
            if row.log_strength is not None:
                held_by[row.run].append(row.interval.low <= true[row.run] <= row.interval.high)
    for run, held_ in held_by.items():
        assert 0.93 <= np.mean(held_) <= 1, run
