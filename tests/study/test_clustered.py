import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest, t

from dwarf_cxr.study.clustered import (
    bootstrap,
    bootstrap_share,
    clustered_wilson,
    design_effect,
    patient_weights,
    percentiles,
)


def test_one_answer_a_film_has_no_design_effect():
    rng = np.random.default_rng(0)
    won = (rng.random(4000) < 0.7).astype(float)
    assert design_effect(won, np.ones(4000)) == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_readers_who_always_agree_are_one_reader(times):
    rng = np.random.default_rng(times)
    won = (rng.random(900) < 0.6).astype(float)
    effect = design_effect(won * times, np.full(900, float(times)))
    assert effect == pytest.approx(times * 900 / 899)


def test_design_effect_is_the_jackknife_s():
    """The variance of a ratio by leaving out films one by one."""
    rng = np.random.default_rng(3)
    trials = rng.integers(0, 5, 300).astype(float)
    won = rng.binomial(trials.astype(int), np.clip(rng.normal(0.6, 0.3, 300), 0, 1)).astype(float)
    share = won.sum() / trials.sum()
    kept = trials > 0
    left_out = (won.sum() - won[kept]) / (trials.sum() - trials[kept])
    films = kept.sum()
    variance = (films - 1) / films * ((left_out - share) ** 2).sum()
    expected = variance / (share * (1 - share) / trials.sum())
    assert expected > 1.2
    assert design_effect(won, trials) == pytest.approx(expected, rel=0.02)


def test_what_cannot_be_told():
    # a single film, and answers all alike: a film's answers count as one
    assert design_effect(np.ones(1), np.full(1, 3.0)) == 3.0
    assert design_effect(np.ones(1) * 2, np.full(1, 3.0)) == 3.0
    assert design_effect(np.zeros(4), np.ones(4)) == 1.0
    assert design_effect(np.array([2.0, 0, 4]), np.array([2.0, 0, 4])) == 3.0
    assert design_effect(np.zeros(3), np.zeros(3)) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        clustered_wilson(np.zeros(3), np.zeros(3))


def test_many_films_with_one_answer_each_give_wilson_s_interval():
    won = (np.arange(3000) % 4 != 0).astype(float)
    interval = clustered_wilson(won, np.ones(3000))
    expected = binomtest(2250, 3000).proportion_ci(method="wilson")
    assert interval.low == pytest.approx(expected.low, abs=2e-4)
    assert interval.high == pytest.approx(expected.high, abs=2e-4)


@pytest.mark.parametrize(("films", "won"), [(6, 4), (12, 9), (30, 11)])
def test_few_films_make_the_interval_longer(films, won):
    """The edges are the shares that are just t standard errors away from what was seen.

    With one answer a film, the design effect is films / (films - 1).
    """
    successes = np.zeros(films)
    successes[:won] = 1
    interval = clustered_wilson(successes, np.ones(films))
    seen, times = won / films, t.ppf(0.975, films - 1)

    def beyond(share):
        return abs(seen - share) - times * np.sqrt(share * (1 - share) / (films - 1))

    assert interval.low == pytest.approx(brentq(beyond, 1e-9, seen), abs=1e-6)
    assert interval.high == pytest.approx(brentq(beyond, seen, 1 - 1e-9), abs=1e-6)


def test_all_alike_counts_films():
    interval = clustered_wilson(np.full(6, 2.0), np.full(6, 2.0))
    assert interval.high == 1.0
    assert interval.low == pytest.approx(binomtest(6, 6).proportion_ci(method="wilson").low)


def test_one_film_tells_as_much_as_one_answer():
    interval = clustered_wilson(np.array([40.0]), np.array([50.0]))
    assert interval.high - interval.low > 0.7


@pytest.mark.parametrize("won", [9.0, 10.0, 5.0])
def test_one_patient_never_tells_more_than_one_answer_that_is_alike(won):
    interval = clustered_wilson(np.array([won]), np.array([10.0]))
    alike = clustered_wilson(np.array([1.0]), np.array([1.0]))
    assert interval.high - interval.low >= alike.high - alike.low - 1e-9


def test_bootstrap_draws_whole_films():
    weights = patient_weights(7, 50, seed=1)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(weights, patient_weights(7, 50, seed=1))
    won, trials = np.array([2.0, 0, 1, 2, 1, 0, 2]), np.full(7, 2.0)
    shares = [np.repeat(won, draw).sum() / np.repeat(trials, draw).sum() for draw in weights]
    interval = bootstrap_share(won, trials, weights)
    assert (interval.low, interval.high) == pytest.approx(np.percentile(shares, [2.5, 97.5]))
    again = bootstrap(lambda draw: float((draw * won).sum() / (draw * trials).sum()), weights)
    assert (again.low, again.high) == pytest.approx((interval.low, interval.high))


def test_mostly_undefined():
    assert percentiles(np.array([np.nan, np.nan, 1.0])) is None
    assert percentiles(np.zeros(0)) is None
    assert percentiles(np.array([np.nan, 1.0, 2.0])).low == pytest.approx(1.025)


def test_films_that_are_all_alike_have_no_interval():
    """Drawing them again would give one without length, as if nothing were uncertain."""
    weights = patient_weights(9, 50, seed=0)
    assert bootstrap_share(np.full(9, 0.5), np.ones(9), weights) is None
    assert bootstrap_share(np.full(9, 0.1) * 3, np.full(9, 0.3), weights) is None
    assert bootstrap(lambda draw: 1.0, weights) is None
    assert bootstrap_share(np.arange(9) / 9, np.ones(9), weights) is not None


def test_none_without_trials():
    assert bootstrap_share(np.zeros(2), np.zeros(2), patient_weights(2, 5, seed=0)) is None
