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
