"""The generator of DICOM films, judged by the standard's own checker and by pydicom."""

import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from tests import dicom_files as dicom


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": dicom.Window(2048, 4096)},
        {"voi_lut": dicom.Lut(range(4096), 0, 12), "photometric": "MONOCHROME1"},
        {"intent": dicom.PROCESSING},
        {"modality": "CR", "window": dicom.Window([1.5, 2], [3, 4], "SIGMOID")},
        {"modality": "OT"},
        {"window": dicom.Window(2048, 4096), "padding": 0, "padding_limit": 3},
        {"window": dicom.Window(2048, 4096), "transfer_syntax": dicom.JPEG_LS},
        {"window": dicom.Window(2048, 4096), "transfer_syntax": dicom.JPEG_LOSSLESS},
    ],
)
def test_files_are_valid(tmp_path, arguments):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (of dicom3tools) is not installed")
    (tmp_path / "a.dcm").write_bytes(dicom.dicom_bytes(dicom.film(), **arguments))
    said = subprocess.run(["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("syntax", dicom.LOSSLESS)
@pytest.mark.parametrize("signed", [False, True])
def test_stored_values_come_back(syntax, signed):
    values = dicom.film(34, 45).astype(int) - (2048 if signed else 0)
    content = dicom.dicom_bytes(values, transfer_syntax=syntax, signed=signed)
    assert content == dicom.dicom_bytes(values, transfer_syntax=syntax, signed=signed)
    np.testing.assert_array_equal(pydicom.dcmread(io.BytesIO(content)).pixel_array, values)
