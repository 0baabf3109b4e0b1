import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from dwarf_cxr import __version__
from dwarf_cxr.export.dicom import Kind, write_dicom
from tests import dicom_files as dicom
from tests.export.made import (
    BOX,
    SECOND_BOXES,
    SOURCES,
    WINDOW,
    absent,
    predicted_for,
    write_source,
)


def written(path, findings=None):
    predicted = predicted_for(path) if findings is None else predicted_for(path, findings)
    file = write_dicom(predicted, path.parent, [Kind.PRESENTATION])["presentation"]
    return pydicom.dcmread(file)


def closed_line(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2, x1, y1]


def annotations(state):
    layers = {
        layer.GraphicLayer: layer.GraphicLayerDescription for layer in state.GraphicLayerSequence
    }
    return {layers[item.GraphicLayer]: item for item in state.GraphicAnnotationSequence}


@pytest.mark.parametrize("name", SOURCES)
def test_boxes_lie_at_exactly_their_places(tmp_path, name):
    path = write_source(tmp_path / "film.dcm", SOURCES[name])
    found = annotations(written(path))
    assert list(found) == ["Effusion", "Not in / any table Ω", "Research only"]
    lines = {
        finding: [list(graphic.GraphicData) for graphic in found[finding].GraphicObjectSequence]
        for finding in list(found)[:2]
    }
    # the parts of a finding are ordered by their highest values, here the same
    assert lines["Effusion"] == [closed_line(BOX)]
    assert sorted(lines["Not in / any table Ω"]) == sorted(map(closed_line, SECOND_BOXES))
    for finding in list(found)[:2]:
        for graphic in found[finding].GraphicObjectSequence:
            assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")


def test_words_stand_at_the_boxes_and_below_the_film(film):
    found = annotations(written(film))
    (label,) = found["Effusion"].TextObjectSequence
    assert label.UnformattedTextValue == "Effusion 0.83"
    assert list(label.AnchorPoint) == [40, 5]
    (notice,) = found["Research only"].TextObjectSequence
    assert notice.UnformattedTextValue.startswith(
        f"Research only · dwarf-cxr {__version__} · dwarf · Called present: Effusion 0.83"
    )


def test_nothing_present_has_words_only(film):
    found = annotations(written(film, absent()))
    assert list(found) == ["Research only"]
    (notice,) = found["Research only"].TextObjectSequence
    assert "None of 4 findings called present" in notice.UnformattedTextValue


def test_the_film_is_referred_to(film):
    state, source = written(film), pydicom.dcmread(film)
    (series,) = state.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    (area,) = state.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [61, 44]


@pytest.mark.parametrize(
    ("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")]
)
def test_polarity_is_the_films(tmp_path, photometric, shape):
    path = write_source(tmp_path / "a.dcm", {"photometric": photometric, "window": WINDOW})
    assert written(path).PresentationLUTShape == shape


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": dicom.Window(1000, 900)},
        {"window": dicom.Window(1000, 900, "SIGMOID")},
        {"window": dicom.Window([1000, 5], [900, 6])},
        {"voi_lut": dicom.Lut(range(0, 4096, 1), 0, 12)},
        {"voi_lut": dicom.Lut([*range(0, 1024, 4)], 500, 10)},
        {"voi_lut": dicom.Lut(range(4095, -1, -1), 0, 12), "transfer_syntax": dicom.BIG_ENDIAN},
        {"voi_lut": dicom.Lut(range(4096), 0, 12), "transfer_syntax": dicom.IMPLICIT},
        {"voi_lut": dicom.Lut([0, 65535], 2000, 16)},
        {"modality_lut": dicom.Lut(range(4095, -1, -1), 0, 16), "window": dicom.Window(900, 700)},
        {"rescale": (2.0, -100.0), "window": dicom.Window(3000, 2500)},
    ],
)
def test_grey_values_are_displayed_as_the_films(tmp_path, arguments):
    path = write_source(tmp_path / "a.dcm", {"modality": "CR", **_without_rescale(arguments)})
    source, state = pydicom.dcmread(path), written(path)
    stored = source.pixel_array
    expected = _displayed(stored, source, source)
    shown = _displayed(stored, state, state.SoftcopyVOILUTSequence[0])
    np.testing.assert_allclose(shown, expected, atol=1 / 65535)
    assert np.ptp(expected) > 0.9


def test_a_film_without_a_window_gets_none(tmp_path):
    path = write_source(tmp_path / "a.dcm", {"intent": dicom.PROCESSING})
    assert "SoftcopyVOILUTSequence" not in written(path)


@pytest.mark.parametrize(
    ("arguments", "spacing", "ratio"),
    [
        ({"spacing": (0.2, 0.1)}, [0.2, 0.1], None),
        ({"spacing": (0.2, 0.1), "removed": ["PixelSpacing"]}, [0.2, 0.1], None),
        ({"spacing": (0.2, 0.1), "changes": {"ImagerPixelSpacing": [0.3, 0.3]}}, [0.2, 0.1], None),
        ({"spacing": (0.2, 0.1), "changes": {"PixelSpacing": None}}, [0.2, 0.1], None),
        ({"spacing": None, "changes": {"PixelAspectRatio": [2, 1]}}, None, [2, 1]),
        ({"spacing": None}, None, [1, 1]),
        ({"spacing": (0.0, 0.1)}, None, [1, 1]),
    ],
)
def test_pixels_are_displayed_in_their_own_shape(tmp_path, arguments, spacing, ratio):
    path = write_source(tmp_path / "a.dcm", {"modality": "CR", **arguments})
    (area,) = written(path).DisplayedAreaSelectionSequence
    assert area.get("PresentationPixelSpacing") == spacing
    assert area.get("PresentationPixelAspectRatio") == ratio


def _without_rescale(arguments):
    return {"rescale": None, **arguments} if "modality_lut" in arguments else arguments


def _displayed(stored, modality, voi):
    """Grey values in [0, 1], by pydicom's transformations."""
    values = np.asarray(apply_modality_lut(stored, modality), dtype=float)
    if "VOILUTSequence" in voi:
        bits = voi.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi_lut(values.astype(int), voi) / (2**bits - 1)
    window = pydicom.Dataset()
    for name in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if name in voi:
            window.add(voi[name])
    window.BitsStored, window.PixelRepresentation, window.PhotometricInterpretation = (
        16,
        0,
        "MONOCHROME2",
    )
    window.RescaleSlope, window.RescaleIntercept = 1, 0
    return apply_voi_lut(values, window) / 65535
