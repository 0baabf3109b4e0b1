"""One set of regions from readers who agree: a lesion that two of them marked is one region.

As `data.raters` does it for boxes: what two readers share is kept, in the name of both. Here
regions are also polygons and masks, whose shared part is a mask, and a sliver that the regions of
neighbouring lesions share is no lesion.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from dwarf_cxr.data.geometry import Frame, encode_mask, overlap_pixels, rasterise
from dwarf_cxr.data.raters import agreement
from dwarf_cxr.data.records import Box, Shape
from dwarf_cxr.review.annotation import MarkedRegion, shape_to_json

MATCHING_SHARE = 0.5
"""Of the smaller of two regions: where they share less they are marks of two lesions."""

Named = tuple[str, MarkedRegion]
"""A region with who marked it; of several readers as in "anna+ben"."""


def merged(marked: Mapping[str, Sequence[MarkedRegion]], frame: Frame) -> tuple[Named, ...]:
    """The regions that stand for all readers who marked any; of several the largest first.

    What no second reader marked is left out; where no two readers' regions match, all are kept.
    """
    drawn = {reader: its for reader, its in marked.items() if its}
    alone = [(reader, region) for reader, its in drawn.items() for region in its]
    if len(drawn) < 2:
        return tuple(alone)
    shared = [
        (f"{one}+{other}", _shared(first, second, frame))
        for (one, ones), (other, others) in combinations(drawn.items(), 2)
        for first in ones
        for second in others
        if _share(first.shape, second.shape, frame) >= MATCHING_SHARE
    ]
    shared.sort(key=lambda its: -_pixels(its[1].shape, frame))
    lesions: list[Named] = []
    for new in shared:
        _add(lesions, new, frame)
    return tuple(lesions or alone)


def _add(lesions: list[Named], new: Named, frame: Frame) -> None:
    """Add a region, or its readers to the larger one of the same lesion."""
    for place, (names, known) in enumerate(lesions):
        if _share(known.shape, new[1].shape, frame) >= MATCHING_SHARE:
            readers = dict.fromkeys([*names.split("+"), *new[0].split("+")])
            lesions[place] = "+".join(readers), known
            return
    lesions.append(new)


def _shared(one: MarkedRegion, other: MarkedRegion, frame: Frame) -> MarkedRegion:
    """What two regions share; where it came about in two ways it was corrected."""
    suggested = one.suggested or other.suggested
    origin = one.origin if one.origin == other.origin else "corrected"
    return MarkedRegion(_shared_shape(one.shape, other.shape, frame), origin, suggested)


def _shared_shape(one: Shape, other: Shape, frame: Frame) -> Shape:
    if shape_to_json(one) == shape_to_json(other):
        return one
    if isinstance(one, Box) and isinstance(other, Box):
        ((box, _),) = agreement({"one": [one], "other": [other]})
        return box
    return encode_mask(rasterise([one], frame) & rasterise([other], frame))


def _share(one: Shape, other: Shape, frame: Frame) -> float:
    """The part of the smaller of two shapes that the other covers."""
    shared, _ = overlap_pixels([one], [other], frame)
    return shared / min(_pixels(one, frame), _pixels(other, frame)) if shared else 0.0


def _pixels(shape: Shape, frame: Frame) -> int:
    return overlap_pixels([shape], [shape], frame)[1]
