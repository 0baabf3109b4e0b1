import json

import numpy as np
import pytest

from dwarf_cxr.data.check import check
from dwarf_cxr.data.chexlocalize import NAMES, TASKS, read_chexlocalize
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Mask, Polygon
from dwarf_cxr.errors import DataError, ImageError
from dwarf_cxr.findings import CHEXLOCALIZE_10, CHEXPERT_13
from tests.data import made_chexpert as made


@pytest.fixture
def root(tmp_path):
    made.write_chexlocalize(tmp_path / "set")
    return tmp_path / "set"


def silent(done, total):
    pass


def change(path, edit):
    """Apply `edit` to the content of a JSON file."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def by_id(data):
    return {one.image_id: one for one in data.radiographs}


def test_official_files_become_radiographs(root):
    data = read_chexlocalize(root)
    assert data.findings == CHEXPERT_13
    assert data.patients_of == "CheXpert"
    assert [(one.image_id, one.patient_id, one.split) for one in data.radiographs] == [
        (made.VAL_FRONTAL, "patient64541", "val"),
        (made.VAL_NORMAL, "patient64542", "val"),
        (made.TEST_FRONTAL, "patient64741", "test"),
        (made.TEST_OTHER, "patient64742", "test"),
    ]
    first = by_id(data)[made.VAL_FRONTAL]
    assert first.path == root / "CheXpert/val/patient64541/study1/view1_frontal.jpg"
    assert set(first.labels) == set(CHEXPERT_13)
    present = {finding for finding, label in first.labels.items() if label}
    assert present == {"Lung Opacity", "Effusion", "Pneumonia"}
    assert [one.finding for one in first.regions] == ["Lung Opacity", "Effusion", "Effusion"]
    assert all(isinstance(one.shape, Polygon) for one in first.regions)
    np.testing.assert_array_equal(
        first.regions[0].shape.points, [[12, 8], [36, 8], [36, 24], [12, 24]]
    )
    assert first.region_frame == (60, 40)
    normal = by_id(data)[made.VAL_NORMAL]
    assert normal.regions == ()
    assert not any(normal.labels.values())
    assert "1 lateral views left out; --lateral keeps them" in data.notes
    assert "1 present findings of the ten have no outline" in data.notes


def test_lateral_views_are_kept_if_asked(root):
    data = read_chexlocalize(root, lateral=True)
    lateral = by_id(data)[made.VAL_LATERAL]
    assert len(data.radiographs) == 5
    assert lateral.patient_id == "patient64542"
    assert [one.finding for one in lateral.regions] == ["Cardiomegaly"]
    assert "1 lateral views kept" in data.notes


def test_the_ten_names_are_those_of_the_scripts():
    assert set(TASKS) == set(CHEXLOCALIZE_10)
    assert set(NAMES) == set(made.TASKS)
    assert (TASKS["Lung Opacity"], TASKS["Effusion"]) == ("Airspace Opacity", "Pleural Effusion")


@pytest.mark.parametrize("shrink", [1, 0.5, 0.75])
@pytest.mark.parametrize("source", ["outlines", "masks"])
def test_regions_fit_images_of_any_size(tmp_path, shrink, source):
    root = tmp_path / "set"
    made.write_chexlocalize(root, shrink=shrink)
    if source == "masks":
        for path in (root / "CheXlocalize").glob("gt_annotations_*"):
            path.unlink()
    data = prepare(
        read_chexlocalize(root, lateral=True), tmp_path / "data", size=20, progress=silent
    )
    index = data.image_ids.index(made.VAL_FRONTAL)
    assert (data.widths[index], data.heights[index]) == (60 * shrink, 40 * shrink)
    want = np.zeros((10, 10))
    want[2:6, 2:6] = 1  # x from 12 to 36 of 60, y from 8 to 24 of 40
    got = data.coverage(index, "Lung Opacity", 10)
    # the official masks include their outline: up to a pixel more on each side
    tolerance = 1e-6 if source == "outlines" else 1 / (shrink * 4) + 1e-6
    np.testing.assert_allclose(got, want, atol=tolerance)
    want = np.zeros((10, 10))
    want[7:, :2] = want[5:, 8:] = 1
    np.testing.assert_allclose(data.coverage(index, "Effusion", 10), want, atol=tolerance)
    triangle = data.coverage(data.image_ids.index(made.TEST_FRONTAL), "Support Devices", 10)
    extra = 0 if source == "outlines" else (32 + 48 + 58) / 2 / 4800
    assert triangle.mean() == pytest.approx(32 * 48 / 2 / 4800 + extra, abs=0.02)
    assert triangle[1, 1] == 1
    assert triangle[8, 8] == 0


def test_only_a_test_part_is_prepared_for_evaluation(tmp_path):
    made.write_chexlocalize(tmp_path / "set", splits=("test",))
    source = read_chexlocalize(tmp_path / "set")
    data = prepare(source, tmp_path / "data", size=16, progress=silent)
    assert data.splits == ("test", "test")
    assert len(data.indices("train")) == len(data.indices("val")) == 0
    assert any("for evaluation only" in note for note in data.notes)
    assert any("no val_labels.csv" in note for note in data.notes)
    assert not [fault for fault in check(data.folder) if fault.severity == "error"]


def test_the_sample_of_the_official_repository_has_valid_csv(root):
    (root / "CheXpert" / "val_labels.csv").rename(root / "CheXpert" / "valid.csv")
    assert len(read_chexlocalize(root).radiographs) == 4


def test_run_lengths_serve_where_outlines_are_missing(root):
    (root / "CheXlocalize" / "gt_annotations_val.json").unlink()
    data = read_chexlocalize(root)
    first = by_id(data)[made.VAL_FRONTAL]
    assert [type(one.shape) for one in first.regions] == [Mask, Mask]
    assert {one.finding for one in first.regions} == {"Lung Opacity", "Effusion"}
    assert any("gt_segmentations_val.json is read instead" in note for note in data.notes)
    (root / "CheXlocalize" / "gt_segmentations_val.json").unlink()
    data = read_chexlocalize(root)
    assert by_id(data)[made.VAL_FRONTAL].regions == ()
    assert any("no view has a region" in note for note in data.notes)


def test_what_labels_and_outlines_disagree_in_is_counted(root):
    path = root / "CheXlocalize" / "gt_annotations_val.json"

    def edit(content):
        content[made.VAL_FRONTAL]["Edema"] = [
            made.rectangle(1, 1, 9, 9),
            made.rectangle(2, 2, 5, 5),
        ]
        content[made.VAL_FRONTAL]["Airspace Opacity"] += [[[3, 3], [8, 8]], [[1, 1]], []]
        content["patient64999_study1_view1_frontal"] = {"img_size": [40, 60]}

    change(path, edit)
    notes = read_chexlocalize(root).notes
    assert "3 outlines enclose nothing (a point or a line); left out" in notes
    assert any("1 findings are outlined on views where the labels do not" in note for note in notes)
    assert "1 outlined views are not listed in val_labels.csv" in notes


def test_all_faults_are_listed_at_once(root):
    def edit(content):
        first = content[made.VAL_FRONTAL]
        first["img_size"] = [40]
        first["Lung Opacity"] = []
        first["Edema"] = [[[1, 2, 3], [4, 5, 6]]]
        first["Atelectasis"] = [[[1, "2"], [4, 5], [7, 1]]]
        first["Cardiomegaly"] = {"1": 2}
        content["view1_frontal"] = {}
        content[made.VAL_LATERAL] = []

    change(root / "CheXlocalize" / "gt_annotations_val.json", edit)
    table = root / "CheXpert" / "test_labels.csv"
    lines = table.read_text().splitlines()
    wrong = lines[2].replace("patient64742/study2/", "").replace("1.0", "2")
    table.write_text("\n".join([*lines, lines[1], wrong, lines[2][:-3] + "yes"]))
    with pytest.raises(DataError) as caught:
        read_chexlocalize(root)
    said = str(caught.value)
    for part in (
        f"{made.VAL_FRONTAL}: 'img_size' must be [height, width]",
        "unknown finding 'Lung Opacity'",
        "Edema, outline 1: must be a list of [x, y]",
        "Atelectasis, outline 1: must be a list of [x, y]",
        "Cardiomegaly: must be a list of outlines",
        "view1_frontal: not an id such as",
        f"{made.VAL_LATERAL}: must map findings",
        f"test_labels.csv, line 4: {made.TEST_FRONTAL} is listed twice",
        "test_labels.csv, line 5: the path 'test/view1_frontal.jpg' does not end",
        f"test_labels.csv, line 6: {made.TEST_OTHER} is listed twice",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("value", "message"), [("yes", "column 'Edema': label 'yes'"), ("2", "label '2'"), ("nan", "")]
)
def test_a_wrong_label_is_named(root, value, message):
    table = root / "CheXpert" / "test_labels.csv"
    table.write_text(table.read_text().replace("0.0,0.0,0.0,0.0,0.0,1.0", f"0,0,0,0,0,{value}"))
    with pytest.raises(DataError, match=r"test_labels\.csv, line 3") as caught:
        read_chexlocalize(root)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ({"size": [40, 60]}, "must be run lengths"),
        ({"size": [40, 60], "counts": "PVWX6"}, "mask runs over"),
        ({"size": [40, 60], "counts": "\x7f"}, "run-length text"),
        ({"size": [0, 60], "counts": "0"}, "must be run lengths"),
        ("PVWX6", "must be run lengths"),
        (made.run_lengths(np.zeros((41, 60))), "one size, found 60×40, 60×41"),
    ],
)
def test_wrong_run_lengths_are_named(root, encoded, message):
    (root / "CheXlocalize" / "gt_annotations_val.json").unlink()
    path = root / "CheXlocalize" / "gt_segmentations_val.json"
    change(path, lambda content: content[made.VAL_FRONTAL].update({"Edema": encoded}))
    with pytest.raises(DataError, match=made.VAL_FRONTAL) as caught:
        read_chexlocalize(root)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_file_of_another_kind_is_named(root, content):
    (root / "CheXlocalize" / "gt_annotations_test.json").write_text(content)
    with pytest.raises(DataError, match=r"gt_annotations_test\.json"):
        read_chexlocalize(root)


def test_missing_images_and_tables(root, tmp_path):
    (root / "CheXpert/test/patient64742/study2/view1_frontal.jpg").unlink()
    with pytest.raises(DataError, match=rf"1 of 4 listed views .*: {made.TEST_OTHER}; .*--skip-m"):
        read_chexlocalize(root)
    data = read_chexlocalize(root, missing="skip")
    assert len(data.radiographs) == 3
    assert any("1 of 4 listed views" in note for note in data.notes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds none of val_labels\.csv"):
        read_chexlocalize(tmp_path / "empty")


def test_a_view_that_stands_twice_is_refused(root):
    again = root / "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
    made.write_view(again, 60, 40, seed=9)
    with pytest.raises(ImageError, match="keep one of them"):
        read_chexlocalize(root)
