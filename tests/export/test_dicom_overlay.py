from dataclasses import replace

import numpy as np
import pydicom
import pytest

from dwarf_cxr.export.dicom import Kind, write_dicom
from dwarf_cxr.export.dicom_overlay import picture
from tests.export.made import (
    FINDINGS,
    HEIGHT,
    SOURCES,
    WIDTH,
    absent,
    map_with,
    predicted_for,
    said_of,
    write_source,
)


def written(predicted, folder):
    return pydicom.dcmread(write_dicom(predicted, folder, [Kind.OVERLAY])["overlay"])


def test_without_findings_the_film_stands_above_the_words(film):
    predicted = predicted_for(film, absent())
    overlay = written(predicted, film.parent)
    assert (overlay.PhotometricInterpretation, overlay.Columns) == ("RGB", WIDTH)
    pixels = overlay.pixel_array
    np.testing.assert_array_equal(
        pixels[:HEIGHT], np.repeat(predicted.film.grey[..., None], 3, axis=2)
    )
    assert pixels.shape[0] > HEIGHT
    assert pixels[HEIGHT:].max() > 128


def test_a_map_colours_its_own_place_alone(film):
    # without a map threshold there is no box to draw
    place = np.s_[3:9, 31:55]
    map_ = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    map_[place] = 0.8
    predicted = predicted_for(film, [said_of("Mass", map_, 0.9, map_threshold=None)])
    pixels = written(predicted, film.parent).pixel_array[:HEIGHT].astype(int)
    coloured = np.ptp(pixels, axis=2) > 0
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[place] = True
    np.testing.assert_array_equal(coloured, expected)


def test_what_is_called_absent_is_not_drawn(film):
    present, not_present = FINDINGS[0], replace(FINDINGS[2], present=False)
    one = picture(predicted_for(film, [present]))
    two = picture(predicted_for(film, [present, not_present]))
    np.testing.assert_array_equal(one[:HEIGHT], two[:HEIGHT])


def test_the_words_do_not_come_from_the_films_name(film):
    predicted = predicted_for(film)
    renamed = write_source(film.with_name("Surname-Forename.dcm"), SOURCES["DX"])
    np.testing.assert_array_equal(picture(predicted), picture(predicted_for(renamed)))


def test_attributes(film):
    overlay, source = written(predicted_for(film), film.parent), pydicom.dcmread(film)
    assert overlay.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert overlay.BurnedInAnnotation == "YES"
    assert overlay.PatientOrientation == source.PatientOrientation
    assert overlay.PixelSpacing == source.PixelSpacing
    (reference,) = overlay.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert overlay.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert "dwarf-cxr dwarf" in overlay.DerivationDescription


@pytest.mark.parametrize("orientation", [["R", "F"], None, ["PR", "F"]])
def test_the_patients_orientation_is_the_films(tmp_path, orientation):
    path = write_source(
        tmp_path / "a.dcm", {"modality": "CR", "changes": {"PatientOrientation": orientation}}
    )
    assert (written(predicted_for(path), tmp_path).PatientOrientation or None) == orientation


def test_what_a_lossy_film_lost_stays_lost(tmp_path):
    changes = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 12.5,
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    path = write_source(tmp_path / "a.dcm", {"modality": "CR", "changes": changes})
    overlay = written(predicted_for(path), tmp_path)
    assert {name: overlay[name].value for name in changes} == changes


def test_the_higher_of_two_maps_is_shown(film):
    low, high = (
        said_of(name, map_with([np.s_[:, :30]], inside=inside), 0.9, map_threshold=None)
        for name, inside in (("Mass", 0.4), ("Nodule", 0.9))
    )
    both = picture(predicted_for(film, [low, high]))[:HEIGHT]
    np.testing.assert_array_equal(both, picture(predicted_for(film, [high]))[:HEIGHT])
