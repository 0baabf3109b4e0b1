"""Boxes against MONAI's functions, naive loops and pixels counted."""

import pytest
import torch
from monai.data import box_utils

from dwarf_cxr.detection.boxes import (
    box_area,
    box_iou,
    clip_to_image,
    decode,
    encode,
    non_maximum_suppression,
    rasterise,
)


def random_boxes(*shape: int, seed: int, extent: float = 40, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator, dtype=dtype) * extent
    sides = torch.rand(*shape, 2, generator=generator, dtype=dtype) * extent + 0.5
    return torch.cat([low, low + sides], dim=-1)


def test_overlap_is_monais():
    first, second = random_boxes(23, seed=1), random_boxes(7, seed=2)
    torch.testing.assert_close(
        box_iou(first, second), box_utils.box_iou(first, second), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(box_area(first), box_utils.box_area(first))


def test_overlap_by_hand():
    box = torch.tensor([[0.0, 0, 4, 2]])
    others = torch.tensor([[2.0, 0, 6, 2], [0, 0, 4, 2], [4, 0, 5, 1], [3, 3, 3, 3]])
    assert box_iou(box, others).tolist() == [[pytest.approx(4 / 12), 1, 0, 0]]
    empty = torch.tensor([[1.0, 1, 1, 1]])
    assert box_iou(empty, empty).tolist() == [[0]]
    assert box_iou(box[:0], others).shape == (0, 4)
    assert box_iou(box, others[:0]).shape == (1, 0)


def test_decoding_undoes_encoding():
    anchors, boxes = (random_boxes(5, 6, seed=seed, dtype=torch.float64) for seed in (3, 4))
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes)
    offsets = torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(encode(decode(offsets, anchors[0, :1]), anchors[0, :1]), offsets)


def test_offsets_by_hand():
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 5, 25, 15]])
    expected = [[1.0, 0.0, torch.tensor(2.0).log(), torch.tensor(0.5).log()]]
    torch.testing.assert_close(encode(box, anchor), torch.tensor(expected))


def test_a_wild_regression_stays_finite():
    assert bool(
        torch.isfinite(decode(torch.full((1, 4), 1e4), torch.tensor([[0.0, 0, 9, 9]]))).all()
    )


def test_clipping_is_monais():
    boxes = random_boxes(30, seed=5) - 20
    cut, kept = box_utils.clip_boxes_to_image(boxes, [31, 17], remove_empty=True)
    mine = clip_to_image(boxes, height=17, width=31)
    torch.testing.assert_close(mine[kept], cut)
    # MONAI also drops what is thinner than a pixel
    assert bool(((mine[~kept, 2:] - mine[~kept, :2]).amin(dim=1) < 1).all())
    assert bool((mine[:, 2:] >= mine[:, :2]).all())


def naive_suppression(boxes: torch.Tensor, scores: torch.Tensor, limit: float) -> list[bool]:
    stays = [False] * len(boxes)
    # sorted() is stable: of equal scores the first goes first
    for index in sorted(range(len(boxes)), key=lambda one: -float(scores[one])):
        rivals = [other for other in range(len(boxes)) if stays[other]]
        overlaps = box_utils.box_iou(boxes[index : index + 1], boxes[rivals])[0] if rivals else []
        stays[index] = all(float(overlap) <= limit for overlap in overlaps)
    return stays


@pytest.mark.parametrize("limit", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("ties", [False, True])
def test_suppression_is_the_greedy_loop(limit, ties):
    boxes = random_boxes(3, 41, seed=6)
    boxes[:, 30:] = boxes[:, :11] + 0.2
    scores = torch.rand(3, 41, generator=torch.Generator().manual_seed(7))
    if ties:
        scores = (scores * 4).round() / 4
    stays = non_maximum_suppression(boxes, scores, limit)
    for film in range(3):
        assert stays[film].tolist() == naive_suppression(boxes[film], scores[film], limit)
        picked = box_utils.non_max_suppression(boxes[film], scores[film], limit)
        assert sorted(picked.tolist()) == stays[film].nonzero()[:, 0].tolist()
    assert 3 < int(stays.sum()) < 3 * 41


def test_a_suppressed_box_suppresses_nothing():
    # each overlaps the next by a half: the second falls, and so the third stays
    boxes = torch.tensor([[0.0, 0, 3, 1], [1, 0, 4, 1], [2, 0, 5, 1], [3, 0, 6, 1]])
    stays = non_maximum_suppression(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.4)
    assert stays.tolist() == [True, False, True, False]


def test_suppression_of_none_and_of_one():
    assert non_maximum_suppression(torch.zeros(2, 0, 4), torch.zeros(2, 0), 0.5).shape == (2, 0)
    assert non_maximum_suppression(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.0).tolist() == [
        True
    ]


def test_a_drawn_cell_has_the_best_score_over_it():
    # a grid of 3 rows and 2 columns on 12 px: cells are 6 wide and 4 high
    boxes = torch.tensor([[0.0, 0, 6, 4], [0, 0, 12, 2], [3, 4, 6, 8]])
    scores = torch.tensor([0.25, 0.75, 1.0])
    drawn = rasterise(boxes, scores, 12, (3, 2))
    torch.testing.assert_close(
        drawn, torch.tensor([[0.375, 0.375], [0.5, 0.0], [0.0, 0.0]]), rtol=0, atol=1e-6
    )
    assert rasterise(boxes[:0], scores[:0], 12, (3, 2)).tolist() == [[0, 0]] * 3


def test_drawing_is_a_loop_over_pixels():
    boxes = random_boxes(2, 5, seed=8, extent=16).round()
    scores = torch.rand(2, 5, generator=torch.Generator().manual_seed(9))
    drawn = rasterise(boxes, scores, 32, (32, 32))
    for film in range(2):
        for y in range(32):
            for x in range(32):
                over = [
                    float(score)
                    for (x1, y1, x2, y2), score in zip(boxes[film], scores[film], strict=True)
                    if x1 <= x < x2 and y1 <= y < y2
                ]
                assert float(drawn[film, y, x]) == pytest.approx(max(over, default=0), abs=1e-6)
