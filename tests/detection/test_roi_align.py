"""ROI align against a naive loop of bilinear samples."""

import math

import torch

from dwarf_cxr.detection.roi_align import level_of, pyramid_roi_align, roi_align


def bilinear(plane, y: float, x: float):
    """A value at (y, x) in pixel centres, held at the edge; as the kernels of Mask R-CNN do it."""
    height, width = plane.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, right = y - top, x - left
    return (
        plane[top, left] * (1 - down) * (1 - right)
        + plane[top, left + 1] * (1 - down) * right
        + plane[top + 1, left] * down * (1 - right)
        + plane[top + 1, left + 1] * down * right
    )


def naive_roi_align(features, boxes, stride, size, samples):
    inside = torch.zeros(len(boxes), len(features), size, size, dtype=features.dtype)
    for number, box in enumerate(boxes.tolist()):
        # aligned=True: half a pixel is taken off, and boxes may be smaller than a pixel
        x1, y1, x2, y2 = (value / stride - 0.5 for value in box)
        high, wide = (y2 - y1) / size, (x2 - x1) / size
        for channel, plane in enumerate(features):
            for row in range(size):
                for column in range(size):
                    total = 0.0
                    for a in range(samples):
                        for b in range(samples):
                            y = y1 + (row + (a + 0.5) / samples) * high
                            x = x1 + (column + (b + 0.5) / samples) * wide
                            total += bilinear(plane, y, x)
                    inside[number, channel, row, column] = total / samples**2
    return inside


def made(seed: int):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 7, 9, generator=generator, dtype=torch.float64)
    low = torch.rand(5, 2, generator=generator, dtype=torch.float64) * 40
    sides = torch.rand(5, 2, generator=generator, dtype=torch.float64) * 30 + 0.3
    whole = torch.tensor([[0.0, 0, 72, 56]], dtype=torch.float64)
    return features, torch.cat([torch.cat([low, low + sides], dim=1), whole])


def test_it_is_a_loop_of_bilinear_samples():
    for size, samples in ((1, 1), (2, 3), (5, 2)):
        features, boxes = made(size)
        torch.testing.assert_close(
            roi_align(features, boxes, 8, size, samples),
            naive_roi_align(features, boxes, 8, size, samples),
        )


def test_a_box_of_whole_pixels_has_their_values():
    features, _ = made(4)
    box = torch.tensor([[16.0, 8, 40, 32]], dtype=torch.float64)
    torch.testing.assert_close(roi_align(features, box, 8, 3, 1)[0], features[:, 1:4, 2:5])


def test_its_gradient_is_the_numerical_one():
    features, boxes = made(5)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: roi_align(f, boxes[:3], 8, 2, 2), (features,))


def test_no_box_gives_no_features():
    features, boxes = made(6)
    assert roi_align(features, boxes[:0], 8, 4).shape == (0, 3, 4, 4)


def test_levels_double_with_the_side():
    sides = torch.tensor([1.0, 31.9, 32.1, 63.9, 64.1, 127.9, 128.1, 4000])
    boxes = torch.stack([sides * 0, sides * 0, sides * 2, sides / 2], dim=1)
    assert level_of(boxes, 3, 32.0).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    by_equation = [min(max(math.floor(1 + math.log2(side / 32)), 0), 2) for side in sides.tolist()]
    assert level_of(boxes, 3, 32.0).tolist() == by_equation


def test_each_box_of_each_film_takes_its_level():
    generator = torch.Generator().manual_seed(7)
    levels = [torch.randn(2, 3, 64 // s, 64 // s, generator=generator) for s in (8, 16, 32)]
    for level in levels:
        level.requires_grad_()
    films = [
        torch.tensor([[0.0, 0, 60, 60], [4, 4, 14, 9], [10, 0, 44, 40]]),
        torch.tensor([[8.0, 9, 20, 33]]),
    ]
    inside = pyramid_roi_align(levels, (8, 16, 32), films, 4, canonical=24.0)
    for film, (boxes, found) in enumerate(zip(films, inside, strict=True)):
        assert found.shape == (len(boxes), 3, 4, 4)
        for box, features in zip(boxes, found, strict=True):
            number = int(level_of(box, 3, 24.0))
            alone = roi_align(levels[number][film], box[None], (8, 16, 32)[number], 4)
            torch.testing.assert_close(features, alone[0])
    sum(found.square().sum() for found in inside).backward()
    assert all(bool(level.grad.abs().sum() > 0) for level in levels)
    empty = pyramid_roi_align(levels, (8, 16, 32), [films[0][:0], films[1]], 4, canonical=24.0)
    assert empty[0].shape == (0, 3, 4, 4)
