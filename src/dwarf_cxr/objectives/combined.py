"""The objective of a step, from the sums of its terms: equation 4 and what methods add to it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dwarf_cxr.config import ObjectiveSettings
from dwarf_cxr.objectives.label_loss import label_loss
from dwarf_cxr.objectives.suppressed_dice import suppressed_dice_loss


class LossSums(NamedTuple):
    """Sums over a part of a batch; a term that is not used is 0."""

    dice: Float[Tensor, ""]
    label: Float[Tensor, ""]
    mining: Float[Tensor, ""]
    external: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    anomaly: Float[Tensor, ""]
    detection: Float[Tensor, ""]
    bound: Float[Tensor, ""]
    """This and the next two are means over a batch, which is then not split."""
    union: Float[Tensor, ""]
    box: Float[Tensor, ""]


class LossCounts(NamedTuple):
    """How many terms each sum has; those of the whole batch turn the sums into means."""

    pairs: Float[Tensor, ""]
    """Present findings that carry a region: Dice and external terms."""
    labels: Float[Tensor, ""]
    """Assessed labels."""
    present: Float[Tensor, ""]
    """Present findings, each with its erased film."""
    captioned: Float[Tensor, ""]
    """Films with a text."""
    absent: Float[Tensor, ""]
    """Absent findings."""
    judged: Float[Tensor, ""]
    """Films known to have some finding, or none at all."""
    films: Float[Tensor, ""]
    batches: Float[Tensor, ""]
    """1 of a batch; of an epoch, how many means were summed."""


def loss_counts(
    labels: Float[Tensor, "batch finding"],
    supervised: Bool[Tensor, "batch finding"],
    captioned: Bool[Tensor, "batch"],
) -> LossCounts:
    """The counts of a batch, or of a part of it."""
    present = labels == 1
    judged = present.any(dim=1) | (labels == 0).all(dim=1)
    films = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    counted = (supervised, ~torch.isnan(labels), present, captioned, labels == 0, judged, films)
    sums = [true.sum().to(labels.dtype) for true in counted]
    return LossCounts._make([*sums, labels.new_ones(())])


class Pairs(NamedTuple):
    """Films and the findings whose region on them supervises a map: `maps[pairs]` takes those."""

    film: Int64[Tensor, "pair"]
    finding: Int64[Tensor, "pair"]


def loss_sums(
    logits: Float[Tensor, "batch finding"],
    maps: Float[Tensor, "batch finding h w"],
    labels: Float[Tensor, "batch finding"],
    regions: Float[Tensor, "batch finding H W"],
    pairs: Pairs,
    positive_weight: Float[Tensor, "finding"],
    settings: ObjectiveSettings,
) -> LossSums:
    """Dice over present findings that carry a region; cross-entropy over assessed labels.

    A present finding without a region is left out of the Dice: an empty target would only punish
    every attention. Without any pair the Dice sum is 0, with a gradient of 0.

    Args:
        maps: values in [0, 1] on the model's grid, upsampled bilinearly to the regions' grid.
        regions: true shares in [0, 1].
        pairs: of `pairs_on_the_film`.
    """
    size = regions.shape[-1]
    if settings.seg_weight > 0 and len(pairs.film):
        upsampled = F.interpolate(
            maps[pairs][:, None], (size, size), mode="bilinear", align_corners=False
        )[:, 0]
        smooth = settings.dice_smooth * (size / 224) ** 2
        dice = suppressed_dice_loss(
            upsampled, regions[pairs], fp_weight=settings.fp_weight, smooth=smooth
        ).sum()
    else:
        dice = maps.sum() * 0
    none = logits.new_zeros(())
    sums = LossSums(*(none for _ in LossSums._fields))
    label = label_loss(logits, labels, positive_weight).sum()
    return sums._replace(dice=dice, label=label)


def on_the_film(
    supervised: Bool[Tensor, "batch finding"], regions: Float[Tensor, "batch finding H W"]
) -> Bool[Tensor, "batch finding"]:
    """`supervised` less the regions that augmentation moved off the film: empty targets."""
    return supervised & (regions.sum(dim=(-2, -1)) > 0)


def pairs_on_the_film(
    supervised: Bool[Tensor, "batch finding"], regions: Float[Tensor, "batch finding H W"]
) -> Pairs:
    """The pairs of `on_the_film`.

    How many there are is read back, for which the host waits until a GPU has done all that was
    asked of it before: find them before the network runs, not after.
    """
    return Pairs(*on_the_film(supervised, regions).nonzero(as_tuple=True))


def combine(sums: LossSums, counts: LossCounts, settings: ObjectiveSettings) -> Float[Tensor, ""]:
    """The objective from sums and the counts of the whole batch.

    seg_weight · Dice + (1 - seg_weight) · cross-entropy (paper, equation 4), plus GAIN's
    mining_weight · L_am + external_weight · L_e, plus contrastive_weight · InfoNCE, plus the terms
    of the related systems. A term without any pair, label or text is 0; the weights of the others
    do not change.
    """
    dice = sums.dice / counts.pairs.clamp(min=1)
    label = sums.label / counts.labels.clamp(min=1)
    mining = sums.mining / counts.present.clamp(min=1)
    external = sums.external / counts.pairs.clamp(min=1)
    contrastive = sums.contrastive / counts.captioned.clamp(min=1)
    entropy = sums.entropy / counts.absent.clamp(min=1)
    anomaly = sums.anomaly / counts.judged.clamp(min=1)
    detection = sums.detection / counts.films.clamp(min=1)
    return (
        settings.seg_weight * dice
        + settings.label_weight * (1 - settings.seg_weight) * label
        + settings.mining_weight * mining
        + settings.external_weight * external
        + settings.contrastive_weight * contrastive
        + settings.entropy_weight * entropy
        + settings.anomaly_weight * anomaly
        + settings.detection_weight * detection
        + settings.bound_weight * sums.bound / counts.batches.clamp(min=1)
        + settings.union_weight * sums.union / counts.batches.clamp(min=1)
        + settings.box_weight * sums.box / counts.batches.clamp(min=1)
    )
