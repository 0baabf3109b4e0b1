import json
import tracemalloc

import pytest

from dwarf_cxr import json_stream
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json, write_json
from dwarf_cxr.json_stream import read_json_object, write_json_object

DOCUMENTS = [
    {},
    {"a": []},
    {"a": [], "b": {}},
    {"a": [1]},
    {"info": {"name": 'say "ä"\nand more', "deep": [1, {"x": []}]}, "n": 3, "none": None},
    {"images": [{"id": 1, "size": [2.5, 3]}, {"id": 2, "text": "a\r\nb\\"}], "end": [True, "x"]},
    {"list": [[], {}, [1, [2]], "", None, -1.5e-7, 12345678901234567890]},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_streamed_document_is_the_one_written_at_once(tmp_path, document):
    write_json(tmp_path / "whole.json", document)
    parts = {
        key: iter(value) if isinstance(value, list) else value for key, value in document.items()
    }
    write_json_object(tmp_path / "streamed.json", parts)
    assert (tmp_path / "streamed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def collected(path):
    return {
        key: list(part) if not isinstance(part, str | dict) and hasattr(part, "__next__") else part
        for key, part in read_json_object(path)
    }


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_read_in_pieces_is_what_is_there(tmp_path, monkeypatch, document, chunk, indent):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text("\n" + json.dumps(document, indent=indent) + "\n ", encoding="utf-8")
    assert collected(path) == document


def test_entries_that_nobody_asks_for_are_passed(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2, 3], "b": [4, 5], "c": 6}')
    taken = []
    for key, part in read_json_object(path):
        taken.append((key, next(part) if key == "b" else None))
    assert taken == [("a", None), ("b", 4), ("c", None)]


@pytest.mark.parametrize("chunk", [1, 1000])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"a"',
        b'{"a": ',
        b'{"a": 1',
        b'{"a": [',
        b'{"a": [1',
        b'{"a": [1,]}',
        b'{"a": [1 2]}',
        b'{"a": 1,}',
        b'{"a": 1 "b": 2}',
        b"{1: 2}",
        b'{"a": 1} {}',
        b'{"a": tru}',
        b'{"a": "\xff"}',
        b'{"a": "open}',
        b'{"a": ' + b"[" * 100_000,
    ],
)
def test_broken_json_is_a_data_error_that_names_the_file(tmp_path, monkeypatch, content, chunk):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        collected(tmp_path / "x.json")


def test_what_comes_before_a_fault_is_given(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2, oops')
    parts = read_json_object(path)
    _, part = next(parts)
    assert [next(part), next(part)] == [1, 2]
    with pytest.raises(DataError, match="not valid JSON"):
        next(part)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.json: cannot be read \(No such file"):
        collected(tmp_path / "x.json")


def test_a_byte_order_mark_is_passed(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert collected(tmp_path / "x.json") == {"a": 1}


def test_nothing_is_left_when_an_entry_cannot_be_written(tmp_path):
    path = tmp_path / "x.json"
    write_json_object(path, {"a": iter([1])})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_object(path, {"a": iter([1, float("nan")])})
    assert read_json(path) == {"a": [1]}
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


def test_names_that_are_not_utf8_come_back(tmp_path):
    name = b"film-\xff.png".decode("utf-8", errors="surrogateescape")
    write_json_object(tmp_path / "x.json", {"images": iter([{"file": name}])})
    assert read_json(tmp_path / "x.json") == {"images": [{"file": name}]}


def test_memory_does_not_grow_with_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 10_000)

    def peak(count):
        entries = ({"id": number, "name": f"film {number:06}"} for number in range(count))
        tracemalloc.start()
        write_json_object(tmp_path / "x.json", {"images": entries})
        assert sum(1 for _, part in read_json_object(tmp_path / "x.json") for _ in part) == count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(10_000) < 300_000
    assert (tmp_path / "x.json").stat().st_size > 400_000
