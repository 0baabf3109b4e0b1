"""Opening a data set by the name of its format."""

import json

import pytest

from dwarf_cxr.data.sources import read_source
from dwarf_cxr.errors import ConfigError, DataError


def write_coco(path, draw):
    draw("film.png")
    images = [{"id": 1, "file_name": "film.png", "width": 24, "height": 16}]
    document = {"images": images, "categories": [{"id": 1, "name": "Mass"}], "annotations": []}
    path.write_text(json.dumps(document))


def test_a_coco_folder_or_file_is_the_same(tmp_path, draw):
    write_coco(tmp_path / "regions.json", draw)
    from_folder = read_source("coco", tmp_path, out=tmp_path / "data")
    from_file = read_source("coco", tmp_path / "regions.json", out=tmp_path / "data")
    assert [one.image_id for one in from_folder.radiographs] == ["film"]
    assert from_folder.radiographs == from_file.radiographs


def test_a_coco_folder_with_two_files_is_ambiguous(tmp_path, draw):
    write_coco(tmp_path / "a.json", draw)
    write_coco(tmp_path / "b.json", draw)
    with pytest.raises(ConfigError, match=r"found a\.json, b\.json"):
        read_source("coco", tmp_path, out=tmp_path / "data")


def test_listed_images_can_be_left_out(tmp_path, draw):
    draw("images/1.png")
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(
        "Image Index,Finding Labels,Patient ID\n1.png,No Finding,1\n2.png,Mass,2\n"
    )
    (tmp_path / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    with pytest.raises(DataError, match="--skip-missing"):
        read_source("nih", tmp_path, out=tmp_path / "data")
    found = read_source("nih", tmp_path, out=tmp_path / "data", skip_missing=True)
    assert [one.image_id for one in found.radiographs] == ["1"]


def test_synthetic_films_go_beside_the_data(tmp_path):
    found = read_source("synthetic", None, out=tmp_path / "data", films=2, size=64)
    assert {one.path.parent for one in found.radiographs} == {tmp_path / "data" / "films"}


@pytest.mark.parametrize("name", ["nih", "chestx-det", "coco", "csv", "dicom"])
def test_a_root_is_needed_and_must_exist(name, tmp_path):
    with pytest.raises(ConfigError, match="--root"):
        read_source(name, None, out=tmp_path / "data")
    with pytest.raises(ConfigError, match="no such folder"):
        read_source(name, tmp_path / "none", out=tmp_path / "data")


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="nih, chestx-det, coco, csv, dicom, synthetic"):
        read_source("dicom-ish", tmp_path, out=tmp_path)


@pytest.mark.parametrize("name", ["nih", "chestx-det", "coco", "csv", "dicom"])
def test_a_data_set_is_never_written_over(tmp_path, name):
    (tmp_path / "images.csv").write_text("image_id,patient_id,Mass\n")
    for same in (tmp_path, tmp_path / "films" / ".."):
        (tmp_path / "films").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="choose another folder"):
            read_source(name, tmp_path, out=same)


def test_a_coco_file_is_never_written_over(tmp_path, draw):
    write_coco(tmp_path / "regions.json", draw)
    with pytest.raises(ConfigError, match="choose another folder"):
        read_source("coco", tmp_path / "regions.json", out=tmp_path)
