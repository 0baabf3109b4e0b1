"""Regions are drawn where they are, for every reader, whatever the size of the image file."""

import dataclasses
import json

import numpy as np
import pytest

from dwarf_cxr.data.chest_det import read_chest_det
from dwarf_cxr.data.chexlocalize import read_chexlocalize
from dwarf_cxr.data.chexpert_boxes import read_chexpert_boxes
from dwarf_cxr.data.coco import read_coco
from dwarf_cxr.data.geometry import encode_mask
from dwarf_cxr.data.nih import read_nih
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Polygon
from dwarf_cxr.data.rsna import read_rsna
from dwarf_cxr.data.table import read_csv
from dwarf_cxr.data.vindr import read_vindr
from tests import dicom_files
from tests.data import made_chexpert, made_rsna, made_vindr
from tests.data.made_films import write_film
from tests.data.made_nih import FRAME, MadeFilm, write_nih
from tests.data.places import assert_outlines_enclose_what_is_bright

SQUARE_SIZES = [(1024, 1024), (512, 512), (300, 300)]
"""Of image files whose regions are given in the 1024×1024 frame."""

PLACES = {"low": (256.0, 512.0, 768.0, 768.0), "corner": (768.0, 0.0, 1024.0, 512.0)}
"""Corners in that frame which fall between pixels at all three sizes; off the diagonal, so that
a change of x and y shows."""

OTHER_SIZES = [(900, 600), (300, 400), (120, 250)]
"""(width, height) of files whose regions are in their own pixels."""


def own_place(size):
    """A box in pixels of the file: wide, low, and off the middle."""
    width, height = size
    return width // 10, height // 5 * 3, width // 2, height // 10 * 9


@pytest.mark.parametrize("size", SQUARE_SIZES)
def test_nih(tmp_path, size):
    films = tuple(
        MadeFilm(number, labels="Mass", boxes=(("Mass", x1, y1, x2 - x1, y2 - y1),), size=size)
        for number, (x1, y1, x2, y2) in enumerate(PLACES.values(), start=1)
    )
    source = read_nih(write_nih(tmp_path / "nih", films, year="v2020"))
    assert assert_outlines_enclose_what_is_bright(source, tmp_path) == 2


@pytest.mark.parametrize("size", SQUARE_SIZES)
def test_chest_det(tmp_path, size):
    entries = []
    for name, (x1, y1, x2, y2) in PLACES.items():
        write_film(tmp_path / "images" / f"{name}.png", size, [(x1, y1, x2, y2)], FRAME)
        outline = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
        entries.append(
            {
                "file_name": f"{name}.png",
                "syms": ["Effusion"],
                "boxes": [[x1, y1, x2, y2]],
                "polygons": [outline if name == "low" else []],
            }
        )
    (tmp_path / "ChestX_Det_train.json").write_text(json.dumps(entries))
    source = read_chest_det(tmp_path)
    assert [type(one.regions[0].shape) for one in source.radiographs] == [Polygon, Box]
    assert assert_outlines_enclose_what_is_bright(source, tmp_path) == 2


@pytest.mark.parametrize("size", SQUARE_SIZES)
def test_rsna(tmp_path, size):
    drawn = {}
    for name, (x1, y1, x2, y2) in PLACES.items():
        write_film(tmp_path / f"{name}.png", size, [(x1, y1, x2, y2)], FRAME)
        drawn[name] = ("Lung Opacity", [(x1, y1, x2 - x1, y2 - y1)])
    made_rsna.write_challenge(tmp_path, drawn)
    assert assert_outlines_enclose_what_is_bright(read_rsna(tmp_path), tmp_path) == 2


@pytest.mark.parametrize("size", [(600, 900), (300, 450), (200, 200)])
def test_vindr_in_pixels_of_the_original_dicom(tmp_path, size):
    """Also of a release that squeezes films to squares."""
    original, box = (600, 900), (90.0, 450.0, 300.0, 792.0)
    write_film(tmp_path / "film.png", size, [box], original)
    made_vindr.write_test(tmp_path, {"film": [("Pleural effusion", box)]})
    made_vindr.write_sizes(tmp_path, "test", {"film": original})
    assert assert_outlines_enclose_what_is_bright(read_vindr(tmp_path), tmp_path) == 1


@pytest.mark.parametrize("suffix", [".dicom", ".dcm"])
def test_vindr_as_it_comes_in_dicom_files(tmp_path, suffix):
    """The official release: no table gives sizes, boxes are in pixels of the DICOM files."""
    boxes = {"raw": (90, 450, 300, 792), "packed": (300, 60, 780, 120), "inverted": (0, 0, 88, 599)}
    sizes = {"raw": (600, 900), "packed": (800, 500), "inverted": (300, 600)}
    ways = {
        "raw": {"transfer_syntax": dicom_files.RAW},
        "packed": {"transfer_syntax": dicom_files.JPEG_2000},
        "inverted": {"transfer_syntax": dicom_files.DEFLATED, "photometric": "MONOCHROME1"},
    }
    readings = {}
    for name, (x1, y1, x2, y2) in boxes.items():
        width, height = sizes[name]
        bright = np.zeros((height, width), bool)
        bright[y1:y2, x1:x2] = True
        dark, white = (4000, 100) if name == "inverted" else (100, 4000)
        content = dicom_files.dicom_bytes(
            np.where(bright, white, dark), patient_id=name, **ways[name]
        )
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / f"{name}{suffix}").write_bytes(content)
        wider = (x1, y1, x2 + 5, y2)
        readings[name] = {
            "R1": [("Pleural effusion", boxes[name])],
            "R2": [("Pleural effusion", wider)],
            "R3": [],
        }
    made_vindr.write_train(tmp_path / "annotations", readings)
    data = read_vindr(tmp_path)
    for one in data.radiographs:
        assert one.region_frame == sizes[one.image_id]
        assert [region.shape for region in one.regions] == [Box(*map(float, boxes[one.image_id]))]
    assert assert_outlines_enclose_what_is_bright(data, tmp_path / "shown") == 3
    prepared = prepare(data, tmp_path / "data", size=100, progress=lambda done, total: None)
    for index in range(3):
        coverage = prepared.coverage(index, "Effusion", 100)
        np.testing.assert_allclose(prepared.pixels[index] / 255, coverage, atol=0.02)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("size", [(900, 600), (450, 300), (150, 100)])
def test_chexlocalize(tmp_path, split, size):
    original, box = (900, 600), (90.0, 360.0, 450.0, 540.0)
    view = "patient64541_study1_view1_frontal"
    film = tmp_path / "CheXpert" / split / "patient64541" / "study1" / "view1_frontal.png"
    write_film(film, size, [box], original)
    table = tmp_path / "CheXpert" / f"{split}_labels.csv"
    present = {"Pleural Effusion": "1.0"}
    if split == "val":
        key = "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
        made_chexpert.write_valid_table(table, {key: present}, otherwise="0.0")
    else:
        key = "test/patient64541/study1/view1_frontal.jpg"
        made_chexpert.write_test_table(table, {key: present})
    made_chexpert.write_json(
        tmp_path / "CheXlocalize" / f"gt_annotations_{split}.json",
        {view: {"img_size": [600, 900], "Pleural Effusion": [made_chexpert.rectangle(*box)]}},
    )
    assert assert_outlines_enclose_what_is_bright(read_chexlocalize(tmp_path), tmp_path) == 1


@pytest.mark.parametrize("size", OTHER_SIZES)
def test_chexpert_boxes(tmp_path, size):
    corners = own_place(size)
    key = "train/patient40093/study4/view1_frontal.jpg"
    write_film(tmp_path / "CheXpert-v1.0" / key.replace(".jpg", ".png"), size, [corners])
    made_chexpert.write_valid_table(
        tmp_path / "CheXpert-v1.0" / "train.csv",
        {f"CheXpert-v1.0/{key}": {"Cardiomegaly": "1.0"}},
        otherwise="",
    )
    boxes = {key: {"Cardiomegaly": [list(corners)]}}
    made_chexpert.write_json(tmp_path / "BBoxes.json", boxes)
    assert assert_outlines_enclose_what_is_bright(read_chexpert_boxes(tmp_path), tmp_path) == 1


@pytest.mark.parametrize("size", OTHER_SIZES)
def test_coco_box_polygon_and_mask(tmp_path, size):
    x1, y1, x2, y2 = own_place(size)
    mask = np.zeros(size[::-1], dtype=bool)
    mask[y1:y2, x1:x2] = True
    drawn = {
        "box": {"bbox": [x1, y1, x2 - x1, y2 - y1]},
        "polygon": {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]},
        "mask": {
            "segmentation": {"size": list(size[::-1]), "counts": list(encode_mask(mask).counts)}
        },
    }
    images, annotations = [], []
    for number, (name, shape) in enumerate(drawn.items(), start=1):
        write_film(tmp_path / f"{name}.png", size, [(x1, y1, x2, y2)])
        image = {"id": number, "file_name": f"{name}.png", "width": size[0], "height": size[1]}
        images.append(image)
        annotations.append({"id": number, "image_id": number, "category_id": 1, **shape})
    document = {"images": images, "annotations": annotations}
    document["categories"] = [{"id": 1, "name": "Mass"}]
    (tmp_path / "coco.json").write_text(json.dumps(document))
    assert assert_outlines_enclose_what_is_bright(read_coco(tmp_path / "coco.json"), tmp_path) == 3


@pytest.mark.parametrize("size", [(600, 900), (300, 450), (150, 225)])
def test_coco_whose_files_are_smaller_than_it_says(tmp_path, size):
    frame, corners = (600, 900), (80, 400, 320, 800)
    write_film(tmp_path / "film.png", size, [corners], frame)
    document = {
        "images": [{"id": 1, "file_name": "film.png", "width": frame[0], "height": frame[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [80, 400, 240, 400]}],
        "categories": [{"id": 1, "name": "Mass"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    assert assert_outlines_enclose_what_is_bright(read_coco(tmp_path / "coco.json"), tmp_path) == 1


@pytest.mark.parametrize("size", OTHER_SIZES)
def test_csv(tmp_path, size):
    corners = own_place(size)
    write_film(tmp_path / "films" / "film.png", size, [corners])
    (tmp_path / "images.csv").write_text("image_id,patient_id,Mass\nfilm,1,1\n")
    box = ",".join(map(str, corners))
    (tmp_path / "regions.csv").write_text(f"image_id,finding,x1,y1,x2,y2\nfilm,Mass,{box}\n")
    assert assert_outlines_enclose_what_is_bright(read_csv(tmp_path), tmp_path) == 1


def test_the_check_sees_regions_that_lie_elsewhere(tmp_path):
    """Turned, shifted by a twentieth of the film, or of another frame: each is found."""
    x1, y1, x2, y2 = PLACES["low"]
    film = MadeFilm(1, labels="Mass", boxes=(("Mass", x1, y1, x2 - x1, y2 - y1),), size=(300, 300))
    source = read_nih(write_nih(tmp_path / "nih", (film,), year="v2020"))
    (one,) = source.radiographs
    wrong = {
        "turned": (Box(y1, x1, y2, x2), FRAME),
        "shifted": (Box(x1 + 50, y1, x2 + 50, y2), FRAME),
        "too large": (Box(x1 - 50, y1 - 50, x2 + 50, y2 + 50), FRAME),
        "too small": (Box(x1 + 50, y1 + 50, x2 - 50, y2 - 50), FRAME),
        "frame": (Box(x1, y1, x2, y2), (1200, 1200)),
    }
    for name, (box, frame) in wrong.items():
        region = dataclasses.replace(one.regions[0], shape=box)
        moved = dataclasses.replace(one, regions=(region,), region_frame=frame)
        elsewhere = dataclasses.replace(source, radiographs=(moved,))
        with pytest.raises(AssertionError, match=r"outside the outline|pixels off"):
            assert_outlines_enclose_what_is_bright(elsewhere, tmp_path / name)
