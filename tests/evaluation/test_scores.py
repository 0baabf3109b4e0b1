"""Scores against scikit-learn, on plain data and on resamples with images repeated."""

import numpy as np
import pytest
from sklearn import metrics as sk

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.scores import (
    area_under_curve,
    average_precision,
    decisions,
    fit_score_threshold,
    rank_sums,
    refuse_nan_scores,
)


def random_case(seed, images=83, patients=31, ties=True):
    rng = np.random.default_rng(seed)
    labels = (rng.random(images) < 0.3).astype(float)
    scores = rng.normal(size=images) + labels
    if ties:
        scores = np.round(scores, 1)
    codes = rng.integers(0, patients, images)
    codes[:patients] = np.arange(patients)
    weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=5).astype(float)
    return labels, scores, codes.astype(np.int64), weights


def resampled(codes, draw):
    """Image indices, each repeated as often as its patient was drawn."""
    return np.repeat(np.arange(len(codes)), draw[codes].astype(int))


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_auc_and_ap_equal_sklearn_on_every_resample(seed, ties):
    labels, scores, codes, weights = random_case(seed, ties=ties)
    sums = rank_sums(labels, scores, codes, weights)
    auc, ap = area_under_curve(sums), average_precision(sums)
    for number, draw in enumerate(weights):
        chosen = resampled(codes, draw)
        assert auc[number] == pytest.approx(
            sk.roc_auc_score(labels[chosen], scores[chosen]), abs=1e-12
        )
        assert ap[number] == pytest.approx(
            sk.average_precision_score(labels[chosen], scores[chosen]), abs=1e-12
        )


@pytest.mark.parametrize("seed", range(4))
def test_f1_mcc_and_accuracy_equal_sklearn_on_every_resample(seed):
    labels, scores, codes, weights = random_case(seed)
    present = (scores >= 0.5).astype(float)
    f1, mcc, accuracy = decisions(labels, present, codes, weights)
    for number, draw in enumerate(weights):
        chosen = resampled(codes, draw)
        assert f1[number] == pytest.approx(sk.f1_score(labels[chosen], present[chosen]), abs=1e-12)
        assert mcc[number] == pytest.approx(
            sk.matthews_corrcoef(labels[chosen], present[chosen]), abs=1e-12
        )
        assert accuracy[number] == pytest.approx(
            sk.accuracy_score(labels[chosen], present[chosen]), abs=1e-12
        )


def test_accuracy_is_of_the_assessed_alone():
    labels, present = np.array([1.0, np.nan, 0.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    scored = decisions(labels, present, np.arange(4), np.array([[1.0, 5, 1, 2], [0, 4, 0, 0]]))
    assert scored.accuracy[0] == 3 / 4
    assert np.isnan(scored.accuracy[1])


def test_mcc_is_0_where_all_decisions_are_equal_as_in_sklearn():
    labels, codes = np.array([1.0, 0.0, 1.0]), np.arange(3)
    mcc = decisions(labels, np.ones(3), codes, np.ones((1, 3))).mcc
    assert mcc[0] == sk.matthews_corrcoef(labels, np.ones(3)) == 0


def test_unassessed_images_have_no_say():
    labels, scores, codes, weights = random_case(9)
    hidden = labels.copy()
    hidden[::3] = np.nan
    kept = ~np.isnan(hidden)
    with_nan = rank_sums(hidden, scores, codes, weights)
    without = rank_sums(labels[kept], scores[kept], codes[kept], weights)
    np.testing.assert_array_equal(area_under_curve(with_nan), area_under_curve(without))
    assert not np.array_equal(
        area_under_curve(with_nan), area_under_curve(rank_sums(labels, scores, codes, weights))
    )


def test_scores_are_only_ranked_never_transformed():
    labels, scores, codes, weights = random_case(2)
    logits = area_under_curve(rank_sums(labels, scores * 7 - 40, codes, weights))
    np.testing.assert_array_equal(
        logits, area_under_curve(rank_sums(labels, scores, codes, weights))
    )


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_one_class_is_undefined(only):
    labels, codes = np.full(4, only), np.arange(4)
    sums = rank_sums(labels, np.arange(4.0), codes, np.ones((1, 4)))
    assert np.isnan(area_under_curve(sums)[0])
    scored = decisions(labels, np.ones(4), codes, np.ones((1, 4)))
    assert np.isnan(scored.mcc[0])
    assert scored.accuracy[0] == only
    assert np.isnan(average_precision(sums)[0]) == (only == 0)


def test_no_image_at_all_is_undefined():
    empty = np.empty(0)
    sums = rank_sums(empty, empty, empty.astype(np.int64), np.ones((2, 3)))
    assert np.isnan(area_under_curve(sums)).all()


@pytest.mark.parametrize("seed", range(5))
def test_fitted_threshold_has_the_best_f1_of_all(seed):
    labels, scores, _, _ = random_case(seed)
    threshold = fit_score_threshold(labels, scores)
    best = max(sk.f1_score(labels, scores >= candidate) for candidate in scores)
    assert sk.f1_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-12)


def test_fitted_threshold_lies_between_scores():
    assert fit_score_threshold(np.array([0.0, 0, 1, np.nan]), np.array([0.1, 0.2, 0.6, 0.9])) == 0.4
    assert fit_score_threshold(np.array([1.0, 0, 1]), np.array([0.3, 0.5, 0.6])) == 0.3
    assert fit_score_threshold(np.array([0.0, 0.0]), np.array([0.1, 0.2])) is None
    assert fit_score_threshold(np.array([1.0, np.nan]), np.array([0.1, 0.2])) is None


def test_a_nan_score_is_refused_by_name():
    scores = np.array([[0.1, 0.2], [0.3, np.nan]])
    with pytest.raises(DataError, match="score of Edema for image film-7"):
        refuse_nan_scores(scores, ("film-3", "film-7"), ("Mass", "Edema"))


@pytest.mark.parametrize("accepted", [1.0, float(np.nextafter(1.0, 0))])
def test_fitted_threshold_parts_neighbouring_floats(accepted):
    refused = float(np.nextafter(accepted, 0))
    scores = np.array([accepted, refused, 0.1, 0.2])
    threshold = fit_score_threshold(np.array([1.0, 0.0, 0.0, 0.0]), scores)
    assert (scores >= threshold).tolist() == [True, False, False, False]


def test_no_threshold_is_fitted_to_scores_that_are_not_numbers():
    with pytest.raises(DataError, match="1 of 3 scores are not a number"):
        fit_score_threshold(np.array([1.0, 0.0, 1.0]), np.array([0.5, np.nan, 0.2]))
