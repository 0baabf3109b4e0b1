import datetime
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from dwarf_cxr.errors import ImageError
from dwarf_cxr.export.dicom import Kind, write_dicom
from dwarf_cxr.export.dicom_source import identity, read_header, uid_of
from tests import dicom_files as dicom
from tests.export.made import (
    FINDINGS,
    HEIGHT,
    MODEL,
    SOURCES,
    WIDTH,
    predicted_for,
    write_source,
)

PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def identity_of(predicted, kind="report"):
    return identity(read_header(predicted.film), predicted, kind, 1)


def results(path, findings=FINDINGS):
    files = write_dicom(predicted_for(path, findings), path.parent / "out")
    return {kind: pydicom.dcmread(file) for kind, file in files.items()}


def referred(dataset):
    """Every UID that stands anywhere in the dataset."""
    return {
        str(value)
        for element in dataset.iterall()
        if element.VR == "UI"
        for value in ([element.value] if isinstance(element.value, str) else element.value)
    }


def test_results_belong_to_the_films_patient_and_study_and_refer_to_it(film):
    source = pydicom.dcmread(film)
    made = results(film)
    assert set(made) == set(map(str, Kind))
    for result in made.values():
        for name in PATIENT_AND_STUDY:
            assert result[name].value == source[name].value, name
        assert {source.SOPInstanceUID, source.SeriesInstanceUID, source.SOPClassUID} <= referred(
            result
        )
        assert "Research only" in result.SeriesDescription
        assert result.ContentQualification == "RESEARCH"
        assert (result.Manufacturer, result.DeviceSerialNumber) == ("dwarf-cxr", "ab" * 32)
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
        own = {result[name].value for result in made.values()}
        assert len(own) == len(Kind)
        assert source[name].value not in own


def test_uids_follow_from_the_film_the_model_and_what_it_said(film, tmp_path):
    one = predicted_for(film)
    again = identity_of(one)
    assert identity_of(predicted_for(film)) == again
    grid = FINDINGS[0].grid.copy()
    grid[0, 0] += 1e-3
    changes = [
        replace(one, model=replace(MODEL, sha256="cd" * 32)),
        replace(one, model=replace(MODEL, prompts={"Effusion": "fluid"})),
        predicted_for(film, FINDINGS[:2]),
        predicted_for(film, [replace(FINDINGS[0], score=0.84), *FINDINGS[1:]]),
        predicted_for(film, [replace(FINDINGS[0], threshold=0.3), *FINDINGS[1:]]),
        predicted_for(film, [replace(FINDINGS[0], grid=grid), *FINDINGS[1:]]),
        predicted_for(write_source(tmp_path / "b.dcm", SOURCES["DX"] | {"instance": "2"})),
    ]
    uids = {again.instance_uid, again.series_uid}
    for changed in changes:
        other = identity_of(changed)
        assert uids.isdisjoint({other.instance_uid, other.series_uid})
        uids |= {other.instance_uid, other.series_uid}
    assert identity_of(one, "overlay").instance_uid not in uids


@pytest.mark.parametrize(
    ("changes", "date", "time"),
    [
        ({}, "20200102", "030405"),
        ({"ContentDate": "20200105", "ContentTime": "060708.25"}, "20200105", "060708.25"),
        ({"ContentDate": "20200105"}, "20200105", "000000"),
        ({"ContentDate": None, "StudyTime": None}, "20200102", "000000"),
        ({"ContentDate": "soon", "ContentTime": "060708"}, "20200102", "030405"),
    ],
)
def test_repeating_makes_the_same_objects_to_the_byte(tmp_path, monkeypatch, changes, date, time):
    with pydicom.config.disable_value_validation():
        path = write_source(tmp_path / "a.dcm", {"modality": "CR", "changes": changes})
    first = write_dicom(predicted_for(path), tmp_path / "one")

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 2, 3, 4, 5, 6, 7, tzinfo=tz)

    monkeypatch.setattr(datetime, "datetime", Later)
    second = write_dicom(predicted_for(path), tmp_path / "two")
    assert list(first) == list(second) == [str(kind) for kind in Kind]
    for kind, file in first.items():
        assert pydicom.dcmread(file) == pydicom.dcmread(second[kind])
        assert file.read_bytes() == second[kind].read_bytes()
        made = pydicom.dcmread(file)
        name = "PresentationCreation" if kind == "presentation" else "Content"
        assert (made[f"{name}Date"].value, made[f"{name}Time"].value) == (date, time)


def test_the_dimensions_of_two_segmentations_are_their_own(film):
    one, two = (results(film)[str(kind)] for kind in (Kind.SEGMENTATION, Kind.FRACTIONAL))
    uids = []
    for result in (one, two):
        (organization,) = result.DimensionOrganizationSequence
        uids.append(organization.DimensionOrganizationUID)
        assert {item.DimensionOrganizationUID for item in result.DimensionIndexSequence} == {
            uids[-1]
        }
        assert uids[-1] not in (result.SOPInstanceUID, result.SeriesInstanceUID)
    assert uids[0] != uids[1]


def test_the_folder_and_name_of_a_model_do_not_matter(film):
    moved = replace(predicted_for(film), model=replace(MODEL, folder="elsewhere"))
    assert identity_of(moved) == identity_of(predicted_for(film))


def test_uids_are_valid():
    uid = uid_of("a", 1, {"b": 2.5})
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert uid_of("a", 1, {"b": 2.5}) == uid
    assert uid_of("a1", {"b": 2.5}) != uid


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Ωμέγα^Άννα"),
        (None, "Plain^Name"),
    ],
)
def test_names_survive_beside_any_findings_name(tmp_path, character_set, name):
    changes = {"PatientName": name}
    if character_set is not None:
        changes = {"SpecificCharacterSet": character_set, **changes}
    path = write_source(tmp_path / "a.dcm", {"modality": "CR", "changes": changes})
    for result in results(path).values():
        assert result.PatientName == name
    segments = results(path)["segmentation"].SegmentSequence
    assert segments[1].SegmentLabel == "Not in / any table Ω"


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientSex": "U"},
        {"PatientSex": "female"},
        {"PatientBirthDate": "03/02/1950"},
        {"StudyDate": "2020"},
        {"StudyTime": "noon"},
    ],
)
def test_values_that_break_their_format_are_left_empty(tmp_path, changes):
    with pydicom.config.disable_value_validation():
        path = write_source(tmp_path / "a.dcm", {"modality": "CR", "changes": changes})
    for result in results(path).values():
        for name in changes:
            assert not result[name].value
        assert result.PatientID == "P-1"


def test_films_without_names_and_dates_get_results_too(tmp_path):
    removed = [name for name in PATIENT_AND_STUDY if name != "StudyInstanceUID"]
    path = write_source(
        tmp_path / "a.dcm", {"modality": "CR", "removed": [*removed, "PatientOrientation"]}
    )
    for result in results(path).values():
        assert all(not result[name].value for name in removed)


@pytest.mark.parametrize(
    "name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_films_without_identity_are_refused(tmp_path, name):
    path = write_source(tmp_path / "a.dcm", {"modality": "CR", "removed": [name]})
    with pytest.raises(ImageError, match=rf"a\.dcm: {name} missing"):
        results(path)
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(ImageError, match=r"a\.png: not a DICOM file"):
        results(path)
    assert not (tmp_path / "out").exists()


def test_films_of_another_size_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom.dicom_bytes(dicom.film(WIDTH, HEIGHT), modality="CR"))
    with pytest.raises(ImageError, match=r"decoded to \(44, 61\) .* its header says \(61, 44\)"):
        results(path)


@pytest.mark.parametrize(
    ("stored", "arguments", "words"),
    [
        (np.zeros((2, HEIGHT, WIDTH), int), {"modality": "OT"}, "2 frames of 1 values"),
        (
            np.zeros((HEIGHT, WIDTH, 3), int),
            {
                "modality": "OT",
                "photometric": "RGB",
                "bits_stored": 8,
                "bits_allocated": 8,
                "rescale": None,
            },
            "1 frames of 3 values",
        ),
    ],
)
def test_only_single_grey_frames_are_taken(tmp_path, stored, arguments, words):
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom.dicom_bytes(stored, **arguments))
    with pytest.raises(ImageError, match=words):
        results(path)
