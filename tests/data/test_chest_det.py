import gzip
import json

import numpy as np
import pytest

from dwarf_cxr.data.chest_det import read_annotations, read_chest_det
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Polygon
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import CHESTX_DET_13

TRIANGLE = [[100, 100], [300, 120], [200, 400]]


def entry(name, *instances, **more):
    """`instances`: (finding, box, polygon)."""
    return {
        "file_name": name,
        "syms": [finding for finding, _, _ in instances],
        "boxes": [box for _, box, _ in instances],
        "polygons": [polygon for _, _, polygon in instances],
        **more,
    }


@pytest.fixture
def root(draw, tmp_path):
    for name in ("train_data/1.png", "train_data/2.png", "train_data/3.png", "test_data/4.png"):
        draw(name, 64, 32)
    train = [
        entry(
            "1.png",
            ("Mass", [100, 100, 300, 400], TRIANGLE),
            ("Mass", [5, 6, 70, 80], []),
            ("Diffuse Nodule", [1, 2, 30, 40], TRIANGLE),
        ),
        entry("2.png"),
        entry("3.png", ("Effusion", [1, 2, 30, 40], TRIANGLE)),
    ]
    (tmp_path / "ChestX_Det_train.json").write_text(json.dumps(train))
    test = json.dumps([entry("4.png", ("Mass", [1, 2, 30, 40], TRIANGLE))])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ChestX_Det_test.json.gz").write_bytes(gzip.compress(test.encode()))
    return tmp_path


def test_official_files_become_radiographs(root):
    data = read_chest_det(root)
    first, negative, _, held_out = data.radiographs
    assert [one.split for one in data.radiographs] == ["train", "train", "train", "test"]
    assert {name for name, label in first.labels.items() if label} == {"Mass", "Diffuse Nodule"}
    assert set(negative.labels) == set(CHESTX_DET_13)
    assert not any(negative.labels.values())
    assert isinstance(first.regions[0].shape, Polygon)
    np.testing.assert_array_equal(first.regions[0].shape.points, TRIANGLE)
    assert first.regions[1].shape == Box(5.0, 6.0, 70.0, 80.0)
    assert held_out.patient_id == held_out.image_id == "4"
    assert any("no patient ids" in note for note in data.notes)


def test_prepared_regions_are_scaled_and_their_union_taken(root, tmp_path):
    data = prepare(read_chest_det(root), tmp_path / "data", size=16)
    assert data.splits.count("val") == 1
    assert data.splits[3] == "test"
    got = data.coverage(0, "Mass", 16)
    assert data.widths[0], data.heights[0] == (64, 32)
    assert len(data.regions(0, "Mass")) == 2
    triangle = np.array(TRIANGLE) / 1024
    assert got.mean() == pytest.approx(
        abs(np.linalg.det(np.diff(triangle, axis=0))) / 2 + 65 * 74 / 1024**2, rel=0.1
    )


def test_one_file_with_splits_is_read(draw, tmp_path):
    for name in ("7.jpg", "8.jpg"):
        draw(f"images/{name}")
    entries = [entry("7.png", split="train"), entry("8.png", split="test")]
    (tmp_path / "mini.json").write_text(json.dumps(entries))
    assert [one.split for one in read_chest_det(tmp_path).radiographs] == ["train", "test"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("2.png", ("Flu", [1, 2, 3, 4], TRIANGLE)), "instance 1: unknown finding 'Flu'"),
        (entry("2.png", ("Mass", [9, 2, 3, 4], [])), "no area"),
        (entry("2.png", ("Mass", [1, 2, 3], [])), "a box of four numbers"),
        (entry("2.png", ("Mass", [1, 2, 3, 4], [[1, 2], [3]])), "polygon of"),
        (entry("2.png", ("Mass", [1, 2, 3, 4], [[1, 2], [3, 4]])), "three"),
        ({"file_name": "2.png", "syms": ["Mass"], "boxes": [], "polygons": []}, "equal length"),
        ({"syms": []}, "no 'file_name'"),
        (entry("2.png", split="later"), "unknown split 'later'"),
        ("2.png", "no 'file_name'"),
    ],
)
def test_bad_entries_are_named(root, bad, message):
    (root / "ChestX_Det_train.json").write_text(json.dumps([entry("1.png"), bad]))
    with pytest.raises(DataError, match=r"ChestX_Det_train\.json, entry 1") as caught:
        read_chest_det(root)
    assert message in str(caught.value)


def test_an_image_annotated_twice_is_refused(root):
    (root / "ChestX_Det_train.json").write_text(json.dumps([entry("1.png"), entry("4.png")]))
    with pytest.raises(DataError, match="annotated twice: 4"):
        read_chest_det(root)


def test_missing_images_and_files(root, tmp_path_factory):
    (root / "train_data" / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 annotated images .*: 2;"):
        read_chest_det(root)
    assert len(read_chest_det(root, missing="skip").radiographs) == 3
    with pytest.raises(DataError, match="holds neither"):
        read_chest_det(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("content", [b"{", b"{}", b"\x1f\x8b nonsense", b"\xff\xfe["])
def test_a_damaged_file_is_named(root, content):
    for name in ("ChestX_Det_train.json", "sub/ChestX_Det_test.json.gz"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(content)
        with pytest.raises(DataError, match=name.rsplit("/")[-1]):
            read_chest_det(root)
        (root / name).write_bytes(whole)


@pytest.mark.data
def test_official_annotations_have_the_published_counts(shared_data):
    folder = shared_data / "annotations"
    train = read_annotations(folder / "ChestX_Det_train.json.gz")
    test = read_annotations(folder / "ChestX_Det_test.json.gz")
    assert (len(train), len(test)) == (3025, 553)
    assert not train.keys() & test.keys()

    def images_with(part, finding):
        return sum(any(region.finding == finding for region in drawn) for drawn in part.values())

    published = {
        "Atelectasis": (249, 48),
        "Calcification": (164, 38),
        "Cardiomegaly": (223, 70),
        "Consolidation": (1349, 293),
        "Diffuse Nodule": (133, 36),
        "Effusion": (1185, 256),
        "Emphysema": (137, 39),
        "Fibrosis": (418, 82),
        "Fracture": (313, 76),
        "Mass": (115, 33),
        "Nodule": (313, 79),
        "Pleural Thickening": (412, 87),
        "Pneumothorax": (154, 35),
    }
    assert {f: (images_with(train, f), images_with(test, f)) for f in CHESTX_DET_13} == published
    assert sum(not drawn for drawn in train.values()) == 547
    assert sum(not drawn for drawn in test.values()) == 64


@pytest.mark.data
def test_development_images(shared_data, tmp_path):
    data = prepare(read_chest_det(shared_data / "chestxdet_mini"), tmp_path / "data", size=32)
    index = data.image_ids.index("36216")
    assert data.splits[data.image_ids.index("36199")] == "test"
    assert {f for f in data.findings if data.regions(index, f)} == {"Consolidation", "Effusion"}
    assert data.coverage(index, "Effusion", 32).sum() > 0


@pytest.mark.parametrize(
    ("finding", "box"), [(["Mass"], [1, 2, 3, 4]), ("Mass", [1, 2, 10**400, 4]), ("Mass", "1289")]
)
def test_a_malformed_instance_is_named(root, finding, box):
    path = root / "sub" / "ChestX_Det_test.json.gz"
    path.write_bytes(gzip.compress(json.dumps([entry("4.png", (finding, box, []))]).encode()))
    with pytest.raises(DataError, match=r"entry 0 \(4\.png\), instance 1"):
        read_chest_det(root)
