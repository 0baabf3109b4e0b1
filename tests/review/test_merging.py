import numpy as np
import pytest

from dwarf_cxr.data.geometry import encode_mask, rasterise
from dwarf_cxr.review.annotation import MarkedRegion, Suggested
from dwarf_cxr.review.merging import merged
from tests.review.made import box, present, triangle

FRAME = (50, 40)


def regions(*shapes):
    return present(*shapes).regions


def test_one_reader_alone_stays_as_drawn():
    ours = regions(box(1, 2, 9, 8), box(2, 2, 9, 8))
    assert merged({"anna": ours, "ben": ()}, FRAME) == (("anna", ours[0]), ("anna", ours[1]))
    assert merged({}, FRAME) == ()


def test_a_lesion_that_two_boxed_is_one_box_and_a_sliver_is_none():
    anna = regions(box(2, 2, 12, 12), box(20, 2, 40, 22))
    # touches the first lesion of anna a little, and is her second
    ben = regions(box(3, 1, 13, 11), box(11, 3, 41, 23))
    found = merged({"anna": anna, "ben": ben}, FRAME)
    assert [(name, one.shape, one.origin) for name, one in found] == [
        ("anna+ben", box(20, 3, 40, 22), "drawn"),
        ("anna+ben", box(3, 2, 12, 11), "drawn"),
    ]


def test_three_readers_give_one_region_a_lesion():
    said = {name: regions(box(at, 2, 12 + at, 14)) for at, name in enumerate(("a", "b", "c"))}
    ((names, region),) = merged(said, FRAME)
    assert (names, region.shape) == ("a+b+c", box(1, 2, 12, 14))


@pytest.mark.parametrize("kind", ["polygon", "mask"])
def test_other_shapes_share_their_pixels(kind):
    one = box(2, 2, 22, 22)
    other = triangle((4, 3), (24, 3), (24, 30), (4, 30))
    if kind == "mask":
        other = encode_mask(rasterise([other], FRAME))
    ((names, region),) = merged({"a": regions(one), "b": regions(other)}, FRAME)
    assert names == "a+b"
    inside = np.zeros((40, 50), bool)
    inside[3:22, 4:22] = True
    assert np.array_equal(rasterise([region.shape], FRAME), inside)


def test_what_two_took_alike_stays_what_it_was():
    shape = triangle((4, 3), (24, 3), (24, 30))
    both = (MarkedRegion(shape, "accepted", Suggested("run-1", 2)),)
    ((_, region),) = merged({"a": both, "b": both}, FRAME)
    assert region is not None
    assert region.shape is shape
    assert (region.origin, region.suggested) == ("accepted", Suggested("run-1", 2))
    ((_, mixed),) = merged({"a": both, "b": regions(shape)}, FRAME)
    assert mixed.origin == "corrected"


def test_where_nothing_matches_all_is_kept():
    found = merged({"a": regions(box(0, 0, 9, 9)), "b": regions(box(30, 0, 39, 9))}, FRAME)
    assert [name for name, _ in found] == ["a", "b"]
