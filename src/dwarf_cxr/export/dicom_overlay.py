"""DICOM Secondary Capture: a picture of the film with the findings drawn on it, for any viewer."""

from functools import reduce

import numpy as np
from jaxtyping import UInt8
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dwarf_cxr import __version__
from dwarf_cxr.export.codes import SOURCE_IMAGE
from dwarf_cxr.export.dicom_source import MANUFACTURER, coded, finish, identity
from dwarf_cxr.prediction import NOTICE, FilmPrediction, boxes_present, summary_of
from dwarf_cxr.reporting.overlay import blend, captioned, film_picture, labelled_boxes

LOSSY = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""What was lost stays lost: these pass from a film to whatever is made of its pixels."""


def overlay(header: Dataset, predicted: FilmPrediction) -> Dataset:
    """An RGB picture that refers to the film; its upper rows are the film's own pixels.

    BurnedInAnnotation is YES, since words are part of the picture; none of them names the patient.

    Args:
        header: from `read_header`.
    """
    from highdicom.sc import SCImage

    who = identity(header, predicted, "overlay", 9703)
    spacing = header.get("PixelSpacing") or None
    result = SCImage(
        pixel_array=picture(predicted),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=who.series_uid,
        series_number=who.series_number,
        sop_instance_uid=who.instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate,
        patient_sex=header.PatientSex,
        study_id=header.StudyID,
        accession_number=header.AccessionNumber,
        study_date=header.StudyDate or None,
        study_time=header.StudyTime or None,
        referring_physician_name=header.ReferringPhysicianName or None,
        pixel_spacing=spacing and (float(spacing[0]), float(spacing[1])),
        # a stand-in: the constructor wants one, and `finish` sets the film's own, perhaps none
        patient_orientation=("L", "F"),
        series_description=who.description,
        manufacturer_model_name=who.algorithm,
        software_versions=who.version,
        device_serial_number=who.weights_sha256,
        content_qualification="RESEARCH",
    )
    result.copy_patient_and_study_information(header)
    result.BurnedInAnnotation = "YES"
    result.DerivationDescription = f"{who.algorithm} {who.version}; {who.parameters}"[:1024]
    if header.get("LossyImageCompression") == "01":
        for name in LOSSY:
            if name in header:
                result.add(header[name])
    source = _reference(header)
    source.PurposeOfReferenceCodeSequence = Sequence([coded(SOURCE_IMAGE)])
    result.SourceImageSequence = Sequence([source])
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ReferencedInstanceSequence = Sequence([_reference(header)])
    result.ReferencedSeriesSequence = Sequence([series])
    return finish(result, header)


def picture(predicted: FilmPrediction) -> UInt8[np.ndarray, "higher width 3"]:
    """The film with the maps and boxes of what is called present, and words in a band below it.

    Where maps of several findings overlap, the higher value is shown. The words name the model, not
    the film's file, whose name may be the patient's.
    """
    height, width = predicted.film.grey.shape
    drawn = film_picture(predicted.film.grey, (width, height))
    present = [said for said in predicted.findings if said.present]
    if present:
        drawn = blend(drawn, reduce(np.maximum, map(predicted.map_of, present)))
    drawn = labelled_boxes(drawn, boxes_present(predicted))
    model = f"{NOTICE} · dwarf-cxr {__version__} · {predicted.model.method}"
    return captioned(drawn, [model, *summary_of(predicted)])


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item
