import numpy as np
import pytest

from dwarf_cxr.data.geometry import coverage, rasterise
from dwarf_cxr.data.raters import Reading, agreement, fuse
from dwarf_cxr.data.records import Box, Region


def box(*corners):
    return Box(*map(float, corners))


def reading(rater, labels, *drawn):
    """`drawn`: (finding, corners)."""
    return Reading(
        labels, tuple(Region(finding, box(*corners), rater) for finding, corners in drawn)
    )


def counted(drawn, width, height):
    """How many raters boxed each pixel, pixel by pixel."""
    counts = np.zeros((height, width), dtype=int)
    for boxes in drawn.values():
        for row in range(height):
            for column in range(width):
                counts[row, column] += any(
                    one.x1 <= column < one.x2 and one.y1 <= row < one.y2 for one in boxes
                )
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_agreement_is_what_two_raters_boxed_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    drawn = {}
    for rater in ("R1", "R2", "R3", "R4")[: 2 + seed % 3]:
        corners = rng.integers(0, [14, 10], (rng.integers(0, 4), 2))
        sizes = rng.integers(1, 8, corners.shape)
        drawn[rater] = [
            box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)
        ]
    agreed = [shared for shared, _ in agreement(drawn)]
    expected = counted(drawn, 24, 20) >= 2
    np.testing.assert_array_equal(rasterise(agreed, (24, 20)), expected)
    for shared in agreed:
        inside = rasterise([shared], (24, 20))
        assert not any(
            other is not shared and not (inside & ~rasterise([other], (24, 20))).any()
            for other in agreed
        )


def test_agreement_keeps_fractions_of_pixels_and_names_who_agreed():
    drawn = {
        "R8": [box(0.5, 1.25, 4.0, 9.0)],
        "R9": [box(2.75, 0.0, 8.0, 3.5)],
        "R10": [box(20.0, 1.0, 30.0, 3.0)],
    }
    assert agreement(drawn) == [(box(2.75, 1.25, 4.0, 3.5), "R8+R9")]


def test_boxes_of_one_rater_and_boxes_that_only_touch_do_not_agree():
    overlapping = [box(0, 0, 5, 5), box(1, 1, 6, 6)]
    assert agreement({"R1": overlapping, "R2": [box(6, 0, 9, 5)], "R3": []}) == []


def test_two_of_three_make_a_label_and_one_does_not():
    fused = fuse(
        {
            "R1": reading("R1", {"Mass": True, "Edema": True, "Hernia": False}),
            "R2": reading("R2", {"Mass": True, "Edema": False, "Hernia": False}),
            "R3": reading("R3", {"Mass": False, "Edema": False, "Hernia": False}),
        },
        ("Hernia", "Mass", "Edema", "Fibrosis"),
    )
    assert fused.labels == {"Hernia": False, "Mass": True, "Edema": False}
    assert fused.regions == ()
    assert fused.apart == ()


def test_the_region_is_what_two_of_the_positive_raters_share():
    readings = {
        "R1": reading("R1", {"Mass": True}, ("Mass", (0, 0, 10, 10)), ("Edema", (0, 0, 30, 30))),
        "R2": reading("R2", {"Mass": True}, ("Mass", (4, 2, 20, 8))),
        # Boxed, but called absent: not a vote, and so no part of the region.
        "R3": reading("R3", {"Mass": False}, ("Mass", (0, 0, 30, 30))),
    }
    fused = fuse(readings, ("Mass",))
    assert fused.regions == (Region("Mass", box(4, 2, 10, 8), "R1+R2"),)


def test_raters_who_boxed_apart_leave_all_their_boxes():
    readings = {
        "R1": reading("R1", {"Mass": True}, ("Mass", (0, 0, 10, 10))),
        "R2": reading("R2", {"Mass": True}, ("Mass", (20, 0, 30, 10)), ("Mass", (5, 20, 9, 24))),
        "R3": reading("R3", {"Mass": False}),
    }
    fused = fuse(readings, ("Mass",))
    assert fused.apart == ("Mass",)
    assert [(region.shape, region.annotator) for region in fused.regions] == [
        (box(0, 0, 10, 10), "R1"),
        (box(20, 0, 30, 10), "R2"),
        (box(5, 20, 9, 24), "R2"),
    ]
    assert coverage(fused.regions, (40, 40), 1)[0, 0] == pytest.approx((100 + 100 + 16) / 1600)


def test_three_raters_on_one_lesion_cover_what_any_two_share():
    readings = {
        f"R{number}": reading(f"R{number}", {"Mass": True}, ("Mass", (x, 0, x + 10, 10)))
        for number, x in enumerate((0, 4, 8))
    }
    fused = fuse(readings, ("Mass",))
    # 0-10, 4-14 and 8-18: two of them cover 4-14.
    assert coverage(fused.regions, (20, 10), 1)[0, 0] == pytest.approx(0.5)


def test_a_single_rater_stands_with_all_boxes():
    one = reading(
        "A", {"Mass": True, "Edema": False}, ("Mass", (0, 0, 9, 9)), ("Mass", (1, 1, 3, 3))
    )
    fused = fuse({"A": one}, ("Mass", "Edema"))
    assert fused.labels == {"Mass": True, "Edema": False}
    assert fused.regions == one.regions
    assert fused.apart == ()


def test_a_finding_that_one_of_three_rated_stands_with_that_one():
    fused = fuse(
        {
            "R1": reading("R1", {"Mass": True}),
            "R2": reading("R2", {}),
            "R3": reading("R3", {}),
        },
        ("Mass", "Edema"),
    )
    assert fused.labels == {"Mass": True}
