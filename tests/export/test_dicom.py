"""All kinds at once: judged by the standard's own checker, written whole or not at all."""

import json
import shutil
import subprocess

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.errors import ConfigError, ImageError
from dwarf_cxr.export import dicom as export
from dwarf_cxr.export.dicom import Kind, export_dicom, write_dicom
from dwarf_cxr.models.checkpoint import save_model
from dwarf_cxr.prediction import predict
from tests.export.made import HEIGHT, SOURCES, WIDTH, absent, predicted_for, write_source
from tests.reporting.made import ODD, tiny_model, write_data

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


@pytest.mark.parametrize("fault", [ValueError("SMITH"), ZeroDivisionError(), OSError("SMITH")])
def test_a_kind_that_cannot_be_made_is_left_out_and_the_others_are_written(
    film, tmp_path, monkeypatch, fault
):
    def fails(header, predicted):
        raise fault

    out = tmp_path / "out"
    write_dicom(predicted_for(film), out)
    monkeypatch.setattr(export, "report", fails)
    words = rf"film\.dcm: no valid DICOM result .*\(report: {type(fault).__name__}\); correct"
    with pytest.raises(ImageError, match=words) as raised:
        write_dicom(predicted_for(film), out)
    assert "SMITH" not in str(raised.value)
    others = {str(kind) for kind in Kind} - {"report"}
    # the report of the call before would be taken for one of this
    assert {path.stem for path in out.iterdir()} == others
    faults: list[str] = []
    assert set(write_dicom(predicted_for(film), tmp_path / "two", faults=faults)) == others
    assert len(faults) == 1


def test_results_of_an_earlier_call_go_when_they_are_not_asked_for(model_folder, film, tmp_path):
    out = tmp_path / "out"
    predict(model_folder, [film], out, write_more=write_dicom)
    assert (out / "film" / "report.dcm").is_file()
    predict(model_folder, [film], out)
    assert list((out / "film").glob("*.dcm")) == []
    assert (out / "film" / "overlay.png").is_file()


@pytest.mark.parametrize("name", ["segmentation", "overlay", "presentation"])
def test_a_failure_of_one_kind_keeps_the_record_and_the_pictures(
    model_folder, film, tmp_path, monkeypatch, name
):
    def fails(*arguments):
        raise ValueError

    monkeypatch.setattr(export, name, fails)
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=r"0 of 1 images failed, the other 1 are in .* 1 lack"):
        predict(model_folder, [film], out, write_more=write_dicom)
    written = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    (record,) = written["images"]
    lost = {"segmentation", "segmentation-fractional"} if name == "segmentation" else {name}
    assert set(record["files"]) == {str(kind) for kind in Kind} - lost
    assert (out / record["overlay"]).is_file()
    assert len(written["faults"]) == 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("made") / "data")


@pytest.fixture(scope="module")
def model_folder(data, tmp_path_factory):
    """Two of its three findings are called present in every film."""
    model = tiny_model(data)
    for head in model.heads:
        torch.nn.init.normal_(head.weight, std=20)
    thresholds = {ODD: 0.0, "Effusion": 1.0, "Nodule": 0.0}
    object.__setattr__(model.card, "score_thresholds", thresholds)
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(model, folder)
    return folder


def boxes_of_lines(lines):
    """x1, y1, x2, y2 of closed lines."""
    points = [np.reshape(line, (-1, 2)) for line in lines]
    return sorted([*line.min(axis=0).tolist(), *line.max(axis=0).tolist()] for line in points)


def test_results_agree_with_the_predictions_beside_them(model_folder, film, tmp_path):
    out = tmp_path / "out"
    predict(model_folder, [film], out, write_more=write_dicom)
    (record,) = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["images"]
    assert record["files"] == {str(kind): f"film/{kind}.dcm" for kind in Kind}
    present = {name: said for name, said in record["findings"].items() if said["present"]}
    assert set(present) == {ODD, "Nodule"}
    expected = {
        name: sorted([box[edge] for edge in ("x1", "y1", "x2", "y2")] for box in said["boxes"])
        for name, said in present.items()
    }
    assert all(expected.values())

    state = pydicom.dcmread(out / record["files"]["presentation"])
    drawn = [
        boxes_of_lines([graphic.GraphicData for graphic in item.GraphicObjectSequence])
        for item in state.GraphicAnnotationSequence
        if "GraphicObjectSequence" in item
    ]
    assert drawn == list(expected.values())

    segments = hd.seg.segread(out / record["files"]["segmentation"])
    for frame, (name, said) in zip(segments.pixel_array, present.items(), strict=True):
        assert frame.shape == (HEIGHT, WIDTH)
        map_ = cv2.imread(str(out / said["map"]), cv2.IMREAD_UNCHANGED) / 65535
        away = np.abs(map_ - said["map_threshold"]) > 1e-4
        np.testing.assert_array_equal(frame[away], (map_ >= said["map_threshold"])[away])
        _, _, statistics, _ = cv2.connectedComponentsWithStats(frame, connectivity=8)
        parts = [[x, y, x + w, y + h] for x, y, w, h, _ in statistics[1:].tolist()]
        assert sorted(parts) == expected[name]

    report = hd.sr.srread(out / record["files"]["report"])
    lines: dict[str, list[np.ndarray]] = {}
    for group in report.content.get_planar_roi_measurement_groups():
        lines.setdefault(group.finding_type.meaning, []).append(group.roi.value)
    assert {name: boxes_of_lines(found) for name, found in lines.items()} == expected


def test_repeating_makes_the_same_objects(model_folder, film, tmp_path):
    uids = [
        {
            pydicom.dcmread(file).SOPInstanceUID
            for file in export_dicom(model_folder, [film], out, [*Kind])
        }
        for out in (tmp_path / "one", tmp_path / "two")
    ]
    assert len(uids[0]) == len(Kind)
    assert uids[0] == uids[1]


def test_other_films_are_named_and_dicom_films_done(model_folder, film, tmp_path):
    png = tmp_path / "in" / "other.png"
    cv2.imwrite(str(png), np.random.default_rng(0).integers(0, 256, (60, 70), dtype=np.uint8))
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=r"1 lack.*\n.*other\.png: not a DICOM file"):
        predict(model_folder, [png, film], out, write_more=write_dicom)
    written = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert [image["source"] for image in written["images"]] == [str(png), str(film)]
    assert [len(image["files"]) for image in written["images"]] == [0, len(Kind)]
    assert (out / "other" / "overlay.png").is_file()
    assert list((out / "other").glob("*.dcm")) == []
    with pytest.raises(ImageError, match=r"1 of 2 images failed; 1 files of what could be made"):
        export_dicom(model_folder, [png, film], tmp_path / "export", [Kind.REPORT])
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["film"]


def test_wrong_questions_write_nothing(model_folder, film, tmp_path):
    with pytest.raises(ConfigError, match="no image is given"):
        export_dicom(model_folder, [], tmp_path / "out", [Kind.REPORT])
    with pytest.raises(ConfigError, match="Hernia"):
        export_dicom(model_folder, [film], tmp_path / "out", [Kind.REPORT], findings=["Hernia"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (["export", "dicom-seg"], ["segmentation"]),
        (["export", "dicom-seg", "--fractional"], ["segmentation-fractional"]),
        (["export", "dicom-overlay"], ["overlay"]),
        (["export", "dicom-presentation"], ["presentation"]),
        (["export", "dicom-report"], ["report"]),
        (["predict", "--dicom"], [str(kind) for kind in Kind]),
    ],
)
def test_commands(model_folder, film, tmp_path, words, kinds):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, [*words, str(model_folder), str(film), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {path.stem for path in (out / "film").glob("*.dcm")} == set(kinds)
    said = done.output.replace("\n", "")
    assert str(out / ("predictions.json" if "predict" in words else f"film/{kinds[0]}.dcm")) in said


def test_the_command_says_when_there_is_nothing_to_segment(model_folder, film, tmp_path):
    words = ["export", "dicom-seg", str(model_folder), str(film), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--findings", "Effusion"])
    assert done.exit_code == 0
    assert "1 of 1 films: no finding is called present, no file" in done.output
    assert not (tmp_path / "out").exists()
