"""HAM's localisation protocol against loops over pixels, films and draws."""

import dataclasses
import math

import numpy as np
import pytest

from dwarf_cxr.evaluation.bootstrap import patient_weights
from dwarf_cxr.evaluation.cases import Cases
from dwarf_cxr.evaluation.localisation import localisation
from dwarf_cxr.evaluation.maps import (
    HAM_THRESHOLD,
    IOR_THRESHOLDS,
    IOU_THRESHOLDS,
    ham_region,
    reached_share,
    score_map,
    score_union,
    upsample,
)
from dwarf_cxr.evaluation.references import all_ones, shuffled
from tests.map_tables import empty_map_tables, set_map_scores

SHAPES = [(5, 8), (11, 4), (1, 7), (6, 1)]


def naive(map_, truth, marks):
    """IoU and IoR of the pixels that `marks` takes."""
    overlap = count = union = 0.0
    for row in range(map_.shape[0]):
        for column in range(map_.shape[1]):
            marked, share = marks(float(map_[row, column])), float(truth[row, column])
            overlap += share if marked else 0
            count += marked
            union += 1 if marked else share
    return overlap / union, overlap / max(count, 1)


def as_ham_marks(map_):
    """As HAM's code has it: a steep sigmoid of the scaled map."""
    values = [float(one) for one in map_.ravel()]
    low, high = min(values), max(values)

    def marks(value):
        scaled = (value - low) / (high - low)
        return 1 / (1 + math.exp(-100 * (scaled - 0.4))) >= 0.999

    return marks


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [(0, 1), (0.47, 0.02), (0, 1e-4)])
def test_both_policies_are_loops_over_pixels(shape, scale):
    rng = np.random.default_rng(shape[0])
    map_ = (scale[0] + scale[1] * rng.random(shape)).astype(np.float32)
    truth = np.clip(rng.normal(0.1, 0.6, shape), 0, 1).astype(np.float32)
    truth[0, 0] = 0.3
    limit = float(np.median(map_))
    scores = score_map(map_, truth, limit)
    assert (scores.iou, scores.ior) == pytest.approx(naive(map_, truth, lambda m: m >= limit))
    assert (scores.ham_iou, scores.ham_ior) == pytest.approx(naive(map_, truth, as_ham_marks(map_)))
    for value, share, thresholds in (
        (scores.iou, scores.t_iou, IOU_THRESHOLDS),
        (scores.ior, scores.t_ior, IOR_THRESHOLDS),
        (scores.ham_iou, scores.ham_t_iou, IOU_THRESHOLDS),
        (scores.ham_ior, scores.ham_t_ior, IOR_THRESHOLDS),
    ):
        reached = [one for one in thresholds if value >= one]
        assert share == pytest.approx(len(reached) / len(thresholds))


def test_hams_threshold_is_where_its_sigmoid_is_high_enough():
    assert pytest.approx(0.999, abs=1e-12) == 1 / (1 + math.exp(-100 * (HAM_THRESHOLD - 0.4)))
    assert round(HAM_THRESHOLD, 3) == 0.469


def test_a_perfect_map_is_right_at_every_threshold():
    truth = np.zeros((6, 9), np.float32)
    truth[1:3, 4:8] = 1
    scores = score_map(0.2 + truth / 2, truth, 0.5)
    assert (scores.iou, scores.ior, scores.ham_iou, scores.ham_ior) == (1, 1, 1, 1)
    assert (scores.t_iou, scores.t_ior, scores.ham_t_iou, scores.ham_t_ior) == (1, 1, 1, 1)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_marks_nothing_once_it_is_scaled(value):
    truth = np.random.default_rng(1).random((4, 7)).astype(np.float32)
    scores = score_map(np.full_like(truth, value), truth, 0.3)
    assert (scores.ham_iou, scores.ham_ior, scores.ham_t_iou, scores.ham_t_ior) == (0, 0, 0, 0)
    share = truth.mean(dtype=np.float64) if value >= np.float32(0.3) else 0
    assert (scores.iou, scores.ior) == pytest.approx((share, share))
    assert not ham_region(np.full((4, 7), value)).any()


def test_the_whole_film_has_overlap_by_its_own_threshold_only():
    truth = np.random.default_rng(2).random((5, 3)).astype(np.float32)
    scores = all_ones(truth)
    assert (scores.iou, scores.ham_iou) == (pytest.approx(truth.mean(), rel=1e-6), 0)


def test_a_map_of_a_single_pixel():
    truth = np.zeros((3, 5), np.float32)
    truth[1, 1:4] = 1
    inside, outside = np.zeros_like(truth), np.zeros_like(truth)
    inside[1, 2], outside[0, 4] = 0.01, 0.01
    scores = score_map(inside, truth, 0.5)
    assert (scores.iou, scores.ior) == (0, 0)
    assert (scores.ham_iou, scores.ham_ior) == (pytest.approx(1 / 3), 1)
    assert (scores.ham_t_iou, scores.ham_t_ior) == (pytest.approx(3 / 7), 1)
    scores = score_map(outside, truth, 0.5)
    assert (scores.ham_iou, scores.ham_ior) == (0, 0)
    alone = score_map(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), 0.5)
    assert (alone.iou, alone.ior, alone.ham_iou) == (1, 1, 0)


def test_a_value_at_a_threshold_reaches_it():
    for place, threshold in enumerate(IOU_THRESHOLDS, start=1):
        assert reached_share(place / 10, IOU_THRESHOLDS) == pytest.approx(place / 7)
        assert threshold == place / 10
    table = reached_share(np.array([[0.05, np.nan], [0.75, 1.0]]), IOR_THRESHOLDS)
    np.testing.assert_allclose(table, [[0, np.nan], [0.8, 1]])


def test_hams_region_of_a_union_is_that_of_the_parts_largest_map():
    rng = np.random.default_rng(5)
    maps, truth = rng.random((3, 3, 4)).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    maps[1] *= 0.1
    largest = upsample(np.maximum(np.maximum(maps[0], maps[1]), maps[2]), 9)
    for limits in (None, (0.5, 0.05, 0.7)):
        scores = score_union(maps, truth, limits)
        assert (scores.ham_iou, scores.ham_ior) == pytest.approx(
            naive(largest, truth, as_ham_marks(largest))
        )
    assert scores.ior == pytest.approx(
        naive(
            np.any([upsample(m, 9) >= t for m, t in zip(maps, limits, strict=True)], axis=0),
            truth,
            bool,
        )[1]
    )


def test_shuffled_shares_are_means_of_shares_and_not_shares_of_means():
    """Two partners, one perfect and one useless: half the thresholds, whichever the mean IoU."""
    truth, other = np.zeros((2, 8, 8), np.float32)
    truth[2:4, 2:5] = 1
    other[6, 6:] = 1
    scores = shuffled(
        [truth[None], truth[None], other[None]], [truth] * 3, (0.5,), np.random.default_rng(0)
    )
    for one in scores:
        assert one.iou == pytest.approx(one.t_iou)
        assert one.ham_ior == pytest.approx(one.ham_t_ior)
    assert any(0 < one.iou < 1 for one in scores)


def made_cases(values, patients, labels=None):
    """Of (film, finding, column) values; NaN is not scored."""
    films, findings, _ = values.shape
    tables = empty_map_tables(films, findings)
    for column, place in {"iou": 0, "ior": 1, "ham_iou": 2, "ham_ior": 3}.items():
        tables[column][:] = values[:, :, place]
    tables["max_dice"][:] = values[:, :, 2]
    labels = np.ones((films, findings)) if labels is None else labels
    return Cases(
        image_ids=tuple(f"film{number}" for number in range(films)),
        patient_ids=tuple(patients),
        findings=tuple(f"finding{number}" for number in range(findings)),
        labels=labels,
        scores=np.zeros((films, findings)),
        present=np.zeros((films, findings)),
        n_regions=(~np.isnan(values[:, :, 2])).astype(np.float64),
        maps=tables,
    )


MEASURES = (
    ("validation", "iou", 0, IOU_THRESHOLDS),
    ("validation", "ior", 1, IOR_THRESHOLDS),
    ("ham", "iou", 2, IOU_THRESHOLDS),
    ("ham", "ior", 3, IOR_THRESHOLDS),
)


def test_shares_and_intervals_are_those_of_resampled_films():
    rng = np.random.default_rng(7)
    values = rng.random((14, 3, 4))
    values[rng.random((14, 3)) < 0.4] = np.nan
    values[:, 2] = np.nan
    patients = [f"p{number // 3}" for number in range(14)]
    block = localisation(made_cases(values, patients), draws=60, seed=3)
    names = np.unique(patients)
    draws = np.concatenate(list(patient_weights(len(names), 60, 3)))
    for policy, measure, place, thresholds in MEASURES:
        assert list(block[policy][measure]["macro"]) == [str(one) for one in thresholds]
        for threshold in thresholds:
            points, samples = [], []
            for finding in range(2):
                kept = [
                    (patient, value >= threshold)
                    for patient, value in zip(patients, values[:, finding, place], strict=True)
                    if not np.isnan(value)
                ]
                entry = block[policy][measure]["findings"][f"finding{finding}"][str(threshold)]
                points.append(np.mean([reached for _, reached in kept]))
                drawn = []
                for draw in draws:
                    films = [
                        reached
                        for name, times in zip(names, draw, strict=True)
                        for patient, reached in kept * int(times)
                        if patient == name
                    ]
                    drawn.append(np.mean(films) if films else np.nan)
                samples.append(drawn)
                assert entry["value"] == pytest.approx(points[-1])
                assert entry["n"] == len(kept)
                low, high = np.nanpercentile(drawn, (2.5, 97.5))
                assert (entry["low"], entry["high"]) == pytest.approx((low, high))
            macro = block[policy][measure]["macro"][str(threshold)]
            assert (macro["value"], macro["n"]) == (pytest.approx(np.mean(points)), 2)
            low, high = np.percentile(np.nanmean(samples, axis=0), (2.5, 97.5))
            assert (macro["low"], macro["high"]) == pytest.approx((low, high))
            # no box: not counted as 0, as in HAM's code, but left out
            assert block[policy][measure]["findings"]["finding2"][str(threshold)]["value"] is None


def test_one_pair_is_all_or_nothing():
    values = np.full((3, 2, 4), np.nan)
    values[1, 0] = 0.45
    block = localisation(made_cases(values, ("a", "b", "c")), draws=40, seed=0)
    shares = [entry["value"] for entry in block["ham"]["iou"]["macro"].values()]
    assert shares == [1, 1, 1, 1, 0, 0, 0]
    entry = block["validation"]["ior"]["findings"]["finding0"]["0.25"]
    assert entry == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}


def test_without_a_pair_the_reason_is_said():
    values = np.full((4, 3, 4), np.nan)
    labels = np.ones((4, 3))
    labels[:, 1] = 0
    cases = made_cases(values, "abcd", labels)
    block = localisation(cases, draws=10, seed=0)
    for policy, measure, _, _ in MEASURES:
        said = [
            block[policy][measure]["findings"][name]["0.1"] for name in ("finding0", "finding1")
        ]
        assert said == [
            {"value": None, "reason": "no image with the finding has a region"},
            {"value": None, "reason": "no image with the finding"},
        ]
        assert block[policy][measure]["macro"]["0.1"] == {
            "value": None,
            "reason": "undefined for every finding",
        }


def test_hams_policy_needs_no_threshold_of_the_model():
    rng = np.random.default_rng(9)
    cases = made_cases(np.full((2, 1, 4), np.nan), "ab")
    cases = dataclasses.replace(cases, n_regions=np.ones((2, 1)))
    for film in range(2):
        set_map_scores(cases.maps, film, 0, score_map(rng.random((5, 4)), rng.random((5, 4)), None))
    block = localisation(cases, draws=10, seed=0)
    entry = block["validation"]["iou"]["findings"]["finding0"]["0.1"]
    assert entry == {"value": None, "reason": "no map threshold"}
    assert block["ham"]["iou"]["findings"]["finding0"]["0.1"]["n"] == 2
