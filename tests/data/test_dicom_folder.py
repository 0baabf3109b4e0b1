"""Reading a hospital's export, and that nobody's identity leaves it."""

import csv
import io
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from dwarf_cxr import cli
from dwarf_cxr.data import dicom_folder
from dwarf_cxr.data.check import check
from dwarf_cxr.data.dicom_folder import read_dicom
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.sources import ReadOptions, read_source
from dwarf_cxr.errors import ConfigError, DataError, DwarfError
from tests import dicom_files as dicom

WINDOW = dicom.Window(2048, 4096)
SECRETS = ("SMITH", "Smith", "JOHN", "MRN-4711", "MRN-4712", "JONES", "9.8.7.6", "19500203")


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def film_file(path: Path, seed: int, **arguments) -> Path:
    film = dicom.film(48, 40, seed=seed)
    return write(path, dicom.dicom_bytes(film, **({"window": WINDOW} | arguments)))


@pytest.fixture
def export(tmp_path) -> Path:
    """Two patients with three films, names in paths and fields, and much that is no film."""
    root = tmp_path / "SMITH_export"
    smith = {"patient_name": "SMITH^JOHN", "patient_id": "MRN-4711"}
    jones = {"patient_name": "JONES^ANN", "patient_id": "MRN-4712"}
    film_file(root / "SMITH^JOHN" / "IM0001", 1, **smith, sop_instance_uid="9.8.7.6.1")
    film_file(
        root / "SMITH^JOHN" / "Smith lateral.dcm", 2, **smith,
        instance="2", view="LL", sop_instance_uid="9.8.7.6.2",
    )  # fmt: skip
    film_file(root / "JONES" / "a.dicom", 3, **jones, modality="CR", sop_instance_uid="9.8.7.6.3")
    film_file(root / "JONES" / "CT", 4, **jones, modality="CT", instance="4")
    film_file(root / "JONES" / "raw", 5, **jones, intent=dicom.PROCESSING, instance="5")
    write(root / "SMITH^JOHN" / "readme SMITH.txt", b"SMITH^JOHN MRN-4711")
    write(root / "empty", b"")
    write(root / ".hidden", b"SMITH")
    shutil.copy(root / "SMITH^JOHN" / "IM0001", root / "SMITH^JOHN" / "copy of IM0001")
    report = dicom.dicom_bytes(
        dicom.film(), modality="SR", removed=["Rows", "PixelData"],
        changes={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
    )  # fmt: skip
    write(root / "JONES" / "report", report)
    return root


@pytest.fixture
def links(tmp_path) -> Path:
    return tmp_path / "private" / "links.csv"


def labels_file(tmp_path: Path, *lines: str) -> Path:
    return write(tmp_path / "labels.csv", ("\n".join(lines) + "\n").encode())


def test_films_are_found_and_the_rest_is_counted(export, links):
    source = read_dicom(export, links=links, findings=["Mass"])
    assert len(source.radiographs) == 3
    by_path = {one.path.name: one for one in source.radiographs}
    assert set(by_path) == {"IM0001", "Smith lateral.dcm", "a.dicom"}
    patients = {one.patient_id for one in source.radiographs}
    assert len(patients) == 2
    assert all(one.labels == {} for one in source.radiographs)
    (left_out,) = [note for note in source.notes if "left out" in note]
    assert left_out.startswith("7 files were left out: ")
    for part in (
        "2 not DICOM files",
        "1 hidden files or folders",
        "1 of modality CT",
        "1 raw detector images",
        "1 DICOM objects without an image",
        "1 copies of another file",
    ):
        assert part in left_out
    assert "views: PA 2, LL 1" in source.notes


def test_ids_are_the_same_next_time_and_lead_back_by_the_link_table(export, links):
    first = read_dicom(export, links=links, findings=["Mass"])
    again = read_dicom(export, links=links, findings=["Mass"])
    assert [one.image_id for one in again.radiographs] == [
        one.image_id for one in first.radiographs
    ]
    text = links.read_text()
    for one in first.radiographs:
        assert one.image_id in text
        assert one.patient_id in text
    assert "MRN-4711" in text
    assert links.stat().st_mode & 0o777 == 0o600


def test_patients_are_those_of_the_link_table_whatever_the_set_is_called(export, links, tmp_path):
    first = read_dicom(export, links=links, findings=["Mass"])
    named = read_dicom(export, links=links, findings=["Mass"], name="Ward 3")
    other = read_dicom(export, links=tmp_path / "other.csv", findings=["Mass"])
    assert (first.name, named.name, other.name) == ("dicom", "Ward 3", "dicom")
    assert first.patients_of == named.patients_of != other.patients_of
    salt = links.read_text().splitlines()[1].split(",")[2].strip('"')
    assert len(salt) == 64
    assert first.patients_of.removeprefix("link table ") not in salt


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("SOPInstanceUID", ("9.8.7.6.1", "9.8.7.6.3")),
        ("path", ("SMITH^JOHN/IM0001", "JONES/a.dicom")),
    ],
)
def test_labels_are_matched(export, links, tmp_path, key, values):
    if key == "path":
        (export / "SMITH^JOHN" / "copy of IM0001").unlink()
    table = labels_file(
        tmp_path, f"{key},split,Mass,Edema", f"{values[0]},train,1,", f"{values[1]},test,0,1",
        "1.2.3,val,,",
    )  # fmt: skip
    source = read_dicom(export, links=links, labels=table)
    assert source.findings == ("Mass", "Edema")
    said = sorted((str(one.labels), one.split) for one in source.radiographs)
    assert said == [
        ("{'Mass': False, 'Edema': True}", "test"), ("{'Mass': True}", "train"), ("{}", None),
    ]  # fmt: skip
    assert any("1 rows of labels match no film: lines 4" in note for note in source.notes)
    assert any("1 films without labels" in note for note in source.notes)


def test_labels_of_a_study_hold_for_all_its_films(export, links, tmp_path):
    study = pydicom.dcmread(export / "SMITH^JOHN" / "IM0001").StudyInstanceUID
    table = labels_file(tmp_path, "StudyInstanceUID,Mass", f"{study},1")
    source = read_dicom(export, links=links, labels=table)
    assert sorted(str(one.labels) for one in source.radiographs) == [
        "{'Mass': True}", "{'Mass': True}", "{}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Mass", "1"], "exactly one of the columns"),
        (["SOPInstanceUID,path,Mass", "a,b,1"], "exactly one of the columns"),
        (["SOPInstanceUID", "9.8.7.6.1"], "one named column per finding"),
        (["SOPInstanceUID,Mass,text", "9.8.7.6.1,1,SMITH"], "column 'text': may hold names"),
        (["SOPInstanceUID,PatientName", "9.8.7.6.1,SMITH"], "'PatientName': may hold names"),
        (["SOPInstanceUID,Mass", "9.8.7.6.1,SMITH"], "line 2, column 'Mass': not a label"),
        (["SOPInstanceUID,Mass,split", "9.8.7.6.1,1,SMITH"], "line 2, column 'split': write"),
        (["SOPInstanceUID,Mass", "9.8.7.6.1,1", "9.8.7.6.1,0"], "line 3: I.* stands in line 2"),
        (["SOPInstanceUID,Mass", "9.8.7.6.12,1"], "no row matches a film"),
    ],
)
def test_faults_of_labels_are_named_without_quoting(export, links, tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        read_dicom(export, links=links, labels=labels_file(tmp_path, *lines))
    said = str(caught.value).replace(str(tmp_path), "")
    assert not any(secret in said for secret in SECRETS)


def test_without_labels_findings_are_asked_for(export, links):
    with pytest.raises(ConfigError, match="--findings"):
        read_dicom(export, links=links)


def test_all_damaged_files_are_listed_by_pseudonym(export, links):
    content = (export / "JONES" / "a.dicom").read_bytes()
    write(export / "SMITH^JOHN" / "bad1", content[:132])
    write(export / "SMITH^JOHN" / "bad3", content[: content.index(b"MRN-4712") - 8])
    write(export / "SMITH^JOHN" / "bad2", content.replace(b"9.8.7.6.3", b"9.8.7.6.1"))
    with pytest.raises(DataError) as caught:
        read_dicom(export, links=links, findings=["Mass"])
    *faults, where = str(caught.value).splitlines()
    assert len(faults) == 3
    for part in (
        "names no transfer syntax",
        "cut off before its pixels",
        "different files with the same SOPInstanceUID",
    ):
        assert sum(part in fault for fault in faults) == 1
    assert str(links) in where
    assert_nothing_leaks("\n".join(faults), export)
    assert all(name in links.read_text() for name in ("bad1", "bad2", "bad3"))


def test_what_cannot_be_read_is_a_fault_by_pseudonym(export, links, monkeypatch):
    """A folder, a file and the two of a pair that are compared; as root nothing is unreadable."""
    write(export / "SMITH^JOHN" / "shut" / "a.dcm", b"")
    write(export / "SMITH^JOHN" / "stuck", b"")
    whole, scan, look = dicom_folder.sha256_of, os.scandir, Path.stat

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    def refusing(name, real):
        return lambda path, **options: (
            refuse(path) if Path(path).name == name else real(path, **options)
        )

    monkeypatch.setattr(dicom_folder, "sha256_of", refusing("copy of IM0001", whole))
    monkeypatch.setattr(os, "scandir", refusing("shut", scan))
    monkeypatch.setattr(Path, "stat", refusing("stuck", look))
    with pytest.raises(DataError) as caught:
        read_dicom(export, links=links, findings=["Mass"])
    *faults, _ = str(caught.value).splitlines()
    assert len(faults) == 3
    assert all("cannot be read (Permission denied)" in fault for fault in faults)
    assert_nothing_leaks("\n".join(faults), export)
    rows = list(csv.reader(links.open(newline="")))
    by_name = {Path(row[3]).name: row[1] for row in rows if row[2] == "cannot be read"}
    assert set(by_name) == {"shut", "stuck", "copy of IM0001"}
    assert {fault.split(":")[0] for fault in faults} == set(by_name.values())


def test_what_is_not_looked_into_is_counted(export, links):
    (export / "SMITH^JOHN" / "gone SMITH").symlink_to(export / "nowhere")
    write(export / ".SMITH" / "deep" / "a.dcm", b"")
    os.mkfifo(export / "JONES" / "pipe")
    source = read_dicom(export, links=links, findings=["Mass"])
    (left_out,) = [note for note in source.notes if "left out" in note]
    for part in (
        "10 files were left out",
        "2 hidden files or folders",
        "1 links that lead nowhere",
        "1 neither files nor folders",
    ):
        assert part in left_out
    assert_nothing_leaks(left_out, export)
    assert "gone SMITH" in links.read_text()


def test_a_tree_without_films_is_refused(tmp_path, links):
    write(tmp_path / "tree" / "SMITH.txt", b"SMITH")
    with pytest.raises(DataError, match=r"no radiograph among the files \(1 not DICOM files\)"):
        read_dicom(tmp_path / "tree", links=links, findings=["Mass"])


def test_a_link_back_up_ends(export, links):
    (export / "JONES" / "up").symlink_to(export)
    assert len(read_dicom(export, links=links, findings=["Mass"]).radiographs) == 3


def test_films_without_patient_id_are_patients_by_study(export, links):
    for number in (7, 8):
        film_file(
            export / f"nobody{number}", number, patient_id="", study=str(number),
            sop_instance_uid=f"9.8.7.6.{number}",
        )  # fmt: skip
    source = read_dicom(export, links=links, findings=["Mass"])
    assert len({one.patient_id for one in source.radiographs}) == 4
    assert any("2 films without a PatientID" in note for note in source.notes)


def test_burned_in_text_is_noted(export, links):
    film_file(export / "x", 9, changes={"BurnedInAnnotation": "YES"}, instance="9")
    source = read_dicom(export, links=links, findings=["Mass"])
    assert any("burned into their pixels" in note for note in source.notes)


@pytest.fixture
def disc(export, tmp_path) -> Path:
    files = FileSet()
    for name in ("SMITH^JOHN/IM0001", "SMITH^JOHN/Smith lateral.dcm", "JONES/a.dicom"):
        files.add(export / name)
    files.write(tmp_path / "disc")
    return tmp_path / "disc" / "DICOMDIR"


def test_a_dicomdir_is_read(disc, links, tmp_path):
    (tmp_path / "disc" / "other.dcm").write_bytes(b"not listed")
    source = read_dicom(disc, links=links, findings=["Mass"])
    assert len(source.radiographs) == 3
    assert not any("left out" in note for note in source.notes)
    # in the folder the directory itself is one file that is no film
    source = read_dicom(disc.parent, links=links, findings=["Mass"])
    assert len(source.radiographs) == 3


def test_a_dicomdir_that_leads_elsewhere_or_nowhere_is_refused(disc, links, export):
    directory = pydicom.dcmread(disc)
    images = [r for r in directory.DirectoryRecordSequence if r.DirectoryRecordType == "IMAGE"]
    with pydicom.config.disable_value_validation():
        images[0].ReferencedFileID = ["..", export.name, "JONES", "a.dicom"]
        images[1].ReferencedFileID = ["GONE", "IM1"]
        directory.save_as(disc)
    with pytest.raises(DataError, match="2 listed images are not there"):
        read_dicom(disc, links=links, findings=["Mass"])


def test_a_link_table_inside_the_data_is_refused(export, tmp_path):
    inside = ReadOptions(link_table=tmp_path / "d" / "x.csv")
    with pytest.raises(ConfigError, match="must not lie in the data"):
        read_source("dicom", export, out=tmp_path / "d", options=inside, findings=("A",))


def run_cli(monkeypatch, capsys, *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["dwarf", *words])
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    shown = capsys.readouterr()
    return status, shown.out + shown.err


def assert_nothing_leaks(text: str, export: Path) -> None:
    text = text.replace(str(export), "ROOT")  # the folder that the user typed
    assert [secret for secret in SECRETS if secret in text] == []


def test_nothing_that_is_written_or_shown_names_a_patient(
    export, links, tmp_path, monkeypatch, capsys, caplog
):
    table = labels_file(
        tmp_path, "SOPInstanceUID,split,Mass", "9.8.7.6.1,train,1", "9.8.7.6.2,train,0",
        "9.8.7.6.3,test,1", "9.8.7.6.99,test,1",
    )  # fmt: skip
    blank = np.full((48, 40), 7, np.uint16)
    content = dicom.dicom_bytes(
        blank, patient_name="SMITH^JOHN", patient_id="MRN-4711", sop_instance_uid="9.8.7.6.4"
    )
    write(export / "SMITH^JOHN" / "blank", content)
    again = dicom.dicom_bytes(
        blank, patient_name="SMITH^JOHN", patient_id="MRN-4711", sop_instance_uid="9.8.7.6.5"
    )
    write(export / "SMITH^JOHN" / "blank2", again)
    with table.open("a") as lines:
        lines.write("9.8.7.6.4,train,0\n9.8.7.6.5,train,0\n")
    out = tmp_path / "data"
    with caplog.at_level(logging.DEBUG):
        status, shown = run_cli(
            monkeypatch, capsys, "data", "prepare", "dicom", "--root", str(export),
            "--out", str(out), "--size", "32", "--labels", str(table), "--link-table", str(links),
        )  # fmt: skip
    assert status == 0, shown
    assert "5 images" in shown
    assert str(links) in shown
    assert_nothing_leaks(shown + caplog.text, export)
    written = sorted(path for path in out.rglob("*") if path.is_file())
    assert {"images.csv", "regions.json", "dataset.json", "pixels-32.u8"} <= {
        path.name for path in written
    }
    for path in written:
        content = path.read_bytes()
        for secret in (*SECRETS, str(export), export.name, str(tmp_path)):
            assert secret.encode() not in content, (path, secret)
            assert secret.encode("utf-16-le") not in content
    notes = json.loads((out / "dataset.json").read_text())["notes"]
    assert any("every pixel is the same" in note for note in notes)
    status, shown = run_cli(monkeypatch, capsys, "data", "check", str(out))
    assert_nothing_leaks(shown, export)
    assert [fault for fault in check(out) if fault.severity == "error"] == []


def test_no_error_names_a_patient(export, links, tmp_path, monkeypatch, capsys, caplog):
    good = (export / "JONES" / "a.dicom").read_bytes()
    bad = good.replace(b"9.8.7.6.3", b"9.8.7.6.8")
    write(export / "SMITH^JOHN" / "cut", bad[:-100])
    write(export / "SMITH^JOHN" / "wrong", bad[:200])
    words = [
        "data", "prepare", "dicom", "--root", str(export), "--out", str(tmp_path / "data"),
        "--findings", "Mass", "--link-table", str(links),
    ]  # fmt: skip
    with caplog.at_level(logging.DEBUG):
        status, shown = run_cli(monkeypatch, capsys, *words)
        assert status == 1
        (export / "SMITH^JOHN" / "wrong").unlink()
        status, more = run_cli(monkeypatch, capsys, *words)
    assert status == 1
    assert "truncated pixels" in more
    assert_nothing_leaks(shown + more + caplog.text, export)
    name = more.split("truncated")[0].split()[-1].rstrip(":")
    (row,) = [line for line in links.read_text().splitlines() if f'"{name}"' in line]
    assert "SMITH^JOHN/cut" in row
    monkeypatch.setenv("DWARF_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["dwarf", *words])
    with pytest.raises(DwarfError) as caught:
        cli.main()
    assert caught.value.__cause__ is None


def test_prepared_films_are_those_of_the_files(export, links, tmp_path):
    source = read_dicom(export, links=links, findings=["Mass"])
    data = prepare(source, tmp_path / "data", size=48, progress=lambda done, total: None)
    assert len(data.image_ids) == 3
    for image_id, pixels in zip(data.image_ids, data.pixels, strict=True):
        (one,) = [one for one in source.radiographs if one.image_id == image_id]
        stored = pydicom.dcmread(io.BytesIO(one.path.read_bytes())).pixel_array
        want = np.round(stored * (255 / 4095))
        assert np.abs(pixels[:, ::6].mean() - want[:, ::5].mean()) < 6
    assert data.sources == data.image_ids
