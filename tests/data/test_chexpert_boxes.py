import json

import numpy as np
import pytest

from dwarf_cxr.data.chexpert_boxes import NAMES, read_chexpert_boxes
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box
from dwarf_cxr.errors import DataError, ImageError
from dwarf_cxr.findings import CHEXPERT_13, CHEXPERT_BOXED_9
from tests.data import made_chexpert as made

MIXED = "patient40093_study4_view1_frontal"
TALL = "patient16149_study2_view1_frontal"
LATERAL = "patient04978_study1_view2_lateral"
DENIED = "patient01844_study23_view1_frontal"
HELD_OUT = "patient64692_study1_view1_frontal"


@pytest.fixture
def root(tmp_path):
    made.write_chexpert_boxes(tmp_path / "set")
    return tmp_path / "set"


def silent(done, total):
    pass


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def labels_of(data):
    return {one.image_id: dict(one.labels) for one in data.radiographs}


def test_official_files_become_radiographs(root):
    assert read_chexpert_boxes(root).patients_of == "CheXpert"
    data = read_chexpert_boxes(root)
    assert data.findings == CHEXPERT_13
    assert [(one.image_id, one.patient_id, one.split) for one in data.radiographs] == [
        (MIXED, "patient40093", "train"),
        (TALL, "patient16149", "train"),
        (DENIED, "patient01844", "train"),
        (HELD_OUT, "patient64692", "test"),
    ]
    mixed, tall = data.radiographs[:2]
    assert [(one.finding, one.shape) for one in mixed.regions] == [
        ("Cardiomegaly", Box(40.0, 20.0, 80.0, 60.0)),
        ("Edema", Box(10.0, 16.0, 30.0, 56.0)),
        ("Edema", Box(60.0, 8.0, 90.0, 48.0)),
    ]
    assert [one.finding for one in tall.regions] == ["Enlarged Cardiomediastinum", "Effusion"]
    assert {one.annotator for one in data.radiographs for one in one.regions} == {"HAM radiologist"}


def test_labels_are_the_tables_and_the_boxes_and_what_is_said_of_the_rest(root):
    data = read_chexpert_boxes(root)
    labels = labels_of(data)
    # Edema is uncertain but boxed; Pneumonia is uncertain without a box: never assessed
    assert labels[MIXED] == {"Cardiomegaly": True, "Edema": True, "Pneumothorax": False}
    # not mentioned but boxed
    assert labels[TALL] == {"Effusion": True, "Enlarged Cardiomediastinum": True}
    # boxed, but the table says absent: it stands
    assert labels[DENIED] == {"Atelectasis": False}
    assert len(labels[HELD_OUT]) == 13
    assert sum(labels[HELD_OUT].values()) == 2
    for note in (
        "1 lateral views left out; --lateral keeps them",
        "8 boxes on 4 views",
        "'edema' was read as 'Edema' on 1 views",
        "'Enlarg_Cardiomediastinum' was read as 'Enlarged Cardiomediastinum' on 1 views",
        "2 labels are uncertain; taken as never assessed where there is no box",
        "findings that the report does not mention and that have no box were taken as never "
        "assessed",
        "2 findings were taken as present for their boxes alone",
        "1 boxed findings are absent by the labels; the labels stand",
    ):
        assert note in data.notes


@pytest.mark.parametrize(("policy", "label"), [("present", True), ("absent", False)])
@pytest.mark.parametrize("assume_absent", [True, False])
def test_policies_for_uncertain_and_unmentioned_findings(root, policy, label, assume_absent):
    data = read_chexpert_boxes(root, uncertain=policy, assume_absent=assume_absent)
    labels = labels_of(data)
    stated = {"Cardiomegaly": True, "Edema": True, "Pneumothorax": False, "Pneumonia": label}
    if assume_absent:
        stated = dict.fromkeys(CHEXPERT_13, False) | stated
    assert labels[MIXED] == stated
    assert labels[TALL]["Enlarged Cardiomediastinum"] is True
    assert labels[DENIED]["Atelectasis"] is False
    assert any(f"uncertain; taken as {policy}" in note for note in data.notes)


def test_uncertain_stays_unassessed_where_the_unmentioned_are_absent(root):
    labels = labels_of(read_chexpert_boxes(root, assume_absent=True))
    assert set(CHEXPERT_13) - set(labels[MIXED]) == {"Pneumonia"}
    assert labels[TALL]["Edema"] is False


def test_lateral_views_are_kept_if_asked(root):
    data = read_chexpert_boxes(root, lateral=True)
    assert [one.finding for one in data.radiographs[2].regions] == ["Fracture"]
    assert data.radiographs[2].image_id == LATERAL
    assert "1 lateral views kept" in data.notes


def test_every_name_of_the_file_leads_to_one_of_the_nine():
    assert set(NAMES.values()) == set(CHEXPERT_BOXED_9)
    assert len(NAMES) == 11


@pytest.mark.parametrize("size", [10, 24, 60])
def test_boxes_fit_images_of_any_size(root, tmp_path, size):
    data = prepare(
        read_chexpert_boxes(root, lateral=True), tmp_path / "data", size=size, progress=silent
    )
    sizes = dict(zip(data.image_ids, zip(data.widths, data.heights, strict=True), strict=True))
    assert (sizes[MIXED], sizes[TALL], sizes[HELD_OUT]) == ((100, 80), (60, 90), (120, 90))
    # x from 40 to 80 of 100, y from 20 to 60 of 80
    want = np.zeros((20, 20))
    want[5:15, 8:16] = 1
    got = data.coverage(data.image_ids.index(MIXED), "Cardiomegaly", 20)
    np.testing.assert_allclose(got, want, atol=1e-6)
    # 12 to 48 of 60, 18 to 54 of 90
    want = np.zeros((10, 10))
    want[2:6, 2:8] = 1
    got = data.coverage(data.image_ids.index(TALL), "Enlarged Cardiomediastinum", 10)
    np.testing.assert_allclose(got, want, atol=1e-6)
    # 24 to 96 of 120, 9 to 81 of 90
    want = np.zeros((10, 10))
    want[1:9, 2:8] = 1
    got = data.coverage(data.image_ids.index(HELD_OUT), "Enlarged Cardiomediastinum", 10)
    np.testing.assert_allclose(got, want, atol=1e-6)
    # validation is carved out of the training part, the validation part of CheXpert tests
    assert data.splits[data.image_ids.index(HELD_OUT)] == "test"
    assert data.splits.count("val") == 1


def test_all_faults_of_the_box_file_are_listed_at_once(root):
    def edit(content):
        content["images/00000001_000.png"] = {"Mass": [[1, 2, 3, 4]]}
        content["train/patient1/study1/view1_frontal.jpg"] = {"Mass": [[1, 2, 3, 4]]}
        content["train/patient2/study1/view1_frontal.jpg"] = {
            "Edema": [[1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, float("inf")]],
            "Fracture": 7,
        }
        content["train/patient3/study1/view1_frontal.jpg"] = []
        content["valid/patient40093/study4/view1_frontal.jpg"] = {}

    change(root / "BBoxes.json", edit)
    with pytest.raises(DataError) as caught:
        read_chexpert_boxes(root)
    said = str(caught.value)
    for part in (
        "images/00000001_000.png: not a path such as",
        "patient1/study1/view1_frontal.jpg: unknown finding 'Mass'",
        "Edema, box 1: must be [x1, y1, x2, y2]",
        "Edema, box 2: must be",
        "Edema, box 3: must be",
        "Fracture, box 1: must be",
        "patient3/study1/view1_frontal.jpg: must map findings",
        f"{MIXED} stands there twice",
    ):
        assert part in said


def test_boxes_without_area_are_left_out_and_counted(root):
    key = "train/patient01844/study23/view1_frontal.jpg"
    change(root / "BBoxes.json", lambda boxes: boxes[key].update({"Edema": [[9, 4, 9, 20]]}))
    data = read_chexpert_boxes(root)
    assert [one.finding for one in data.radiographs[2].regions] == ["Atelectasis"]
    assert "Edema" not in data.radiographs[2].labels
    assert "1 boxes have no area; left out" in data.notes


def test_missing_tables_rows_and_images(root, tmp_path):
    table = root / "CheXpert-v1.0" / "train.csv"
    whole = table.read_text()
    table.write_text("\n".join(whole.splitlines()[:2]) + "\n")
    (root / "CheXpert-v1.0" / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"2 views of BBoxes\.json are not listed") as caught:
        read_chexpert_boxes(root)
    assert "no valid.csv" in str(caught.value)
    made.write_chexpert_boxes(root)
    image = root / "CheXpert-v1.0/train/patient16149/study2/view1_frontal.jpg"
    image.unlink()
    with pytest.raises(DataError, match=rf"1 of 4 boxed views .*{TALL}; .*--skip-missing"):
        read_chexpert_boxes(root)
    data = read_chexpert_boxes(root, missing="skip")
    assert len(data.radiographs) == 3
    assert "6 boxes on 3 views" in data.notes
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no BBoxes\.json"):
        read_chexpert_boxes(tmp_path / "empty")


@pytest.mark.parametrize("content", ["[]", "{}", "{"])
def test_a_file_of_another_kind_is_named(root, content):
    (root / "BBoxes.json").write_text(content)
    with pytest.raises(DataError, match=r"BBoxes\.json"):
        read_chexpert_boxes(root)


def test_the_small_version_is_refused(tmp_path):
    made.write_chexpert_boxes(tmp_path, folder="CheXpert-v1.0-small")
    with pytest.raises(DataError, match="full size"):
        read_chexpert_boxes(tmp_path)


def test_a_view_that_stands_twice_is_refused(root):
    made.write_view(root / "again/patient16149/study2/view1_frontal.jpg", 9, 9, seed=1)
    with pytest.raises(ImageError, match="keep one of them"):
        read_chexpert_boxes(root)
