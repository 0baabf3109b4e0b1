"""All kinds at once: judged by the standard's own checker, written whole or not at all."""

import shutil
import subprocess

import pydicom
import pytest

from dwarf_cxr.errors import ImageError
from dwarf_cxr.export import dicom as export
from dwarf_cxr.export.dicom import Kind, write_dicom
from tests.export.made import SOURCES, absent, predicted_for, write_source

EXPECTED_WARNINGS = ("<99DWARF>", "needed to build DICOMDIR")
"""A scheme of our own is not in the checker's list; a DICOMDIR needs what some films leave out."""


def faults(path):
    """What `dciodvfy` says, but for the warnings that are expected."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (of dicom3tools) is not installed")
    said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    judged = [line for line in lines if line.startswith(("Error", "Warning"))]
    assert any(path.name or line for line in lines)
    return [line for line in judged if not any(words in line for words in EXPECTED_WARNINGS)]


def test_the_checker_finds_a_fault(film):
    broken = pydicom.dcmread(film)
    del broken.PatientID
    broken.save_as(film)
    assert any("PatientID" in fault for fault in faults(film))


@pytest.mark.parametrize("name", SOURCES)
def test_results_are_valid(tmp_path, name):
    path = write_source(tmp_path / "film.dcm", SOURCES[name])
    files = write_dicom(predicted_for(path), tmp_path / "out")
    assert list(files) == [str(kind) for kind in Kind]
    assert {file.name: faults(file) for file in files.values()} == {
        f"{kind}.dcm": [] for kind in Kind
    }


def test_results_about_a_bare_film_are_valid(tmp_path):
    missing = ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"]
    missing += ["StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"]
    arguments = {"modality": "CR", "spacing": None, "removed": [*missing, "PatientOrientation"]}
    path = write_source(tmp_path / "film.dcm", arguments)
    for file in write_dicom(predicted_for(path), tmp_path / "out").values():
        assert faults(file) == []


def test_results_without_findings_are_valid_and_leave_no_earlier_masks(film, tmp_path):
    out = tmp_path / "out"
    write_dicom(predicted_for(film), out)
    assert (out / "segmentation.dcm").is_file()
    files = write_dicom(predicted_for(film, absent()), out)
    assert sorted(path.name for path in out.iterdir()) == [
        "overlay.dcm",
        "presentation.dcm",
        "report.dcm",
        "segmentation-fractional.dcm",
    ]
    assert "segmentation" not in files
    for file in files.values():
        assert faults(file) == []


def test_only_the_kinds_asked_for_are_written(film, tmp_path):
    write_dicom(predicted_for(film), tmp_path / "out", [Kind.REPORT])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.dcm"]


def test_the_film_itself_is_not_touched(film, tmp_path):
    before = film.read_bytes()
    write_dicom(predicted_for(film), tmp_path / "out")
    assert film.read_bytes() == before


def test_a_result_that_cannot_be_made_leaves_nothing(film, tmp_path, monkeypatch):
    def fails(header, predicted):
        raise ValueError("no such value")

    monkeypatch.setattr(export, "report", fails)
    with pytest.raises(ImageError, match=r"film\.dcm: no valid DICOM result .*\(ValueError\)"):
        write_dicom(predicted_for(film), tmp_path / "out")
    assert not (tmp_path / "out").exists()
