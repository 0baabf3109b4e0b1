import csv
import re
import tracemalloc

import numpy as np
import pytest

from dwarf_cxr.data import dicom, vindr
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Region
from dwarf_cxr.data.sources import ReadOptions, read_source
from dwarf_cxr.data.vindr import CONSENSUS, read_vindr, read_vindr_raters
from dwarf_cxr.errors import DataError
from tests import dicom_files
from tests.data.made_vindr import (
    CLASS_IDS,
    LOCAL,
    write_boxes,
    write_challenge,
    write_labels,
    write_sizes,
    write_test,
    write_train,
)


def box(*corners):
    return Box(*map(float, corners))


TRAIN = {
    # All three see an effusion, on two of which boxes overlap; one alone sees a nodule.
    "aa11": {
        "R8": [("Pleural effusion", (100.5, 200, 300, 400)), ("Nodule/Mass", (10, 10, 30, 30))],
        "R9": [("Pleural effusion", (150, 250.25, 350, 600))],
        "R10": [("Pleural effusion", (500, 700, 640, 790))],
    },
    # One says "No finding" where two see the same, on different spots.
    "bb22": {
        "R1": [],
        "R2": [("Pulmonary fibrosis", (20, 30, 120, 130)), ("Rib fracture", (5, 5, 9, 9))],
        "R3": [("Pulmonary fibrosis", (400, 300, 500, 350))],
    },
    "cc33": {"R1": [], "R2": [], "R3": []},
    # Two on one spot, both reaching out of the image.
    "dd44": {
        "R4": [("Edema", (600, 0, 900, 90.5))],
        "R5": [("Edema", (500, 10, 650, 200))],
        "R6": [],
    },
}
TEST = {
    "ee55": [("Atelectasis", (1, 2, 30.5, 40)), ("Atelectasis", (20, 2, 60, 40)), ("COPD", ())],
    "ff66": [],
}
SIZES = {"aa11": (640, 800), "bb22": (500, 400), "cc33": (77, 99), "dd44": (640, 800)}
TEST_SIZES = {"ee55": (64, 80), "ff66": (64, 80)}


@pytest.fixture
def root(draw, tmp_path):
    """PhysioNet's tables beside a release resized to 64×80, one film of other proportions."""
    for image_id in TRAIN:
        draw(f"train/{image_id}.png", 64, 80)
    draw("test/ee55.png", 32, 40)
    draw("test/ff66.jpg", 32, 40)
    write_train(tmp_path / "annotations", TRAIN)
    local = {one: [drawn for drawn in ones if drawn[1]] for one, ones in TEST.items()}
    write_test(tmp_path / "annotations", local)
    labels = [(one, None, [f for f, _ in drawn] or ["No finding"]) for one, drawn in TEST.items()]
    write_labels(tmp_path / "annotations", "test", labels)
    write_sizes(tmp_path, "train", SIZES)
    write_sizes(tmp_path, "test", TEST_SIZES)
    return tmp_path


def by_id(data):
    return {one.image_id: one for one in data.radiographs}


def present(radiograph):
    return {finding for finding, label in radiograph.labels.items() if label}


def test_two_of_three_raters_make_labels_and_regions(root):
    data = read_vindr(root)
    films = by_id(data)
    assert list(films) == [*TRAIN, *TEST]
    assert [one.split for one in data.radiographs] == ["train"] * 4 + ["test"] * 2
    assert len(data.findings) == 27
    assert {"Effusion", "Fibrosis", "Pleural Thickening", "Nodule/Mass"} < set(data.findings)
    for one in data.radiographs:
        assert set(one.labels) == set(data.findings)
        assert one.patient_id == one.image_id
    assert present(films["aa11"]) == {"Effusion"}
    assert films["aa11"].regions == (Region("Effusion", box(150, 250.25, 300, 400), "R8+R9"),)
    assert films["aa11"].region_frame == (640, 800)
    assert present(films["bb22"]) == {"Fibrosis"}
    assert films["bb22"].regions == (
        Region("Fibrosis", box(20, 30, 120, 130), "R2"),
        Region("Fibrosis", box(400, 300, 500, 350), "R3"),
    )
    assert present(films["cc33"]) == set()
    assert films["cc33"].regions == ()
    assert films["dd44"].regions == (Region("Edema", box(600, 10, 640, 90.5), "R4+R5"),)
    assert "1 findings were boxed by their raters on no common spot" in " ".join(data.notes)
    assert "2 boxes reached out of their image; clipped" in data.notes
    assert any("no patient ids" in note for note in data.notes)


def test_the_consensus_of_test_is_taken_as_it_is(root):
    film = by_id(read_vindr(root))["ee55"]
    assert present(film) == {"Atelectasis", "COPD"}
    assert film.regions == (
        Region("Atelectasis", box(1, 2, 30.5, 40), CONSENSUS),
        Region("Atelectasis", box(20, 2, 60, 40), CONSENSUS),
    )


def test_other_disease_of_test_is_other_diseases_of_train(root):
    write_labels(root / "annotations", "test", [("ee55", None, ["Other disease"])])
    write_boxes(root / "annotations", "test", [])
    data = read_vindr(root)
    assert by_id(data)["ee55"].labels["Other diseases"] is True
    assert by_id(data)["cc33"].labels["Other diseases"] is False
    assert "Other disease" not in data.findings


@pytest.mark.parametrize("size", [16, 40])
def test_prepared_regions_are_in_pixels_of_the_resized_files(root, tmp_path, size):
    data = prepare(read_vindr(root), tmp_path / "data", size=size)
    assert data.splits.count("test") == 2
    assert data.splits.count("val") == 1
    first = data.image_ids.index("aa11")
    (region,) = data.regions(first, "Effusion")
    assert (region.finding, region.annotator) == ("Effusion", "R8+R9")
    shape = region.shape
    assert (shape.x1, shape.y1, shape.x2, shape.y2) == pytest.approx((15, 25.025, 30, 40))
    share = 15 * 14.975 / (64 * 80)
    assert data.coverage(first, "Effusion", size).mean() == pytest.approx(share, rel=1e-4)
    # bb22 was 500×400: stretched to its file, and said so once.
    (note,) = [note for note in data.notes if "proportions" in note]
    assert "1 images" in note
    assert "'bb22' (500×400, file 64×80)" in note
    second = data.image_ids.index("bb22")
    expected = (100 * 100 + 100 * 50) / (500 * 400)
    assert data.coverage(second, "Fibrosis", size).mean() == pytest.approx(expected, rel=1e-4)


def test_what_every_rater_said_is_kept_apart(root):
    raters = read_vindr_raters(root)
    assert list(raters) == [*TRAIN, *TEST]
    names = {"Pleural effusion": "Effusion", "Pulmonary fibrosis": "Fibrosis"}
    for image_id, readings in TRAIN.items():
        assert list(raters[image_id]) == list(readings)
        for rater, drawn in readings.items():
            said = raters[image_id][rater]
            expected = [(names.get(finding, finding), box(*corners)) for finding, corners in drawn]
            assert [(one.finding, one.shape) for one in said.regions] == expected
            assert {one.annotator for one in said.regions} <= {rater}
            assert {f for f, label in said.labels.items() if label} == {f for f, _ in expected}
    assert list(raters["ee55"]) == [CONSENSUS]


def test_every_local_finding_comes_back_under_its_name(draw, tmp_path):
    drawn = [(finding, (n, 2 * n, n + 5, 2 * n + 9)) for n, finding in enumerate(LOCAL)]
    write_train(tmp_path, {"aa": {"R1": drawn, "R2": drawn, "R3": []}})
    write_sizes(tmp_path, "train", {"aa": (64, 128)})
    draw("aa.png")
    (film,) = read_vindr(tmp_path).radiographs
    renamed = {
        "Pleural effusion": "Effusion",
        "Pleural thickening": "Pleural Thickening",
        "Pulmonary fibrosis": "Fibrosis",
    }
    expected = {(renamed.get(finding, finding), box(*corners)) for finding, corners in drawn}
    assert {(one.finding, one.shape) for one in film.regions} == expected
    assert len(film.regions) == 22


def test_the_challenge_has_14_findings_and_no_splits(draw, tmp_path):
    local = {
        image_id: {rater: [d for d in drawn if d[0] in CLASS_IDS] for rater, drawn in ones.items()}
        for image_id, ones in TRAIN.items()
    }
    write_challenge(tmp_path / "vinbigdata", local, sizes=SIZES)
    for image_id in local:
        draw(f"vinbigdata/train/{image_id}.png", 64, 80)
    draw("vinbigdata/test/unlabelled.png")
    data = read_vindr(tmp_path)
    films = by_id(data)
    assert list(films) == list(TRAIN)
    assert len(data.findings) == 14
    assert not {"COPD", "Pneumonia", "Other diseases", "Edema"} & set(data.findings)
    assert all(set(one.labels) == set(data.findings) for one in data.radiographs)
    assert {one.split for one in data.radiographs} == {None}
    assert present(films["aa11"]) == {"Effusion"}
    assert films["aa11"].regions == (Region("Effusion", box(150, 250.25, 300, 400), "R8+R9"),)
    assert present(films["bb22"]) == {"Fibrosis"}
    assert len(films["bb22"].regions) == 2
    assert present(films["dd44"]) == set()
    assert "Kaggle" not in data.licence
    assert "challenge" in data.licence


def test_every_challenge_finding_has_its_number(draw, tmp_path):
    drawn = [(f, (n, n, n + 5, n + 9)) for f, n in CLASS_IDS.items() if f != "No finding"]
    write_challenge(tmp_path, {"aa": {"R1": drawn, "R2": drawn, "R3": []}}, {"aa": (64, 64)})
    draw("aa.png")
    (film,) = read_vindr(tmp_path).radiographs
    assert sum(film.labels.values()) == len(film.regions) == 14


def test_a_number_of_another_finding_is_refused(tmp_path):
    path = write_challenge(tmp_path, {"aa": {"R1": [("ILD", (1, 2, 3, 4))]}})
    path.write_text(path.read_text().replace("ILD,5", "ILD,6"))
    with pytest.raises(DataError, match=r"train\.csv, line 2: class_id '6' is not .*'ILD'.*'5'"):
        read_vindr(tmp_path)


def test_resized_images_need_their_original_sizes(root):
    (root / "train_meta.csv").unlink()
    with pytest.raises(DataError, match=r"3 of 4 images with boxes .*aa11\.png.*train_meta\.csv"):
        read_vindr(root)
    # cc33 and ff66 have no box, so nobody need know how large they were.
    write_sizes(root, "train", {one: SIZES[one] for one in ("aa11", "bb22", "dd44")})
    write_sizes(root, "test", {"ee55": (64, 80)})
    assert by_id(read_vindr(root))["cc33"].region_frame is None


def test_faulty_sizes_are_all_listed(root):
    with (root / "train_meta.csv").open("a") as file:
        file.write("xx,12.5,3\nyy,0,3\naa11,640,800\n")
    with pytest.raises(DataError) as caught:
        read_vindr(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "line 6: dim1='3', dim0='12.5' must be whole numbers" in lines[0]
    assert "line 7" in lines[1]
    assert "line 8: image aa11 has 800×640 pixels here, but 640×800" in lines[2]


@pytest.mark.parametrize("suffix", [".dcm", ".dicom"])
def test_a_dicom_file_is_its_own_frame(tmp_path, monkeypatch, suffix):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    header = Dataset()
    header.Rows, header.Columns = 800, 640
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.save_as(tmp_path / f"dd44{suffix}", enforce_file_format=True)
    (tmp_path / f"aa11{suffix}").write_bytes(b"not a DICOM file")
    write_train(tmp_path, {one: TRAIN[one] for one in ("aa11", "dd44")})
    found = {one: (tmp_path / f"{one}{suffix}",) for one in ("aa11", "dd44")}
    monkeypatch.setattr(vindr, "find_images", lambda root: found)
    films = by_id(read_vindr(tmp_path))
    assert films["dd44"].region_frame == (640, 800)
    assert films["dd44"].regions == (Region("Edema", box(600, 10, 640, 90.5), "R4+R5"),)
    # A damaged file is left to the decoding, which names it with all others.
    assert films["aa11"].region_frame is None
    assert len(films["aa11"].regions) == 1


def dicom_frame(tmp_path, content):
    path = tmp_path / "film.dicom"
    path.write_bytes(content)
    return vindr._dicom_frame(path)


@pytest.mark.parametrize("syntax", dicom_files.LOSSLESS)
def test_frames_of_all_transfer_syntaxes(tmp_path, syntax):
    content = dicom_files.dicom_bytes(dicom_files.film(48, 40), transfer_syntax=syntax)
    assert dicom_frame(tmp_path, content) == (40, 48)


def test_damaged_headers_have_no_frame_and_raise_nothing(tmp_path):
    """Neither whatever pydicom raises on flipped bytes; the decoding names such files."""
    content = dicom_files.dicom_bytes(dicom_files.film(48, 40))
    generator = np.random.default_rng(8)
    frames = []
    for _ in range(400):
        damaged = bytearray(content)
        for place in generator.integers(132, 1400, 8):
            damaged[place] = generator.integers(256)
        frames.append(dicom_frame(tmp_path, bytes(damaged)))
    assert frames.count(None) > 50
    assert frames.count((40, 48)) > 50
    assert all(min(frame) > 0 for frame in frames if frame is not None)


@pytest.mark.parametrize(
    "changes", [{"Rows": 0}, {"Columns": None}, {"Rows": [48, 40]}, {"Rows": 48, "Columns": 0}]
)
def test_sizes_that_are_none_are_no_frame(tmp_path, changes):
    content = dicom_files.dicom_bytes(dicom_files.film(48, 40), changes=changes)
    assert dicom_frame(tmp_path, content) is None


def test_a_deflated_header_is_bounded(tmp_path, monkeypatch):
    film = np.zeros((3000, 2000), np.uint16)
    bomb = dicom_files.dicom_bytes(film, transfer_syntax=dicom_files.DEFLATED)
    assert len(bomb) < 30_000
    assert dicom_frame(tmp_path, bomb) == (2000, 3000)
    monkeypatch.setattr(dicom, "MAX_INFLATED", 1 << 20)
    tracemalloc.start()
    frame = dicom_frame(tmp_path, bomb)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frame is None
    assert held < 4 << 20


def test_boxes_without_area_are_skipped_and_counted(draw, tmp_path):
    drawn = [("ILD", (10, 10, 10, 20)), ("ILD", (30, 5, 20, 9)), ("ILD", (64, 0, 90, 9))]
    write_challenge(tmp_path, {"aa": {"R1": drawn, "R2": [("ILD", (1, 2, 3, 4))], "R3": []}})
    write_sizes(tmp_path, "train", {"aa": (64, 32)})
    draw("aa.png")
    data = read_vindr(tmp_path)
    (film,) = data.radiographs
    # R1 still says that it is there, so that two of three do.
    assert present(film) == {"ILD"}
    assert film.regions == (Region("ILD", box(1, 2, 3, 4), "R2"),)
    assert "3 boxes have no area inside their image; skipped" in data.notes


def test_contradictions_are_counted_and_labels_stand(draw, tmp_path):
    draw("aa.png", 64, 80)
    labels = [
        ("aa", "R1", ["Edema", "No finding"]),
        ("aa", "R2", ["Edema"]),
        ("aa", "R3", []),
    ]
    write_labels(tmp_path, "train", labels)
    boxes = [
        ("aa", "R1", "Edema", (1, 1, 9, 9)),
        ("aa", "R2", "Edema", (5, 5, 12, 12)),
        ("aa", "R3", "Edema", (0, 0, 60, 60)),
        ("zz", "R3", "Edema", (0, 0, 60, 60)),
        ("zz", "R2", "No finding", ()),
    ]
    write_boxes(tmp_path, "train", boxes)
    write_sizes(tmp_path, "train", {"aa": (64, 80)})
    data = read_vindr(tmp_path)
    (film,) = data.radiographs
    assert film.regions == (Region("Edema", box(5, 5, 9, 9), "R1+R2"),)
    text = "\n".join(data.notes)
    assert '1 readings say both "No finding" and a finding' in text
    assert "2 rows of boxes are of images that the labels do not list" in text
    assert "1 boxes lie on findings that their rater's label does not call present" in text


def test_a_rater_alone_stands_and_is_counted(draw, tmp_path):
    draw("aa.png", 64, 80)
    write_train(tmp_path, {"aa": {"R1": [("Edema", (1, 1, 9, 9))]}})
    write_sizes(tmp_path, "train", {"aa": (64, 80)})
    data = read_vindr(tmp_path)
    assert data.radiographs[0].regions == (Region("Edema", box(1, 1, 9, 9), "R1"),)
    assert "1 images were read by fewer than 3 raters" in data.notes


def test_an_empty_label_was_never_assessed(root):
    path = root / "annotations" / "image_labels_test.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index("Tuberculosis")
    rows[0][column] = ""
    path.write_text("\n".join(",".join(row) for row in [header, *rows]))
    data = read_vindr(root)
    assert "Tuberculosis" not in by_id(data)["ee55"].labels
    assert by_id(data)["ff66"].labels["Tuberculosis"] is False


def test_one_split_alone_and_labels_without_boxes(root):
    (root / "annotations" / "annotations_test.csv").unlink()
    data = read_vindr(root)
    assert by_id(data)["ee55"].regions == ()
    assert any("no annotations_test.csv" in note for note in data.notes)
    (root / "annotations" / "image_labels_test.csv").unlink()
    assert {one.split for one in read_vindr(root).radiographs} == {"train"}
    (root / "annotations" / "image_labels_train.csv").unlink()
    with pytest.raises(DataError, match=r"its image_labels_train\.csv is not there"):
        read_vindr(root)


def test_the_command_line_finds_the_reader_by_its_name(root, tmp_path):
    (root / "train" / "bb22.png").unlink()
    data = read_source("vindr", root, out=tmp_path / "data", options=ReadOptions(skip_missing=True))
    assert len(data.radiographs) == 5


def test_missing_images_are_named_or_skipped(root):
    (root / "train" / "bb22.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 listed images .*: bb22; .*--skip-missing"):
        read_vindr(root)
    data = read_vindr(root, missing="skip")
    assert "bb22" not in by_id(data)
    assert any("1 of 6 listed images" in note for note in data.notes)
    for image in [*root.rglob("*.png"), *root.rglob("*.jpg")]:
        image.unlink()
    with pytest.raises(DataError, match="6 of 6"):
        read_vindr(root, missing="skip")


def test_faults_of_both_tables_are_listed_together(root):
    labels = root / "annotations" / "image_labels_train.csv"
    header, first, *rest = labels.read_text().splitlines()
    wrong = re.sub(r",0,", ",maybe,", first, count=1)
    labels.write_text("\n".join([header, wrong, *rest, rest[-1], first.replace("aa11", "", 1)]))
    boxes = [
        ("aa11", "R8", "Flu", (1, 2, 3, 4)),
        ("aa11", "R8", "COPD", (1, 2, 3, 4)),
        ("aa11", "R8", "Edema", (1, 2, "three", 4)),
        ("aa11", "R8", "Edema", (1, 2, "inf", 4)),
        ("aa11", "R8", "Edema", ()),
        ("aa11", "R17", "Edema", (1, 2, 3, 4)),
        ("aa11", "", "Edema", (1, 2, 3, 4)),
        ("aa11", "R8", "Edema", (1, 2, 3, 4)),
    ]
    write_boxes(root / "annotations", "train", boxes)
    with pytest.raises(DataError) as caught:
        read_vindr(root)
    lines = str(caught.value).splitlines()
    expected = [
        r"image_labels_train\.csv, line 2, column '.*': label 'maybe'; write 1 or 0",
        r"image_labels_train\.csv, line 14: image dd44 and rater R6 stand twice",
        r"image_labels_train\.csv, line 15: 'image_id' or 'rad_id' is empty",
        r"annotations_train\.csv, line 2: unknown finding 'Flu'",
        r"annotations_train\.csv, line 3: unknown finding 'COPD'",
        r"annotations_train\.csv, line 4: .*x_max='three'.* must be numbers",
        r"annotations_train\.csv, line 5: .*x_max='inf'.* must be numbers",
        r"annotations_train\.csv, line 6: x_min=''.* must be numbers",
        r"annotations_train\.csv, line 8: 'image_id' or 'rad_id' is empty",
        r"annotations_train\.csv, line 7: R17 has no row for image aa11",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, line), line


def test_an_image_in_both_splits_is_refused(root):
    write_labels(root / "annotations", "test", [("aa11", None, [])])
    write_boxes(root / "annotations", "test", [])
    with pytest.raises(DataError, match=r"in train and in test: aa11"):
        read_vindr(root)


def test_an_unknown_column_is_refused(root):
    path = root / "annotations" / "image_labels_train.csv"
    path.write_text(path.read_text().replace("Tuberculosis", "Influenza"))
    with pytest.raises(DataError, match=r"unknown: Influenza; known: .*Tuberculosis"):
        read_vindr(root)


def test_folders_without_or_with_doubled_tables(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match=r"neither image_labels_train\.csv nor"):
        read_vindr(empty)
    (empty / "train.csv").write_text("id,label\n1,2\n")
    with pytest.raises(DataError, match=r"train\.csv with the columns image_id, class_name"):
        read_vindr(empty)
    write_challenge(empty, {})
    with pytest.raises(DataError, match="list no image"):
        read_vindr(empty)
    write_challenge(empty / "copy", {})
    with pytest.raises(DataError, match="several challenge tables"):
        read_vindr(empty)
    write_labels(root / "copy", "train", [])
    with pytest.raises(DataError, match=r"several files image_labels_train\.csv"):
        read_vindr(root)


def test_majority_equals_a_count_of_raters_on_random_readings(draw, tmp_path):
    """Independent oracle: pixels of integer boxes counted rater by rater."""
    rng = np.random.default_rng(3)
    readings = {}
    for number in range(12):
        image_id = f"i{number}"
        draw(f"{image_id}.png", 20, 16)
        readings[image_id] = {}
        for rater in ("R1", "R2", "R3"):
            drawn = []
            for _ in range(rng.integers(0, 4)):
                x, y = rng.integers(0, 14), rng.integers(0, 10)
                corners = (x, y, x + rng.integers(1, 7), y + rng.integers(1, 7))
                drawn.append((("ILD", "Edema")[rng.integers(2)], tuple(map(int, corners))))
            readings[image_id][rater] = drawn
    write_train(tmp_path, readings)
    write_sizes(tmp_path, "train", dict.fromkeys(readings, (20, 16)))
    data = prepare(read_vindr(tmp_path), tmp_path / "data", size=4)
    for index, image_id in enumerate(data.image_ids):
        for finding in ("ILD", "Edema"):
            counts = np.zeros((16, 20), dtype=int)
            raters = 0
            for drawn in readings[image_id].values():
                own = np.zeros((16, 20), dtype=bool)
                for name, (x1, y1, x2, y2) in drawn:
                    if name == finding:
                        own[y1:y2, x1:x2] = True
                counts += own
                raters += own.any()
            label = data.labels[index, data.findings.index(finding)]
            assert label == (raters >= 2)
            expected = np.zeros((16, 20), dtype=bool)
            if raters >= 2:
                expected = counts >= 2 if (counts >= 2).any() else counts >= 1
            share = expected.reshape(4, 4, 4, 5).mean(axis=(1, 3))
            np.testing.assert_allclose(data.coverage(index, finding, 4), share, atol=1e-6)
