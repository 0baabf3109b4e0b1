"""Paired differences are over the same films, or refused."""

import numpy as np
import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.paired import compare_runs
from tests.evaluation.made import write_rows


def test_a_film_that_only_one_run_scores_makes_no_difference(tmp_path):
    """A map of zeros has no energy; the other run's value there is left out too."""
    shares = np.random.default_rng(1).random(6)
    one = [
        (str(film), "Mass", {"energy_inside": repr(value)})
        for film, value in enumerate(shares.tolist())
    ]
    two = [(film, name, dict(values)) for film, name, values in one]
    two[0][2]["energy_inside"] = ""
    findings, macro = compare_runs(
        write_rows(tmp_path / "one.csv", one), write_rows(tmp_path / "two.csv", two), draws=50
    )
    for difference in (findings["Mass"]["energy_inside"], macro["energy_inside"]):
        assert (difference.value, difference.low, difference.high) == pytest.approx((0, 0, 0))
    assert findings["Mass"]["energy_inside"].n == 5


def test_other_regions_are_refused(tmp_path):
    one = write_rows(tmp_path / "one.csv", [("a", "Mass", {}), ("b", "Mass", {})])
    two = write_rows(tmp_path / "two.csv", [("a", "Mass", {}), ("b", "Mass", {"n_regions": "3"})])
    with pytest.raises(DataError, match=r"different regions \(Mass in film b: 1 and 3\)"):
        compare_runs(one, two, draws=5)


def test_without_draws_there_is_a_difference_but_no_interval(tmp_path):
    one = write_rows(tmp_path / "one.csv", [("a", "Mass", {"dice": ".25"})])
    two = write_rows(tmp_path / "two.csv", [("a", "Mass", {"dice": ".75"})])
    difference = compare_runs(one, two, draws=0)[0]["Mass"]["dice"]
    assert (difference.value, difference.low, difference.high) == (0.5, None, None)


def test_lost_dice_is_compared_film_by_film(tmp_path):
    """Of the films that both shuffle; the third film's map had no partner in the second run."""
    rng = np.random.default_rng(3)
    own, moved = rng.random((2, 5)), rng.random((2, 5))
    tables = [
        [
            (str(film), "Mass", {"dice": repr(float(a)), "shuffled_dice": repr(float(b))})
            for film, (a, b) in enumerate(zip(*pair, strict=True))
        ]
        for pair in zip(own, moved, strict=True)
    ]
    tables[1][2][2]["shuffled_dice"] = ""
    one, two = (write_rows(tmp_path / f"{place}.csv", rows) for place, rows in enumerate(tables))
    findings, macro = compare_runs(one, two, draws=200)
    both = [0, 1, 3, 4]
    expected = ((own - moved)[1] - (own - moved)[0])[both].mean()
    for difference in (findings["Mass"]["dice_lost_shuffled"], macro["dice_lost_shuffled"]):
        assert difference.value == pytest.approx(expected)
        assert difference.low < difference.value < difference.high
    assert findings["Mass"]["dice_lost_shuffled"].n == 4
