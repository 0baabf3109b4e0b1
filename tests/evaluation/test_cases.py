"""The table of cases refuses what it cannot be sure of."""

import numpy as np
import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.cases import LATER_COLUMNS, read_cases
from dwarf_cxr.evaluation.paired import compare_runs
from tests.evaluation.made import write_rows


def test_a_doubled_row_does_not_make_up_for_a_missing_one(tmp_path):
    rows = [
        ("a", "Mass", {}),
        ("a", "Mass", {"score": ".9"}),
        ("b", "Mass", {}),
        ("b", "Edema", {}),
    ]
    with pytest.raises(DataError, match="4 rows, 3 of them distinct, for 2 images and 2 findings"):
        read_cases(write_rows(tmp_path / "cases.csv", rows))


def test_a_value_that_is_not_a_number_is_named(tmp_path):
    path = write_rows(tmp_path / "cases.csv", [("a", "Mass", {}), ("b", "Mass", {"dice": "high"})])
    with pytest.raises(DataError, match="image b, Mass: dice is 'high'"):
        read_cases(path)


def test_a_table_from_before_the_shuffled_columns_is_to_be_made_again(tmp_path):
    path = write_rows(tmp_path / "cases.csv", [("a", "Mass", {})])
    old = [line.rsplit(",", 2 + len(LATER_COLUMNS))[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(old) + "\n")
    with pytest.raises(DataError, match=r"shuffled_dice.*evaluate the run again"):
        read_cases(path)


def without_localisation(path):
    """The table as versions before IoR wrote it."""
    lines = [line.rsplit(",", len(LATER_COLUMNS))[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_from_before_hams_protocol_is_read_without_its_scores(tmp_path):
    rows = [("a", "Mass", {"iou": ".35", "ior": ".8"}), ("b", "Mass", {})]
    path = without_localisation(write_rows(tmp_path / "cases.csv", rows))
    assert not set(LATER_COLUMNS) & set(path.read_text().splitlines()[0].split(","))
    cases = read_cases(path)
    np.testing.assert_array_equal(cases.maps["iou"], [[0.35], [np.nan]])
    for column in (*LATER_COLUMNS, "t_ior", "ham_t_iou", "ham_t_ior"):
        np.testing.assert_array_equal(cases.maps[column], [[np.nan], [np.nan]])
    # what follows from the IoU is known of old tables too
    np.testing.assert_allclose(cases.maps["t_iou"], [[3 / 7], [np.nan]])


def test_old_and_new_tables_are_compared_by_what_both_hold(tmp_path):
    scored = {"iou": ".35", "dice": ".5", "ior": ".8", "ham_iou": ".6", "ham_ior": ".7"}
    new = write_rows(tmp_path / "new.csv", [("a", "Mass", scored)])
    old = write_rows(tmp_path / "old.csv", [("a", "Mass", {"iou": ".15", "dice": ".25"})])
    _, macro = compare_runs(without_localisation(old), new, draws=5)
    assert macro["dice"].value == pytest.approx(0.25)
    assert macro["t_iou"].value == pytest.approx(2 / 7)
    for metric in ("t_ior", "ham_t_iou", "ham_t_ior"):
        assert (macro[metric].value, macro[metric].reason) == (
            None,
            "undefined in one of the runs",
        )


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        read_cases(tmp_path / "cases.csv")
