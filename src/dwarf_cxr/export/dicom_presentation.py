"""DICOM Grayscale Softcopy Presentation State: boxes and words that a viewer lays over the film."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydicom.dataset import Dataset

from dwarf_cxr.export.codes import long_string
from dwarf_cxr.export.dicom_source import MANUFACTURER, coding_schemes, finish, identity
from dwarf_cxr.prediction import NOTICE, FilmPrediction, FindingPrediction, summary_of
from dwarf_cxr.reporting.overlay import BOX_COLOURS

if TYPE_CHECKING:
    from highdicom.pr import GraphicAnnotation, GraphicLayer

SHORT_TEXT = 1024
"""Characters that DICOM's ST holds."""


def presentation(header: Dataset, predicted: FilmPrediction) -> Dataset:
    """The film as it is displayed, with a layer per finding that is called present: its boxes, each
    with the finding's name; and a layer with a line of words for the whole film.

    Args:
        header: from `read_header`.
    """
    from highdicom import PresentationLUTTransformation
    from highdicom.pr import GrayscaleSoftcopyPresentationState

    who = identity(header, predicted, "boxes", 9704)
    layers, annotations = [], []
    for place, said in enumerate(said for said in predicted.findings if said.present):
        if said.boxes:
            layer = _layer(place, said)
            layers.append(layer)
            annotations.append(_boxes(header, said, layer))
    notice = _notice_layer(len(layers))
    inverse = header.PhotometricInterpretation == "MONOCHROME1"
    result = GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        series_instance_uid=who.series_uid,
        series_number=who.series_number,
        sop_instance_uid=who.instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=who.algorithm,
        software_versions=who.version,
        device_serial_number=who.weights_sha256,
        content_label="RESEARCH_ONLY",
        content_description=who.description,
        content_creator_name=MANUFACTURER,
        graphic_layers=[*layers, notice],
        graphic_annotations=[*annotations, _notice(header, predicted, notice)],
        # a presentation state overrides the film's own photometric interpretation
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if inverse else "IDENTITY"
        ),
        series_description=who.description,
        content_qualification="RESEARCH",
        coding_schemes=coding_schemes(),
    )
    return finish(result)


def corners(box: Mapping[str, float]) -> Float[np.ndarray, "5 2"]:
    """A box as a closed line, (column, row); (0, 0) is the outer corner of the first pixel."""
    x1, y1, x2, y2 = (box[name] for name in ("x1", "y1", "x2", "y2"))
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]], dtype=np.float64)


def _layer(place: int, said: FindingPrediction) -> "GraphicLayer":
    from highdicom.color import CIELabColor
    from highdicom.pr import GraphicLayer

    return GraphicLayer(
        layer_name=f"FINDING {place + 1}",
        order=place + 1,
        description=long_string(said.finding),
        display_color=CIELabColor.from_rgb(*BOX_COLOURS[place % len(BOX_COLOURS)]),
    )


def _boxes(header: Dataset, said: FindingPrediction, layer: "GraphicLayer") -> "GraphicAnnotation":
    from highdicom.pr import GraphicAnnotation, GraphicObject, TextObject

    words = f"{said.finding} {said.score:.2f}".replace("\\", "/")[:SHORT_TEXT]
    return GraphicAnnotation(
        referenced_images=[header],
        graphic_layer=layer,
        graphic_objects=[
            GraphicObject("POLYLINE", graphic_data=corners(box), units="PIXEL")
            for box in said.boxes
        ],
        text_objects=[
            TextObject(
                words,
                units="PIXEL",
                anchor_point=(box["x1"], box["y1"]),
                anchor_point_visible=False,
            )
            for box in said.boxes
        ],
    )


def _notice_layer(findings: int) -> "GraphicLayer":
    from highdicom.pr import GraphicLayer

    return GraphicLayer(layer_name="NOTICE", order=findings + 1, description=NOTICE)


def _notice(
    header: Dataset, predicted: FilmPrediction, layer: "GraphicLayer"
) -> "GraphicAnnotation":
    from highdicom.pr import GraphicAnnotation, TextObject

    words = f"{NOTICE} · {predicted.model.method} · {summary_of(predicted)}"
    return GraphicAnnotation(
        referenced_images=[header],
        graphic_layer=layer,
        text_objects=[
            TextObject(
                words.replace("\\", "/")[:SHORT_TEXT],
                units="DISPLAY",
                bounding_box=(0.01, 0.95, 0.99, 0.99),
                text_justification="LEFT",
            )
        ],
    )
