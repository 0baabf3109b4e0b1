"""Intervals: patients are the unit, films of one patient stay together."""

import numpy as np
import pytest

from dwarf_cxr.evaluation.bootstrap import (
    Estimate,
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
