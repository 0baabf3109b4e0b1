import numpy as np
import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.review.queue import disagreement, highest_first, listed_order, uncertainty


def test_uncertainty_is_largest_at_the_threshold():
    scores = np.array([[0.2, 0.0], [0.6, 1.0], [1.0, 0.25], [0.0, 0.0], [1.0, 1.0]])
    found = uncertainty(scores, [0.2, None])
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.5, 0.0, 0.0])


def test_disagreement_counts_contradicted_labels_alone():
    nan = float("nan")
    scores = np.array([[0.9, 0.1], [0.1, 0.1], [0.5, 0.5], [0.9, 0.1], [0.3, 0.5]])
    labels = np.array([[1, 0], [1, 0], [nan, nan], [0, 1], [0, 0]])
    found = disagreement(scores, labels, [0.4, 0.5])
    assert found[:4].tolist() == pytest.approx([0.0, 0.75, 0.0, max(0.5 / 0.6, 0.8)])
    # exactly at its threshold the absent finding is called present
    assert 0 < found[4] < 1e-9
    assert highest_first(found).tolist() == [3, 1, 4, 0, 2]


def test_ties_keep_the_order_of_the_data():
    assert highest_first(np.array([0.5, 1.0, 0.5, 1.0])).tolist() == [1, 3, 0, 2]


def test_no_film_and_no_finding():
    assert uncertainty(np.zeros((0, 3)), [None] * 3).shape == (0,)
    assert uncertainty(np.zeros((2, 0)), []).tolist() == [0.0, 0.0]


def test_a_list_of_films(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeffc\n\n a \n", encoding="utf-8")
    assert listed_order(file, ["a", "b", "c"]).tolist() == [2, 0]
    file.write_text("c\nz\n")
    with pytest.raises(DataError, match="z"):
        listed_order(file, ["a", "b", "c"])
    file.write_text("c\nc\n")
    with pytest.raises(DataError, match="twice"):
        listed_order(file, ["a", "b", "c"])
    file.write_text("\n")
    with pytest.raises(DataError, match="no film"):
        listed_order(file, ["a"])
    with pytest.raises(DataError, match="uncertainty, disagreement, or a file"):
        listed_order(tmp_path / "absent.txt", ["a"])
