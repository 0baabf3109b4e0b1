from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from dwarf_cxr.evaluation.kappa import cohen_kappa, fleiss_kappa


@pytest.mark.parametrize("seed", range(8))
def test_cohen_is_scikit_learn_s(seed):
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 3, 40)
    two = np.where(rng.random(40) < 0.6, one, rng.integers(0, 3, 40))
    table = np.zeros((3, 3), dtype=np.int64)
    np.add.at(table, (one, two), 1)
    assert cohen_kappa(table) == pytest.approx(cohen_kappa_score(one, two))


def test_cohen_of_the_article_in_every_textbook():
    """Yes/yes 20, yes/no 5, no/yes 10, no/no 15: kappa .4."""
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)


def test_fleiss_own_example():
    """Fleiss' psychiatric diagnoses as in his Table 1 (first ten of Wikipedia's worked example)."""
    counts = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_fleiss_by_counting_pairs_of_readers(seed):
    rng = np.random.default_rng(seed)
    cases, readers = 17, 5
    said = np.where(rng.random((cases, readers)) < 0.5, 1, rng.integers(0, 3, (cases, readers)))
    agreeing = [np.mean([one == two for one, two in combinations(row.tolist(), 2)]) for row in said]
    flat = said.ravel().tolist()
    chance = sum((flat.count(category) / len(flat)) ** 2 for category in range(3))
    counts = np.stack([(said == category).sum(axis=1) for category in range(3)], axis=1)
    assert fleiss_kappa(counts) == pytest.approx((np.mean(agreeing) - chance) / (1 - chance))


def test_without_a_value():
    assert np.isnan(cohen_kappa(np.zeros((3, 3), dtype=np.int64)))
    assert np.isnan(cohen_kappa(np.array([[7, 0], [0, 0]])))
    assert np.isnan(fleiss_kappa(np.zeros((0, 3), dtype=np.int64)))
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    for counts in ([[3, 0], [2, 0]], [[1, 0], [0, 1]]):
        with pytest.raises(ValueError, match="same readers"):
            fleiss_kappa(np.array(counts))
