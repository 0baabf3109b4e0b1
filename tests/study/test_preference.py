"""Against scipy, and against sums over every outcome."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from dwarf_cxr.study.preference import (
    FEWEST_DECIDED,
    Counts,
    binomial_p,
    clusters_of,
    count,
    decided_needed,
    power_of,
    wilson,
)


def test_counts():
    counts = count(np.array([1, 1, 0, -1, 1]))
    assert counts == Counts(3, 1, 1)
    assert (counts.decided, counts.total) == (4, 5)
    assert counts.share == 0.75
    assert counts.half_share == 0.7
    assert Counts(0, 0, 3).share is None
    assert Counts(0, 0, 3).half_share == 0.5
    assert count(np.zeros(0, dtype=np.int64)).half_share is None


@pytest.mark.parametrize("trials", [1, 2, 5, 20, 33, 400, 2001])
def test_interval_and_p_are_scipy_s(trials):
    rng = np.random.default_rng(trials)
    for successes in {0, trials, trials // 2, *rng.integers(0, trials + 1, 8).tolist()}:
        expected = binomtest(successes, trials)
        interval = expected.proportion_ci(method="wilson")
        np.testing.assert_allclose(
            wilson(successes, trials), (interval.low, interval.high), atol=1e-12
        )
        assert binomial_p(successes, trials) == pytest.approx(expected.pvalue, rel=1e-9)


def test_the_paper_s_33_of_40():
    """82.5 % of 40 decided answers."""
    assert binomial_p(33, 40) == pytest.approx(4.2e-5, rel=0.02)
    low, high = wilson(33, 40)
    assert (round(low, 3), round(high, 3)) == (0.681, 0.913)


def test_fewest_that_can_be_told_from_chance():
    assert binomtest(FEWEST_DECIDED, FEWEST_DECIDED).pvalue <= 0.05
    assert binomtest(FEWEST_DECIDED - 1, FEWEST_DECIDED - 1).pvalue > 0.05


def test_no_trials():
    assert binomial_p(0, 0) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


@pytest.mark.parametrize("trials", [1, 5, 6, 9, 13, 60, 399])
@pytest.mark.parametrize("share", [0.5, 0.62, 0.8, 1.0, 0.0, 0.3])
def test_power_is_the_chance_of_a_small_p(trials, share):
    rejected = [k for k in range(trials + 1) if binomtest(k, trials).pvalue <= 0.05]
    assert power_of(trials, share) == pytest.approx(binom.pmf(rejected, trials, share).sum())


def test_power_over_every_sequence():
    """Without any formula: all 2^9 sequences of a coin that shows .8."""
    chance = sum(
        np.prod([0.8 if heads else 0.2 for heads in sequence])
        for sequence in product((True, False), repeat=9)
        if binomtest(sum(sequence), 9).pvalue <= 0.05
    )
    assert power_of(9, 0.8) == pytest.approx(chance)


@pytest.mark.parametrize("share", [0.65, 0.75, 0.825, 0.9, 1.0, 0.2])
def test_needed_is_where_the_power_stays_enough(share):
    needed = decided_needed(share)
    powers = [power_of(trials, share) for trials in range(1, 401)]
    assert all(power >= 0.8 for power in powers[needed - 1 :])
    assert needed == 1 or powers[needed - 2] < 0.8


def test_needed_for_small_differences():
    assert decided_needed(0.5) is None
    assert decided_needed(0.5001) is None
    # textbook: 783 without continuity correction for .55 at 5 % and 80 %
    assert 783 <= decided_needed(0.55) <= 805
    assert decided_needed(0.45) == decided_needed(0.55)
    needed = decided_needed(0.55)
    critical = binom.isf(0.025, needed, 0.5)
    assert binom.sf(critical, needed, 0.55) >= 0.79


def test_clusters():
    assert clusters_of(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert clusters_of([]).tolist() == []
