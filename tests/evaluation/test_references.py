"""References: what they are and that none of them sees the image."""

import weakref
from itertools import combinations

import numpy as np
import pytest

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.maps import score_map, upsample
from dwarf_cxr.evaluation.references import (
    all_ones,
    best_grid,
    mean_coverage,
    prior_scores,
    shuffled,
)


def test_all_ones_has_the_dice_of_the_whole_film():
    truth = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    area = truth.sum()
    assert all_ones(truth).dice == pytest.approx(2 * area / (36 + area), rel=1e-6)
    assert all_ones(truth).max_dice == pytest.approx(all_ones(truth).dice)


@pytest.mark.parametrize("seed", range(3))
def test_best_grid_beats_every_set_of_cells(seed):
    rng = np.random.default_rng(seed)
    truth = np.clip(rng.normal(0, 0.5, (6, 6)), 0, 1).astype(np.float32)
    best = 0.0
    for count in range(1, 10):
        for cells in combinations(range(9), count):
            grid = np.zeros(9, np.float32)
            grid[list(cells)] = 1
            map_ = np.kron(grid.reshape(3, 3), np.ones((2, 2), np.float32))
            best = max(best, score_map(map_, truth, 0.5).dice)
    assert best_grid(truth, (3, 3)).dice == pytest.approx(best, abs=1e-6)


def test_a_shuffled_map_is_never_the_images_own():
    size, count = 8, 5
    truths = []
    for number in range(count):
        truth = np.zeros((size, size), np.float32)
        truth[number, :4] = 1
        truths.append(truth)
    maps = [truth[None] for truth in truths]
    scores = shuffled(maps, truths, (0.5,), np.random.default_rng(3))
    # the true regions are disjoint: another film's map can overlap nothing
    assert scores is not None
    assert [one.dice for one in scores] == [0.0] * count


def test_shuffling_constant_maps_changes_nothing():
    rng = np.random.default_rng(4)
    map_ = rng.random((4, 4)).astype(np.float32)
    truths = [rng.random((8, 8)).astype(np.float32) for _ in range(3)]
    scores = shuffled([map_[None]] * 3, truths, (0.5,), rng)
    assert scores is not None
    for one, truth in zip(scores, truths, strict=True):
        assert one == pytest.approx(score_map(upsample(map_, 8), truth, 0.5))


def test_one_map_cannot_be_shuffled():
    one = np.ones((4, 4), np.float32)
    assert shuffled([one[None]], [one], (0.5,), np.random.default_rng(0)) is None


def test_a_finding_without_a_training_region_has_no_prior():
    truth = np.ones((4, 4), np.float32)
    assert prior_scores(np.zeros((0, 4, 4), np.float32), truth, ()) is None
    assert prior_scores(truth[None], truth, (0.5,)).dice == 1
    assert np.isnan(prior_scores(truth[None], truth, None).dice)


class FakeData(PreparedData):
    """Three films; the second has the finding without a region."""

    def __init__(self):
        pass

    findings = ("Mass", "Edema")
    size = 4
    labels = np.array([[1, 0], [1, 0], [1, 0]], dtype=np.float32)

    def has_region(self):
        return np.array([[True, False], [False, False], [True, False]])

    def coverage(self, index, finding, size):
        return np.full((size, size), index + 1, dtype=np.float32) / 4


def test_mean_coverage_is_over_films_with_regions_only():
    prior = mean_coverage(FakeData(), np.array([0, 1, 2]))
    np.testing.assert_allclose(prior[0], np.full((4, 4), 0.5))
    np.testing.assert_allclose(prior[1], 0)
    np.testing.assert_allclose(mean_coverage(FakeData(), np.array([2]))[0], 0.75)


def test_shuffling_holds_one_truth_at_a_time():
    """A finding has thousands of positives in the large sets; their truths do not fit together."""
    alive: set[int] = set()
    most = 0

    def truths():
        nonlocal most
        for number in range(6):
            truth = np.random.default_rng(number).random((8, 8)).astype(np.float32)
            alive.add(number)
            weakref.finalize(truth, alive.discard, number)
            most = max(most, len(alive))
            yield truth
            del truth

    maps = [np.random.default_rng(10 + number).random((1, 4, 4)) for number in range(6)]
    scores = shuffled(maps, truths(), (0.5,), np.random.default_rng(0))
    assert scores is not None
    assert len(scores) == 6
    assert most <= 2


def test_an_interpolated_map_can_exceed_the_best_cells():
    truth = np.tril(np.ones((32, 32), np.float32))
    map_ = upsample(np.tril(np.ones((4, 4), np.float32)), 32)
    assert score_map(map_, truth, 0.5).max_dice > best_grid(truth, (4, 4)).dice
