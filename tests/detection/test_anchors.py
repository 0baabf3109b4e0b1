"""Anchors by hand, and their matches by a loop."""

import pytest
import torch
from monai.data.box_utils import box_iou

from dwarf_cxr.detection.anchors import RATIOS, SCALES, make_anchors, match_anchors


def test_anchors_by_hand():
    anchors = make_anchors([(1, 2), (1, 1)], [8, 16], [4.0, 12.0], scales=(1.0, 2.0), ratios=(1.0,))
    assert anchors.tolist() == [
        [2, 2, 6, 6],
        [0, 0, 8, 8],
        [10, 2, 14, 6],
        [8, 0, 16, 8],
        [2, 2, 14, 14],
        [-4, -4, 20, 20],
    ]


def test_rows_go_down_and_ratios_are_height_over_width():
    anchors = make_anchors([(2, 1)], [10], [10.0], scales=(1.0,), ratios=(4.0,))
    torch.testing.assert_close(
        anchors, torch.tensor([[2.5, -5.0, 7.5, 15.0], [2.5, 5.0, 7.5, 25.0]])
    )


def test_nine_shapes_a_cell_with_area_by_scale_alone():
    anchors = make_anchors([(3, 5)], [8], [20.0])
    assert anchors.shape == (3 * 5 * 9, 4)
    sides = (anchors[:, 2:] - anchors[:, :2])[:9]
    torch.testing.assert_close(
        sides.prod(dim=1), torch.tensor([(20 * scale) ** 2 for scale in SCALES for _ in RATIOS])
    )
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor(RATIOS * 3))


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    anchors = make_anchors([(6, 5), (3, 3)], [8, 16], [16.0, 32.0])
    low = torch.rand(5, 2, generator=generator) * 30
    truths = torch.cat([low, low + torch.rand(5, 2, generator=generator) * 24 + 2], dim=1)
    matches = match_anchors(anchors, truths)
    overlap = box_iou(anchors, truths)
    for a in range(len(anchors)):
        mine = []
        for t in range(len(truths)):
            value = float(overlap[a, t])
            best = value == float(overlap[:, t].max())
            if abs(value - 0.5) < 1e-6 or abs(value - 0.4) < 1e-6:
                continue
            assert bool(matches.foreground[a, t]) == (value >= 0.5 or best)
            assert bool(matches.ignored[a, t]) == (0.4 <= value < 0.5 and not best)
            if value >= 0.5 or best:
                mine.append((value, -t))
        assert int(matches.nearest[a]) == (-max(mine)[1] if mine else -1)
    assert bool(matches.foreground.any(dim=0).all()), "every truth keeps an anchor"
    assert bool(matches.ignored.any())


def test_a_tiny_truth_keeps_its_best_anchor_and_a_far_one_none():
    anchors = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10]])
    truths = torch.tensor([[2.0, 2, 3, 3], [100, 100, 110, 110]])
    matches = match_anchors(anchors, truths)
    assert matches.foreground.tolist() == [[True, False], [False, False]]
    assert matches.nearest.tolist() == [0, -1]


def test_a_shared_best_anchor_stands_for_both():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    truths = torch.tensor([[0.0, 0, 5, 5], [0, 0, 8, 8], [0, 0, 5, 5]])
    matches = match_anchors(anchors, truths)
    assert matches.foreground.tolist() == [[True, True, True]]
    assert matches.nearest.tolist() == [1]


def test_without_truths_all_is_background():
    matches = match_anchors(make_anchors([(2, 3)], [8], [8.0]), torch.zeros(0, 4))
    assert matches.foreground.shape == matches.ignored.shape == (54, 0)
    assert set(matches.nearest.tolist()) == {-1}
