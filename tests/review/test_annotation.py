import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwarf_cxr.data.geometry import encode_mask, rasterise
from dwarf_cxr.data.records import Box, Mask, Polygon
from dwarf_cxr.errors import DataError
from dwarf_cxr.review.annotation import (
    Assessment,
    MarkedRegion,
    Suggested,
    assessment_from_json,
    assessment_to_json,
    checked_assessment,
    checked_shape,
    crosses_itself,
)

FRAME = (50, 30)


def polygon(*points):
    return Polygon(np.array(points, dtype=np.float64))


def crosses_by_fractions(points):
    """Sides as parametrised segments, solved pairwise with exact fractions."""
    from fractions import Fraction

    sides = [
        tuple((Fraction(x), Fraction(y)) for x, y in (points[i - 1], points[i]))
        for i in range(len(points))
    ]

    def meet(one, other):
        (ax, ay), (bx, by) = one
        (cx, cy), (dx, dy) = other
        determinant = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx)
        if determinant == 0:
            if (bx - ax) * (cy - ay) != (by - ay) * (cx - ax):
                return False
            return max(min(ax, bx), min(cx, dx)) <= min(max(ax, bx), max(cx, dx)) and max(
                min(ay, by), min(cy, dy)
            ) <= min(max(ay, by), max(cy, dy))
        s = ((cx - ax) * (dy - cy) - (cy - ay) * (dx - cx)) / determinant
        t = ((cx - ax) * (by - ay) - (cy - ay) * (bx - ax)) / determinant
        return 0 <= s <= 1 and 0 <= t <= 1

    count = len(sides)
    return any(
        meet(sides[i], sides[j])
        for i, j in combinations(range(count), 2)
        if j - i not in (1, count - 1)
    )


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=9, unique=True)
)
def test_crossing_is_what_fractions_say(points):
    assert crosses_itself(np.array(points, dtype=float)) == crosses_by_fractions(points)


def test_a_box_may_be_drawn_from_any_corner():
    shape, notes = checked_shape(Box(20.5, 12.0, 4.0, 3.25), FRAME, "here")
    assert shape == Box(4.0, 3.25, 20.5, 12.0)
    assert notes == ()


@pytest.mark.parametrize(
    "shape", [Box(40.0, -5.0, 70.0, 12.0), polygon((40, -5), (70, -5), (70, 12), (40, 12))]
)
def test_what_lies_outside_is_cut_off_and_said(shape):
    kept, notes = checked_shape(shape, FRAME, "here")
    pixels = np.zeros(FRAME[::-1], dtype=bool)
    pixels[0:12, 40:50] = True
    assert np.array_equal(rasterise([kept], FRAME), pixels)
    assert notes == ("here: the part outside the film was cut off",)


def test_a_bow_tie_becomes_the_pixels_it_encloses():
    # its halves cancel in the shoelace formula: as a polygon it would have no area
    bow = polygon((10, 5), (30, 25), (30, 5), (10, 25))
    kept, notes = checked_shape(bow, FRAME, "here")
    assert isinstance(kept, Mask)
    rows, columns = np.mgrid[0:30, 0:50] + 0.5
    across, down = columns - 20, rows - 15
    inside = (np.abs(across) < 10) & (np.abs(down) < np.abs(across))
    touching = np.isclose(np.abs(across), np.abs(down))
    found = rasterise([kept], FRAME)
    assert np.array_equal(found[~touching], inside[~touching])
    assert notes == ("here: crosses itself; kept as the area it encloses",)


def test_sub_pixel_corners_stay():
    kept, notes = checked_shape(polygon((1.25, 2.5), (9.125, 2.5), (9.125, 8.75)), FRAME, "here")
    assert kept.points.tolist() == [[1.25, 2.5], [9.125, 2.5], [9.125, 8.75]]
    assert notes == ()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Box(3.0, 4.0, 3.0, 9.0), "no area"),
        (Box(60.0, 4.0, 70.0, 9.0), "outside the film"),
        (Box(float("nan"), 4.0, 70.0, 9.0), "not finite"),
        (polygon((1, 1), (5, 5)), "at least three"),
        (polygon((1, 1), (1, 1), (5, 5)), "at least three"),
        (polygon((1, 1), (3, 3), (9, 9)), "no pixel|no area"),
        (polygon((1.1, 1.1), (1.3, 1.1), (1.3, 1.3)), "covers no pixel"),
        (polygon((1, 1), (5, float("inf")), (9, 9)), "not finite"),
        (polygon(*((x, x * x) for x in range(2001))), "more than 2000"),
        (Mask(30, 50, (1500,)), "empty"),
        (Mask(20, 50, (0, 1000)), "film's own size"),
        (Mask(30, 50, (0, 1000)), "runs over"),
        (Mask(30, 50, (-5, 1505)), "negative"),
    ],
)
def test_shapes_that_are_no_region_are_refused(shape, words):
    with pytest.raises(DataError, match=words):
        checked_shape(shape, FRAME, "film 3, Mass, region 1")


def test_an_assessment_comes_back_from_json_as_it_was():
    rng = np.random.default_rng(4)
    mask = encode_mask(rng.random((30, 50)) < 0.3)
    said = Assessment(
        "present",
        (
            MarkedRegion(Box(1.5, 2.0, 8.0, 9.25)),
            MarkedRegion(polygon((1, 2), (9, 2), (4, 8.125)), "corrected", Suggested("run", 2)),
            MarkedRegion(mask, "rejected", Suggested("data", 0)),
        ),
        "A <b>comment</b> & more",
    )
    again = assessment_from_json(json.loads(json.dumps(assessment_to_json(said))), "here")
    assert assessment_to_json(again) == assessment_to_json(said)
    assert again.regions[2].shape.counts == mask.counts
    assert len(again.counting) == 2
    kept, notes = checked_assessment(again, FRAME, "here")
    assert assessment_to_json(kept) == assessment_to_json(said)
    assert notes == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not an assessment"),
        ({"verdict": "perhaps"}, "present, absent or unsure"),
        ({"comment": 4}, "comment of text"),
        ({"regions": "box"}, "list of regions"),
        ({"regions": [3]}, "not a region"),
        ({"regions": [{"origin": "found", "shape": {}}]}, "origin 'found'"),
        ({"regions": [{"origin": "drawn", "shape": {"kind": "star"}}]}, "kind 'star'"),
        ({"regions": [{"origin": "drawn", "shape": {"kind": "box", "x1": True}}]}, "not a box"),
        (
            {"regions": [{"origin": "accepted", "shape": {}, "suggested": {"by": 1}}]},
            "names a suggestion",
        ),
    ],
)
def test_json_that_is_no_assessment_is_refused(content, words):
    with pytest.raises(DataError, match=words):
        assessment_from_json(content, "here")


def test_absent_with_a_region_is_refused():
    drawn = MarkedRegion(Box(1.0, 1.0, 9.0, 9.0))
    with pytest.raises(DataError, match="absent, but it has 1 marked region"):
        checked_assessment(Assessment("absent", (drawn,)), FRAME, "here")
    refused = MarkedRegion(Box(1.0, 1.0, 9.0, 9.0), "rejected", Suggested("run", 0))
    assert checked_assessment(Assessment("absent", (refused,)), FRAME, "here")[1] == ()


def test_too_much_is_refused():
    drawn = MarkedRegion(Box(1.0, 1.0, 9.0, 9.0))
    with pytest.raises(DataError, match="201 regions"):
        checked_assessment(Assessment("present", (drawn,) * 201), FRAME, "here")
    with pytest.raises(DataError, match="2001 characters"):
        checked_assessment(Assessment("absent", (), "a" * 2001), FRAME, "here")
    with pytest.raises(DataError, match="goes back"):
        checked_assessment(
            Assessment("present", (MarkedRegion(Box(1.0, 1.0, 9.0, 9.0), "accepted"),)),
            FRAME,
            "here",
        )
