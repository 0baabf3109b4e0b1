import numpy as np
import pytest
from pycocotools import mask as coco_masks

from dwarf_cxr.data.geometry import (
    area,
    bounding_box,
    clip,
    compress_counts,
    coverage,
    covers_anything,
    decode_mask,
    decompress_counts,
    encode_mask,
    fault_of,
    is_inside,
    overlap_pixels,
    rasterise,
    scale,
)
from dwarf_cxr.data.records import Box, Mask, Polygon, Region
from dwarf_cxr.errors import DataError


def box(*corners: float) -> Box:
    return Box(*map(float, corners))


def polygon(*points: tuple[float, float]) -> Polygon:
    return Polygon(np.array(points, dtype=np.float64))


def brute_force(inside, frame, size, samples=40):
    """Share of sample points, on a fine lattice inside each cell, that lie in the union."""
    width, height = frame
    x = (np.arange(size * samples) + 0.5) * width / (size * samples)
    y = (np.arange(size * samples) + 0.5) * height / (size * samples)
    hits = inside(x[None, :], y[:, None]).astype(float)
    return hits.reshape(size, samples, size, samples).mean(axis=(1, 3))


def test_coverage_of_one_box_matches_supersampling():
    one = box(3.3, 1.2, 17.9, 8.6)
    got = coverage([Region("Mass", one)], (31, 13), 5)
    want = brute_force(
        lambda x, y: (x >= one.x1) & (x < one.x2) & (y >= one.y1) & (y < one.y2), (31, 13), 5
    )
    np.testing.assert_allclose(got, want, atol=0.03)
    assert got.mean() * 31 * 13 == pytest.approx(area(one), rel=1e-6)


def test_coverage_of_overlapping_boxes_counts_shared_area_once():
    rng = np.random.default_rng()
    boxes = []
    for _ in range(4):
        x, y = rng.uniform(0, 20), rng.uniform(0, 9)
        boxes.append(box(x, y, x + rng.uniform(1, 10), y + rng.uniform(1, 4)))
    got = coverage([Region("Mass", one) for one in boxes], (31, 13), 6)

    def inside(x, y):
        return np.any([(x >= b.x1) & (x < b.x2) & (y >= b.y1) & (y < b.y2) for b in boxes], axis=0)

    np.testing.assert_allclose(got, brute_force(inside, (31, 13), 6), atol=0.05)


@pytest.mark.parametrize("size", [3, 7, 40])
def test_coverage_of_mask_box_and_polygon_together(size):
    frame = (29, 17)
    pixels = np.random.default_rng(3).random((17, 29)) < 0.2
    triangle, one = polygon((2, 2), (14, 3), (5, 12)), box(20.25, 4.5, 27.75, 11.0)
    shapes = (encode_mask(pixels), triangle, one)
    got = coverage([Region("Mass", shape) for shape in shapes], frame, size)
    painted = pixels | rasterise([triangle], frame)

    def inside(x, y):
        in_pixel = painted[np.floor(y).astype(int), np.floor(x).astype(int)]
        return in_pixel | ((x >= one.x1) & (x < one.x2) & (y >= one.y1) & (y < one.y2))

    np.testing.assert_allclose(got, brute_force(inside, frame, size), atol=0.05)
    whole = painted.astype(float)
    for row in range(17):
        for column in range(29):
            if not painted[row, column]:
                w = max(0, min(column + 1, one.x2) - max(column, one.x1))
                h = max(0, min(row + 1, one.y2) - max(row, one.y1))
                whole[row, column] = w * h
    assert got.mean() * 29 * 17 == pytest.approx(whole.sum(), rel=1e-5)


def test_coverage_of_nothing_and_of_everything():
    np.testing.assert_array_equal(coverage([], (9, 5), 3), np.zeros((3, 3)))
    np.testing.assert_allclose(
        coverage([Region("Mass", box(-4, -4, 90, 90))], (9, 5), 3), np.ones((3, 3))
    )
    outside = Region("Mass", box(20, 20, 30, 30))
    np.testing.assert_array_equal(coverage([outside], (9, 5), 3), np.zeros((3, 3)))


def test_a_region_far_smaller_than_a_cell_is_not_lost():
    got = coverage([Region("Nodule", box(500.25, 500.0, 503.5, 502.0))], (1024, 1000), 14)
    assert got.sum() > 0
    assert got.mean() * 1024 * 1000 == pytest.approx(6.5, rel=1e-4)


def test_coverage_refuses_a_mask_of_another_size():
    with pytest.raises(DataError, match=r"mask of 4×3 pixels on an image of 5×3"):
        coverage([Region("Mass", encode_mask(np.ones((3, 4), bool)))], (5, 3), 2)


def test_rasterised_polygon_holds_the_pixels_whose_centres_it_contains():
    corners = np.array([(1.2, 0.7), (9.1, 2.2), (7.4, 8.9), (2.0, 6.5)])
    got = rasterise([Polygon(corners)], (11, 10))
    for row in range(10):
        for column in range(11):
            point = np.array([column + 0.5, row + 0.5])
            sides = np.roll(corners, -1, axis=0) - corners
            to_point = point - corners
            turns = sides[:, 0] * to_point[:, 1] - sides[:, 1] * to_point[:, 0]
            assert got[row, column] == (turns > 0).all()


def test_rasterised_polygon_is_near_that_of_pycocotools():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 70 + 15 * np.cos(3 * angle)
    points = np.stack([110 + radius * np.cos(angle), 90 + radius * np.sin(angle)], axis=1)
    got = rasterise([Polygon(points)], (230, 180))
    runs = coco_masks.frPyObjects([points.reshape(-1).tolist()], 180, 230)
    want = coco_masks.decode(runs)[..., 0].astype(bool)
    assert (got & want).sum() / (got | want).sum() > 0.98
    assert got.sum() == pytest.approx(area(Polygon(points)), rel=0.01)


def test_an_outline_that_crosses_its_own_path_has_no_hole():
    twice = [(1, 1), (9, 1), (9, 9), (1, 9)] * 2
    assert rasterise([polygon(*twice)], (10, 10)).sum() == 64


@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 1.0])
def test_run_lengths_match_pycocotools(density):
    pixels = np.random.default_rng().random((37, 23)) < density
    mask = encode_mask(pixels)
    want = coco_masks.encode(np.asfortranarray(pixels.astype(np.uint8)))
    assert compress_counts(mask.counts).encode() == want["counts"]
    assert decompress_counts(want["counts"].decode()) == mask.counts
    np.testing.assert_array_equal(decode_mask(mask), pixels)
    assert area(mask) == coco_masks.area(want)
    if pixels.any():
        around = bounding_box(mask)
        np.testing.assert_allclose(
            (around.x1, around.y1, around.x2 - around.x1, around.y2 - around.y1),
            coco_masks.toBbox(want),
        )


def test_long_runs_survive_compression():
    counts = (0, 1_000_000, 3, 5, 70_000, 2, 1)
    assert decompress_counts(compress_counts(counts)) == counts


@pytest.mark.parametrize("text", ["\x10", "é", "o"])
def test_damaged_run_length_text_is_refused(text):
    with pytest.raises(DataError, match="encode it again"):
        decompress_counts(text)


def test_run_lengths_that_do_not_add_up_are_refused():
    with pytest.raises(DataError, match="runs over 7 pixels"):
        decode_mask(Mask(2, 3, (3, 4)))


def test_clipped_polygon_is_its_intersection_with_the_frame():
    star = polygon((-3, 4), (5, -4), (14, 5), (6, 13))
    inside = clip(star, (10, 8))
    assert isinstance(inside, Polygon)
    assert is_inside(inside, (10, 8))
    padded = rasterise([Polygon((star.points + 20) * 8)], (400, 400))
    assert area(inside) == pytest.approx(padded[160:224, 160:240].sum() / 64, rel=0.01)


def test_clip_keeps_what_is_inside_and_drops_what_is_outside():
    assert clip(box(-2, 1, 5, 20), (9, 7)) == box(0, 1, 5, 7)
    assert clip(box(10, 1, 12, 2), (9, 7)) is None
    assert clip(polygon((20, 20), (30, 20), (25, 30)), (9, 7)) is None
    kept = box(1, 1, 2, 2)
    assert clip(kept, (9, 7)) is kept


def test_scale_stretches_both_axes_separately():
    assert scale(box(1, 2, 3, 4), (10, 10), (20, 5)) == box(2, 1, 6, 2)
    scaled = scale(polygon((1, 2), (3, 4), (0, 5)), (10, 10), (20, 5))
    assert isinstance(scaled, Polygon)
    np.testing.assert_allclose(scaled.points, [(2, 1), (6, 2), (0, 2.5)])
    pixels = np.random.default_rng().random((5, 3)) < 0.5
    mask = scale(encode_mask(pixels), (3, 5), (6, 15))
    assert isinstance(mask, Mask)
    np.testing.assert_array_equal(decode_mask(mask), pixels.repeat(3, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (box(1, 1, 1, 5), "no area"),
        (box(5, 1, 2, 5), "no area"),
        (box(1, float("nan"), 2, 5), "not finite"),
        (box(1, 1, float("inf"), 5), "not finite"),
        (polygon((1, 1), (2, 2)), "three"),
        (polygon((1, 1), (2, 2), (3, 3)), "no area"),
        (polygon((1, 1), (2, float("nan")), (3, 0)), "not finite"),
        (Mask(2, 3, (6,)), "empty"),
        (Mask(2, 3, (2, 9)), "runs over 11"),
        (Mask(2, 3, (8, -2)), "negative"),
    ],
)
def test_shapes_that_cannot_be_regions(shape, reason):
    assert reason in (fault_of(shape) or "")


def test_sound_shapes_have_no_fault():
    for shape in (box(0, 0, 0.5, 1), polygon((0, 0), (1, 0), (0, 1)), Mask(2, 3, (0, 6))):
        assert fault_of(shape) is None


def test_slivers_between_pixel_centres_cover_nothing():
    sliver = polygon((3.1, 2.1), (3.4, 2.1), (3.2, 2.4))
    assert fault_of(sliver) is None
    assert not covers_anything(sliver, (9, 7))
    assert covers_anything(polygon((3.1, 2.1), (4, 2.1), (3.2, 3)), (9, 7))
    assert covers_anything(box(3.1, 2.1, 3.2, 2.2), (9, 7))
    assert covers_anything(Mask(3, 2, (5, 1)), (2, 3))


def test_a_polygon_far_outside_takes_no_memory():
    huge = polygon((0, 0), (4e9, 4e9), (8e9, 8e9))
    assert fault_of(huge) == "polygon has no area"
    covered = coverage([Region("Mass", polygon((0, 0), (4e9, 0), (0, 4e9)))], (9, 7), 3)
    np.testing.assert_allclose(covered, np.ones((3, 3)))


def test_shared_pixels_are_those_of_two_pictures():
    rng = np.random.default_rng()
    frame = (57, 41)
    for _ in range(50):
        drawn = []
        for _ in range(rng.integers(0, 5)):
            kind = rng.integers(3)
            if kind == 0:
                x, y = rng.uniform(-10, 60), rng.uniform(-10, 50)
                drawn.append(box(x, y, x + rng.uniform(0.1, 30), y + rng.uniform(0.1, 30)))
            elif kind == 1:
                drawn.append(Polygon(rng.uniform(-5, 60, (rng.integers(3, 9), 2))))
            else:
                pixels = np.zeros(frame[::-1], bool)
                pixels[tuple(rng.integers(0, 40, 2))] = True
                pixels[rng.integers(5, 30) :, 7:20] = rng.random() < 0.5
                drawn.append(encode_mask(pixels))
        cut = rng.integers(0, len(drawn) + 1)
        one, other = (rasterise(its, frame) for its in (drawn[:cut], drawn[cut:]))
        expected = int((one & other).sum()), int((one | other).sum())
        assert overlap_pixels(drawn[:cut], drawn[cut:], frame) == expected
