"""An interrupted preparation: what it leaves, what is taken for whole, what is done again."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest

import dwarf_cxr
from dwarf_cxr.data import draft, prepare
from dwarf_cxr.data.check import check
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError, DwarfError, ImageError
from tests.data.made_many_films import write_films

FILMS = 24
SIZE = 6

SLOW = """
import signal, sys, time
from pathlib import Path
from dwarf_cxr.data import prepare
from tests.data.made_many_films import write_films

signal.signal(signal.SIGINT, signal.default_int_handler)
decode = prepare.decode_grey

def slowly(content, where):
    time.sleep(0.1)
    return decode(content, where)

prepare.decode_grey = slowly
folder, films, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
source = write_films(folder / "films", films)
prepare.prepare(source, folder / "data", size=size, workers=2)
"""


@pytest.fixture
def films(tmp_path):
    return write_films(tmp_path / "films", FILMS)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the films that are decoded from now on."""
    names = []
    decode = prepare.decode_grey

    def noted(content, where):
        names.append(Path(where).stem)
        return decode(content, where)

    monkeypatch.setattr(prepare, "decode_grey", noted)
    return names


def interrupt(films, out, after, **more):
    """Prepare until `after` films are done, as Ctrl-C would."""

    def stop(done, total):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(films, out, **({"size": SIZE} | more), progress=stop)


def prepared(films, out, **more):
    return prepare.prepare(films, out, **({"size": SIZE} | more), progress=lambda done, total: None)


def content(out):
    """Every file below a folder, but for the lock."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def names(numbers):
    return [f"film{number:04d}" for number in numbers]


def journal(out):
    return out / ".draft" / "films.jsonl"


def test_a_continued_call_does_the_rest_and_the_result_is_the_same(films, tmp_path, decoded):
    whole = content(prepared(films, tmp_path / "whole").folder)
    out = tmp_path / "data"
    interrupt(films, out, 9)
    decoded.clear()
    interrupt(films, out, 15)
    assert set(decoded) >= set(names(range(9, 15)))
    assert not set(decoded) & set(names(range(9)))
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names(range(15, FILMS))
    assert content(out) == whole
    assert set(whole) == {"dataset.json", "images.csv", "pixels-6.u8", "regions.json"}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_killed_process_is_continued(tmp_path, decoded, name):
    root = Path(__file__).resolve().parents[2]
    search = os.pathsep.join([str(Path(dwarf_cxr.__file__).parents[1]), str(root)])
    command = [sys.executable, "-c", SLOW, str(tmp_path), str(FILMS), str(SIZE)]
    out = tmp_path / "data"
    running = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": search}, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not journal(out).exists() or journal(out).read_bytes().count(b"\n") < 6:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(getattr(signal, name))
        assert running.wait(30) != 0
    finally:
        running.kill()
        running.wait()

    with pytest.raises(DataError, match="not prepared to the end"):
        PreparedData.open(out)
    assert any("dataset.json" in fault.where for fault in check(out))
    lines = journal(out).read_text().splitlines()[1:]
    done = {json.loads(line)["image"] for line in lines if line.endswith("}")}
    assert 5 <= len(done) < FILMS

    # the files that the other process wrote, not written again: their times count
    there = write_films(tmp_path / "elsewhere", FILMS)
    films = dataclasses.replace(
        there,
        radiographs=tuple(
            dataclasses.replace(one, path=tmp_path / "films" / one.path.name)
            for one in there.radiographs
        ),
    )
    prepared(films, out)
    assert sorted(decoded) == names(sorted(set(range(FILMS)) - done))
    assert content(out) == content(prepared(films, tmp_path / "whole").folder)


def test_a_line_that_was_cut_short_ends_the_journal(films, tmp_path, decoded):
    whole = content(prepared(films, tmp_path / "whole").folder)
    out = tmp_path / "data"
    interrupt(films, out, 8)
    with journal(out).open("r+b") as file:
        file.truncate(journal(out).stat().st_size - 20)
    decoded.clear()
    interrupt(films, out, 10)
    assert names([7]) == [name for name in decoded if name in names(range(8))]
    # nothing follows half a line
    assert [json.loads(line)["image"] for line in journal(out).read_text().splitlines()[1:]] == (
        list(range(10))
    )
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names(range(10, FILMS))
    assert content(out) == whole


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\0\0\0\n",
        b'{"image": 2}\n',
        b'{"image": 99999, "bytes": 1, "modified": 1, "sha256": "", "width": 1, "height": 1, '
        b'"blank": false, "checksum": 0}\n',
        b'{"image": -1, "bytes": 1, "modified": 1, "sha256": "", "width": 1, "height": 1, '
        b'"blank": false, "checksum": 0}\n',
        b"[1, 2]\n",
        b'{"image": 3, "bytes": 1, "modified": 1, "sha256": "", "width": "w", "height": 1, '
        b'"blank": false, "checksum": 0}\n',
    ],
)
def test_a_damaged_line_ends_the_journal(films, tmp_path, decoded, line):
    out = tmp_path / "data"
    interrupt(films, out, 4)
    lines = journal(out).read_bytes().splitlines(keepends=True)
    journal(out).write_bytes(b"".join([*lines[:4], line, lines[4]]))
    decoded.clear()
    data = prepared(films, out)
    assert sorted(decoded) == names(range(3, FILMS))
    assert data.fingerprint == prepared(films, tmp_path / "whole").fingerprint


def test_changed_and_returned_files_are_decoded_again(films, tmp_path, decoded):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    changed = films.radiographs[3].path
    cv2.imwrite(str(changed), np.random.default_rng(9).integers(0, 256, (10, 14), np.uint8))
    touched = films.radiographs[5].path
    os.utime(touched, ns=(0, touched.stat().st_mtime_ns + 1))
    decoded.clear()
    data = prepared(films, out)
    assert sorted(decoded) == names([3, 5, *range(12, FILMS)])
    assert content(out) == content(prepared(films, tmp_path / "whole").folder)
    film = cv2.imread(str(changed), cv2.IMREAD_GRAYSCALE)
    want = cv2.resize(film, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert np.abs(data.pixels[3].astype(int) - want).max() <= 1


def test_pixels_that_did_not_reach_the_disk_are_decoded_again(films, tmp_path, decoded):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    with (out / ".draft" / "pixels-6.u8").open("r+b") as file:
        file.seek(4 * SIZE * SIZE + 7)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names([4, *range(12, FILMS)])
    assert content(out) == content(prepared(films, tmp_path / "whole").folder)


def other_list(films):
    return dataclasses.replace(films, radiographs=films.radiographs[1:])


def listed_anew(films, numbers):
    """The set with the images `numbers`, in that order; one that comes again has another id."""
    radiographs = []
    for number in numbers:
        one = films.radiographs[number]
        again = sum(other.path == one.path for other in radiographs)
        radiographs.append(dataclasses.replace(one, image_id=one.image_id + "b" * again))
    return dataclasses.replace(films, radiographs=tuple(radiographs))


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        (range(1, FILMS), 1),
        ([*range(5), *range(6, FILMS)], 1),
        (range(FILMS - 1), 0),
        (range(FILMS - 1, -1, -1), 0),
        ([*range(20, FILMS), *range(20)], 0),
        ([3, *range(FILMS)], 0),
        ([8, 2, 23], 10),
    ],
)
def test_another_list_leaves_its_images_decoded(films, tmp_path, decoded, capsys, numbers, lost):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    done = {json.loads(line)["image"] for line in journal(out).read_text().splitlines()[1:]}
    asked = listed_anew(films, numbers)
    decoded.clear()
    capsys.readouterr()
    interrupt(asked, out, 2)
    said = capsys.readouterr().err
    if lost:
        assert said.startswith(f"{lost} images that an earlier call decoded are dropped: ")
    else:
        assert said == ""
    prepared(asked, out)
    # the interrupted call may have begun a few that the last had to do again
    assert set(decoded) == set(names({*numbers} - done))
    assert content(out) == content(prepared(asked, tmp_path / "whole").folder)


def test_images_that_come_beside_the_decoded_ones_are_decoded_alone(films, tmp_path, decoded):
    out = tmp_path / "data"
    interrupt(other_list(films), out, FILMS - 1)
    interrupt(listed_anew(films, [22, *range(5, 9), 0]), out, 4)
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names(sorted({*range(FILMS)} - {5, 6, 7, 8, 22}))
    assert content(out) == content(prepared(films, tmp_path / "whole").folder)


def test_a_list_of_none_of_the_images_drops_them_and_says_so(films, tmp_path, decoded, capsys):
    out = tmp_path / "data"
    interrupt(listed_anew(films, range(6)), out, 6)
    asked = listed_anew(films, range(6, FILMS))
    decoded.clear()
    prepared(asked, out)
    assert "6 images that an earlier call decoded are dropped: " in capsys.readouterr().err
    assert sorted(decoded) == names(range(6, FILMS))
    assert content(out) == content(prepared(asked, tmp_path / "whole").folder)


def test_a_call_killed_while_it_copies_the_draft_leaves_the_old_one(
    films, tmp_path, decoded, monkeypatch
):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    write, replace, steps = draft._write, os.replace, []

    def dying(*arguments):
        steps.append(arguments)
        if len(steps) == 4:
            raise Killed
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(draft, "_write", dying)
        with pytest.raises(Killed):
            prepared(other_list(films), out)
    for last in (".draft.old", ".draft"):

        def ending(source, target, last=last):
            replace(source, target)
            if Path(target).name == last:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", ending)
            with pytest.raises(Killed):
                prepared(other_list(films), out)
    (out / ".draft.new").mkdir(exist_ok=True)
    decoded.clear()
    prepared(other_list(films), out)
    assert sorted(decoded) == names(range(12, FILMS))
    assert content(out) == content(prepared(other_list(films), tmp_path / "whole").folder)
    assert not list(out.glob(".draft*"))


@pytest.mark.parametrize("change", [other_list, lambda films: films])
def test_a_disk_that_is_too_full_leaves_what_is_decoded(
    films, tmp_path, decoded, monkeypatch, change
):
    out = tmp_path / "data"
    interrupt(films, out, 12)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(draft.os, "posix_fallocate", full, raising=False)
        with pytest.raises(OSError, match=r"bytes are needed there: .*pixels-6\.u8"):
            prepared(change(films), out)
    decoded.clear()
    prepared(change(films), out)
    assert sorted(decoded) == names(range(12, FILMS))


@pytest.mark.parametrize("what", ["size", "title", "older", "cut"])
def test_a_draft_of_something_else_is_dropped(films, tmp_path, decoded, capsys, what):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    _, rest = journal(out).read_bytes().split(b"\n", 1)
    done = rest.count(b"\n")
    match what:
        case "title":
            journal(out).write_bytes(b'["draft"]\n' + rest)
        case "older":
            journal(out).write_bytes(b'{"draft": 1, "size": 6, "images": 24}\n' + rest)
        case "cut":
            os.truncate(out / ".draft" / "pixels-6.u8", 100)
    size = 7 if what == "size" else SIZE
    decoded.clear()
    prepared(films, out, size=size)
    assert f"{done} images that an earlier call decoded are dropped: " in capsys.readouterr().err
    assert sorted(decoded) == names(range(FILMS))
    assert content(out) == content(prepared(films, tmp_path / "whole", size=size).folder)


def test_a_draft_by_another_version_of_what_decodes_is_dropped(
    films, tmp_path, decoded, monkeypatch
):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    monkeypatch.setattr(dwarf_cxr, "__version__", "9.9.9")
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names(range(FILMS))


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (dwarf_cxr, "__version__"),
        (np, "__version__"),
        (cv2, "__version__"),
        (PIL, "__version__"),
        (draft, "DECODING"),
        *((None, name) for name in ("pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg")),
    ],
)
def test_all_that_decodes_is_in_the_title(monkeypatch, holder, name):
    before, real = draft._title(3, 5), draft.version
    if holder is None:
        other = {name: "9.9.9"}
        monkeypatch.setattr(draft, "version", lambda package: other.get(package) or real(package))
    else:
        monkeypatch.setattr(holder, name, "9.9.9")
    assert draft._title(3, 5) != before


def test_a_codec_that_is_not_installed_has_no_version(films, tmp_path, decoded, monkeypatch):
    def absent(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(draft, "version", absent)
    interrupt(films, tmp_path / "data", 12)
    assert json.loads(journal(tmp_path / "data").read_text().splitlines()[0])["pyjpegls"] is None
    decoded.clear()
    prepared(films, tmp_path / "data")
    assert sorted(decoded) == names(range(12, FILMS))


def test_a_file_that_pretends_to_be_unchanged_is_decoded_again(films, tmp_path, decoded):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    for number in (3, 5):
        path = films.radiographs[number].path
        status, length = path.stat(), len(path.read_bytes())
        white = cv2.imencode(".png", np.full((10, 14), 240 + number, np.uint8))[1].tobytes()
        changed = tmp_path / "changed"
        changed.write_bytes(white + bytes(length - len(white)))
        if number == 3:
            path.write_bytes(changed.read_bytes())
        else:
            os.replace(changed, path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (length, status.st_mtime_ns)
    decoded.clear()
    data = prepared(films, out)
    assert sorted(decoded) == names([3, 5, *range(12, FILMS)])
    assert (data.pixels[3] == 243).all()
    assert (data.pixels[5] == 245).all()


@pytest.mark.parametrize("field", ["bytes", "modified", "changed", "inode", "checksum"])
def test_all_that_a_line_says_of_a_file_must_be_so(films, tmp_path, decoded, field):
    out = tmp_path / "data"
    interrupt(films, out, 12)
    title, *lines = journal(out).read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    entries[4][field] += 1
    journal(out).write_text("\n".join([title, *map(json.dumps, entries), ""]))
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names([entries[4]["image"], *range(12, FILMS)])


def test_a_draft_is_removed_only_when_its_files_are_closed(films, tmp_path, monkeypatch):
    remove, seen = shutil.rmtree, []

    def noted(folder, **options):
        if Path(folder).name == ".draft":
            held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
            seen.append([name for name in held if "/.draft/" in name])
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", noted)
    prepared(films, tmp_path / "data")
    films.radiographs[7].path.write_bytes(b"")
    with pytest.raises(ImageError):
        prepared(films, tmp_path / "data")
    assert len(seen) >= 2
    assert not any(seen)
    assert not (tmp_path / "data" / ".draft").exists()


def test_a_draft_that_cannot_be_removed_spoils_nothing(films, tmp_path, monkeypatch, capsys):
    whole = content(prepared(films, tmp_path / "whole").folder)
    remove = shutil.rmtree

    def stuck(folder, ignore_errors=False):
        if Path(folder).name != ".draft":
            remove(folder, ignore_errors=ignore_errors)
        elif not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy")

    out = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stuck)
        prepared(films, out)
        assert ".draft: cannot be removed (Device or resource busy)" in capsys.readouterr().err
        left = {name for name in content(out) if name not in whole}
        assert left == {".draft/films.jsonl"}
        assert {name: content(out)[name] for name in whole} == whole
        sound = films.radiographs[7].path.read_bytes()
        films.radiographs[7].path.write_bytes(sound[:40])
        with pytest.raises(ImageError, match="film0007"):
            prepared(films, out)
        films.radiographs[7].path.write_bytes(sound)
        prepared(films, out)
    prepared(films, out)
    assert content(out) == whole


def test_other_labels_and_regions_need_no_decoding(films, tmp_path, decoded):
    out = tmp_path / "data"
    interrupt(films, out, FILMS - 1)
    relabelled = dataclasses.replace(
        films,
        radiographs=tuple(
            dataclasses.replace(one, labels={"Nodule": True}, regions=())
            for one in films.radiographs
        ),
    )
    decoded.clear()
    prepared(relabelled, out, findings=["Nodule"])
    assert decoded == names([FILMS - 1])
    assert content(out) == (
        content(prepared(relabelled, tmp_path / "whole", findings=["Nodule"]).folder)
    )


class Killed(BaseException):
    """The end of the process."""


STEPS = ("write_csv", "write_json_object", "sync_folder", "write_json")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_call_killed_while_it_writes_is_never_taken_for_whole(
    films, tmp_path, decoded, monkeypatch, step, earlier
):
    whole = content(prepared(films, tmp_path / "whole").folder)
    out = tmp_path / "data"
    before = prepared(other_list(films), out).fingerprint if earlier else None

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(prepare, step, killed)
        with pytest.raises(Killed):
            prepared(films, out)
    if earlier and step in ("write_csv", "write_json_object"):
        assert PreparedData.open(out).fingerprint == before
    else:
        with pytest.raises(DataError, match="not prepared to the end"):
            PreparedData.open(out)
    decoded.clear()
    prepared(films, out)
    assert decoded == []
    assert content(out) == whole


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_call_killed_between_its_renames_is_continued(
    films, tmp_path, decoded, monkeypatch, killed_at
):
    out = tmp_path / "data"
    prepared(films, out, findings=["Edema"])
    replace, done = os.replace, []

    def dying(source, target):
        if Path(target).parent == out:
            if len(done) == killed_at:
                raise Killed
            done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            prepared(films, out)
    with pytest.raises(DataError, match="not prepared to the end"):
        PreparedData.open(out)
    decoded.clear()
    prepared(films, out)
    assert decoded == []
    assert content(out) == content(prepared(films, tmp_path / "whole").folder)


def test_a_draft_beside_whole_data_is_not_taken_for_them(films, tmp_path, decoded):
    out = tmp_path / "data"
    before = prepared(films, out).fingerprint
    interrupt(other_list(films), out, 5)
    assert PreparedData.open(out).fingerprint == before
    assert not [fault for fault in check(out) if fault.severity == "error"]
    # a journal whose pixels are gone is no draft of the whole data's pixels
    interrupt(films, out, 5)
    (out / ".draft" / "pixels-6.u8").unlink()
    decoded.clear()
    prepared(films, out)
    assert sorted(decoded) == names(range(FILMS))


def test_a_continued_call_says_so(films, tmp_path, capsys):
    interrupt(films, tmp_path / "data", 5)
    prepare.prepare(films, tmp_path / "data", size=SIZE)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "continuing: 5 of 24 images were decoded before"
    assert said[-1] == "prepared 24 of 24 images"


def test_a_second_call_beside_it_is_refused(films, tmp_path):
    out = tmp_path / "data"

    def beside(done, total):
        with pytest.raises(DwarfError, match="another process is writing here"):
            prepared(films, out)

    prepare.prepare(films, out, size=SIZE, progress=beside)


def test_faults_after_long_decoding_leave_the_rest_decoded(films, tmp_path, decoded, monkeypatch):
    out = tmp_path / "data"
    sound = films.radiographs[7].path.read_bytes()
    films.radiographs[7].path.write_bytes(sound[:40])
    with pytest.raises(ImageError, match="1 fault; nothing was written"):
        prepared(films, out)
    assert not (out / ".draft").exists()
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "WORTH_KEEPING", -1)
        with pytest.raises(ImageError, match="film0007") as caught:
            prepared(films, out)
    assert f"stay decoded in {out / '.draft'}" in str(caught.value)
    decoded.clear()
    # what was kept once is kept again
    with pytest.raises(ImageError, match="film0007"):
        prepared(films, out)
    assert decoded == names([7])
    # without the film that the fault names, nothing is left to do
    shutil.copytree(out, tmp_path / "copy")
    dropped = listed_anew(films, [*range(7), *range(8, FILMS)])
    decoded.clear()
    prepared(dropped, tmp_path / "copy")
    assert decoded == []
    assert content(tmp_path / "copy") == content(prepared(dropped, tmp_path / "w").folder)
    films.radiographs[7].path.write_bytes(sound)
    decoded.clear()
    prepared(films, out)
    assert decoded == names([7])
    assert content(out) == content(prepared(films, tmp_path / "whole").folder)


def test_a_disk_that_is_too_full_is_told_before_anything_is_decoded(
    films, tmp_path, decoded, monkeypatch
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(draft.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"864 bytes are needed there: .*pixels-6\.u8"):
        prepared(films, tmp_path / "data")
    assert decoded == []
    assert not (tmp_path / "data" / ".draft").exists()


def test_a_file_system_that_cannot_reserve_will_do(films, tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(draft.os, "posix_fallocate", unsupported, raising=False)
    interrupt(films, tmp_path / "data", 9)
    assert prepared(films, tmp_path / "data").pixels.shape == (FILMS, SIZE, SIZE)
