import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from dwarf_cxr import files
from dwarf_cxr.errors import DataError, DwarfError
from dwarf_cxr.files import (
    atomic_folder,
    atomic_path,
    exclusive,
    read_json,
    recover_folder,
    sha256_of,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        raise KeyboardInterrupt


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "file.npz"
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(path, b"half")
    assert names(path.parent) == []
    write_bytes(path, b"whole")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(path, b"half")
    assert path.read_bytes() == b"whole"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"next")
        assert path.read_bytes() == b"whole"
        assert temporary.suffix == ".npz"
    assert path.read_bytes() == b"next"
    assert names(path.parent) == ["file.npz"]


def test_a_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b))[1])
    write_bytes(tmp_path / "file", b"content")
    assert events == ["sync", "rename", "sync"]


def test_a_file_has_the_rights_that_the_users_mask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file.txt", "ä\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640
    assert (tmp_path / "file.txt").read_bytes() == "ä\n".encode()


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "model"
    with atomic_folder(folder) as fresh:
        (fresh / "a").write_text("1")
        assert not folder.exists()
    with atomic_folder(folder) as fresh:
        assert names(fresh) == []
        (fresh / "b").write_text("2")
        assert names(folder) == ["a"]
    assert names(folder) == ["b"]
    assert names(tmp_path) == ["model"]


def test_a_folder_stays_as_it_was_when_the_block_fails(tmp_path):
    folder = tmp_path / "model"
    with atomic_folder(folder) as fresh:
        (fresh / "a").write_text("1")

    def fail() -> None:
        with atomic_folder(folder) as fresh:
            (fresh / "b").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(folder) == ["a"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("renames_done", [0, 1, 2])
def test_a_folder_survives_a_kill_at_any_rename(tmp_path, monkeypatch, renames_done):
    folder = tmp_path / "model"
    with atomic_folder(folder) as fresh:
        (fresh / "content").write_text("old")

    class Killed(BaseException):
        pass

    replace, done = os.replace, []

    def dying(source, target):
        if len(done) == renames_done:
            raise Killed
        done.append(target)
        replace(source, target)

    def dying_removal(path, ignore_errors=False):
        if renames_done == 2 and len(done) == 2:
            raise Killed
        rmtree(path, ignore_errors=ignore_errors)

    rmtree = files.shutil.rmtree
    monkeypatch.setattr(files.os, "replace", dying)
    monkeypatch.setattr(files.shutil, "rmtree", dying_removal)
    with pytest.raises(Killed), atomic_folder(folder) as fresh:
        (fresh / "content").write_text("new")
    monkeypatch.undo()

    recover_folder(folder)
    assert (folder / "content").read_text() == ("new" if renames_done == 2 else "old")
    with atomic_folder(folder) as fresh:
        assert names(fresh) == []
        (fresh / "content").write_text("newest")
    assert (folder / "content").read_text() == "newest"
    assert names(tmp_path) == ["model"]


def test_recovering_a_whole_folder_changes_nothing(tmp_path):
    recover_folder(tmp_path / "absent")
    assert names(tmp_path) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("1")
    recover_folder(tmp_path / "model")
    assert names(tmp_path / "model") == ["a"]


def test_json_is_strict_and_read_back(tmp_path):
    content = {"naïve": [1, 2.5, None, 0.1 + 0.2]}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert read_json(tmp_path / "x.json") == content


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1,}'])
def test_broken_json_is_a_data_error_that_names_the_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_missing_json_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"x\.json: no such file"):
        read_json(tmp_path / "x.json")


def test_csv_quotes_keeps_order_and_leaves_none_empty(tmp_path):
    rows = [{"b": 'say "a, b"', "a": None}, {"a": 0.1, "b": "line\nend"}]
    write_csv(tmp_path / "x.csv", ("a", "b"), rows)
    assert (tmp_path / "x.csv").read_bytes() == b'a,b\n,"say ""a, b"""\n0.1,"line\nend"\n'
    with pytest.raises(ValueError, match="'c'"):
        write_csv(tmp_path / "x.csv", ("a",), [{"a": 1, "c": 2}])


def test_sha256(tmp_path):
    content = os.urandom(70_001)
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_second_writer_is_refused_and_the_lock_ends_with_the_first(tmp_path):
    with (
        exclusive(tmp_path / "run"),
        pytest.raises(DwarfError, match="another process"),
        exclusive(tmp_path / "run"),
    ):
        pass
    with exclusive(tmp_path / "run"):
        pass


def test_failed_work_leaves_no_folder_that_was_made_for_the_lock_alone(tmp_path):
    def fails(folder: Path, *, writes: bool) -> None:
        with exclusive(folder):
            if writes:
                (folder / "result").touch()
            raise DwarfError("no")

    (tmp_path / "own").mkdir()
    for name, writes in (("new", False), ("own", False), ("full", True)):
        with pytest.raises(DwarfError, match="no"):
            fails(tmp_path / name, writes=writes)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "own").is_dir()
    assert (tmp_path / "full" / "result").exists()


def test_the_lock_holds_between_processes_and_dies_with_its_holder(tmp_path):
    program = (
        "import sys, pathlib, json\n"
        "from dwarf_cxr.files import exclusive\n"
        "from dwarf_cxr.errors import DwarfError\n"
        "try:\n"
        "    with exclusive(pathlib.Path(sys.argv[1])):\n"
        "        print(json.dumps('got'), flush=True)\n"
        "        sys.stdin.read()\n"
        "except DwarfError as error:\n"
        "    print(json.dumps(str(error)), flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(first.stdout.readline()) == "got"
        second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert str(tmp_path) in json.loads(second.stdout)
    finally:
        first.kill()
        first.communicate()
    third = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert json.loads(third.stdout) == "got"


ODD_NAME = b"film-\xff.png".decode("utf-8", errors="surrogateescape")
"""A file name as Python gives it where the name on the disk is not UTF-8."""


def test_a_name_that_is_not_utf8_comes_back_from_json(tmp_path):
    write_json(tmp_path / "x.json", {ODD_NAME: [ODD_NAME, "\\udcff", "ü"]})
    assert read_json(tmp_path / "x.json") == {ODD_NAME: [ODD_NAME, "\\udcff", "ü"]}
    assert os.fsencode(next(iter(read_json(tmp_path / "x.json")))) == b"film-\xff.png"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, f"a line\n{ODD_NAME}\n"),
        lambda path: write_csv(path, ("a", "b"), [{"a": 1, "b": ODD_NAME}]),
    ],
)
def test_a_name_that_is_not_utf8_is_refused_elsewhere(tmp_path, write):
    path = tmp_path / "x"
    path.write_text("as it was")
    with pytest.raises(DataError, match=r"x: .*film-\\udcff\.png.* cannot be written as UTF-8"):
        write(path)
    assert path.read_text() == "as it was"
    assert names(tmp_path) == ["x"]


def test_csv_rows_are_written_one_by_one(tmp_path):
    row = {"a": "x" * 1000}
    tracemalloc.start()
    write_csv(tmp_path / "x.csv", ("a",), (row for _ in range(5000)))
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x.csv").stat().st_size == 5000 * 1001 + 2
    assert highest < 1_000_000


def test_a_full_disk_is_said_with_the_file_and_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    write_bytes(file, b"before")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DwarfError, match=r"a\.bin: cannot be written .*free some space"):
        write_bytes(file, b"after")
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]
