import json

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from dwarf_cxr.data.coco import AnnotatedImage, read_coco, shapes_from_coco, to_coco
from dwarf_cxr.data.geometry import encode_mask
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Mask, Polygon, Region
from dwarf_cxr.errors import DataError


@pytest.fixture
def document(draw):
    """Three 24×16 films: a box, a polygon and run lengths on the first, nothing on the last."""
    for name in ("films/a.png", "films/b.png", "films/c.png"):
        draw(name)
    images = [
        {"id": 10 * n, "file_name": f"{name}.png", "width": 24, "height": 16}
        for n, name in enumerate("abc", start=1)
    ]
    images[0] |= {"patient_id": "p1", "split": "train", "text": "a mass"}
    images[1] |= {"patient_id": "p2", "split": "test", "labels": {"Edema": 0}}
    images[2] |= {"patient_id": "p3", "split": "val", "labels": {"Mass": 1, "Edema": 0}}
    runs = coco_masks.encode(np.asfortranarray(np.eye(16, 24, dtype=np.uint8)))
    return {
        "info": {"description": "my films"},
        "images": images,
        "categories": [{"id": 1, "name": "Mass"}, {"id": 5, "name": "Edema"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 1, "bbox": [1, 2, 3.5, 4]},
            {
                "id": 2,
                "image_id": 10,
                "category_id": 5,
                "segmentation": [[1, 1, 9, 1, 9, 9], [12, 2, 20, 2, 12, 9]],
                "annotator": "reader 2",
                "kind": "pseudo",
            },
            {
                "id": 3,
                "image_id": 20,
                "category_id": 1,
                "segmentation": {"size": [16, 24], "counts": runs["counts"].decode()},
            },
            {
                "id": 4,
                "image_id": 20,
                "category_id": 1,
                "segmentation": {"size": [16, 24], "counts": [0, 5, 379]},
            },
        ],
    }


@pytest.fixture
def write(tmp_path):
    def to_file(document):
        path = tmp_path / "coco.json"
        path.write_text(json.dumps(document))
        return path

    return to_file


def test_boxes_polygons_and_both_forms_of_run_lengths_are_read(document, write):
    data = read_coco(write(document))
    first, second, third = data.radiographs
    assert data.name == "my films"
    assert data.findings == ("Mass", "Edema")
    assert (first.image_id, first.patient_id, first.split, first.text) == (
        "a", "p1", "train", "a mass",
    )  # fmt: skip
    assert first.regions[0].shape == Box(1.0, 2.0, 4.5, 6.0)
    assert [type(region.shape) for region in first.regions] == [Box, Polygon, Polygon]
    assert (first.regions[1].annotator, first.regions[1].kind) == ("reader 2", "pseudo")
    assert isinstance(second.regions[0].shape, Mask)
    assert second.regions[0].shape.counts == encode_mask(np.eye(16, 24, dtype=bool)).counts
    assert third.labels == {"Mass": True, "Edema": False}


def test_without_annotation_or_label_a_finding_was_never_assessed(document, write):
    del document["images"][1]["labels"], document["images"][2]["labels"]
    path = write(document)
    _, second, third = read_coco(path).radiographs
    assert second.labels == {"Mass": True}
    assert third.labels == {}
    data = read_coco(path, assume_absent=True)
    assert data.radiographs[2].labels == {"Mass": False, "Edema": False}
    assert any("taken as absent" in note for note in data.notes)


def test_without_patient_ids_every_image_is_its_own_patient(document, write):
    for image in document["images"]:
        del image["patient_id"]
    data = read_coco(write(document))
    assert [one.patient_id for one in data.radiographs] == ["a", "b", "c"]
    assert any("no patient ids" in note for note in data.notes)


@pytest.mark.parametrize(
    ("part", "position", "fields", "message"),
    [
        ("annotations", 0, {"bbox": [1, 2, 0, 4]}, "annotation 1: box .* no area"),
        ("annotations", 0, {"bbox": [1, 2, float("nan"), 4]}, "annotation 1: .*not finite"),
        ("annotations", 0, {"bbox": [1, 2, 3]}, "annotation 1: needs a bbox of four numbers"),
        ("annotations", 0, {"bbox": None}, "annotation 1: needs a bbox"),
        ("annotations", 0, {"category_id": 9}, "annotation 1: category_id 9 is not among"),
        ("annotations", 0, {"image_id": 9}, "annotation 1: image_id 9 is not among"),
        ("annotations", 0, {"image_id": [9]}, r"annotation 1: image_id \[9\] is not among"),
        ("annotations", 0, {"kind": "guess"}, "annotation 1: kind 'guess'"),
        ("annotations", 1, {"segmentation": [[1, 1, 2]]}, "annotation 2: needs"),
        ("annotations", 1, {"segmentation": [[1, 1, 2, 2]]}, "annotation 2: polygon .*three"),
        ("annotations", 2, {"segmentation": {"size": [16, 24]}}, "annotation 3: needs"),
        (
            "annotations",
            3,
            {"segmentation": {"size": [16, 24], "counts": [1, 2]}},
            "annotation 4: mask runs over 3 pixels",
        ),
        ("images", 0, {"file_name": "z.png"}, r"z\.png: no such file"),
        ("images", 0, {"width": "wide"}, "image 10: needs a whole 'width'"),
        ("images", 0, {"width": 0}, "image 10: width and height .* must be positive"),
        ("images", 0, {"image_id": "b"}, "image id given twice: b"),
        ("images", 0, {"labels": {"Mass": 0}}, "image 10: annotated but labelled absent: Mass"),
        ("images", 2, {"labels": {"Mass": 0.5}}, "image 30: label 0.5 of 'Mass'"),
        ("images", 2, {"labels": {"Mass": -1}}, "image 30: label -1 of 'Mass'"),
        ("images", 2, {"labels": {"Mass": None}}, "image 30: label None of 'Mass'"),
        ("images", 2, {"labels": {"Cold": 1}}, "image 30: label of the unknown finding 'Cold'"),
        ("categories", 1, {"name": "Mass"}, "second category of the finding 'Mass'"),
        ("categories", 1, {"id": 1}, "id is given twice"),
        ("categories", 1, {"name": None}, "category 5 at position 1: needs"),
    ],
)
def test_faults_are_named(document, write, part, position, fields, message):
    document[part][position] |= fields
    with pytest.raises(DataError, match=message):
        read_coco(write(document))


def test_all_faults_are_listed_at_once(document, write):
    document["annotations"][0]["bbox"] = [1, 2, 0, 4]
    document["annotations"][1]["category_id"] = 9
    document["images"][2]["labels"] = {"Mass": 7}
    with pytest.raises(DataError) as caught:
        read_coco(write(document))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [1], "annotations": []}', "{"])
def test_what_is_no_coco_file_is_refused(tmp_path, content):
    path = tmp_path / "coco.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"coco\.json: (needs a list|not valid JSON)"):
        read_coco(path)


def test_a_mask_of_another_size_than_its_image_is_refused(document, write, tmp_path):
    document["annotations"][3]["segmentation"] = {"size": [4, 4], "counts": [0, 5, 11]}
    with pytest.raises(DataError, match=r"'b', region 2 .*mask of 4×4 on an image of 24×16"):
        prepare(read_coco(write(document)), tmp_path / "data", size=8)


def test_written_regions_are_understood_by_pycocotools_and_read_back(tmp_path):
    pixels = np.random.default_rng().random((16, 24)) < 0.4
    triangle = np.array([(1.5, 2.0), (20.0, 3.0), (7.0, 14.25)])
    shapes = (Box(1.25, 2.0, 9.0, 8.5), Polygon(triangle), encode_mask(pixels))
    drawn = tuple(Region("Edema", shape, "reader 1", "pseudo") for shape in shapes)
    image = AnnotatedImage("film", "film.png", 24, 16, "p", "train", drawn)
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(to_coco([image], ("Mass", "Edema"), "test")))
    coco = COCO(str(path))
    first, second, third = coco.loadAnns(coco.getAnnIds(imgIds=1, catIds=2))
    assert first["bbox"] == [1.25, 2.0, 7.75, 6.5]
    assert coco.annToMask(second).sum() == pytest.approx(second["area"], rel=0.1)
    np.testing.assert_array_equal(coco.annToMask(third).astype(bool), pixels)
    assert third["kind"] == "pseudo"
    box, polygon, mask = (shapes_from_coco(one, "here")[0] for one in (first, second, third))
    assert box == shapes[0]
    assert isinstance(polygon, Polygon)
    np.testing.assert_array_equal(polygon.points, triangle)
    assert isinstance(mask, Mask)
    assert mask.counts == encode_mask(pixels).counts


def test_the_patient_0_is_one_patient(document, write):
    for image, patient in zip(document["images"], (0, 0, "0 "), strict=True):
        image["patient_id"] = patient
    assert {one.patient_id for one in read_coco(write(document)).radiographs} == {"0"}


def test_images_without_patient_id_among_others_are_noted(document, write):
    del document["images"][1]["patient_id"]
    (note,) = read_coco(write(document)).notes
    assert note.startswith("1 of 3 images have no patient ids")


def test_blanks_around_a_finding_are_no_part_of_it(document, write):
    document["categories"][0]["name"] = " Mass "
    assert read_coco(write(document)).findings == ("Mass", "Edema")


@pytest.mark.parametrize(
    ("part", "position", "fields"),
    [
        ("images", 0, {"width": float("inf")}),
        ("images", 0, {"width": 24.5}),
        ("images", 0, {"patient_id": 1.5}),
        ("annotations", 0, {"bbox": [10**400, 1, 2, 3]}),
        ("annotations", 0, {"bbox": "1234"}),
        ("annotations", 2, {"segmentation": {"size": [16, 24], "counts": [float("inf")]}}),
        ("annotations", 2, {"segmentation": {"size": [16, 24], "counts": [10.5, 10.2, 364]}}),
        ("annotations", 2, {"segmentation": {"size": [-16, -24], "counts": [10, 10, 364]}}),
    ],
)
def test_numbers_that_cannot_be_are_refused(document, write, part, position, fields):
    document[part][position] |= fields
    with pytest.raises(DataError, match=r"image 10|annotation [13]"):
        read_coco(write(document))
