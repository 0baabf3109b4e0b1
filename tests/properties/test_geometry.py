"""Laws of regions, against pixels counted one by one, angles and pycocotools."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from dwarf_cxr.data.coco import shape_to_coco, shapes_from_coco
from dwarf_cxr.data.geometry import (
    area,
    bounding_box,
    clip,
    compress_counts,
    coverage,
    decode_mask,
    decompress_counts,
    encode_mask,
    fault_of,
    is_inside,
    rasterise,
    scale,
)
from dwarf_cxr.data.records import Box, Polygon, Region
from dwarf_cxr.errors import DataError

FRAMES = st.tuples(st.integers(1, 40), st.integers(1, 40))
COORDINATES = st.floats(-60, 60).map(lambda value: round(value, 2))


@st.composite
def boxes(draw) -> Box:
    x, y = draw(COORDINATES), draw(COORDINATES)
    return Box(x, y, x + draw(st.floats(0.01, 70)), y + draw(st.floats(0.01, 70)))


@st.composite
def pixels(draw) -> np.ndarray:
    width, height = draw(FRAMES)
    density = draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).random((height, width)) < density


@st.composite
def polygons(draw) -> Polygon:
    points = draw(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=7))
    return Polygon(np.array(points))


def overlap(low: float, high: float, limit: float) -> float:
    return max(0.0, min(high, limit) - max(low, 0.0))


@given(boxes(), FRAMES)
def test_a_clipped_box_has_the_area_of_its_overlap_with_the_frame(box, frame):
    inside = clip(box, frame)
    expected = overlap(box.x1, box.x2, frame[0]) * overlap(box.y1, box.y2, frame[1])
    assert (0.0 if inside is None else area(inside)) == pytest.approx(expected, abs=1e-6)
    assert inside is None or (is_inside(inside, frame) and fault_of(inside) is None)
    assert inside is None or clip(inside, frame) == inside


@given(boxes(), FRAMES, st.integers(1, 12))
def test_shares_of_cells_are_areas(box, frame, size):
    shares = coverage([Region("Mass", box)], frame, size)
    width, height = frame
    for row in range(size):
        for column in range(size):
            x, y = column * width / size, row * height / size
            across = max(0.0, min(box.x2, x + width / size) - max(box.x1, x))
            down = max(0.0, min(box.y2, y + height / size) - max(box.y1, y))
            expected = across * down / (width / size * height / size)
            assert shares[row, column] == pytest.approx(expected, abs=1e-5)


@given(st.lists(boxes(), max_size=4), FRAMES, st.integers(1, 9))
def test_a_union_covers_no_less_than_a_part_and_no_more_than_the_sum(many, frame, size):
    union = coverage([Region("Mass", box) for box in many], frame, size)
    parts = [coverage([Region("Mass", box)], frame, size) for box in many]
    assert union.shape == (size, size)
    assert (union <= sum(parts, np.zeros((size, size))) + 1e-5).all()
    assert all((union >= part - 1e-5).all() for part in parts)


@given(pixels())
def test_masks_come_back_and_agree_with_pycocotools(mask):
    runs = encode_mask(mask)
    assert np.array_equal(decode_mask(runs), mask)
    assert area(runs) == mask.sum()
    text = compress_counts(runs.counts)
    assert decompress_counts(text) == runs.counts
    theirs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert text == theirs["counts"].decode()


@given(st.text(max_size=20))
def test_any_text_of_runs_is_read_or_refused(text):
    document = {"segmentation": {"size": [4, 5], "counts": text}}
    try:
        shapes = shapes_from_coco(document, "here")
    except DataError:
        return
    assert all(sum(shape.counts) == 20 for shape in shapes)


@given(polygons(), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_a_filled_outline_has_the_pixels_it_winds_around(polygon, frame):
    found = rasterise([polygon], frame)
    for (row, column), filled in np.ndenumerate(found):
        centre = np.array([column + 0.5, row + 0.5])
        if distance(polygon.points, centre) > 1e-3:  # on the outline either is right
            assert filled == (round(turns_around(polygon.points, centre)) != 0)


def turns_around(points: np.ndarray, centre: np.ndarray) -> float:
    """How often an outline goes round a point, by the angles under which it is seen."""
    x, y = (points - centre).T
    angles = np.arctan2(y, x)
    steps = np.diff(np.append(angles, angles[0]))
    return float(((steps + math.pi) % (2 * math.pi) - math.pi).sum() / (2 * math.pi))


def distance(points: np.ndarray, centre: np.ndarray) -> float:
    """Of a point from an outline."""
    gaps = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        along = end - start
        share = np.clip((centre - start) @ along / max(float(along @ along), 1e-12), 0, 1)
        gaps.append(np.hypot(*(start + share * along - centre)))
    return min(gaps)


@given(polygons(), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_a_clipped_outline_fills_the_same_pixels(polygon, frame):
    inside = clip(polygon, frame)
    before = rasterise([polygon], frame)
    after = np.zeros_like(before) if inside is None else rasterise([inside], frame)
    for row, column in np.argwhere(before & ~after):
        assert distance(polygon.points, np.array([column + 0.5, row + 0.5])) < 1e-3


@given(boxes(), FRAMES, FRAMES)
def test_scaling_there_and_back_changes_nothing(box, source, target):
    again = scale(scale(box, source, target), target, source)
    assert [again.x1, again.y1, again.x2, again.y2] == pytest.approx(
        [box.x1, box.y1, box.x2, box.y2], abs=1e-9
    )


@given(boxes() | polygons().filter(lambda shape: fault_of(shape) is None))
def test_regions_come_back_from_coco(shape):
    (again,) = shapes_from_coco(shape_to_coco(shape), "here")
    one, two = bounding_box(shape), bounding_box(again)
    assert [one.x1, one.y1, one.x2, one.y2] == pytest.approx([two.x1, two.y1, two.x2, two.y2])
    assert area(again) == pytest.approx(area(shape))
