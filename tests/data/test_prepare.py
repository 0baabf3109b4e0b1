import csv
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dwarf_cxr.data import prepare as module
from dwarf_cxr.data.geometry import encode_mask
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Polygon, Region, SourceSet
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError, DwarfError, ImageError
from tests.data.made_many_films import write_films


def replaced(source: SourceSet, index: int, **fields) -> SourceSet:
    radiographs = list(source.radiographs)
    radiographs[index] = dataclasses.replace(radiographs[index], **fields)
    return dataclasses.replace(source, radiographs=tuple(radiographs))


def test_files_hold_what_the_format_says(source, tmp_path):
    out = tmp_path / "data"
    prepare(source, out, size=8, workers=2)
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["findings"] == ["Mass", "Edema"]
    assert dataset["size"] == 8
    assert dataset["notes"] == ["a note"]
    for name, stated in dataset["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == stated
    assert set(dataset["sha256"]) == {"images.csv", "regions.json", "pixels-8.u8"}
    assert dataset["counts"]["test"] == {
        "images": 2,
        "patients": 2,
        "findings": {
            "Mass": {"present": 1, "absent": 1, "not_assessed": 0, "images_with_region": 1},
            "Edema": {"present": 0, "absent": 1, "not_assessed": 1, "images_with_region": 0},
        },
    }
    with (out / "images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = source.radiographs[0]
    assert rows[0] == {
        "image_id": "film0",
        "patient_id": "patient0",
        "split": "train",
        "source": str(first.path),
        "sha256": hashlib.sha256(first.path.read_bytes()).hexdigest(),
        "width": "24",
        "height": "16",
        "text": "A mass, in the left lung.",
        "Mass": "1",
        "Edema": "0",
    }
    assert (rows[5]["Mass"], rows[5]["Edema"]) == ("0", "")
    regions = json.loads((out / "regions.json").read_text())
    assert [one["image_id"] for one in regions["annotations"]] == [1, 5]
    assert regions["annotations"][0]["bbox"] == [2, 3, 8, 6]


def test_pixels_are_the_resized_films_in_order(source, tmp_path):
    data = prepare(source, tmp_path / "data", size=8, workers=3)
    for index, one in enumerate(source.radiographs):
        film = cv2.imread(str(one.path), cv2.IMREAD_GRAYSCALE)
        want = film.reshape(8, 2, 8, 3).mean(axis=(1, 3))
        assert np.abs(data.pixels[index] - want).max() <= 1


def test_the_same_input_gives_the_same_fingerprint(source, tmp_path):
    one = prepare(source, tmp_path / "one", size=8, workers=1)
    two = prepare(source, tmp_path / "two", size=8, workers=4)
    assert one.fingerprint == two.fingerprint
    assert prepare(source, tmp_path / "two", size=9).fingerprint != one.fingerprint


def test_findings_are_restricted_in_the_order_asked_for(source, tmp_path):
    data = prepare(source, tmp_path / "data", size=8, findings=["Edema"])
    assert data.findings == ("Edema",)
    assert data.labels.shape == (6, 1)
    assert not data.has_region().any()
    with pytest.raises(ConfigError, match="unknown finding 'Cold'"):
        prepare(source, tmp_path / "data", size=8, findings=["Cold"])


def test_given_splits_are_used(source, tmp_path):
    table = tmp_path / "splits.csv"
    names = ["test", "train", "train", "train", "val", "test"]
    rows = [f"film{n}.png,{split}" for n, split in enumerate(names)]
    table.write_text("\n".join(["image_id,split", *rows]))
    data = prepare(source, tmp_path / "data", size=8, splits_csv=table)
    assert data.splits == tuple(names)


def test_regions_of_another_frame_are_scaled_and_clipped(source, tmp_path):
    triangle = Polygon(np.array([(240.0, 160.0), (480.0, 160.0), (240.0, 80.0)]))
    pixels = np.zeros((320, 480), bool)
    pixels[100:200, 30:90] = True
    regions = tuple(
        Region("Mass", shape)
        for shape in (Box(-60.0, 20.0, 240.0, 160.0), triangle, encode_mask(pixels))
    )
    data = prepare(
        replaced(source, 1, regions=regions, region_frame=(480, 320)), tmp_path / "data", size=8
    )
    box, polygon, mask = (region.shape for region in data.regions(1, "Mass"))
    assert box == Box(0.0, 1.0, 12.0, 8.0)
    np.testing.assert_allclose(polygon.points, [(12, 8), (24, 8), (12, 4)])
    assert (mask.width, mask.height) == (24, 16)
    notes = json.loads((data.folder / "dataset.json").read_text())["notes"]
    assert any("'film1', region 1 (Mass): reached out of the 480×320 image" in n for n in notes)


def test_regions_smaller_than_a_pixel_are_dropped_and_noted(source, tmp_path):
    speck = Polygon(np.array([(100.0, 100.0), (103.0, 100.0), (100.0, 103.0)]))
    bad = replaced(source, 1, regions=(Region("Mass", speck),), region_frame=(1024, 1024))
    data = prepare(bad, tmp_path / "data", size=8)
    assert data.regions(1, "Mass") == ()
    notes = json.loads((data.folder / "dataset.json").read_text())["notes"]
    assert any("'film1', region 1 (Mass): smaller than a pixel" in note for note in notes)


def test_sources_are_absolute_paths(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = source.radiographs[0].path.relative_to(tmp_path)
    data = prepare(replaced(source, 0, path=relative), tmp_path / "data", size=8)
    assert data.sources[0] == str(tmp_path / relative)


def spoil(source: SourceSet, index: int, content: bytes | None) -> None:
    path = source.radiographs[index].path
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def test_all_image_faults_are_reported_together_and_nothing_written(source, tmp_path):
    whole = source.radiographs[0].path.read_bytes()
    spoil(source, 0, whole[: len(whole) // 2])
    spoil(source, 2, b"")
    spoil(source, 3, b"<html>no</html>")
    spoil(source, 5, None)
    out = tmp_path / "data"
    with pytest.raises(ImageError, match="4 faults; nothing was written") as caught:
        prepare(source, out, size=8)
    for words in ("film0.png: damaged", "film2.png: empty", "film3.png: a web", "film5.png: no"):
        assert words in str(caught.value)
    assert not out.exists()


def test_a_failed_call_leaves_the_old_data_alone(source, tmp_path):
    out = tmp_path / "data"
    before = prepare(source, out, size=8).fingerprint
    spoil(source, 2, b"")
    with pytest.raises(ImageError):
        prepare(source, out, size=16)
    assert PreparedData.open(out).fingerprint == before


def test_an_interrupted_call_leaves_the_old_data_alone(source, tmp_path):
    out = tmp_path / "data"
    before = prepare(source, out, size=8).fingerprint

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, size=8, progress=interrupt)
    assert PreparedData.open(out).fingerprint == before
    assert not list(out.glob(".pixels*"))


def test_a_call_killed_while_writing_is_seen_and_repaired(source, tmp_path, monkeypatch):
    out = tmp_path / "data"
    prepare(source, out, size=8)

    def killed(*arguments):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", killed)
        with pytest.raises(OSError, match="no space"):
            prepare(source, out, size=8)
    (out / ".pixels-8.u8.abc.u8").write_bytes(b"left by a killed call")
    with pytest.raises(DataError, match="not prepared to the end; prepare the data again"):
        PreparedData.open(out)
    prepare(source, out, size=8)
    assert sorted(path.name for path in PreparedData.open(out).folder.iterdir()) == [
        ".lock", "dataset.json", "images.csv", "pixels-8.u8", "regions.json",
    ]  # fmt: skip


def test_preparing_again_at_another_size_leaves_no_stale_pixels(source, tmp_path):
    prepare(source, tmp_path / "data", size=8)
    prepare(source, tmp_path / "data", size=12)
    assert [path.name for path in (tmp_path / "data").glob("*.u8")] == ["pixels-12.u8"]


def test_a_second_writer_is_refused(source, tmp_path):
    out = tmp_path / "data"

    def prepare_inside(done, total):
        with pytest.raises(DwarfError, match="another process is writing here"):
            prepare(source, out, size=8)

    prepare(source, out, size=8, progress=prepare_inside)


def test_duplicate_ids_empty_ids_and_unknown_findings_are_listed(source, tmp_path):
    bad = replaced(source, 1, image_id="film0")
    bad = replaced(bad, 2, patient_id="")
    bad = replaced(bad, 3, labels={"Cold": True})
    bad = replaced(bad, 4, regions=(Region("Flu", Box(1.0, 1.0, 2.0, 2.0)),))
    with pytest.raises(DataError) as caught:
        prepare(bad, tmp_path / "data", size=8)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for line, words in zip(
        lines[1:], ("the same id as", "no patient id", "'film3'", "'film4'"), strict=True
    ):
        assert words in line


def test_an_empty_source_and_a_reserved_name_are_refused(source, tmp_path):
    with pytest.raises(DataError, match="there is no radiograph"):
        prepare(dataclasses.replace(source, radiographs=()), tmp_path / "data")
    named = dataclasses.replace(source, findings=("Mass", "Edema", "split"))
    with pytest.raises(DataError, match=r"named as a column of images\.csv: split"):
        prepare(named, tmp_path / "data")
    with pytest.raises(ConfigError, match="size 0"):
        prepare(source, tmp_path / "data", size=0)


def test_a_patient_in_two_splits_is_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"patient0 \(test and train\)"):
        prepare(replaced(source, 5, patient_id="patient0"), tmp_path / "data", size=8)


def test_one_file_in_two_splits_is_refused_and_in_one_is_noted(source, tmp_path):
    content = source.radiographs[0].path.read_bytes()
    spoil(source, 1, content)
    data = prepare(source, tmp_path / "data", size=8)
    notes = json.loads((data.folder / "dataset.json").read_text())["notes"]
    assert any("film1.png: the same file as" in note for note in notes)
    spoil(source, 5, content)
    with pytest.raises(DataError, match=r"film5\.png: the same file as .*splits test and train"):
        prepare(source, tmp_path / "data", size=8)


def test_blank_films_are_noted_and_refused_when_strict(source, tmp_path):
    cv2.imwrite(str(source.radiographs[3].path), np.full((16, 24), 90, np.uint8))
    data = prepare(source, tmp_path / "data", size=8)
    notes = json.loads((data.folder / "dataset.json").read_text())["notes"]
    assert any("film3.png: every pixel is the same" in note for note in notes)
    with pytest.raises(DataError, match=r"film3\.png: every pixel is the same"):
        prepare(source, tmp_path / "data", size=8, strict=True)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Box(5.0, 1.0, 5.0, 9.0), "no area"),
        (Box(float("nan"), 1.0, 5.0, 9.0), "not finite"),
        (Box(30.0, 1.0, 35.0, 9.0), "lies wholly outside the 24×16 image"),
        (encode_mask(np.ones((5, 6), bool)), "mask of 6×5 on an image of 24×16"),
    ],
)
def test_bad_regions_are_named(source, tmp_path, shape, message):
    bad = replaced(source, 1, regions=(Region("Mass", shape),))
    with pytest.raises(DataError, match=r"image 'film1', region 1 \(Mass\)") as caught:
        prepare(bad, tmp_path / "data", size=8)
    assert message in str(caught.value)


def test_progress_is_told_and_otherwise_written_to_the_log(source, tmp_path, capsys):
    told = []
    prepare(source, tmp_path / "data", size=8, progress=lambda *step: told.append(step))
    assert told == [(done, 6) for done in range(1, 7)]
    assert capsys.readouterr().err == ""
    prepare(source, tmp_path / "data", size=8)
    assert "prepared 6 of 6 images" in capsys.readouterr().err


def test_results_are_as_readable_as_other_files(source, tmp_path):
    data = prepare(source, tmp_path / "data", size=8)
    umask = os.umask(0)
    os.umask(umask)
    for path in data.folder.glob("[a-z]*"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("text", "a\0b", "NUL"),
        ("text", "\ud800", "UTF-8"),
        ("text", "a" * 140_000, "140,000 letters"),
        ("patient_id", "p1 ", "begins or ends with a blank"),
        ("image_id", " film1", "begins or ends with a blank"),
    ],
)
def test_a_field_that_would_not_come_back_is_refused_before_the_old_data_goes(
    source, tmp_path, field, value, message
):
    old = prepare(source, tmp_path / "data", size=8)
    with pytest.raises(DataError, match=message):
        prepare(replaced(source, 1, **{field: value}), tmp_path / "data", size=8)
    assert PreparedData.open(tmp_path / "data").fingerprint == old.fingerprint


def test_a_finding_with_a_blank_at_its_end_is_refused(source, tmp_path):
    odd = dataclasses.replace(source, findings=("Mass", "Edema", "Nodule "))
    with pytest.raises(DataError, match="finding 'Nodule ' begins or ends"):
        prepare(odd, tmp_path / "data", size=8)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"workers": -1}, {"seed": -1}, {"size": 10**9}])
def test_numbers_out_of_range_are_refused(source, tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        prepare(source, tmp_path / "data", **({"size": 8} | wrong))


def test_regions_of_a_turned_frame_are_noted(source, tmp_path):
    turned = replaced(source, 0, region_frame=(16, 24))
    (note,) = [n for n in prepare(turned, tmp_path / "a", size=8).notes if "proportions" in n]
    assert "'film0'" in note
    assert "16×24" in note
    rounded = prepare(replaced(source, 0, region_frame=(481, 320)), tmp_path / "b", size=8)
    assert rounded.notes == ("a note",)


MEMORY = """
import dataclasses, gc, json, sys, tracemalloc
from pathlib import Path
from dwarf_cxr.data.check import check
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.store import PreparedData
from tests.data.made_many_films import write_films

def highest(work):
    tracemalloc.start()
    work()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held

def prepared(one, out):
    prepare(one, out, size=4, workers=1, progress=lambda done, total: None)

def kept(one, out):
    at_end = []
    def note(done, total):
        if done == total:
            gc.collect()  # what is no longer needed, but not yet noticed
            at_end.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.start()
    prepare(one, out, size=4, workers=1, progress=note)
    tracemalloc.stop()
    return at_end[0]

folder, few, many = Path(sys.argv[1]), 100, 500
long = write_films(folder / "films", many)
short = dataclasses.replace(long, radiographs=long.radiographs[:few])
for one, name in ((short, "short"), (long, "long")):  # what is loaded once
    prepared(one, folder / name)
held = [(kept(long, folder / "long") - kept(short, folder / "short")) / (many - few)]
for work in (prepared, lambda one, out: PreparedData.open(out), lambda one, out: check(out)):
    more = highest(lambda: work(long, folder / "long"))
    less = highest(lambda: work(short, folder / "short"))
    held.append((more - less) / (many - few))
print(json.dumps(held))
"""


def test_memory_stays_flat_over_the_rows(tmp_path):
    # another process: the checks of types that tests switch on hold memory of their own
    root = Path(__file__).resolve().parents[2]
    search = os.pathsep.join([str(root / "src"), str(root)])
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": search}, capture_output=True, text=True, check=True
    )
    decoding, preparing, opening, checking = json.loads(done.stdout)
    # bytes per image, beside its record: 150, 700, 660 and 900 were measured; twice as much fails
    assert 80 < decoding < 250
    assert 400 < preparing < 1100
    assert 400 < opening < 1000
    assert 600 < checking < 1350


def test_only_a_few_images_wait_for_their_turn(source, tmp_path, monkeypatch):
    begun = []
    real = module.decode_grey
    monkeypatch.setattr(
        module, "decode_grey", lambda *words: (begun.append(words), real(*words))[1]
    )
    films = write_films(tmp_path / "many", 100)
    ahead = []
    prepare(
        films,
        tmp_path / "data",
        size=4,
        workers=2,
        progress=lambda done, total: ahead.append(len(begun) - done),
    )
    assert len(begun) == 100
    assert max(ahead) <= 2 * module.AHEAD


def test_the_tables_are_laid_out_as_ever(source, tmp_path):
    """Indented by one, one after the other, as json.dumps and csv.DictWriter lay them out."""
    out = prepare(source, tmp_path / "data", size=8).folder
    text = (out / "regions.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    assert list(json.loads(text)) == ["info", "images", "annotations", "categories"]
    first = source.radiographs[0]
    assert json.loads(text)["images"][0] == {
        "id": 1,
        "file_name": str(first.path),
        "width": 24,
        "height": 16,
        "image_id": "film0",
        "patient_id": "patient0",
        "split": "train",
    }
    lines = (out / "images.csv").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "image_id,patient_id,split,source,sha256,width,height,text,Mass,Edema"
    assert lines[-1] == ""
    assert len(lines) == 8
