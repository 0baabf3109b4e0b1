"""The table of cases refuses what it cannot be sure of."""

import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.cases import read_cases
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
    old = [line.rsplit(",", 2)[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(old) + "\n")
    with pytest.raises(DataError, match=r"shuffled_dice.*evaluate the run again"):
        read_cases(path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        read_cases(tmp_path / "cases.csv")
