import math

import pytest
import torch
import torch.nn.functional as F

from dwarf_cxr.config import ObjectiveSettings
from dwarf_cxr.objectives.combined import (
    LossCounts,
    LossSums,
    combine,
    loss_counts,
    loss_sums,
    pairs_on_the_film,
)
from dwarf_cxr.objectives.label_loss import label_loss
from dwarf_cxr.objectives.suppressed_dice import suppressed_dice_loss

NAN = math.nan
SETTINGS = ObjectiveSettings(seg_weight=0.3, fp_weight=2.0, dice_smooth=1.0)


class Case:
    """Four images, three findings, maps of 2×3 cells, regions of 8×8."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(4, 3, generator=generator).requires_grad_()
        self.maps = torch.rand(4, 3, 2, 3, generator=generator).requires_grad_()
        self.labels = torch.tensor([[1, 0, NAN], [1, 1, 0], [0, NAN, 1], [1, 0, 0]])
        self.regions = torch.rand(4, 3, 8, 8, generator=generator)
        # the last image's first finding is present without a region
        self.supervised = torch.tensor(
            [[True, False, False], [True, True, False], [False, False, True], [False] * 3]
        )
        self.weights = torch.tensor([1.0, 3.0, 2.0])

    def sums(self, settings=SETTINGS, rows=slice(None)):
        return loss_sums(
            self.logits[rows],
            self.maps[rows],
            self.labels[rows],
            self.regions[rows],
            pairs_on_the_film(self.supervised[rows], self.regions[rows]),
            self.weights,
            settings,
        )

    def counts(self):
        return loss_counts(self.labels, self.supervised, torch.tensor([True, False, True, True]))


def test_sums_against_a_naive_loop():
    case = Case()
    sums = case.sums()
    dice = 0.0
    for image, finding in ((0, 0), (1, 0), (1, 1), (2, 2)):
        upsampled = F.interpolate(
            case.maps[image, finding][None, None], (8, 8), mode="bilinear", align_corners=False
        )[0]
        dice += suppressed_dice_loss(
            upsampled, case.regions[image, finding][None], fp_weight=2.0, smooth=(8 / 224) ** 2
        ).item()
    assert sums.dice.item() == pytest.approx(dice, rel=1e-5)
    counts = case.counts()
    named = {name: value.item() for name, value in counts._asdict().items()}
    rows = case.labels.tolist()
    assert named == {
        "pairs": 4,
        "labels": 10,
        "present": 5,
        "captioned": 3,
        "absent": sum(row.count(0.0) for row in rows),
        "judged": sum(1.0 in row or row == [0.0] * 3 for row in rows),
        "films": 4,
        "batches": 1,
    }
    expected = label_loss(case.logits, case.labels, case.weights).sum()
    torch.testing.assert_close(sums.label, expected)


def test_a_positive_without_a_region_is_left_out():
    case = Case()
    case.sums().dice.backward()
    touched = case.maps.grad.abs().sum((-1, -2)) > 0
    assert torch.equal(touched, case.supervised)


def test_without_any_pair_dice_is_exactly_zero_with_a_gradient_that_is_a_number():
    case = Case()
    case.supervised = torch.zeros(4, 3, dtype=torch.bool)
    sums = case.sums()
    assert sums.dice.item() == 0.0
    combine(sums, case.counts(), SETTINGS).backward()
    assert torch.equal(case.maps.grad, torch.zeros_like(case.maps))
    assert bool(torch.isfinite(case.logits.grad).all())
    assert case.logits.grad.abs().max() > 0


def test_without_any_label_the_cross_entropy_is_zero():
    case = Case()
    case.labels = torch.full((4, 3), NAN)
    sums = case.sums()
    loss = combine(sums, case.counts(), SETTINGS)
    assert loss.item() == pytest.approx(0.3 * sums.dice.item() / 4)
    loss.backward()
    assert torch.equal(case.logits.grad, torch.zeros_like(case.logits))


def test_the_objective_weighs_the_two_means():
    sums = Case().sums()
    loss = combine(sums, Case().counts(), SETTINGS)
    expected = 0.3 * sums.dice.item() / 4 + 0.7 * sums.label.item() / 10
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_added_terms_are_means_of_their_own_with_their_own_weights():
    settings = ObjectiveSettings(
        seg_weight=0.25, mining_weight=2.0, external_weight=3.0, contrastive_weight=5.0
    )
    zeros = dict.fromkeys(LossSums._fields, torch.zeros(()))
    sums = LossSums(**zeros)._replace(
        **dict(
            zip(
                ("dice", "label", "mining", "external", "contrastive"),
                torch.tensor([8.0, 9.0, 10.0, 12.0, 14.0]),
                strict=True,
            )
        )
    )
    nothing = LossCounts(*torch.zeros(len(LossCounts._fields)))
    counts = nothing._replace(
        **dict(
            zip(
                ("pairs", "labels", "present", "captioned"),
                torch.tensor([16.0, 27.0, 40.0, 7.0]),
                strict=True,
            )
        )
    )
    expected = 0.25 * 8 / 16 + 0.75 * 9 / 27 + 2 * 10 / 40 + 3 * 12 / 16 + 5 * 14 / 7
    assert combine(sums, counts, settings).item() == pytest.approx(expected)
    assert combine(LossSums(**zeros), nothing, settings).item() == 0


def test_labels_only_ignores_the_regions():
    case = Case()
    sums = case.sums(ObjectiveSettings(seg_weight=0.0))
    combine(sums, case.counts(), ObjectiveSettings(seg_weight=0.0)).backward()
    assert case.maps.grad is None or case.maps.grad.abs().max() == 0


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_parts_of_a_batch_add_up_to_the_whole(cut):
    whole, parts = Case(), Case()
    sums = whole.sums()
    total = combine(sums, whole.counts(), SETTINGS)
    total.backward()
    losses = [
        combine(parts.sums(rows=rows), whole.counts(), SETTINGS)
        for rows in (slice(0, cut), slice(cut, 4))
    ]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), total)
    torch.testing.assert_close(parts.maps.grad, whole.maps.grad)
    torch.testing.assert_close(parts.logits.grad, whole.logits.grad)


@pytest.mark.parametrize("size", [8, 16])
def test_smoothing_is_the_same_share_of_the_image_on_every_grid(size):
    maps = torch.full((1, 1, 4, 4), 0.5)
    regions = torch.zeros(1, 1, size, size)
    regions[..., : size // 2] = 1.0
    sums = loss_sums(
        torch.zeros(1, 1),
        maps,
        torch.ones(1, 1),
        regions,
        pairs_on_the_film(torch.ones(1, 1, dtype=torch.bool), regions),
        torch.ones(1),
        ObjectiveSettings(fp_weight=1.0, dice_smooth=224.0**2 / 4),
    )
    # in shares of the image: overlap 1/4, map 1/2, region 1/2, smoothing 1/4
    assert sums.dice.item() == pytest.approx(
        1 - (2 / 4 + 1 / 4) / (1 / 2 + 1 / 2 + 1 / 4), abs=1e-4
    )


def test_a_region_that_was_moved_out_of_the_film_is_left_out():
    case = Case()
    case.regions[0, 0] = 0.0
    case.sums().dice.backward()
    assert case.maps.grad[0, 0].abs().max() == 0
