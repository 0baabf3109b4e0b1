"""Intervals: patients are the unit, films of one patient stay together."""

import numpy as np
import pytest

from dwarf_cxr.evaluation.bootstrap import (
    Estimate,
    bounds,
    excludes_zero,
    interval,
    patient_codes,
    patient_weights,
    weighted_means,
)


def test_every_draw_has_as_many_patients_as_there_are():
    chunks = list(patient_weights(7, 600, seed=3))
    weights = np.concatenate(chunks)
    assert weights.shape == (600, 7)
    np.testing.assert_array_equal(weights.sum(axis=1), 7)
    assert weights.std(axis=1).min() >= 0
    again = np.concatenate(list(patient_weights(7, 600, seed=3)))
    np.testing.assert_array_equal(weights, again)
    assert not np.array_equal(weights, np.concatenate(list(patient_weights(7, 600, seed=4))))


def test_weights_are_those_of_drawing_with_replacement():
    weights = np.concatenate(list(patient_weights(10, 20_000, seed=0)))
    # the number of times a patient is drawn is binomial(10, 1/10)
    assert weights.mean() == pytest.approx(1, abs=1e-12)
    assert weights.var() == pytest.approx(10 * 0.1 * 0.9, rel=0.02)


def test_weighted_means_equal_means_of_repeated_images():
    rng = np.random.default_rng(5)
    values = rng.random(20)
    values[[2, 9]] = np.nan
    codes = patient_codes(tuple(f"p{number // 3}" for number in range(20)))
    weights = np.concatenate(list(patient_weights(int(codes.max()) + 1, 6, seed=1)))
    means = weighted_means(values, codes, weights)
    for draw, mean in zip(weights, means, strict=True):
        repeated = np.repeat(values, draw[codes].astype(int))
        assert mean == pytest.approx(np.nanmean(repeated), abs=1e-12)


def test_films_of_one_patient_make_the_interval_wider():
    rng = np.random.default_rng(0)
    patient_means = np.repeat(rng.random(20), 10)

    def width(codes):
        weights = np.concatenate(list(patient_weights(int(codes.max()) + 1, 1000, seed=2)))
        estimate = interval(
            patient_means.mean(), weighted_means(patient_means, codes, weights), 200
        )
        return estimate.high - estimate.low

    by_patient, by_image = np.repeat(np.arange(20), 10), np.arange(200)
    assert width(by_patient) > 2 * width(by_image)


def test_the_interval_of_a_mean_covers_it_about_95_times_in_100():
    rng = np.random.default_rng(8)
    codes, hits = np.arange(60), 0
    weights = np.concatenate(list(patient_weights(60, 400, seed=0)))
    for _ in range(200):
        values = rng.exponential(size=60)
        estimate = interval(values.mean(), weighted_means(values, codes, weights), 60)
        hits += estimate.low <= 1 <= estimate.high
    assert 0.86 <= hits / 200 <= 0.99


def test_undefined_has_a_reason_and_no_number():
    assert interval(np.nan, np.array([np.nan]), 0, "no image with the finding").to_json() == {
        "value": None,
        "reason": "no image with the finding",
    }


def test_too_few_defined_draws_give_no_interval():
    mostly_undefined = np.array([0.5, np.nan, np.nan])
    assert interval(0.5, mostly_undefined, 3) == Estimate(0.5, None, None, 3)
    assert interval(0.5, np.array([0.4, 0.5, np.nan]), 3).low is not None


def test_the_draws_of_a_single_film_are_no_interval():
    """Their means differ by rounding alone."""
    codes = np.zeros(5, dtype=np.int64)
    values = np.array([0.1, 0.7, 0.3, 0.2, 0.6])
    films = np.array([np.nan, 0.1 + 0.2, np.nan, np.nan, np.nan])
    weights = np.concatenate(list(patient_weights(5, 400, seed=1)))
    one = interval(0.3, weighted_means(films, np.arange(5), weights), 1)
    assert one.low == pytest.approx(0.3)
    assert bounds(one.low, one.high) is None
    assert not excludes_zero(one.low, one.high)
    several = interval(0.38, weighted_means(values, np.arange(5), weights), 5)
    assert bounds(several.low, several.high) == (several.low, several.high)
    assert excludes_zero(several.low, several.high)
    # one patient is drawn every time
    alone = interval(0.38, weighted_means(values, codes, np.ones((9, 1))), 5)
    assert bounds(alone.low, alone.high) is None


@pytest.mark.parametrize(
    ("low", "high", "excluded"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (0.0, 0.2, False), (-0.1, 0.2, False)],
)
def test_an_interval_that_touches_zero_does_not_exclude_it(low, high, excluded):
    assert excludes_zero(low, high) is excluded
    assert not excludes_zero(low, None)
