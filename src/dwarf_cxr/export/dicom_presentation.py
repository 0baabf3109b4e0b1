"""DICOM Grayscale Softcopy Presentation State: boxes and words that a viewer lays over the film."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dwarf_cxr import __version__
from dwarf_cxr.export.codes import long_string
from dwarf_cxr.export.dicom_display import MODALITY, VOI
from dwarf_cxr.export.dicom_source import CREATOR, MANUFACTURER, finish, identity
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
    # highdicom fails on some transformations and takes tables of fewer bits for ones of 16
    without_display = Dataset()
    for element in header:
        if element.keyword not in (*MODALITY, *VOI):
            without_display.add(element)
    result = GrayscaleSoftcopyPresentationState(
        referenced_images=[without_display],
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
        content_creator_name=CREATOR,
        graphic_layers=[*layers, notice],
        graphic_annotations=[*annotations, _notice(header, predicted, notice)],
        # a presentation state overrides the film's own photometric interpretation
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if inverse else "IDENTITY"
        ),
        series_description=who.description,
        content_qualification="RESEARCH",
    )
    _display_as_film(result, header)
    _show_pixels_in_shape(result, header)
    return finish(result, header)


def corners(box: Mapping[str, float]) -> Float[np.ndarray, "5 2"]:
    """A box as a closed line, (column, row); (0, 0) is the outer corner of the first pixel."""
    x1, y1, x2, y2 = (box[name] for name in ("x1", "y1", "x2", "y2"))
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]], dtype=np.float64)


def _display_as_film(result: Dataset, header: Dataset) -> None:
    """Give the presentation state the film's own modality and VOI transformations."""
    for name in MODALITY:
        if name in header:
            result.add(header[name])
    voi = Dataset()
    for name in VOI:
        if name in header:
            voi.add(header[name])
    if voi:
        result.SoftcopyVOILUTSequence = Sequence([voi])


def _show_pixels_in_shape(result: Dataset, header: Dataset) -> None:
    """State how high and wide a pixel is; without a word of the film it is a square."""
    area = result.DisplayedAreaSelectionSequence[0]
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = header.get(name)
        if spacing and len(spacing) == 2 and min(spacing) > 0:
            area.PresentationPixelSpacing = list(spacing)
            del area.PresentationPixelAspectRatio
            return
    ratio = header.get("PixelAspectRatio")
    if ratio and len(ratio) == 2 and min(ratio) > 0:
        area.PresentationPixelAspectRatio = list(ratio)


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

    model = f"dwarf-cxr {__version__} · {predicted.model.method}"
    words = f"{NOTICE} · {model} · {' · '.join(summary_of(predicted))}"
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
