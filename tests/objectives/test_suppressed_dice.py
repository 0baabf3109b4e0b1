import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dwarf_cxr.objectives.suppressed_dice import EPSILON, suppressed_dice_loss

PIXELS = [(row, column) for row in range(3) for column in range(4)]


def paint(pixels) -> torch.Tensor:
    canvas = torch.zeros(1, 3, 4, dtype=torch.float64)
    for row, column in pixels:
        canvas[0, row, column] = 1.0
    return canvas


def soft(seed: int, pairs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(pairs, 3, 4, dtype=torch.float64, generator=generator)
    return maps, torch.rand(pairs, 3, 4, dtype=torch.float64, generator=generator)


@given(truth=st.sets(st.sampled_from(PIXELS), min_size=1), guess=st.sets(st.sampled_from(PIXELS)))
def test_weight_one_is_dice_of_sets_of_pixels(truth, guess):
    dice = 2 * len(truth & guess) / (len(truth) + len(guess))
    loss = suppressed_dice_loss(paint(guess), paint(truth), fp_weight=1.0, smooth=0.0)
    assert loss.item() == pytest.approx(1 - dice, abs=1e-6)


@given(truth=st.sets(st.sampled_from(PIXELS)), guess=st.sets(st.sampled_from(PIXELS)))
def test_smoothing_is_added_above_and_below(truth, guess):
    smooth = 0.7
    dice = (2 * len(truth & guess) + smooth) / (len(truth) + len(guess) + smooth)
    loss = suppressed_dice_loss(paint(guess), paint(truth), fp_weight=1.0, smooth=smooth)
    assert loss.item() == pytest.approx(1 - dice, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0, 7.0])
def test_without_smoothing_it_is_tversky(weight):
    maps, regions = soft(1)
    hit = (maps * regions).sum((1, 2))
    false_alarm = (maps * (1 - regions)).sum((1, 2))
    miss = ((1 - maps) * regions).sum((1, 2))
    tversky = hit / (hit + weight / 2 * false_alarm + 0.5 * miss)
    loss = suppressed_dice_loss(maps, regions, fp_weight=weight, smooth=0.0)
    torch.testing.assert_close(loss, 1 - tversky, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 2.0, 3.5])
def test_it_is_the_papers_equation(weight):
    # the truth's size grows by (w_FP - 1) false positives
    maps, regions = soft(2)
    false_alarm = (maps * (1 - regions)).sum((1, 2))
    adjusted = regions.sum((1, 2)) + (weight - 1) * false_alarm
    score = (2 * (maps * regions).sum((1, 2)) + 1 + EPSILON) / (
        maps.sum((1, 2)) + adjusted + 1 + EPSILON
    )
    loss = suppressed_dice_loss(maps, regions, fp_weight=weight, smooth=1.0)
    torch.testing.assert_close(loss, 1 - score)


def test_it_grows_with_the_weight_of_false_positives():
    maps, regions = soft(3)
    losses = torch.stack(
        [
            suppressed_dice_loss(maps, regions, fp_weight=weight, smooth=1.0)
            for weight in (0.0, 0.5, 1.0, 2.0, 10.0, 1000.0)
        ]
    )
    assert bool((losses.diff(dim=0) > 0).all())
    assert 0 <= losses.min() <= losses.max() <= 1


def test_without_false_positives_the_weight_does_not_matter():
    _, regions = soft(4)
    regions = regions.round()
    maps = regions * 0.6
    losses = [suppressed_dice_loss(maps, regions, fp_weight=w, smooth=1.0) for w in (0.0, 9.0)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_gradient_is_the_numerical_one(weight, smooth):
    maps, regions = soft(5, pairs=2)
    maps.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: suppressed_dice_loss(p, regions, fp_weight=weight, smooth=smooth), (maps,)
    )


def test_pairs_do_not_mix():
    maps, regions = soft(6)
    whole = suppressed_dice_loss(maps, regions, fp_weight=2.0, smooth=1.0)
    for index in range(3):
        one = slice(index, index + 1)
        alone = suppressed_dice_loss(maps[one], regions[one], fp_weight=2.0, smooth=1.0)
        torch.testing.assert_close(alone, whole[one])


def test_empty_map_on_empty_region_is_finite():
    maps = torch.zeros(1, 2, 3, requires_grad=True)
    loss = suppressed_dice_loss(maps, torch.zeros(1, 2, 3), fp_weight=2.0, smooth=0.0)
    loss.sum().backward()
    assert bool(torch.isfinite(maps.grad).all())
    assert loss.item() == pytest.approx(0.0)
