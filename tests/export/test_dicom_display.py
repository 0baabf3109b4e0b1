"""Films that are read although their display is not quite valid get results all the same."""

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence

from dwarf_cxr.data.dicom import decode_dicom
from dwarf_cxr.export.dicom import Kind, write_dicom
from dwarf_cxr.export.dicom_source import read_header
from tests.export.made import predicted_for, write_source


def table(first: int, bits: int, entries: np.ndarray) -> Sequence:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def values(dataset, *names):
    """Numbers and words of those attributes that are there."""
    found = {}
    for name in names:
        if name in dataset:
            value = dataset[name].value
            several = value if isinstance(value, pydicom.multival.MultiValue) else [value]
            found[name] = [one if isinstance(one, str) else float(one) for one in several]
    return found


WINDOWS = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
RESCALE = ("RescaleSlope", "RescaleIntercept", "RescaleType")
WHOLE = {"RescaleSlope": [1.0], "RescaleIntercept": [0.0], "RescaleType": ["US"]}


@pytest.mark.parametrize(
    ("changes", "windows", "rescale"),
    [
        ({"WindowCenter": None, "WindowWidth": None}, {}, WHOLE),
        ({"WindowCenter": 2000, "WindowWidth": None, "VOILUTFunction": "SIGMOID"}, {}, WHOLE),
        ({"WindowCenter": 2000, "WindowWidth": 0}, {}, WHOLE),
        ({"WindowCenter": 2000, "WindowWidth": 0.5}, {}, WHOLE),
        (
            {"VOILUTSequence": [], "WindowCenter": 9, "WindowWidth": 8},
            {"WindowCenter": [9.0], "WindowWidth": [8.0]},
            WHOLE,
        ),
        (
            {
                "WindowCenter": [1, 2, 3],
                "WindowWidth": [40, 50],
                "WindowCenterWidthExplanation": ["A", "B", "C"],
            },
            {"WindowCenter": [1.0, 2.0], "WindowWidth": [40.0, 50.0]},
            WHOLE,
        ),
        (
            {
                "WindowCenter": [1, 2, 3],
                "WindowWidth": [40, 0, 60],
                "VOILUTFunction": "ODD",
            },
            {"WindowCenter": [1.0, 3.0], "WindowWidth": [40.0, 60.0], "VOILUTFunction": ["LINEAR"]},
            WHOLE,
        ),
        ({"RescaleIntercept": None, "RescaleSlope": 2}, {}, {**WHOLE, "RescaleSlope": [2.0]}),
        (
            {"RescaleIntercept": -7, "RescaleSlope": None, "RescaleType": None},
            {},
            {**WHOLE, "RescaleIntercept": [-7.0]},
        ),
        ({"RescaleIntercept": None, "RescaleSlope": None}, {}, {}),
        ({"ModalityLUTSequence": []}, {}, WHOLE),
        ({"VOILUTSequence": table(-5, 12, np.linspace(0, 4095, 40_000))}, {}, WHOLE),
        ({"VOILUTSequence": table(0, 0, np.arange(4096)), "WindowCenter": 5}, {}, WHOLE),
        ({"VOILUTSequence": table(0, 8, np.arange(4096))}, {}, WHOLE),
    ],
)
def test_what_was_read_is_what_is_passed_on(tmp_path, changes, windows, rescale):
    arguments = {"modality": "CR", "changes": changes}
    path = write_source(tmp_path / "film.dcm", arguments)
    grey = decode_dicom(path.read_bytes(), "film")
    predicted = predicted_for(path)
    files = write_dicom(predicted, tmp_path / "out")
    assert set(files) == {str(kind) for kind in Kind}
    header, state = read_header(predicted.film), pydicom.dcmread(files["presentation"])
    voi = state.SoftcopyVOILUTSequence[0] if "SoftcopyVOILUTSequence" in state else {}
    for dataset, voi_of_it in ((header, header), (state, voi)):
        assert values(dataset, *RESCALE) == rescale
        assert values(voi_of_it, *WINDOWS) == windows
        assert "ModalityLUTSequence" not in dataset
    assert ("VOILUTSequence" in voi) == bool(changes.get("VOILUTSequence"))
    if "VOILUTSequence" in voi:
        # the film itself, with nothing for its display but the table that is passed on
        film = pydicom.dcmread(path)
        film.VOILUTSequence = voi.VOILUTSequence
        film.save_as(tmp_path / "again.dcm")
        again = decode_dicom((tmp_path / "again.dcm").read_bytes(), "again")
        assert np.abs(grey.astype(int) - again).max() <= 1
        assert np.ptp(grey.astype(int)) > 10


def test_a_film_of_one_window_without_a_width_beside_it_has_none(tmp_path):
    changes = {"WindowCenter": [1, 2], "WindowWidth": [0, 5]}
    path = write_source(tmp_path / "film.dcm", {"modality": "CR", "changes": changes})
    assert values(read_header(predicted_for(path).film), *WINDOWS) == {}


def test_a_modality_table_goes_before_a_rescaling(tmp_path):
    changes = {"ModalityLUTSequence": table(0, 16, np.arange(4096)), "WindowWidth": 0}
    changes["WindowCenter"] = 3
    path = write_source(tmp_path / "film.dcm", {"modality": "CR", "changes": changes})
    header = read_header(predicted_for(path).film)
    assert values(header, *RESCALE) == {}
    (item,) = header.ModalityLUTSequence
    assert (list(item.LUTDescriptor), item.ModalityLUTType) == ([4096, 0, 16], "US")
    # nothing comes behind it, so that its highest value is shown as white
    assert np.frombuffer(item.LUTData, "<u2").max() == 65535
