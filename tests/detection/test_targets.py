"""Boxes of masks against boxes known by construction."""

import numpy as np
import pytest
import torch

from dwarf_cxr.config import TrainingSettings
from dwarf_cxr.data.geometry import coverage
from dwarf_cxr.data.records import Box, Region
from dwarf_cxr.detection.targets import boxes_of_mask, boxes_of_regions
from dwarf_cxr.training.augmentation import Changes, apply_changes, draw_changes


def covered(boxes: list[tuple[float, float, float, float]], side: int, frame=(64, 64)):
    return coverage([Region("Mass", Box(*map(float, box))) for box in boxes], frame, side)


def test_boxes_come_back():
    drawn = [(3, 5, 20, 9), (30, 12, 31, 60), (40, 0, 64, 10)]
    found = boxes_of_mask(covered(drawn, 64)).tolist()
    assert sorted(map(tuple, found)) == sorted(drawn)


def test_touching_boxes_become_one_and_near_ones_do_not():
    assert boxes_of_mask(covered([(0, 0, 8, 8), (8, 8, 16, 12)], 64)).tolist() == [[0, 0, 16, 12]]
    assert len(boxes_of_mask(covered([(0, 0, 8, 8), (9, 0, 16, 8)], 64))) == 2


def test_an_empty_mask_has_no_box_and_a_speck_has_one():
    assert boxes_of_mask(np.zeros((5, 7), np.float32)).shape == (0, 4)
    speck = np.zeros((5, 7), np.float32)
    speck[2, 3] = 0.01
    assert boxes_of_mask(speck).tolist() == [[3, 2, 4, 3]]


def test_rows_are_y():
    mask = np.zeros((4, 6), np.float32)
    mask[1:3, 2:6] = 1
    assert boxes_of_mask(mask).tolist() == [[2, 1, 6, 3]]


def test_only_supervised_findings_are_boxed_in_pixels_of_the_image():
    masks = np.stack([covered([(8, 16, 24, 32)], 16), covered([(0, 0, 64, 8)], 16)])
    regions = torch.from_numpy(np.stack([masks, masks[::-1], masks]))
    supervised = torch.tensor([[True, True], [False, True], [False, False]])
    films = boxes_of_regions(regions, supervised, 128)
    assert films[0].findings.tolist() == [0, 1]
    assert films[0].boxes.tolist() == [[16, 32, 48, 64], [0, 0, 128, 16]]
    assert films[1].findings.tolist() == [1]
    assert films[1].boxes.tolist() == [[16, 32, 48, 64]]
    assert films[2].boxes.shape == (0, 4)
    assert films[2].findings.shape == (0,)


def test_a_moved_box_is_where_the_movement_takes_it():
    drawn = torch.tensor([12.0, 20, 40, 52])
    regions = torch.from_numpy(covered([tuple(drawn.tolist())], 64))[None, None]
    settings = TrainingSettings(rotate=0, shift=0.1, scale=0.15)
    for seed in range(5):
        changes = draw_changes(settings, 1, torch.Generator().manual_seed(seed))
        _, moved = apply_changes(torch.zeros(1, 64, 64), regions, changes)
        film = boxes_of_regions(moved, torch.tensor([[True]]), 64)[0]
        # affine leads from the output to the input, on axes from -1 to 1
        zoom, shift = changes.affine[0, 0, 0], changes.affine[0, :, 2]
        corners = ((drawn.reshape(2, 2) / 32 - 1) - shift) / zoom
        expected = ((corners + 1) * 32).clamp(0, 64).flatten()
        assert film.boxes[0].tolist() == pytest.approx(expected.tolist(), abs=0.51)


def test_a_box_moved_off_the_film_is_gone():
    regions = torch.from_numpy(covered([(0, 0, 10, 10)], 64))[None, None]
    affine = torch.tensor([[[1.0, 0, 1], [0, 1, 1]]])  # half a film up and to the left
    changes = Changes(affine, torch.ones(1), torch.zeros(1))
    _, moved = apply_changes(torch.zeros(1, 64, 64), regions, changes)
    assert boxes_of_regions(moved, torch.tensor([[True]]), 64)[0].boxes.shape == (0, 4)
