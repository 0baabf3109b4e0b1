import shutil
from collections import Counter

import pytest

from dwarf_cxr.data.openi import FINDINGS, labels_of, read_openi, read_reports
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.errors import DataError
from tests.data.made_openi import MadeReport, to_xml, write_archive, write_openi

REPORTS = (
    MadeReport(
        1, "Heart size is normal.", "Normal chest x-XXXX.", ("normal",), repeats_number=True
    ),
    MadeReport(
        2,
        "Small effusion & rib fractures.",
        "",
        ("Pleural Effusion/left/small", "Fractures, Bone/ribs/left", "Nodule/thorax/left"),
        ("Pneumothorax",),
    ),
    MadeReport(3, "", "Nodule at the right apex.", ("Nodule/lung/apex/right",)),
    MadeReport(4, "", "", ("No Indexing",)),
    MadeReport(10, "Both called PA.", "", (), films=(("IM-1-1001", "PA"), ("IM-1-2001", "PA"))),
    MadeReport(11, "Alone, called AP.", "", (), films=(("IM-2-1001", "AP"),)),
    MadeReport(12, "Not called anything.", "", (), films=(("IM-3-1001-0001", ""),)),
    MadeReport(13, "No film at all.", "", (), films=()),
)

EXPECTED = {
    "CXR1_1_IM-0001-1001": ("Heart size is normal. Normal chest x-XXXX.", "all absent"),
    "CXR2_IM-0001-1001": ("Small effusion & rib fractures.", {"Effusion", "Fracture"}),
    "CXR3_IM-0001-1001": ("Nodule at the right apex.", {"Nodule"}),
    "CXR4_IM-0001-1001": (None, set()),
}
"""Text and labels of the films known to be frontal."""


@pytest.mark.parametrize("packed", [True, False])
def test_reports_and_films_come_back_as_they_were_written(tmp_path, packed):
    data = read_openi(write_openi(tmp_path, REPORTS, packed=packed))
    assert [one.image_id for one in data.radiographs] == list(EXPECTED)
    for one, (text, labels) in zip(data.radiographs, EXPECTED.values(), strict=True):
        assert one.text == text
        if labels == "all absent":
            assert one.labels == dict.fromkeys(FINDINGS, False)
        else:
            assert one.labels == dict.fromkeys(labels, True)
        assert one.patient_id == one.image_id.split("_")[0]
        assert one.path == tmp_path / "NLMCXR_png" / f"{one.image_id}.png"
        assert not one.regions
        assert one.split is None
    assert any("1 films have a report without findings and impression" in n for n in data.notes)


@pytest.mark.parametrize(
    ("lateral", "unknown", "count"),
    [(False, False, 4), (True, False, 8), (False, True, 8), (True, True, 12)],
)
def test_only_films_known_to_be_frontal_are_taken_unless_asked(tmp_path, lateral, unknown, count):
    """Known: called PA or AP, and another film of the same report called lateral."""
    root = write_openi(tmp_path, REPORTS)
    data = read_openi(root, lateral=lateral, unknown_views=unknown)
    assert len(data.radiographs) == count
    patients = {one.patient_id for one in data.radiographs}
    assert ({"CXR10", "CXR11", "CXR12"} <= patients) is unknown
    assert any("IM-0001-2001" in one.image_id for one in data.radiographs) is lateral
    note = next(note for note in data.notes if note.startswith("views of 12 films"))
    assert "4 known to be frontal, taken" in note
    assert f"4 lateral, {'taken' if lateral else 'left out'}" in note
    assert f"4 of a view that no table tells, {'taken' if unknown else 'left out'}" in note


def test_projections_go_before_the_dicom_table(tmp_path):
    root = write_openi(tmp_path, REPORTS)
    (root / "indiana_projections.csv").write_text(
        "uid,filename,projection\n"
        "10,10_IM-1-1001.dcm.png,Lateral\n"
        "10,10_IM-1-2001.dcm.png,frontal\n"
        "1,1_IM-0001-1001.dcm.png,Lateral\n"
    )
    found = [one.image_id for one in read_openi(root).radiographs]
    assert found == [*list(EXPECTED)[1:], "CXR10_IM-1-2001"]
    (root / "nlmcxr_dicom_metadata.csv.gz").unlink()
    assert [one.image_id for one in read_openi(root).radiographs] == ["CXR10_IM-1-2001"]


def test_without_a_table_of_views_nothing_is_known(tmp_path):
    root = write_openi(tmp_path, REPORTS)
    (root / "nlmcxr_dicom_metadata.csv.gz").unlink()
    with pytest.raises(DataError, match=r"none of 12 films .*--unknown-views"):
        read_openi(root)
    assert len(read_openi(root, unknown_views=True).radiographs) == 12


def test_films_named_as_in_other_copies_are_found(tmp_path):
    root = write_openi(tmp_path, REPORTS[:1])
    for path in list((root / "NLMCXR_png").iterdir()):
        name = path.stem.replace("CXR1_1_", "1_")
        path.rename(root / f"{name}.dcm.png")
    (one,) = read_openi(root).radiographs
    assert one.path == root / "1_IM-0001-1001.dcm.png"
    assert one.image_id == "CXR1_1_IM-0001-1001"
    shutil.copy(one.path, root / "CXR1_IM-0001-1001.png")
    with pytest.raises(DataError, match="the same film as"):
        read_openi(root)


def test_missing_films_are_counted_and_named_or_skipped(tmp_path):
    root = write_openi(tmp_path, REPORTS)
    (root / "NLMCXR_png" / "CXR2_IM-0001-1001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 films .*: CXR2_IM-0001-1001;.*--skip-missing"):
        read_openi(root)
    data = read_openi(root, missing="skip")
    assert len(data.radiographs) == 3
    assert any("1 of 4 films are not under" in note for note in data.notes)
    shutil.rmtree(root / "NLMCXR_png")
    with pytest.raises(DataError, match="4 of 4 films"):
        read_openi(root, missing="skip")


@pytest.mark.parametrize(
    ("terms", "present"),
    [
        (["Pulmonary Atelectasis/base/left", "Cardiomegaly/mild"], {"Atelectasis", "Cardiomegaly"}),
        (["Hydropneumothorax/right"], {"Pneumothorax", "Effusion"}),
        (["Thickening/pleura/apex/left", "Thickening/bronchi"], {"Pleural Thickening"}),
        (["Mass/breast/large", "Nodule/thorax/left", "Nodule"], set()),
        (["Fractures, Bone/thoracic vertebrae", "Fractures, Bone/clavicle/left"], {"Fracture"}),
        (["Pericardial Effusion", "Subcutaneous Emphysema/thorax/left", "Lung Opacity"], set()),
        (["Emphysematous"], set()),
        (["normal", "Cardiomegaly"], {"Cardiomegaly"}),
        (["No Indexing"], set()),
        ([], set()),
    ],
)
def test_terms_that_clearly_are_a_finding_and_others(terms, present):
    assert labels_of(terms) == dict.fromkeys(present, True)


def test_normal_alone_is_the_absence_of_everything():
    assert labels_of(["normal"]) == labels_of(["Normal"]) == dict.fromkeys(FINDINGS, False)


def test_faulty_reports_are_all_listed(tmp_path):
    good = to_xml(REPORTS[0]).encode()
    write_archive(
        tmp_path / "NLMCXR_reports.tgz",
        {
            "ecgen-radiology/1.xml": good,
            "ecgen-radiology/2.xml": b"<eCitation>",
            "ecgen-radiology/3.xml": b"<eCitation/>",
            "ecgen-radiology/4.xml": good,
            "ecgen-radiology/._5.xml": b"left by a Mac",
            "ecgen-radiology/readme.txt": b"not a report",
        },
    )
    with pytest.raises(DataError) as caught:
        read_reports(tmp_path)
    lines = str(caught.value).splitlines()
    assert "2.xml: not XML" in lines[0]
    assert "3.xml: a report or film without id" in lines[1]
    assert "4.xml: 'CXR1' also stands in" in lines[2]
    assert len(lines) == 5  # its two films also stand twice


def test_unknown_words_of_the_view_tables_are_all_listed(tmp_path):
    films = (("IM-1-1001", "PA"), ("IM-1-2001", "OBLIQUE"), ("IM-1-3001", "pa"))
    root = write_openi(tmp_path, (MadeReport(1, "Text.", films=films),))
    with pytest.raises(DataError) as caught:
        read_openi(root)
    first, second = str(caught.value).splitlines()
    assert "line 3: unknown View Position 'OBLIQUE'" in first
    assert "line 4: unknown View Position 'pa'" in second
    (root / "nlmcxr_dicom_metadata.csv.gz").unlink()
    (root / "indiana_projections.csv").write_text("uid,filename,projection\n1,1_IM-1.png,front\n")
    with pytest.raises(DataError, match="line 2: unknown projection 'front'; write Frontal or"):
        read_openi(root)


def test_reports_must_be_there_once_and_whole(tmp_path):
    with pytest.raises(DataError, match=r"holds neither NLMCXR_reports\.tgz nor the folder"):
        read_reports(tmp_path)
    archive = tmp_path / "NLMCXR_reports.tgz"
    write_archive(archive, {})
    with pytest.raises(DataError, match="the reports are empty"):
        read_reports(tmp_path)
    write_archive(archive, {f"ecgen-radiology/{n}.xml": to_xml(REPORTS[0]).encode() for n in "12"})
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"NLMCXR_reports\.tgz: damaged archive"):
            read_reports(tmp_path)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "NLMCXR_reports.tgz").write_bytes(whole)
    with pytest.raises(DataError, match="more than once"):
        read_reports(tmp_path)


def test_films_with_text_and_without_regions_are_prepared(tmp_path):
    root = write_openi(tmp_path / "openi", REPORTS)
    data = prepare(read_openi(root, unknown_views=True), tmp_path / "data", size=16)
    assert len(data.image_ids) == 8
    assert not data.has_region().any()
    texts = dict(zip(data.image_ids, data.texts, strict=True))
    assert texts["CXR2_IM-0001-1001"] == "Small effusion & rib fractures."
    assert texts["CXR4_IM-0001-1001"] is None
    assert set(data.splits) == {"train", "val", "test"}


@pytest.mark.data
def test_official_reports_and_view_table(shared_data):
    folder = shared_data / "annotations"
    reports = read_reports(folder)
    assert len(reports) == 3955
    assert sum(len(one.images) for one in reports) == 7470
    assert sum(not one.images for one in reports) == 104
    assert sum(one.text is None for one in reports) == 28
    assert sum("XXXX" in (one.text or "") for one in reports) == 1855
    labels = [labels_of(one.terms) for one in reports]
    present = Counter(name for its in labels for name, label in its.items() if label)
    assert present == {
        "Atelectasis": 332,
        "Calcification": 527,
        "Cardiomegaly": 375,
        "Consolidation": 30,
        "Edema": 46,
        "Effusion": 163,
        "Emphysema": 102,
        "Fibrosis": 19,
        "Fracture": 62,
        "Hernia": 50,
        "Infiltration": 65,
        "Mass": 12,
        "Nodule": 100,
        "Pleural Thickening": 47,
        "Pneumonia": 42,
        "Pneumothorax": 27,
    }
    assert sum(len(its) == 16 and not any(its.values()) for its in labels) == 1391
    # there are no images here: the views are told by the message
    with pytest.raises(DataError, match="833 of 833 films are not under"):
        read_openi(folder)
    with pytest.raises(DataError, match="1700 of 1700 films are not under"):
        read_openi(folder, lateral=True)
    with pytest.raises(DataError, match="7470 of 7470 films are not under"):
        read_openi(folder, lateral=True, unknown_views=True)
