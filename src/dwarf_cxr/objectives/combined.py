"""The objective of a step: seg_weight · Dice + (1 - seg_weight) · cross-entropy."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dwarf_cxr.config import ObjectiveSettings
from dwarf_cxr.objectives.label_loss import label_loss
from dwarf_cxr.objectives.suppressed_dice import suppressed_dice_loss


class LossSums(NamedTuple):
    """Sums over a part of a batch, with the counts that turn them into means of the whole."""

    dice: Float[Tensor, ""]
    pairs: Float[Tensor, ""]
    label: Float[Tensor, ""]
    labels: Float[Tensor, ""]


def loss_sums(
    logits: Float[Tensor, "batch finding"],
    maps: Float[Tensor, "batch finding h w"],
    labels: Float[Tensor, "batch finding"],
    regions: Float[Tensor, "batch finding H W"],
    supervised: Bool[Tensor, "batch finding"],
    positive_weight: Float[Tensor, "finding"],
    settings: ObjectiveSettings,
) -> LossSums:
    """Dice over present findings that carry a region; cross-entropy over assessed labels.

    A present finding without a region is left out of the Dice: an empty target would only punish
    every attention. Without any pair the Dice sum is 0, with a gradient of 0.

    Args:
        maps: values in [0, 1] on the model's grid, upsampled bilinearly to the regions' grid.
        regions: true shares in [0, 1].
    """
    size = regions.shape[-1]
    # augmentation can move a region off the film; its target would be empty
    supervised = supervised & (regions.sum(dim=(-2, -1)) > 0)
    if settings.seg_weight > 0 and bool(supervised.any()):
        upsampled = F.interpolate(
            maps[supervised][:, None], (size, size), mode="bilinear", align_corners=False
        )[:, 0]
        smooth = settings.dice_smooth * (size / 224) ** 2
        dice = suppressed_dice_loss(
            upsampled, regions[supervised], fp_weight=settings.fp_weight, smooth=smooth
        ).sum()
    else:
        dice = maps.sum() * 0
    return LossSums(
        dice,
        supervised.sum().to(logits.dtype),
        label_loss(logits, labels, positive_weight).sum(),
        (~torch.isnan(labels)).sum().to(logits.dtype),
    )


def combine(
    sums: LossSums, pairs: Tensor, labels: Tensor, settings: ObjectiveSettings
) -> Float[Tensor, ""]:
    """The objective from sums and the counts of the whole batch (paper, equation 4).

    Where no pair carries a region, only the cross-entropy's term remains, with its weight.
    """
    dice = sums.dice / pairs.clamp(min=1)
    label = sums.label / labels.clamp(min=1)
    return settings.seg_weight * dice + (1 - settings.seg_weight) * label
