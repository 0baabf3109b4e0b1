"""Simulated studies whose preference is known: how many of the intervals hold it.

A test of coverage that cannot fail is none: intervals that ignore the films fail here, and so would
ones that are simply long.
"""

import numpy as np
import pytest
from scipy.stats import binom

from dwarf_cxr.study.clustered import (
    bootstrap_share,
    clustered_wilson,
    film_weights,
)
from dwarf_cxr.study.preference import wilson


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


def test_bootstrap_holds_nearly_as_much_as_it_says():
    truth, won = studies(400, films=40, readers=3, mean=0.5, spread=1.5, seed=4)
    trials = np.full(40, 3.0)
    drawn = [bootstrap_share(one, trials, film_weights(40, 400, seed=0)) for one in won]
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
