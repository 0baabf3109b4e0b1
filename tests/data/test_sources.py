"""Opening a data set by the name of its format."""

import json

import pytest

from dwarf_cxr.data.sources import TAKEN, ReadOptions, read_source
from dwarf_cxr.errors import ConfigError, DataError
from tests.data.made_covid import MadeImage, write_covid
from tests.data.made_nih import MadeFilm, write_nih
from tests.data.made_openi import MadeReport, write_openi

FOLDERS = [name for name in TAKEN if name != "synthetic"]


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
    found = read_source(
        "nih", tmp_path, out=tmp_path / "data", options=ReadOptions(skip_missing=True)
    )
    assert [one.image_id for one in found.radiographs] == ["1"]


def test_official_splits_are_those_of_nih(tmp_path):
    film = MadeFilm(2, labels="Mass", in_list="test")
    write_nih(tmp_path / "nih", (MadeFilm(1), film), year="v2020")
    found = read_source(
        "nih", tmp_path / "nih", out=tmp_path / "d", options=ReadOptions(official_splits=True)
    )
    assert [one.split for one in found.radiographs] == ["train", "test"]
    with pytest.raises(ConfigError, match="--official-splits is for nih"):
        read_source(
            "csv", tmp_path / "nih", out=tmp_path / "d", options=ReadOptions(official_splits=True)
        )


def test_views_and_missing_films_of_image_text_sets(tmp_path):
    report = MadeReport(1, "Clear.", films=(("IM-1", "PA"), ("IM-2", "LL"), ("IM-3", "")))
    root = write_openi(tmp_path / "openi", (report,))
    covid = write_covid(tmp_path / "covid", (MadeImage("a", view="PA"), MadeImage("b", view="L")))
    out = tmp_path / "data"
    assert len(read_source("openi", root, out=out).radiographs) == 1
    assert (
        len(read_source("openi", root, out=out, options=ReadOptions(lateral=True)).radiographs) == 2
    )
    assert (
        len(
            read_source("openi", root, out=out, options=ReadOptions(unknown_views=True)).radiographs
        )
        == 2
    )
    assert (
        len(read_source("covid", covid, out=out, options=ReadOptions(lateral=True)).radiographs)
        == 2
    )
    (covid / "images" / "a.png").unlink()
    (only,) = read_source(
        "covid", covid, out=out, options=ReadOptions(lateral=True, skip_missing=True)
    ).radiographs
    assert only.image_id == "b"


def test_synthetic_films_go_beside_the_data(tmp_path):
    found = read_source("synthetic", None, out=tmp_path / "data", films=2, size=64)
    assert {one.path.parent for one in found.radiographs} == {tmp_path / "data" / "films"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_root_is_needed_and_must_exist(name, tmp_path):
    with pytest.raises(ConfigError, match="--root"):
        read_source(name, None, out=tmp_path / "data")
    with pytest.raises(ConfigError, match="no such folder"):
        read_source(name, tmp_path / "none", out=tmp_path / "data")


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"nih, .*, synthetic"):
        read_source("dicom-ish", tmp_path, out=tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
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
