"""COCO out and in, Label Studio out."""

import json
import xml.etree.ElementTree as ElementTree
from contextlib import closing

import numpy as np
import pytest

from dwarf_cxr.data.geometry import encode_mask, rasterise
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.review.annotation import Assessment, assessment_to_json
from dwarf_cxr.review.coco_files import export_coco, import_coco
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.label_studio import export_label_studio, pack_mask
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.writing import decisions
from tests.review.made import ABSENT, HEIGHT, WIDTH, box, present, triangle, write_data


@pytest.fixture
def review(tmp_path):
    write_data(tmp_path / "data")
    return begin(tmp_path / "data-review", tmp_path / "data", readers=["anna"])


@pytest.fixture
def ledger(review):
    with closing(Ledger(review.database)) as ledger:
        yield ledger


@pytest.fixture
def said(ledger):
    rng = np.random.default_rng(9)
    mask = encode_mask(rng.random((HEIGHT, WIDTH)) < 0.2)
    words = {
        0: {"Mass": present(box(4, 5, 30, 44.5), triangle((50, 9), (80, 20.5), (60, 40)))},
        3: {"Effusion": present(mask), "Nodule": ABSENT, "Mass": Assessment("unsure")},
    }
    for film, edits in words.items():
        ledger.edit(film, "anna", edits, version=0, key="k")
    return words


def test_coco_out_and_in_again(review, ledger, said, tmp_path):
    from pycocotools.coco import COCO

    file = tmp_path / "out.json"
    assert export_coco(review, decisions(review, ledger), file) == 3
    coco = COCO(str(file))
    for entry in coco.loadAnns(coco.getAnnIds()):
        film = {1: 0, 2: 3}[entry["image_id"]]
        name = coco.loadCats(entry["category_id"])[0]["name"]
        ours = [one.shape for one in said[film][name].regions]
        masks = [rasterise([shape], (WIDTH, HEIGHT)) for shape in ours]
        found = coco.annToMask(entry).astype(bool)
        assert max((found & one).sum() / (found | one).sum() for one in masks) > 0.95
        assert entry["bbox"][2] > 0
    assert "patient" not in file.read_text()

    done = import_coco(review, ledger, file, "ben")
    assert (done.films, done.findings, done.regions) == (2, 3, 3)
    for film, edits in said.items():
        ben = ledger.state(film, "ben").assessments
        for finding, words in edits.items():
            if words.verdict != "unsure":  # a label that is not there says nothing
                assert assessment_to_json(ben[finding]) == assessment_to_json(words)
    again = import_coco(review, ledger, file, "ben")
    assert (again.films, again.findings, again.regions) == (0, 0, 0)


def test_an_import_scales_and_can_be_undone(review, ledger, tmp_path):
    document = {
        "images": [{"id": 7, "file_name": "doe-jane-1961-2.png", "width": 45, "height": 60}],
        "categories": [{"id": 4, "name": "Mass"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 4, "bbox": [5, 10, 20, 30]}],
    }
    file = tmp_path / "in.json"
    file.write_text(json.dumps(document))
    ledger.edit(2, "anna", {"Mass": Assessment("absent", (), "why")}, version=0, key="k")
    with pytest.raises(ConfigError, match="--replace"):
        import_coco(review, ledger, file, "anna")
    assert ledger.state(2, "anna").assessments["Mass"].verdict == "absent"
    assert import_coco(review, ledger, file, "anna", replacing=True).replaced == 1
    state = ledger.state(2, "anna")
    assert state.assessments["Mass"].verdict == "present"
    assert state.assessments["Mass"].comment == "why"
    assert state.assessments["Mass"].regions[0].shape == box(10, 20, 50, 80)
    state = ledger.undo(2, "anna", version=state.version, key="u")
    assert state.assessments["Mass"].verdict == "absent"


def test_all_faults_of_an_import_are_named_and_nothing_is_entered(review, ledger, tmp_path):
    image = {"id": 1, "image_id": "doe-jane-1961-0", "width": WIDTH, "height": HEIGHT}
    document = {
        "images": [
            {**image, "labels": {"Effusion": 0}},
            {"id": 2, "file_name": "elsewhere.png", "width": 5, "height": 5},
            {"id": 3, "image_id": "doe-jane-1961-1", "width": "wide", "height": 5},
        ],
        "categories": [{"id": 4, "name": "Mass"}, {"id": 5, "name": "Effusion"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 4, "bbox": [5, 10, 20, 30]},
            {"id": 2, "image_id": 1, "category_id": 4, "bbox": [500, 10, 20, 30]},
            {"id": 3, "image_id": 1, "category_id": 5, "bbox": [5, 10, 20, 30]},
            {"id": 4, "image_id": 1, "category_id": 6, "bbox": [5, 10, 20, 30]},
            {"id": 5, "image_id": 9, "category_id": 4, "bbox": [5, 10, 20, 30]},
            {"id": 6, "image_id": 1, "category_id": 4, "bbox": [5, 10]},
        ],
    }
    file = tmp_path / "in.json"
    file.write_text(json.dumps(document))
    with pytest.raises(DataError) as fault:
        import_coco(review, ledger, file, "anna")
    for words in (
        "elsewhere.png",
        "'wide'",
        "outside the film",
        "annotation 3: annotated but labelled absent",
        "category_id 6",
        "image_id 9",
        "annotation 6: needs a bbox",
    ):
        assert words in str(fault.value)
    assert list(ledger.changes()) == []
    file.write_text("[]")
    with pytest.raises(DataError, match="list 'images'"):
        import_coco(review, ledger, file, "anna")


def unpack(packed):
    """Label Studio's reader of its run lengths, bit by bit, as its documentation has it."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        if is_run:
            values += [read(word)] * length
        else:
            values += [read(word) for _ in range(length)]
    assert len(bits) - at < 8
    return np.array(values, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["noise", "block", "empty", "full", "large"])
def test_brush_masks_unpack_to_the_picture(kind):
    rng = np.random.default_rng(2)
    mask = np.zeros((31, 47), bool)
    if kind == "noise":
        mask = rng.random((31, 47)) < 0.5
    elif kind == "block":
        mask[5:20, 7:30] = True
    elif kind == "full":
        mask[:] = True
    elif kind == "large":
        mask = np.zeros((300, 200), bool)  # a run of more than 65,536 values
        mask[150:, :] = True
    picture = unpack(pack_mask(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(picture[..., 3] == 255, mask)
    assert set(np.unique(picture)) <= {0, 255}


def test_label_studio_tasks(review, ledger, said, tmp_path):
    file = tmp_path / "tasks.json"
    assert export_label_studio(review, decisions(review, ledger), file) == 3
    tasks = json.loads(file.read_text())
    interface = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    controls = {one.get("name"): one for one in interface.iter() if one.get("toName")}
    values = {name: {leaf.get("value") for leaf in one} for name, one in controls.items()}
    ids = []
    for task in tasks:
        assert set(task["data"]) == {"image", "image_id"}
        for result in task["annotations"][0]["result"]:
            ids.append(result["id"])
            kind, value = result["type"], result["value"]
            assert controls[result["from_name"]].tag.lower() == kind
            assert result["to_name"] == "image"
            assert set(value[kind]) <= values[result["from_name"]]
            if kind != "choices":
                assert (result["original_width"], result["original_height"]) == (WIDTH, HEIGHT)
    assert len(ids) == len(set(ids))
    results = {one["type"]: one["value"] for one in tasks[0]["annotations"][0]["result"]}
    rectangle = results["rectanglelabels"]
    assert rectangle["x"] * WIDTH / 100 == pytest.approx(4)
    assert rectangle["height"] * HEIGHT / 100 == pytest.approx(39.5)
    corners = np.array(results["polygonlabels"]["points"]) * (WIDTH, HEIGHT) / 100
    assert corners.tolist() == [pytest.approx(one) for one in [[50, 9], [80, 20.5], [60, 40]]]
    (brush,) = (
        one["value"] for one in tasks[1]["annotations"][0]["result"] if one["type"] == "brushlabels"
    )
    picture = unpack(brush["rle"]).reshape(HEIGHT, WIDTH, 4)
    shape = said[3]["Effusion"].regions[0].shape
    assert np.array_equal(picture[..., 3] > 0, rasterise([shape], (WIDTH, HEIGHT)))
    choices = [
        one["value"]["choices"]
        for one in tasks[1]["annotations"][0]["result"]
        if one["type"] == "choices"
    ]
    assert choices == [["unsure"], ["present"], ["absent"]]
