import pytest

from dwarf_cxr.data.covid import labels_of, read_covid, view_of
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.errors import DataError
from tests.data.made_covid import MadeImage, write_covid

IMAGES = (
    MadeImage("a.b_2020-01", "2", notes="Fever for days.\nBilateral opacities, “patchy”. "),
    MadeImage("lower", "2", view="AP Supine", suffix=".jpeg"),
    MadeImage("sars", "3", "Pneumonia/Viral/SARS", view="AP"),
    MadeImage("open", "4", "Pneumonia", notes="Severe ARDS."),
    MadeImage("none", "13", "No Finding", licence=""),
    MadeImage("todo", "14", "todo"),
    MadeImage("side", "13", view="L"),
    MadeImage("odd", "15", view=""),
    MadeImage("slice", "16", view="Axial", modality="CT"),
)

FRONTAL = {
    "a.b_2020-01": ("2", {"COVID-19": True, "Pneumonia": True}),
    "lower": ("2", {"COVID-19": True, "Pneumonia": True}),
    "sars": ("3", {"COVID-19": False, "Pneumonia": True}),
    "open": ("4", {"Pneumonia": True}),
    "none": ("13", {"COVID-19": False, "Pneumonia": False}),
    "todo": ("14", {}),
}


def test_frontal_radiographs_come_back_as_they_were_written(tmp_path):
    data = read_covid(write_covid(tmp_path, IMAGES))
    found = {one.image_id: (one.patient_id, dict(one.labels)) for one in data.radiographs}
    assert found == FRONTAL
    texts = {one.image_id: one.text for one in data.radiographs if one.text}
    assert texts == {
        "a.b_2020-01": "Fever for days. Bilateral opacities, “patchy”.",
        "open": "Severe ARDS.",
    }
    assert data.radiographs[1].path == tmp_path / "images" / "lower.jpeg"
    assert not any(one.regions or one.split for one in data.radiographs)
    assert data.notes == (
        "1 of 9 images are no radiographs; left out",
        "views of 8 films: 6 known to be frontal, taken; 1 lateral, left out; 1 of a view that no "
        "table tells, left out",
        "licences of the images: CC BY-NC-SA 5, not stated 1",
    )


@pytest.mark.parametrize(
    ("lateral", "unknown", "more"),
    [(True, False, {"side"}), (False, True, {"odd"}), (True, True, {"side", "odd"})],
)
def test_other_views_are_taken_when_asked_for_and_ct_never(tmp_path, lateral, unknown, more):
    root = write_covid(tmp_path, IMAGES)
    data = read_covid(root, lateral=lateral, unknown_views=unknown)
    assert {one.image_id for one in data.radiographs} == {*FRONTAL, *more}


def test_images_with_notes_and_without_regions_are_prepared(tmp_path):
    data = prepare(read_covid(write_covid(tmp_path / "c", IMAGES)), tmp_path / "data", size=16)
    assert data.findings == ("COVID-19", "Pneumonia")
    assert not data.has_region().any()
    assert data.texts[0] == "Fever for days. Bilateral opacities, “patchy”."
    assert data.splits[0] == data.splits[1]


@pytest.mark.parametrize(
    ("finding", "labels"),
    [
        ("Pneumonia/Viral/COVID-19", {"COVID-19": True, "Pneumonia": True}),
        ("COVID-19", {"COVID-19": True, "Pneumonia": True}),
        ("COVID-19, ARDS", {"COVID-19": True, "Pneumonia": True}),
        ("Pneumonia/Bacterial/Streptococcus", {"COVID-19": False, "Pneumonia": True}),
        ("Pneumonia/Viral/A New One", {"COVID-19": False, "Pneumonia": True}),
        ("Mycoplasma Bacterial Pneumonia", {"COVID-19": False, "Pneumonia": True}),
        ("Pneumonia/Lipoid", {"COVID-19": False, "Pneumonia": True}),
        ("Pneumonia/Bacterial", {"Pneumonia": True}),
        ("Bacterial", {"Pneumonia": True}),
        ("Pneumonia", {"Pneumonia": True}),
        ("No Finding", {"COVID-19": False, "Pneumonia": False}),
        ("Tuberculosis", {}),
        ("ARDS", {}),
        ("todo", {}),
        ("Unknown", {}),
        ("", {}),
    ],
)
def test_what_a_finding_says(finding, labels):
    assert labels_of(finding) == labels


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("PA", "frontal"),
        ("AP", "frontal"),
        ("AP Supine", "frontal"),
        ("AP Erect", "frontal"),
        ("L", "lateral"),
        ("", "unknown"),
        ("?", "unknown"),
        ("APS", "unknown"),
    ],
)
def test_what_a_view_is(view, expected):
    assert view_of(view) == expected


def test_faulty_rows_are_all_listed(tmp_path):
    images = (
        MadeImage("a", finding="Broken rib"),
        MadeImage("b", patient=""),
        MadeImage("c", finding="No Finding, Flu"),
        MadeImage("d"),
    )
    with pytest.raises(DataError) as caught:
        read_covid(write_covid(tmp_path, images))
    lines = str(caught.value).splitlines()
    assert "line 2: unknown finding 'Broken rib'" in lines[0]
    assert "line 3: no patient or no file name" in lines[1]
    assert "line 4: unknown finding 'Flu', 'No Finding'" in lines[2]
    assert len(lines) == 3


def test_missing_images_are_counted_and_named_or_skipped(tmp_path):
    root = write_covid(tmp_path, IMAGES)
    (root / "images" / "sars.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 images .*: sars\.png;.*--skip-missing"):
        read_covid(root)
    assert len(read_covid(root, missing="skip").radiographs) == 5
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="6 of 6 images"):
        read_covid(root, missing="skip")


def test_images_elsewhere_are_found_by_name_if_there_is_one(tmp_path):
    root = write_covid(tmp_path, IMAGES[:2])
    (root / "more").mkdir()
    (root / "images" / "lower.jpeg").rename(root / "more" / "lower.png")
    assert read_covid(root).radiographs[1].path == root / "more" / "lower.png"
    (root / "again").mkdir()
    (root / "again" / "lower.png").write_bytes((root / "more" / "lower.png").read_bytes())
    with pytest.raises(DataError, match="the same image name also stands in"):
        read_covid(root)


def test_folders_and_tables_that_are_not_the_collection(tmp_path):
    with pytest.raises(DataError, match=r"holds no metadata\.csv"):
        read_covid(tmp_path)
    (tmp_path / "metadata.csv").write_text("finding,view,file\nCOVID-19,PA,a.png\n")
    with pytest.raises(DataError, match="no column 'patientid'"):
        read_covid(tmp_path)
    root = write_covid(tmp_path / "ct", (IMAGES[-1],))
    with pytest.raises(DataError, match="lists no radiograph of the views asked for"):
        read_covid(root)


@pytest.mark.data
def test_development_radiographs(shared_data, tmp_path):
    root = shared_data / "covid_cxr"
    whole = read_covid(root, unknown_views=True)
    assert len(whole.radiographs) == 311
    assert sum(one.text is not None for one in whole.radiographs) == 203
    assert len({one.patient_id for one in whole.radiographs}) == 170
    known = read_covid(root)
    assert len(known.radiographs) == 277
    assert sum(one.text is not None for one in known.radiographs) == 169
    labels = [one.labels for one in whole.radiographs]
    assert sum(its.get("COVID-19") is True for its in labels) == 177
    assert sum(its.get("COVID-19") is False for its in labels) == 37
    assert sum(its.get("Pneumonia") is True for its in labels) == 220
    assert sum(its.get("Pneumonia") is False for its in labels) == 6
    data = prepare(known, tmp_path / "data", size=32)
    assert len(data.image_ids) == 277
    assert not data.has_region().any()
