"""Laws of the metrics, against definitions written out and against scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef

from dwarf_cxr.evaluation.maps import max_dice, pointing_hit, score_map
from dwarf_cxr.evaluation.scores import (
    area_under_curve,
    average_precision,
    decisions,
    rank_sums,
)

LEVELS = st.integers(0, 6).map(lambda level: level / 8)
"""Few values, so that many are tied."""


@st.composite
def ranked(draw) -> tuple[np.ndarray, np.ndarray]:
    labels = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=14))
    labels[:2] = [0.0, 1.0]
    scores = draw(st.lists(LEVELS, min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(scores)


@st.composite
def map_and_truth(draw) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    map_ = draw(arrays.arrays(np.float32, shape, elements=LEVELS))
    truth = draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 1.0])))
    truth[0, 0] = 1.0
    return map_, truth


def unweighted(labels: np.ndarray, scores: np.ndarray):
    patients = np.arange(len(labels))
    return rank_sums(labels, scores, patients, np.ones((1, len(labels))))


@given(ranked())
def test_auc_is_the_share_of_pairs_in_order(case):
    labels, scores = case
    pairs = list(itertools.product(scores[labels == 1], scores[labels == 0]))
    expected = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    assert area_under_curve(unweighted(labels, scores))[0] == pytest.approx(expected, abs=1e-12)


@given(ranked())
def test_turning_scores_round_turns_auc_round(case):
    labels, scores = case
    one, other = (area_under_curve(unweighted(labels, s))[0] for s in (scores, -scores))
    assert one + other == pytest.approx(1.0, abs=1e-12)


@given(ranked())
def test_average_precision_is_scikit_learns(case):
    labels, scores = case
    expected = average_precision_score(labels, scores)
    assert average_precision(unweighted(labels, scores))[0] == pytest.approx(expected, abs=1e-12)


@given(ranked(), st.lists(st.integers(0, 3), min_size=14, max_size=14))
def test_a_weight_is_a_repetition(case, drawn):
    labels, scores = case
    times = np.array(drawn[: len(labels)])
    weighted = rank_sums(labels, scores, np.arange(len(labels)), times[None].astype(float))
    again = np.repeat(labels, times), np.repeat(scores, times)
    both = {0.0, 1.0} == set(again[0].tolist())
    expected = area_under_curve(unweighted(*again))[0] if both else np.nan
    assert area_under_curve(weighted)[0] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(ranked(), LEVELS)
def test_decisions_are_scikit_learns(case, threshold):
    labels, scores = case
    present = (scores >= threshold).astype(float)
    found = decisions(labels, present, np.arange(len(labels)), np.ones((1, len(labels))))
    assert found.f1[0] == pytest.approx(f1_score(labels, present, zero_division=0), abs=1e-12)
    assert found.mcc[0] == pytest.approx(matthews_corrcoef(labels, present), abs=1e-12)
    assert found.accuracy[0] == pytest.approx((labels == present).mean(), abs=1e-12)


@given(map_and_truth())
def test_the_largest_dice_is_that_of_a_loop_over_all_thresholds(case):
    map_, truth = (one.ravel().astype(float) for one in case)
    dices = []
    for threshold in np.unique(map_):
        inside = [y for m, y in zip(map_, truth, strict=True) if m >= threshold]
        dices.append(2 * sum(inside) / (len(inside) + sum(truth)))
    assert max_dice(map_, truth) == pytest.approx(max(dices), abs=1e-12)


@given(map_and_truth(), st.integers(0, 8).map(lambda level: level / 8))
def test_scores_of_a_map_keep_their_order(case, threshold):
    found = score_map(*case, threshold)
    assert found.dice <= found.max_dice + 1e-12
    assert found.iou <= found.dice + 1e-12
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou), abs=1e-12)
    assert all(0 <= value <= 1 + 1e-12 for value in found if not np.isnan(value))


@given(map_and_truth())
def test_pointing_is_the_mean_of_pointing_at_each_tied_pixel(case):
    map_, truth = (one.ravel().astype(float) for one in case)
    tied = [y for m, y in zip(map_, truth, strict=True) if m == map_.max()]
    expected = np.mean([y >= min(0.5, truth.max()) for y in tied])
    assert pointing_hit(map_, truth) == pytest.approx(expected)
