import pytest

from dwarf_cxr.data.nih import read_nih
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import NIH_14

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
