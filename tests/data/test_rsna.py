import re

import pytest

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box
from dwarf_cxr.data.rsna import read_rsna
from dwarf_cxr.data.sources import ReadOptions, read_source
from dwarf_cxr.errors import DataError
from tests.data.made_rsna import OTHER, write_by_nih_name, write_challenge, write_mapping

IMAGES = {
    "0004cfab-14fd": ("Lung Opacity", [(264.0, 152.0, 213.0, 379.0), (562.0, 152.5, 256.0, 453.0)]),
    "00313ee0-9eaa": ("Normal", []),
    "00322d4d-1c29": (OTHER, []),
    "003d8fa0-6bf1": ("Lung Opacity", [(0.0, 0.0, 1024.0, 512.0)]),
}
NIH = {
    "0004cfab-14fd": "00000181_061.png",
    "00313ee0-9eaa": "00000181_062.png",
    "00322d4d-1c29": "00012045_005.png",
    "003d8fa0-6bf1": "00000193_019.png",
    "of-the-test-set": "00000193_020.png",
}


def box(*corners):
    return Box(*map(float, corners))


@pytest.fixture
def root(draw, tmp_path):
    for number, image_id in enumerate(IMAGES):
        draw(f"stage_2_train_images/{image_id}.{('png', 'jpg')[number % 2]}", 64, 64)
    write_challenge(tmp_path, IMAGES)
    return tmp_path


def boxes_of(radiograph):
    return [region.shape for region in radiograph.regions]


def test_targets_and_boxes_come_back(root):
    data = read_rsna(root)
    assert data.findings == ("Lung Opacity",)
    assert [one.image_id for one in data.radiographs] == list(IMAGES)
    assert [one.labels for one in data.radiographs] == [
        {"Lung Opacity": present} for present in (True, False, False, True)
    ]
    first, healthy, _, last = data.radiographs
    assert boxes_of(first) == [box(264, 152, 477, 531), box(562, 152.5, 818, 605.5)]
    assert boxes_of(healthy) == []
    assert boxes_of(last) == [box(0, 0, 1024, 512)]
    assert {one.region_frame for one in data.radiographs} == {(1024, 1024)}
    assert {one.split for one in data.radiographs} == {None}
    assert [one.patient_id for one in data.radiographs] == list(IMAGES)
    text = "\n".join(data.notes)
    assert "1 images are Normal, 1 show something else" in text
    assert "splits are not patient-disjoint" in text


@pytest.mark.parametrize("size", [8, 32])
def test_boxes_are_scaled_to_the_image_files(root, tmp_path, size):
    data = prepare(read_rsna(root), tmp_path / "data", size=size)
    index = data.image_ids.index("0004cfab-14fd")
    shapes = [region.shape for region in data.regions(index, "Lung Opacity")]
    assert shapes == [
        box(264 / 16, 152 / 16, 477 / 16, 531 / 16),
        box(562 / 16, 152.5 / 16, 818 / 16, 605.5 / 16),
    ]
    expected = (213 * 379 + 256 * 453) / 1024**2
    assert data.coverage(index, "Lung Opacity", size).mean() == pytest.approx(expected, rel=1e-5)
    assert sorted(data.splits) != ["train"] * 4


def test_patients_are_known_from_the_list_of_nih_files(root):
    write_mapping(root, NIH)
    data = read_rsna(root)
    assert [one.patient_id for one in data.radiographs] == ["181", "181", "12045", "193"]
    assert data.patients_of == "NIH ChestX-ray14"
    assert not any("patient" in note for note in data.notes)


def test_a_list_of_nih_files_with_gaps_or_faults(root):
    write_mapping(root, {one: NIH[one] for one in list(NIH)[1:]})
    with pytest.raises(DataError, match=r"does not name 1 of the labelled .*: 0004cfab-14fd"):
        read_rsna(root)
    write_mapping(root, {**NIH, "00313ee0-9eaa": "chest.png"})
    with pytest.raises(DataError, match=r"entry 1: 'chest' is no NIH file name"):
        read_rsna(root)
    path = write_mapping(root, NIH)
    path.write_text('[{"img_id": 7}, "text"]')
    with pytest.raises(DataError) as caught:
        read_rsna(root)
    assert len(re.findall("entry [01]: needs the texts", str(caught.value))) == 2
    path.write_text("{}")
    with pytest.raises(DataError, match="must be a list"):
        read_rsna(root)


def test_without_classes_there_is_a_note(root):
    (root / "stage_2_detailed_class_info.csv").unlink()
    data = read_rsna(root)
    assert data.patients_of is None  # no patient is known: an image is its own
    assert [one.labels["Lung Opacity"] for one in data.radiographs] == [True, False, False, True]
    assert any("no stage_2_detailed_class_info.csv" in note for note in data.notes)
    assert not any("Normal" in note for note in data.notes)


def test_faults_of_both_tables_are_listed_together(root):
    labels = "patientId,x,y,width,height,Target\n"
    rows = [
        "a,1,2,3,4,1",
        "a,,,,,0",
        "b,1,2,0,4,1",
        "b,1,2,x,4,1",
        "b,,,,,1",
        "b,1,2,inf,4,1",
        "c,1,2,3,4,0",
        "d,,,,,yes",
        ",,,,,0",
        "e,,,,,0",
        "f,,,,,0",
    ]
    (root / "stage_2_train_labels.csv").write_text(labels + "\n".join(rows))
    rows = ["a,Lung Opacity", "b,Normal", "c,Flu", "e,Normal", f"e,{OTHER}", ",Normal", "z,Normal"]
    classes = "\n".join(["patientId,class", *rows])
    (root / "stage_2_detailed_class_info.csv").write_text(classes)
    with pytest.raises(DataError) as caught:
        read_rsna(root)
    lines = str(caught.value).splitlines()
    expected = [
        "labels.csv, line 3: image a has Target 0 and 1",
        "labels.csv, line 4: box .* has no area",
        "labels.csv, line 5: box .* is not finite: '1', '2', 'x', '4'",
        "labels.csv, line 6: box .* is not finite: '', '', '', ''",
        "labels.csv, line 7: box .* is not finite",
        "labels.csv, line 8: a box with Target 0",
        "labels.csv, line 9: patientId 'd', Target 'yes'",
        "labels.csv, line 10: patientId '', Target '0'",
        "info.csv, line 4: unknown class 'Flu'; known: Lung Opacity",
        f"info.csv, line 6: image e is '{OTHER}' here, but 'Normal' above",
        "info.csv, line 7: 'patientId' is empty",
        "image b is 'Normal', but stage_2_train_labels.csv has Target 1",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, line), line


def test_images_in_one_table_only_are_counted(root):
    path = root / "stage_2_detailed_class_info.csv"
    path.write_text(path.read_text().replace("00313ee0-9eaa", "zz"))
    notes = "\n".join(read_rsna(root).notes)
    assert "1 images have no class: 00313ee0-9eaa" in notes
    assert "1 images have a class, but no label" in notes


def test_the_command_line_finds_the_reader_by_its_name(root, tmp_path):
    (root / "stage_2_train_images" / "00313ee0-9eaa.jpg").unlink()
    data = read_source("rsna", root, out=tmp_path / "data", options=ReadOptions(skip_missing=True))
    assert len(data.radiographs) == 3


def test_missing_images_and_tables(root, tmp_path_factory):
    (root / "stage_2_train_images" / "00313ee0-9eaa.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 4 listed .*: 00313ee0-9eaa; .*--skip-missing"):
        read_rsna(root)
    data = read_rsna(root, missing="skip")
    assert len(data.radiographs) == 3
    assert "absent Lung Opacity is of two kinds: 0 images are Normal" in "\n".join(data.notes)
    for image in (root / "stage_2_train_images").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="4 of 4"):
        read_rsna(root, missing="skip")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match=r"neither stage_2_train_labels\.csv nor rsna_classes\.csv"):
        read_rsna(empty)
    write_challenge(empty, {})
    with pytest.raises(DataError, match="lists no image"):
        read_rsna(empty)
    copies = tmp_path_factory.mktemp("copies")
    for folder in ("one", "two"):
        write_challenge(copies / folder, {})
    with pytest.raises(DataError, match=r"several files stage_2_train_labels\.csv"):
        read_rsna(copies)


NIH_IMAGES = {
    "00000193_019.png": ("Lung Opacity", [(709.0, 521.0, 966.0, 836.0), (327, 540.5, 516, 838)]),
    "00000181_061.png": ("Normal", []),
    "00000181_062.png": (OTHER, []),
}


@pytest.fixture
def nih_root(draw, tmp_path):
    for name in NIH_IMAGES:
        draw(f"images/{name.replace('.png', '.jpg')}", 32, 32)
    write_by_nih_name(tmp_path, NIH_IMAGES)
    return tmp_path


def test_annotations_by_nih_name_come_back(nih_root):
    data = read_rsna(nih_root)
    opaque, healthy, other = data.radiographs
    assert [one.image_id for one in data.radiographs] == [
        "00000193_019", "00000181_061", "00000181_062",
    ]  # fmt: skip
    assert [one.patient_id for one in data.radiographs] == ["193", "181", "181"]
    assert data.patients_of == "NIH ChestX-ray14"
    assert boxes_of(opaque) == [box(709, 521, 966, 836), box(327, 540.5, 516, 838)]
    assert [one.labels["Lung Opacity"] for one in (opaque, healthy, other)] == [True, False, False]
    assert opaque.region_frame == (1024, 1024)


def test_faults_by_nih_name_are_listed(nih_root):
    path = nih_root / "rsna_lung_opacity_boxes.csv"
    with path.open("a") as file:
        file.write("00000181_061.png,1,2,3,4\n00000193_019.png,9,2,3,4\n99999999_000.png,1,2,3,4\n")
    with pytest.raises(DataError) as caught:
        read_rsna(nih_root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "line 4: a box on image 00000181_061, which is 'Normal'" in lines[0]
    assert "line 5: box (9.0, 2.0, 3.0, 4.0) has no area" in lines[1]


def test_boxes_by_nih_name_may_be_of_others_or_missing(nih_root):
    path = nih_root / "rsna_lung_opacity_boxes.csv"
    with path.open("a") as file:
        file.write("99999999_000.png,1,2,3,4\n")
    assert any("1 boxes are of images without a class" in n for n in read_rsna(nih_root).notes)
    path.unlink()
    data = read_rsna(nih_root)
    assert not any(one.regions for one in data.radiographs)
    assert any("no rsna_lung_opacity_boxes.csv" in note for note in data.notes)


def test_a_name_that_is_not_of_the_nih_is_refused(nih_root):
    write_by_nih_name(nih_root, {"film7.png": ("Normal", [])})
    with pytest.raises(DataError, match="'film7' is no NIH file name"):
        read_rsna(nih_root)


@pytest.mark.data
def test_development_radiographs(shared_data, tmp_path):
    root = shared_data / "nih_cxr14"
    data = prepare(read_rsna(root), tmp_path / "data", size=32, splits_csv=root / "splits.csv")
    assert len(data.image_ids) == 449
    assert (data.labels == 1).sum() == data.has_region().sum() == 126
    assert sum(map(len, data.regions_by_image.values())) == 180
    notes = "\n".join(data.notes)
    assert "99 images are Normal, 224 show something else" in notes
    assert "clipped" not in notes
    assert "proportions" not in notes
