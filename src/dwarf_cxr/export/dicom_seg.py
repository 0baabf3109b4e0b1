"""DICOM Segmentation: where each finding is, as masks or as the maps themselves.

A radiograph has no place in the patient's space (no frame of reference), so a segment's pixels are
the film's pixels, one for one.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydicom.dataset import Dataset

from dwarf_cxr.evaluation.maps import reaches
from dwarf_cxr.export.codes import ABNORMAL_STRUCTURE, concept_of, long_string
from dwarf_cxr.export.dicom_source import (
    CREATOR,
    MANUFACTURER,
    Identity,
    coded,
    coding_schemes,
    finish,
    identity,
    tracking_uid,
    uid_of,
)
from dwarf_cxr.prediction import FilmPrediction, FindingPrediction
from dwarf_cxr.reporting.overlay import BOX_COLOURS

if TYPE_CHECKING:
    from highdicom import PixelMeasuresSequence
    from highdicom.seg import SegmentDescription

SegmentationKind = Literal["BINARY", "FRACTIONAL"]
STEPS = 255
"""What stands for a map's 1 in a fractional segmentation."""
THICKNESS = 1.0
"""Millimetres. A projection has no thickness; readers of segmentations refuse a pixel spacing that
comes without one."""


def segmented_findings(
    predicted: FilmPrediction, kind: SegmentationKind
) -> tuple[FindingPrediction, ...]:
    """The findings that get a segment.

    BINARY: those that are called present and have a map threshold, as in the pictures; there may be
    none. FRACTIONAL: all.
    """
    if kind == "FRACTIONAL":
        return predicted.findings
    return tuple(
        said for said in predicted.findings if said.present and said.map_threshold is not None
    )


def segmentation(header: Dataset, predicted: FilmPrediction, kind: SegmentationKind) -> Dataset:
    """A segment per finding of `segmented_findings`, on the film's own pixels.

    BINARY: where the map reaches its threshold. FRACTIONAL: the map as a probability, 255 is 1.

    Args:
        header: from `read_header`.

    Raises:
        ValueError: no finding has a segment of that kind.
    """
    from highdicom.seg import Segmentation, SegmentationFractionalTypeValues

    findings = segmented_findings(predicted, kind)
    if not findings:
        raise ValueError("no finding is called present; ask segmented_findings first")
    words, number = ("segmentation", 9701) if kind == "BINARY" else ("map", 9702)
    who = identity(header, predicted, words, number)
    result = Segmentation(
        source_images=[header],
        pixel_array=_pixels(predicted, findings, kind),
        segmentation_type=kind,
        segment_descriptions=[
            _describe(number, said, header, predicted, who)
            for number, said in enumerate(findings, start=1)
        ],
        series_instance_uid=who.series_uid,
        series_number=who.series_number,
        sop_instance_uid=who.instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=who.algorithm,
        software_versions=who.version,
        device_serial_number=who.weights_sha256,
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=STEPS,
        content_label="RESEARCH_ONLY",
        content_description=who.description,
        content_creator_name=CREATOR,
        pixel_measures=_measures(header),
        omit_empty_frames=False,
        series_description=who.description,
        content_qualification="RESEARCH",
        coding_schemes=coding_schemes(concept_of(said.finding) for said in findings),
    )
    # highdicom draws one by chance; an object of one UID must be the same object
    dimensions = uid_of("dimensions", str(who.instance_uid))
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    return finish(result, header)


def _pixels(
    predicted: FilmPrediction, findings: tuple[FindingPrediction, ...], kind: SegmentationKind
) -> np.ndarray:
    """(1, height, width, finding): uint8 0 or 1, or float32 in steps of 1/255."""
    height, width = predicted.film.grey.shape
    fractional = kind == "FRACTIONAL"
    pixels = np.empty((1, height, width, len(findings)), np.float32 if fractional else np.uint8)
    for place, said in enumerate(findings):
        map_ = predicted.map_of(said)
        if fractional:
            # in steps at once: the check of the values is slow and large for many different ones
            pixels[0, :, :, place] = np.round(np.clip(map_, 0, 1) * STEPS) / STEPS
        else:
            assert said.map_threshold is not None
            pixels[0, :, :, place] = reaches(map_, said.map_threshold)
    return pixels


def _describe(
    number: int, said: FindingPrediction, header: Dataset, predicted: FilmPrediction, who: Identity
) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    segment = SegmentDescription(
        segment_number=number,
        segment_label=long_string(said.finding),
        segmented_property_category=coded(ABNORMAL_STRUCTURE),
        segmented_property_type=coded(concept_of(said.finding)),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=who.algorithm,
            family=codes.DCM.ArtificialIntelligence,
            version=who.version,
            source=MANUFACTURER,
            parameters={"model": who.parameters},
        ),
        tracking_uid=tracking_uid(header, predicted, said.finding),
        tracking_id=long_string(said.finding),
        display_color=CIELabColor.from_rgb(*BOX_COLOURS[(number - 1) % len(BOX_COLOURS)]),
    )
    segment.SegmentDescription = _words(said)
    return segment


def _words(said: FindingPrediction) -> str:
    called = {True: "called present", False: "called absent", None: "not judged"}[said.present]
    score = f"score {said.score:.4f}, {called}"
    if said.threshold is not None:
        score += f" (present from {said.threshold:.4f})"
    if said.map_threshold is not None:
        score += f"; map threshold {said.map_threshold:.4f}"
    return score


def _measures(header: Dataset) -> "PixelMeasuresSequence | None":
    """The film's pixel spacing; None where only the detector's is known, or none."""
    from highdicom import PixelMeasuresSequence

    spacing = header.get("PixelSpacing")
    if not spacing:
        return None
    return PixelMeasuresSequence(
        pixel_spacing=[float(value) for value in spacing], slice_thickness=THICKNESS
    )
