import pytest

from dwarf_cxr.data.chexpert import (
    find_views,
    read_labelled_views,
    view_of_id,
    view_of_path,
)
from dwarf_cxr.errors import DataError
from tests.data import made_chexpert as made


@pytest.mark.parametrize(
    "path",
    [
        "CheXpert-v1.0/valid/patient64541/study1/view2_lateral.jpg",
        "test/patient64541/study1/view2_lateral.png",
        "patient64541/study1/view2_lateral.jpg",
        "C:\\CheXpert\\val\\patient64541\\study1\\view2_lateral.jpg",
    ],
)
def test_a_view_is_known_by_the_end_of_its_path(path):
    view = view_of_path(path)
    assert view == view_of_id("patient64541_study1_view2_lateral")
    assert (view.patient_id, view.lateral) == ("patient64541", True)


@pytest.mark.parametrize(
    "path",
    [
        "view1_frontal.jpg",
        "study1/view1_frontal.jpg",
        "mypatient1/study1/view1_frontal.jpg",
        "patient1/study1/view1.jpg",
        "patient1/study1/view1_frontal.jpg.txt",
        "",
    ],
)
def test_other_paths_are_no_views(path):
    assert view_of_path(path) is None
    assert view_of_id(path) is None


def test_views_are_found_in_any_folder(tmp_path):
    first = made.write_view(tmp_path / "a/patient1/study2/view1_frontal.jpg", 4, 5, seed=0)
    second = made.write_view(tmp_path / "b/c/patient1/study2/view1_frontal.jpg", 4, 5, seed=0)
    made.write_view(tmp_path / ".hidden/patient2/study2/view1_frontal.jpg", 4, 5, seed=0)
    made.write_view(tmp_path / "patient3.jpg", 4, 5, seed=0)
    assert find_views(tmp_path) == {"patient1_study2_view1_frontal": (first, second)}
    # a patient's own folder is a root like any other
    assert list(find_views(tmp_path / "a" / "patient1")) == ["patient1_study2_view1_frontal"]


def test_certain_uncertain_and_unmentioned_labels(tmp_path):
    rows = {
        "train/patient1/study1/view1_frontal.jpg": {"Edema": "1.0", "Fracture": "0", "Mass": "1"},
        "train/patient2/study1/view1_frontal.jpg": {"Pleural Effusion": "-1.0", "No Finding": "1"},
    }
    made.write_valid_table(tmp_path / "train.csv", rows, otherwise="")
    first, second = read_labelled_views(tmp_path / "train.csv")
    assert (first.labels, first.uncertain) == ({"Edema": True, "Fracture": False}, frozenset())
    assert (second.labels, second.uncertain) == ({}, {"Effusion"})
    only = read_labelled_views(tmp_path / "train.csv", only={second.view.image_id})
    assert only == [second]


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("Path,Edema\n")
    with pytest.raises(DataError, match="no column 'Enlarged Cardiomediastinum'"):
        read_labelled_views(tmp_path / "train.csv")
