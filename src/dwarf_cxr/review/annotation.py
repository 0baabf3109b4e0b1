"""What one reader says of one finding in one film, checked and written as plain JSON.

Coordinates are (x, y) in pixels of the original film, fractions allowed, as in `data.records`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.data.geometry import (
    Frame,
    clip,
    compress_counts,
    covers_anything,
    decompress_counts,
    encode_mask,
    fault_of,
    is_inside,
    rasterise,
)
from dwarf_cxr.data.records import Box, Mask, Polygon, Shape
from dwarf_cxr.errors import DataError
from dwarf_cxr.review.words import count

Verdict = Literal["present", "absent", "unsure"]
Origin = Literal["drawn", "accepted", "corrected", "rejected"]
"""How a region came about; a rejected one is a suggestion that the reader refused."""

MOST_REGIONS = 200
MOST_POINTS = 2000
"""Of one polygon."""
LONGEST_COMMENT = 2000
"""Characters."""
FARTHEST = 10.0
"""How far from the film's edges a point may be, in the film's longer side; farther is no slip of a
hand, and squares of it are not finite."""
DATA, RUN, READER, FILE = "data", "run-", "reader-", "file"
"""Who suggests a region (`Suggested.by`), or how that begins."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """Which suggestion a region goes back to."""

    by: str
    """`data`, `run-` and the start of its weights' SHA-256, `reader-` and a number, which are
    suggestions to the adjudicator, or `file`: taken over from one that says so of the region."""
    number: int
    """Its place among the regions that are suggested so."""


@dataclass(frozen=True, slots=True)
class MarkedRegion:
    """A region, and where it comes from; `suggested` is None exactly if it was drawn."""

    shape: Shape
    origin: Origin = "drawn"
    suggested: Suggested | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """A reader's word on a finding in a film; without a verdict it is not finished."""

    verdict: Verdict | None = None
    regions: tuple[MarkedRegion, ...] = ()
    comment: str = ""

    @property
    def counting(self) -> tuple[MarkedRegion, ...]:
        """The regions that say where the finding is."""
        return tuple(region for region in self.regions if region.origin != "rejected")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Their shapes."""
        return tuple(region.shape for region in self.counting)


NOTHING = Assessment()
"""Before the reader's first word."""


def checked_assessment(
    assessment: Assessment, frame: Frame, where: str
) -> tuple[Assessment, tuple[str, ...]]:
    """The assessment as it is kept, and what was changed to keep it, in sentences.

    Raises:
        DataError: a shape cannot be a region, there are too many, the comment is too long, or
            regions are marked for a finding that is called absent.
    """
    if len(assessment.regions) > MOST_REGIONS:
        raise DataError(
            f"{where}: {len(assessment.regions)} regions, more than {MOST_REGIONS}; merge some"
        )
    if len(assessment.comment) > LONGEST_COMMENT:
        raise DataError(
            f"{where}: a comment of {len(assessment.comment)} characters, more than "
            f"{LONGEST_COMMENT}; shorten it"
        )
    if not is_text(assessment.comment):
        raise DataError(f"{where}: half a character is in the comment; type it again")
    if assessment.verdict == "absent" and assessment.counting:
        raise DataError(
            f"{where}: absent, but it has {count(len(assessment.counting), 'marked region')}; "
            "delete what is marked or call the finding present"
        )
    regions: list[MarkedRegion] = []
    notes: list[str] = []
    for number, region in enumerate(assessment.regions, start=1):
        if (region.origin == "drawn") != (region.suggested is None):
            raise DataError(
                f"{where}, region {number}: {region.origin}, but the suggestion that it goes back "
                f"to is {region.suggested}; name it for any but a drawn region"
            )
        shape, said = checked_shape(region.shape, frame, f"{where}, region {number}")
        regions.append(dataclasses.replace(region, shape=shape))
        notes += said
    return dataclasses.replace(assessment, regions=tuple(regions)), tuple(notes)


def checked_shape(shape: Shape, frame: Frame, where: str) -> tuple[Shape, tuple[str, ...]]:
    """The shape inside the film, and what was changed for it, in sentences.

    Corners of a box may come in any order. What lies outside the film is cut off. A polygon that
    crosses itself becomes the mask of the pixels that it winds around, which is what it means
    everywhere (`data.geometry`): its outline has no area of its own, and no two programs fill it
    alike.

    Raises:
        DataError: not finite, outside the film, without area, of another size than the film.
    """
    if isinstance(shape, Mask):
        return _checked_mask(shape, frame, where), ()
    if isinstance(shape, Box):
        left, right = sorted((shape.x1, shape.x2))
        top, bottom = sorted((shape.y1, shape.y2))
        shape = Box(left, top, right, bottom)
    elif shape.points.ndim == 2 and len(shape.points) > MOST_POINTS:
        raise DataError(
            f"{where}: {len(shape.points)} points, more than {MOST_POINTS}; use the brush"
        )
    else:
        shape = _without_repeated_points(shape)
    if _is_far(shape, frame):
        raise DataError(f"{where}: lies far outside the film; draw it on the film")
    notes: list[str] = []
    is_crossing = isinstance(shape, Polygon) and np.isfinite(shape.points).all()
    if isinstance(shape, Polygon) and is_crossing and crosses_itself(shape.points):
        pixels = rasterise([shape], frame)
        if not pixels.any():
            raise DataError(f"{where}: covers no pixel of the film; draw it again on the film")
        return encode_mask(pixels), (f"{where}: crosses itself; kept as the area it encloses",)
    if wrong := fault_of(shape):
        raise DataError(f"{where}: {wrong}; draw it again")
    if not is_inside(shape, frame):
        inside = clip(shape, frame)
        if inside is None:
            raise DataError(f"{where}: lies outside the film; draw it on the film")
        shape = inside
        notes.append(f"{where}: the part outside the film was cut off")
    if not covers_anything(shape, frame):
        raise DataError(f"{where}: covers no pixel of the film; draw it larger")
    return shape, tuple(notes)


def _is_far(shape: Box | Polygon, frame: Frame) -> bool:
    corners = [shape.x1, shape.y1, shape.x2, shape.y2] if isinstance(shape, Box) else shape.points
    # what is not finite is named by what it is
    return bool((np.abs(np.nan_to_num(corners, posinf=0, neginf=0)) > FARTHEST * max(frame)).any())


def _checked_mask(mask: Mask, frame: Frame, where: str) -> Mask:
    if (mask.width, mask.height) != frame:
        raise DataError(
            f"{where}: a mask of {mask.width}×{mask.height} pixels on a film of "
            f"{frame[0]}×{frame[1]}; give it in the film's own size"
        )
    if wrong := fault_of(mask):
        raise DataError(f"{where}: {wrong}; paint it again")
    return mask


def _without_repeated_points(polygon: Polygon) -> Polygon:
    points = polygon.points.astype(np.float64)
    if points.ndim != 2 or points.shape[1:] != (2,) or len(points) == 0:
        return polygon
    is_new = (points != np.roll(points, 1, axis=0)).any(axis=1)
    return Polygon(points[is_new])


def crosses_itself(points: Float64[np.ndarray, "points 2"]) -> bool:
    """Whether two sides of a closed outline that are not neighbours touch or cross."""
    start, end = points, np.roll(points, -1, axis=0)
    # the side of the line through side i (rows) on which the ends of side j (columns) lie
    one, other = _turn(start, end, start), _turn(start, end, end)
    straddles = one * other <= 0
    count = len(points)
    apart = np.abs(np.arange(count)[:, None] - np.arange(count)[None, :])
    are_neighbours = (apart <= 1) | (apart == count - 1)
    meet = straddles & straddles.T & ~are_neighbours
    if not meet.any():
        return False
    # sides on one line straddle each other always: they meet where their boxes do
    low, high = np.minimum(start, end), np.maximum(start, end)
    overlap = ((low[:, None] <= high[None, :]) & (low[None, :] <= high[:, None])).all(axis=2)
    return bool((meet & overlap).any())


def _turn(
    start: Float64[np.ndarray, "side 2"],
    end: Float64[np.ndarray, "side 2"],
    points: Float64[np.ndarray, "point 2"],
) -> Float64[np.ndarray, "side point"]:
    along, to = (end - start)[:, None, :], points[None, :, :] - start[:, None, :]
    return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])


def shape_to_json(shape: Shape) -> dict[str, Any]:
    """A shape as pages and the audit know it: `kind` is box, polygon or mask."""
    if isinstance(shape, Box):
        return {"kind": "box", "x1": shape.x1, "y1": shape.y1, "x2": shape.x2, "y2": shape.y2}
    if isinstance(shape, Polygon):
        return {"kind": "polygon", "points": shape.points.astype(float).tolist()}
    return {
        "kind": "mask",
        "width": shape.width,
        "height": shape.height,
        "counts": compress_counts(shape.counts),
    }


def shape_from_json(content: Any, where: str) -> Shape:
    """The shape of `shape_to_json`.

    Raises:
        DataError: it is none.
    """
    try:
        kind = content["kind"]
        if kind == "box":
            return Box(*(_number(content[name]) for name in ("x1", "y1", "x2", "y2")))
        if kind == "polygon":
            points = [[_number(x), _number(y)] for x, y in content["points"]]
            return Polygon(np.array(points, dtype=np.float64).reshape(-1, 2))
        if kind == "mask":
            width, height, counts = content["width"], content["height"], content["counts"]
            if not all(type(side) is int for side in (width, height)):
                raise TypeError
            return Mask(height, width, decompress_counts(counts))
    except DataError as fault:
        raise DataError(f"{where}: {fault}") from None
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: not a box, polygon or mask; draw it again") from None
    raise DataError(f"{where}: a shape of kind {kind!r}; it can be a box, polygon or mask")


def _number(written: Any) -> float:
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise TypeError
    number = float(written)
    if not math.isfinite(number):
        raise ValueError
    return number


def assessment_to_json(assessment: Assessment) -> dict[str, Any]:
    """An assessment as pages and the audit know it."""
    return {
        "verdict": assessment.verdict,
        "regions": [
            {
                "shape": shape_to_json(region.shape),
                "origin": region.origin,
                "suggested": None
                if region.suggested is None
                else {"by": region.suggested.by, "number": region.suggested.number},
            }
            for region in assessment.regions
        ],
        "comment": assessment.comment,
    }


def assessment_from_json(content: Any, where: str) -> Assessment:
    """The assessment of `assessment_to_json`; still to be checked against the film.

    Raises:
        DataError: it is none.
    """
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: not an assessment")
    verdict, comment = content.get("verdict"), content.get("comment", "")
    regions = content.get("regions", [])
    if verdict is not None and verdict not in get_args(Verdict):
        raise DataError(f"{where}: verdict {verdict!r}; it can be present, absent or unsure")
    if (
        not isinstance(comment, str)
        or not isinstance(regions, Sequence)
        or isinstance(regions, str | bytes)
    ):
        raise DataError(f"{where}: needs a comment of text and a list of regions")
    return Assessment(
        verdict,
        tuple(
            _region_from_json(region, f"{where}, region {number}")
            for number, region in enumerate(regions, start=1)
        ),
        comment,
    )


def _region_from_json(content: Any, where: str) -> MarkedRegion:
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: not a region")
    suggested = content.get("suggested")
    origin: Any = content.get("origin")
    if origin not in get_args(Origin):
        raise DataError(f"{where}: origin {origin!r}; it can be {', '.join(get_args(Origin))}")
    if suggested is not None:
        by = suggested.get("by") if isinstance(suggested, Mapping) else None
        number = suggested.get("number") if isinstance(suggested, Mapping) else None
        if not isinstance(by, str) or len(by) > 40 or type(number) is not int or number < 0:
            raise DataError(f"{where}: names a suggestion by {suggested!r}; reload the page")
        suggested = Suggested(by, number)
    return MarkedRegion(shape_from_json(content.get("shape"), where), origin, suggested)


def is_text(content: str) -> bool:
    """Whether a page can hold it: half a character (a lone surrogate) stands in JSON alone."""
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
