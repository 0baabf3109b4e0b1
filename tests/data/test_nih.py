import csv

import pytest

from dwarf_cxr.data.nih import read_nih
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import NIH_14
from tests.data.made_nih import FRAME, MadeFilm, write_nih

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def row(name, labels, patient):
    return f"{name},{labels},0,{patient},60,F,PA,2500,2048,0.168,0.168"


@pytest.fixture
def root(draw, tmp_path):
    """Three films: one beside the tables' names, one as JPEG, in two folders."""
    draw("images_001/images/00000001_000.png", 64, 64)
    draw("images_002/images/00000001_001.jpg", 32, 32)
    draw("images_002/images/00000002_000.png", 64, 64)
    write_labels(
        tmp_path,
        row("00000001_000.png", "No Finding", 1),
        row("00000001_001.png", "Infiltration|Pleural_Thickening", 1),
        row("00000002_000.png", "Mass", 2),
    )
    write_boxes(
        tmp_path,
        "00000001_001.png,Infiltrate,100.5,200.25,300,400.5",
        "00000002_000.png,Nodule,1,2,3,4",
        "99999999_000.png,Mass,1,2,3,4",
    )
    return tmp_path


def write_labels(root, *rows, name="Data_Entry_2017_v2020.csv", header=HEADER):
    (root / name).write_text("\r\n".join([header, *rows]) + "\r\n", encoding="utf-8-sig")


def write_boxes(root, *rows):
    text = "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *rows])
    (root / "BBox_List_2017.csv").write_text(text)


def test_labels_boxes_and_images_come_together(root):
    data = read_nih(root)
    assert data.findings == NIH_14
    assert [one.image_id for one in data.radiographs] == [
        "00000001_000", "00000001_001", "00000002_000",
    ]  # fmt: skip
    assert [one.patient_id for one in data.radiographs] == ["1", "1", "2"]
    healthy, second, third = data.radiographs
    assert set(healthy.labels) == set(NIH_14)
    assert not any(healthy.labels.values())
    assert {name for name, label in second.labels.items() if label} == {
        "Infiltration", "Pleural Thickening",
    }  # fmt: skip
    assert second.path.name == "00000001_001.jpg"
    assert second.regions[0].finding == "Infiltration"
    assert second.regions[0].shape == Box(100.5, 200.25, 400.5, 600.75)
    assert second.region_frame == (1024, 1024)
    # A box on a finding that is labelled absent: kept and counted.
    assert third.regions[0].finding == "Nodule"
    assert not third.labels["Nodule"]
    assert any("1 boxes lie on findings that the labels call absent" in note for note in data.notes)
    assert any("1 boxes are of images that the labels do not list" in note for note in data.notes)


def test_boxes_are_scaled_to_the_image_file(root, tmp_path):
    data = prepare(read_nih(root), tmp_path / "data", size=16)
    index = data.image_ids.index("00000001_001")
    (region,) = data.regions(index, "Infiltration")
    assert region.shape == Box(100.5 / 32, 200.25 / 32, 400.5 / 32, 600.75 / 32)


def test_older_table_with_its_empty_last_column_is_read(root):
    (root / "Data_Entry_2017_v2020.csv").unlink()
    write_labels(
        root,
        row("00000002_000.png", "Mass", 2) + ",",
        name="Data_Entry_2017.csv",
        header=HEADER + ",",
    )
    assert [one.image_id for one in read_nih(root).radiographs] == ["00000002_000"]


def test_without_boxes_there_is_a_note(root):
    (root / "BBox_List_2017.csv").unlink()
    assert any("no finding has a region" in note for note in read_nih(root).notes)


def test_missing_images_are_counted_and_named_or_skipped(root):
    (root / "images_002/images/00000001_001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images .*00000001_001\.png.*--skip-missing"):
        read_nih(root)
    data = read_nih(root, missing="skip")
    assert len(data.radiographs) == 2
    assert any("left out" in note for note in data.notes)


def test_skipping_every_image_is_still_an_error(root):
    for image in [*root.rglob("*.png"), *root.rglob("*.jpg")]:
        image.unlink()
    with pytest.raises(DataError, match="3 of 3 images"):
        read_nih(root, missing="skip")


def test_faulty_rows_are_all_listed(root):
    write_labels(
        root,
        row("00000001_000.png", "No Finding|Mass", 1),
        row("00000001_001.png", "Flu", 1),
        row("00000002_000.png", "Mass", ""),
        row("00000003_000.png", "Mass", 3),
        row("00000003_000.png", "Mass", 3),
    )
    with pytest.raises(DataError) as caught:
        read_nih(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "line 2: unknown finding 'No Finding'" in lines[0]
    assert "line 3: unknown finding 'Flu'" in lines[1]
    assert "line 4: no image name or no patient id" in lines[2]
    assert "line 6: image 00000003_000.png is listed twice" in lines[3]


def test_faulty_boxes_are_all_listed(root):
    write_boxes(
        root,
        "00000002_000.png,Mass,1,2,0,4",
        "00000002_000.png,Mass,1,2,nan,4",
        "00000002_000.png,Mass,1,two,3,4",
        "00000002_000.png,Cold,1,2,3,4",
    )
    with pytest.raises(DataError) as caught:
        read_nih(root)
    lines = str(caught.value).splitlines()
    for line, words in zip(lines, ("no area", "no area", "numbers", "'Cold'"), strict=True):
        assert words in line
    assert "line 3" in lines[1]


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(DataError, match=r"holds neither Data_Entry_2017_v2020\.csv nor"):
        read_nih(tmp_path)


WHOLE = (
    MadeFilm(1, 0, "Cardiomegaly", (("Cardiomegaly", 256.0, 512.0, 512.0, 256.0),), in_list="test"),
    MadeFilm(1, 1, "Cardiomegaly|Emphysema", in_list="test"),
    MadeFilm(2, 0),
    MadeFilm(3, 0, "Hernia", size=(1024, 1024)),
    MadeFilm(
        4,
        0,
        "Infiltration|Pneumonia",
        (("Infiltrate", 0.0, 256.0, 256.0, 512.0), ("Pneumonia", 768.0, 0.0, 256.0, 1024.0)),
        size=(300, 300),
        suffix=".jpg",
    ),
    *(MadeFilm(patient, 3, "Pleural_Thickening|Mass") for patient in range(5, 12)),
    MadeFilm(12, 0, "Nodule", size=(32, 64), in_list="test"),
    MadeFilm(30805, 0, "Edema", in_list=None),
)


@pytest.mark.parametrize("year", ["2017", "v2020"])
@pytest.mark.parametrize("official", [False, True])
def test_the_whole_layout_comes_back_as_it_was_written(tmp_path, year, official):
    root = write_nih(tmp_path / "nih", WHOLE, year=year)
    data = read_nih(root, official_splits=official)
    kept = [film for film in WHOLE if film.in_list or not official]
    assert len(kept) == (13 if official else 14)
    splits = {"train_val": "train", "test": "test"}
    for film, one in zip(kept, data.radiographs, strict=True):
        written = set() if film.labels == "No Finding" else set(film.labels.split("|"))
        assert one.image_id == film.stem
        assert one.patient_id == str(film.patient)
        assert one.path.name == film.stem + film.suffix
        assert one.path.parent.name == "images"
        assert set(one.labels) == set(NIH_14)
        assert {name for name, label in one.labels.items() if label} == {
            name.replace("_", " ") for name in written
        }
        assert [(region.finding, region.shape) for region in one.regions] == [
            (finding.replace("Infiltrate", "Infiltration"), Box(x, y, x + width, y + height))
            for finding, x, y, width, height in film.boxes
        ]
        assert one.region_frame == FRAME
        assert one.split == (splits[film.in_list] if official else None)
    folders = {one.path.parent.parent.name for one in data.radiographs}
    assert folders >= {f"images_{number:03}" for number in range(1, 12)}


def test_without_the_official_lists_all_images_are_split_by_patient(tmp_path):
    data = prepare(read_nih(write_nih(tmp_path / "nih", WHOLE, year="v2020")), tmp_path / "d")
    assert len(data.image_ids) == 14
    assert data.splits[0] == data.splits[1]
    assert any("splits made by patient" in note for note in data.notes)


def test_official_splits_leave_out_what_no_list_names_and_say_where_the_boxes_are(tmp_path):
    root = write_nih(tmp_path / "nih", WHOLE, year="v2020")
    data = prepare(read_nih(root, official_splits=True), tmp_path / "data", size=16)
    assert data.splits.count("test") == 3
    assert data.splits.count("train") + data.splits.count("val") == 10
    assert any("1 of 14 images are in neither" in note for note in data.notes)
    assert any("1 of 2 images with boxes are in the test list" in note for note in data.notes)


def test_faulty_official_lists_are_all_named(tmp_path):
    root = write_nih(tmp_path / "nih", WHOLE, year="v2020")
    (root / "train_val_list.txt").write_text("00000002_000.png\n00000002_000.png\n")
    (root / "test_list.txt").write_text("00000002_000.png")
    with pytest.raises(DataError) as caught:
        read_nih(root, official_splits=True)
    first, second = str(caught.value).splitlines()
    assert "train_val_list.txt: listed twice: 00000002_000" in first
    assert "test_list.txt: also in train_val_list.txt: 00000002_000" in second
    (root / "train_val_list.txt").unlink()
    with pytest.raises(DataError, match=r"holds no train_val_list\.txt"):
        read_nih(root, official_splits=True)
    read_nih(root)


@pytest.mark.parametrize("content", [b"", b"other.png\n"])
def test_lists_of_other_images_are_refused(tmp_path, content):
    root = write_nih(tmp_path / "nih", WHOLE, year="v2020")
    (root / "train_val_list.txt").write_bytes(b"")
    (root / "test_list.txt").write_bytes(content)
    with pytest.raises(DataError, match="name none of the images"):
        read_nih(root, official_splits=True)


def test_a_patient_in_both_official_lists_is_refused(tmp_path):
    films = (MadeFilm(1, 0), MadeFilm(1, 1, in_list="test"), MadeFilm(2, 0))
    source = read_nih(write_nih(tmp_path / "nih", films, year="v2020"), official_splits=True)
    with pytest.raises(DataError, match="1 patients are in two splits"):
        prepare(source, tmp_path / "data")


def write_opacities(root, *, boxes=True):
    """RSNA's radiologists read the first two films, and saw the opacity on the second."""
    (root / "rsna_classes.csv").write_text(
        "Image Index,rsna_class\n00000001_000.png,No Lung Opacity / Not Normal\n"
        "00000001_001.png,Lung Opacity\n99999999_000.png,Normal\n"
    )
    if boxes:
        (root / "rsna_lung_opacity_boxes.csv").write_text(
            "Image Index,x1,y1,x2,y2\n00000001_001.png,10,20.5,300,400\n"
            "00000001_001.png,500,600,700,1000\n"
        )


def test_lung_opacity_of_other_radiologists_joins_where_they_read(root):
    write_opacities(root)
    assert read_nih(root).findings == NIH_14  # not unless it is asked for
    data = read_nih(root, lung_opacity=True)
    assert data.findings == (*NIH_14, "Lung Opacity")
    read, opaque, unread = data.radiographs
    assert read.labels["Lung Opacity"] is False
    assert read.regions == ()
    assert opaque.labels["Lung Opacity"] is True
    assert opaque.labels["Infiltration"] is True
    assert [(one.finding, one.shape, one.annotator) for one in opaque.regions] == [
        ("Infiltration", Box(100.5, 200.25, 400.5, 600.75), "NIH radiologist"),
        ("Lung Opacity", Box(10.0, 20.5, 300.0, 400.0), "RSNA radiologists"),
        ("Lung Opacity", Box(500.0, 600.0, 700.0, 1000.0), "RSNA radiologists"),
    ]
    assert "Lung Opacity" not in unread.labels
    assert any("on 2 of 3 images and seen on 1" in note for note in data.notes)
    assert "RSNA" in data.licence
    assert "Shih" in data.citation


def test_lung_opacity_without_its_tables(root):
    with pytest.raises(DataError, match=r"holds no rsna_classes\.csv"):
        read_nih(root, lung_opacity=True)
    write_opacities(root, boxes=False)
    data = read_nih(root, lung_opacity=True)
    regions = [region for one in data.radiographs for region in one.regions]
    assert not any(region.finding == "Lung Opacity" for region in regions)
    assert any("no image has a region" in note for note in data.notes)


def test_a_box_where_no_opacity_was_seen_is_refused(root):
    write_opacities(root)
    with (root / "rsna_lung_opacity_boxes.csv").open("a") as file:
        file.write("00000001_000.png,1,2,3,4\n")
    with pytest.raises(DataError, match="a box on image 00000001_000"):
        read_nih(root, lung_opacity=True)


@pytest.mark.data
def test_development_radiographs(shared_data, tmp_path):
    root = shared_data / "nih_cxr14"
    data = prepare(read_nih(root), tmp_path / "data", size=32, splits_csv=root / "splits.csv")
    assert len(data.image_ids) == 1186
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [741, 139, 306]
    assert sum(map(len, data.regions_by_image.values())) == 782
    assert data.has_region().any(axis=1).sum() == 694
    assert set(zip(data.widths, data.heights, strict=True)) == {(512, 512)}
    boxed = {f for regions in data.regions_by_image.values() for f in (r.finding for r in regions)}
    assert len(boxed) == 8


@pytest.mark.data
def test_official_lists_of_the_development_radiographs(shared_data, tmp_path):
    """The lists are made from the official split that the development splits tell."""
    folder = shared_data / "nih_cxr14"
    with open(folder / "splits.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for name in ("train_val", "test"):
        listed = [row["Image Index"] for row in rows if row["nih_official_split"] == name]
        (tmp_path / f"{name}_list.txt").write_text("\n".join(listed))
    for name in ("images", "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"):
        (tmp_path / name).symlink_to(folder / name)
    data = read_nih(tmp_path, official_splits=True)
    assert [sum(one.split == name for one in data.radiographs) for name in ("train", "test")] == [
        442,
        744,
    ]
    assert any("694 of 694 images with boxes are in the test list" in one for one in data.notes)
