"""Map metrics against sets of pixels and naive loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.maps import (
    THRESHOLDS,
    fit_map_threshold,
    max_dice,
    pointing_hit,
    reaches,
    score_map,
    score_union,
    upsample,
)


def random_pair(seed, shape=(13, 13), ties=False):
    rng = np.random.default_rng(seed)
    map_ = rng.random(shape).astype(np.float32)
    if ties:
        map_ = np.round(map_, 1)
    truth = np.clip(rng.normal(-0.4, 0.6, shape), 0, 1).astype(np.float32)
    truth[3, 4] = 0.7
    return map_, truth


def naive_dice(map_, truth, threshold):
    overlap = count = area = 0.0
    for m, y in zip(map_.ravel().tolist(), truth.ravel().tolist(), strict=True):
        area += y
        if m >= threshold:
            count += 1
            overlap += y
    return 2 * overlap / (count + area)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_max_dice_equals_a_loop_over_every_value(seed, ties):
    map_, truth = random_pair(seed, ties=ties)
    best = max(naive_dice(map_, truth, value) for value in map_.ravel().tolist())
    found = max_dice(map_.astype(np.float64).ravel(), truth.astype(np.float64).ravel())
    assert found == pytest.approx(best, abs=1e-12)


def test_metrics_of_pixel_sets():
    truth_pixels, chosen = {(0, 0), (0, 1), (2, 3)}, {(0, 1), (2, 3), (4, 4), (1, 1)}
    truth, map_ = np.zeros((5, 6), np.float32), np.full((5, 6), 0.25, np.float32)
    for pixel in truth_pixels:
        truth[pixel] = 1
    for pixel in chosen:
        map_[pixel] = 0.75
    scores = score_map(map_, truth, 0.5)
    both = len(truth_pixels & chosen)
    assert scores.dice == pytest.approx(2 * both / (len(truth_pixels) + len(chosen)))
    assert scores.iou == pytest.approx(both / len(truth_pixels | chosen))
    energy = 0.75 * len(chosen) + 0.25 * (30 - len(chosen))
    inside = 0.75 * both + 0.25 * (len(truth_pixels) - both)
    assert scores.energy_inside == pytest.approx(inside / energy)
    assert scores.soft_dice == pytest.approx(2 * inside / (energy + len(truth_pixels)))
    assert scores.hit == pytest.approx(both / len(chosen))


@pytest.mark.parametrize("seed", range(4))
def test_dice_of_a_fractional_truth_is_an_area(seed):
    map_, truth = random_pair(seed)
    scores = score_map(map_, truth, 0.4)
    assert scores.dice == pytest.approx(naive_dice(map_, truth, 0.4), abs=1e-12)
    union = (map_ >= 0.4).sum() + truth[map_ < 0.4].astype(np.float64).sum()
    overlap = truth[map_ >= 0.4].astype(np.float64).sum()
    assert scores.iou == pytest.approx(overlap / union, abs=1e-9)


def test_a_perfect_map_scores_one_everywhere():
    truth = np.zeros((7, 9), np.float32)
    truth[2:4, 3:8] = 1
    scores = score_map(truth, truth, 0.5)
    assert scores == pytest.approx((1,) * len(scores))


def test_without_a_threshold_only_threshold_free_metrics_exist():
    map_, truth = random_pair(1)
    scores = score_map(map_, truth, None)
    assert np.isnan([scores.dice, scores.iou]).all()
    assert not np.isnan([scores.soft_dice, scores.max_dice, scores.hit]).any()


def test_a_zero_map_has_no_energy_but_a_dice():
    _, truth = random_pair(1)
    scores = score_map(np.zeros_like(truth), truth, 0.5)
    assert scores.dice == 0
    assert np.isnan(scores.energy_inside)


def test_pointing_at_a_region_smaller_than_a_pixel_can_hit():
    y = np.array([0.0, 0.2, 0.1])
    assert pointing_hit(np.array([0.0, 1.0, 0.5]), y) == 1
    assert pointing_hit(np.array([0.0, 0.5, 1.0]), y) == 0
    assert pointing_hit(np.ones(3), y) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("rows", "columns", "size"), [(14, 14, 224), (7, 5, 33), (3, 3, 8)])
def test_upsampling_is_torchs_bilinear(rows, columns, size):
    map_ = np.random.default_rng(rows).random((rows, columns)).astype(np.float32)
    want = F.interpolate(
        torch.from_numpy(map_)[None, None], (size, size), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(upsample(map_, size), want, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_fitted_threshold_has_the_best_mean_dice(seed):
    pairs = [random_pair(seed * 10 + number) for number in range(4)]
    maps, truths = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    fitted = fit_map_threshold(maps, truths)

    def mean_dice(threshold):
        return np.mean([naive_dice(m, y, threshold) for m, y in pairs])

    best = max(mean_dice(threshold) for threshold in THRESHOLDS[::7])
    assert mean_dice(fitted) >= best - 1e-12
    assert fitted in THRESHOLDS


def test_a_pixel_at_the_threshold_is_decided_as_the_fit_decides_it():
    for threshold in THRESHOLDS[::13]:
        value = np.full((2, 2), threshold, np.float32)
        fit_counts_it = np.searchsorted(THRESHOLDS, value[0, 0], side="right") > np.searchsorted(
            THRESHOLDS, threshold
        )
        assert reaches(value, float(threshold)).all() == fit_counts_it


def test_no_map_no_threshold():
    assert fit_map_threshold([], []) is None


def test_a_map_that_is_not_a_number_is_refused():
    map_ = np.full((3, 4), 0.5, np.float32)
    map_[1, 2] = np.nan
    with pytest.raises(DataError, match="1 of 12 values of the map are not a number"):
        score_map(map_, np.ones((3, 4), np.float32), 0.5)


def test_a_region_that_covers_nothing_is_refused():
    with pytest.raises(DataError, match="covers nothing of the image"):
        score_map(np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32), 0.5)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_pixel_of_a_union_is_marked_where_a_part_marks_it(parts):
    rng = np.random.default_rng(parts)
    maps = rng.random((parts, 3, 4)).astype(np.float32)
    truth = rng.random((10, 10)).astype(np.float32)
    limits = (0.8, 0.35, 0.6)[:parts]
    drawn = [upsample(map_, 10) for map_ in maps]
    count = overlap = 0.0
    for row in range(10):
        for column in range(10):
            if any(one[row, column] >= limit for one, limit in zip(drawn, limits, strict=True)):
                count += 1
                overlap += float(truth[row, column])
    area = float(truth.sum(dtype=np.float64))
    scores = score_union(maps, truth, limits)
    assert scores.dice == pytest.approx(2 * overlap / (count + area), abs=1e-9)
    assert scores.iou == pytest.approx(overlap / (count + area - overlap), abs=1e-9)
    largest = score_map(upsample(maps.max(axis=0), 10), truth, max(limits))
    assert (scores.soft_dice, scores.hit) == (largest.soft_dice, largest.hit)
    assert (scores.dice == largest.dice) == (parts == 1)
    assert np.isnan(score_union(maps, truth, None).dice)


@pytest.mark.parametrize("kind", ["smooth", "tied", "constant", "skewed", "tiny", "single"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_dice_of_many_pixels_equals_that_of_all_sorted(kind, dtype):
    rng = np.random.default_rng(len(kind))
    values = {
        "smooth": upsample(rng.random((9, 7)).astype(np.float32), 101).ravel(),
        "tied": np.round(rng.random(101 * 101), 1),
        "constant": np.full(101 * 101, 0.3),
        "skewed": np.exp(60 * rng.random(101 * 101) - 60),
        "tiny": 1e-30 * rng.random(101 * 101),
        "single": rng.random(101 * 101),
    }[kind].astype(dtype)
    truth = rng.random(101 * 101) * (rng.random(101 * 101) < 0.2)
    if kind == "single":
        truth = (np.arange(101 * 101) == 77).astype(float)
    order = np.argsort(-values, kind="stable")
    best, overlap = 0.0, np.cumsum(truth[order])
    for last in range(len(order)):
        if last + 1 == len(order) or values[order[last]] != values[order[last + 1]]:
            best = max(best, 2 * overlap[last] / (last + 1 + truth.sum()))
    assert max_dice(values, truth) == pytest.approx(best, rel=1e-12)
