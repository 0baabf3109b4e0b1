"""DICOM Structured Report: every finding's score, and the regions of those called present.

A Comprehensive SR that follows TID 1500, "Measurement Report": a measurement group for each finding
(TID 1501), and for each region of a finding that is called present a planar one (TID 1410).
"""

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from dwarf_cxr.export.codes import (
    ABNORMAL_STRUCTURE,
    ABSENT,
    CERTAINTY,
    CHEST_RADIOGRAPHY,
    HIGHEST_MAP_VALUE,
    PERCENT,
    PRESENCE,
    PRESENT,
    THRESHOLD,
    UNDETERMINED,
    concept_of,
    long_string,
)
from dwarf_cxr.export.dicom_presentation import corners
from dwarf_cxr.export.dicom_source import (
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

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        PlanarROIMeasurementsAndQualitativeEvaluations,
    )

_CALLED = {True: PRESENT, False: ABSENT, None: UNDETERMINED}


def report(header: Dataset, predicted: FilmPrediction) -> Dataset:
    """Scores and thresholds in percent; regions as closed lines in the film's pixels.

    The document is complete, preliminary and unverified: nobody has looked at it.

    Args:
        header: from `read_header`.
    """
    from highdicom.sr import ComprehensiveSR, MeasurementReport

    who = identity(header, predicted, "report", 9705)
    groups: list[
        MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
    ] = []
    for said in predicted.findings:
        groups.append(_score_group(header, predicted, said, who))
        if said.present:
            groups += [
                _region_group(header, predicted, said, number, who)
                for number in range(len(said.boxes))
            ]
    result = ComprehensiveSR(
        evidence=[header],
        content=MeasurementReport(
            observation_context=_observer(who),
            procedure_reported=coded(CHEST_RADIOGRAPHY),
            imaging_measurements=groups,
        ),
        series_instance_uid=who.series_uid,
        series_number=who.series_number,
        sop_instance_uid=who.instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        manufacturer_model_name=who.algorithm,
        software_versions=who.version,
        device_serial_number=who.weights_sha256,
        series_description=who.description,
        content_qualification="RESEARCH",
        coding_schemes=coding_schemes(
            [HIGHEST_MAP_VALUE, *(concept_of(said.finding) for said in predicted.findings)]
        ),
    )
    return finish(result, header)


def _observer(who: Identity) -> "ObservationContext":
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", who.algorithm, who.version, who.weights_sha256),
        name=who.description,
        manufacturer_name=MANUFACTURER,
        model_name=who.algorithm,
        serial_number=who.weights_sha256,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _score_group(
    header: Dataset, predicted: FilmPrediction, said: FindingPrediction, who: Identity
) -> "MeasurementsAndQualitativeEvaluations":
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    measurements = [_percent(coded(CERTAINTY), said.score)]
    if said.threshold is not None:
        measurements.append(_percent(coded(THRESHOLD), said.threshold))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(header, predicted, said.finding),
            identifier=long_string(said.finding),
        ),
        finding_category=coded(ABNORMAL_STRUCTURE),
        finding_type=coded(concept_of(said.finding)),
        algorithm_id=_algorithm(who),
        measurements=measurements,
        qualitative_evaluations=[
            QualitativeEvaluation(name=coded(PRESENCE), value=coded(_CALLED[said.present]))
        ],
        source_images=[SourceImageForMeasurementGroup.from_source_image(header)],
    )


def _region_group(
    header: Dataset,
    predicted: FilmPrediction,
    said: FindingPrediction,
    number: int,
    who: Identity,
) -> "PlanarROIMeasurementsAndQualitativeEvaluations":
    from highdicom.sr import (
        ImageRegion,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        SourceImageForRegion,
        TrackingIdentifier,
    )

    box = said.boxes[number]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(header, predicted, said.finding, dict(box)),
            identifier=f"{long_string(said.finding)} {number + 1}",
        ),
        referenced_region=ImageRegion(
            graphic_type="POLYLINE",
            graphic_data=corners(box),
            source_image=SourceImageForRegion.from_source_image(header),
        ),
        finding_category=coded(ABNORMAL_STRUCTURE),
        finding_type=coded(concept_of(said.finding)),
        algorithm_id=_algorithm(who),
        measurements=[_percent(coded(HIGHEST_MAP_VALUE), box["score"])],
    )


def _percent(name: "CodedConcept", share: float) -> "Measurement":
    from highdicom.sr import Measurement

    return Measurement(name=name, value=100 * share, unit=coded(PERCENT))


def _algorithm(who: Identity) -> "AlgorithmIdentification":
    from highdicom.sr import AlgorithmIdentification

    # without the family of the algorithm: as a code, readers take it for an evaluation
    return AlgorithmIdentification(
        name=who.algorithm,
        version=who.version,
        parameters=[who.parameters],
        manufacturer=MANUFACTURER,
    )
