import gzip

import pytest

from dwarf_cxr.data.rows import doubles, listed, only_file, read_table
from dwarf_cxr.errors import DataError


def test_byte_order_mark_line_ends_and_quotes_are_understood(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa,b\r\n1,"x,\r\ny"\r\n\r\n 2 ,ü\r\n'.encode())
    table = read_table(path, required=("a",))
    assert table.columns == ("a", "b")
    assert [row.fields for row in table.rows] == [{"a": "1", "b": "x,\r\ny"}, {"a": "2", "b": "ü"}]
    assert [row.line for row in table.rows] == [2, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1,\xe9t\xe9\n", r"line 3: byte 0xe9 is not UTF-8; save"),
        (b"a,b\n1\n", r"line 2: 1 fields where the header has 2"),
        (b"a,b\n1,2,3\n", r"line 2: 3 fields where the header has 2"),
        (b"a,a\n1,2\n", r"column named twice: 'a'"),
        (b"c,d\n1,2\n", r"no column 'a', 'b'; its columns are 'c', 'd'"),
        (b"a;b\n1;2\n", r"no column 'a', 'b'; its columns are 'a;b'"),
        (b'a,b\n1,"2\n', r"line 2: not valid CSV"),
        (b"a\x00,b\n", r"NUL"),
        (b"\n\n", r"empty table"),
        (b"", r"empty table"),
    ],
)
def test_damaged_tables_are_refused_by_line(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, required=("a", "b"))
    assert str(path) in str(caught.value)


def test_packed_tables_are_unpacked_and_damaged_ones_named(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\r\n1,2\r\n"))
    assert [row.fields for row in read_table(path).rows] == [{"a": "1", "b": "2"}]
    for content in (b"a,b\n", gzip.compress(b"a,b\n" * 99)[:-9]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.csv\.gz: damaged archive"):
            read_table(path)


def test_missing_table_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


def test_lists_are_cut_and_doubles_kept_in_order():
    assert listed(list("abc")) == "a, b, c"
    assert listed(list("abcd"), most=2) == "a, b and 2 more"
    assert doubles(list("cabac")) == ["c", "a"]


def test_the_least_deep_file_is_taken_and_two_are_refused(tmp_path):
    for folder in ("a/b/c/d", "a"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "t.csv").touch()
    assert only_file(tmp_path, "s.csv", "t.csv") == tmp_path / "a" / "t.csv"
    assert only_file(tmp_path, "s.csv") is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "t.csv").touch()
    with pytest.raises(DataError, match=r"several files t\.csv"):
        only_file(tmp_path, "t.csv")


def test_far_below_the_root_depth_counts_too(tmp_path):
    for folder in ("a/b/c/d", "a/b/c/d/e", "z/y/x/w/v"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "t.csv").touch()
    assert only_file(tmp_path, "t.csv") == tmp_path / "a" / "b" / "c" / "d" / "t.csv"
    (tmp_path / "z" / "y" / "x" / "w" / "t.csv").touch()
    with pytest.raises(DataError, match=r"a/b/c/d/t\.csv, .*z/y/x/w/t\.csv; keep one") as caught:
        only_file(tmp_path, "t.csv")
    assert "d/e" not in str(caught.value)
