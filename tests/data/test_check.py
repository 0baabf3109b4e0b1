import json

import numpy as np
import pytest

from dwarf_cxr.data.check import check
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError


@pytest.fixture
def folder(source, tmp_path):
    return prepare(source, tmp_path / "data", size=8).folder


def errors(folder):
    return [fault for fault in check(folder) if fault.severity == "error"]


def edit_rows(folder, **changes):
    """Replace text in lines of images.csv: `line3=("old", "new")`."""
    lines = (folder / "images.csv").read_text().split("\n")
    for key, (old, new) in changes.items():
        number = int(key.removeprefix("line")) - 1
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new)
    (folder / "images.csv").write_text("\n".join(lines))


def edit_regions(folder, change):
    document = json.loads((folder / "regions.json").read_text())
    change(document)
    (folder / "regions.json").write_text(json.dumps(document))


def said(folder, words):
    return any(words in str(fault) for fault in check(folder))


def test_sound_data_has_no_errors(folder):
    assert errors(folder) == []


def test_a_finding_without_positives_in_a_split_is_a_warning(folder):
    (warning,) = check(folder)
    assert warning.severity == "warning"
    assert "'Edema' has no positive image in the split 'test'" in warning.what


def test_changed_pixels_are_found_by_their_hash(folder):
    content = bytearray((folder / "pixels-8.u8").read_bytes())
    content[5] ^= 1
    (folder / "pixels-8.u8").write_bytes(bytes(content))
    (fault,) = errors(folder)
    assert fault.where.endswith("pixels-8.u8")
    assert "SHA-256" in fault.what


@pytest.mark.parametrize("name", ["dataset.json", "images.csv", "regions.json", "pixels-8.u8"])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    assert any(fault.where.endswith(name) and "missing" in fault.what for fault in errors(folder))


def test_an_absent_folder_lists_what_is_missing(tmp_path):
    assert {fault.where.rsplit("/")[-1] for fault in check(tmp_path / "none")} == {
        "dataset.json", "images.csv", "regions.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "old", "new", "words"),
    [
        (3, "film1,", "film0,", "line 3: image id 'film0' already stands in line 2"),
        (7, "patient5", "patient0", "patient 'patient0' is in two splits (test and train)"),
        (7, "patient5", "", "line 7: no image id or no patient id"),
        (2, ",train,", ",holdout,", "line 2: split 'holdout'"),
        (2, ",1,0", ",-1,0", "line 2, column 'Mass': label '-1'; write 1"),
        (2, ",1,0", ",0.5,0", "line 2, column 'Mass': label '0.5'"),
        (2, ",1,0", ",NaN,0", "line 2, column 'Mass': label 'NaN'"),
        (2, ",24,16", ",24,-16", "line 2: height '-16'"),
        (2, ",1,0", ",1", "line 2: 9 fields where the header has 10"),
        (1, ",Edema", ",Cold", "column 'Cold' is no finding of dataset.json"),
        (1, ",Edema", ",Cold", "no column 'Edema'"),
        (1, ",sha256", ",hash", "no column 'sha256'"),
    ],
)
def test_faults_of_the_table_are_named(folder, line, old, new, words):
    edit_rows(folder, **{f"line{line}": (old, new)})
    assert said(folder, words)


def test_one_image_file_in_two_splits(folder):
    hashes = [line.split(",")[4] for line in (folder / "images.csv").read_text().split("\n")[2:7]]
    edit_rows(folder, line7=(hashes[4], hashes[0]))
    assert said(folder, "line 7: the same image file as line 3 (film1), but in two splits")


def test_encoding_faults_are_named_and_do_not_hide_others(folder):
    path = folder / "images.csv"
    content = path.read_bytes().replace(b"left lung", b"l\xe9ft lung").replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b",1,0\r\n", b",7,0\r\n"))
    for words in ("byte order mark", "CR line ends", "line 2: byte 0xe9", "label '7'"):
        assert said(folder, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bbox": [1, 2, float("nan"), 4]}, "annotation 1: bbox [1, 2, nan, 4] is not finite"),
        ({"bbox": [5, 2, 0, 4]}, "annotation 1: box (5.0, 2.0, 5.0, 6.0) has no area"),
        ({"bbox": [20, 2, 9, 4]}, "annotation 1: reaches out of the 24×16 image"),
        ({"bbox": "wide"}, "annotation 1: needs a bbox"),
        ({"category_id": 9}, "annotation 1: unknown category 9"),
        ({"image_id": 99}, "annotation 1: unknown image 99"),
        ({"image_id": 2}, "1 regions of 'Mass' on images where it is not labelled 1"),
        (
            {"segmentation": {"size": [4, 4], "counts": [0, 16]}},
            "annotation 1: mask of 4×4 on an image of 24×16",
        ),
        ({"segmentation": {"size": [4, 4], "counts": [0, 3]}}, "annotation 1: mask runs over 3"),
    ],
)
def test_faults_of_regions_are_named(folder, fields, words):
    edit_regions(folder, lambda document: document["annotations"][0].update(fields))
    assert said(folder, words)


def test_unknown_findings_and_other_images_are_named(folder):
    def change(document):
        document["categories"][1]["name"] = "Cold"
        document["images"][3]["image_id"] = "film9"

    edit_regions(folder, change)
    assert said(folder, "unknown finding 'Cold'")
    assert said(folder, "images differ from images.csv: film3, film9")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}', '{"images": [3]}'])
def test_damaged_regions_are_reported(folder, content):
    (folder / "regions.json").write_text(content)
    assert any("regions.json" in fault.where for fault in errors(folder))


def test_blank_films_and_cut_pixels(folder):
    pixels = np.fromfile(folder / "pixels-8.u8", np.uint8)
    pixels[64:128] = 5
    pixels.tofile(folder / "pixels-8.u8")
    assert said(folder, "image 'film1': every pixel is the same")
    pixels[:100].tofile(folder / "pixels-8.u8")
    assert said(folder, "100 bytes where 6 images of 8×8 need 384")


def test_all_faults_are_found_in_one_pass(folder):
    edit_rows(folder, line3=("film1,", "film0,"), line4=(",1,0", ",2,0"))
    edit_regions(folder, lambda document: document["annotations"][0].update(bbox=[5, 2, 0, 4]))
    (folder / "pixels-8.u8").unlink()
    for words in ("already stands", "label '2'", "no area", "pixels-8.u8: missing", "SHA-256"):
        assert said(folder, words)
    severities = [fault.severity for fault in check(folder)]
    assert severities == sorted(severities)


def test_what_check_refuses_cannot_be_opened(folder):
    edit_rows(folder, line2=(",1,0", ",0.5,0"))
    with pytest.raises(DataError, match="changed since"):
        PreparedData.open(folder)


def test_an_original_file_with_a_flipped_byte_is_found(source, folder):
    path = source.radiographs[3].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (fault,) = errors(folder)
    assert str(path) in fault.what
    assert "line 5" in fault.where


def test_original_files_that_are_gone_are_a_warning(source, folder):
    for one in source.radiographs[:2]:
        one.path.unlink()
    assert errors(folder) == []
    assert said(folder, "2 original files are not there")
