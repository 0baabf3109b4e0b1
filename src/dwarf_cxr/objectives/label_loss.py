"""Cross-entropy on labels, in which an unassessed finding has no say."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dwarf_cxr.config import PositiveWeighting


def label_loss(
    logits: Float[Tensor, "batch finding"],
    labels: Float[Tensor, "batch finding"],
    positive_weight: Float[Tensor, "finding"],
) -> Float[Tensor, "batch finding"]:
    """Binary cross-entropy of each image and finding; 0 where the label is NaN (not assessed).

    With one log-odds per query this equals KAD's two-way cross-entropy on the difference of its
    two logits. `positive_weight` >= 0 multiplies the positives' terms.
    """
    assessed = ~torch.isnan(labels)
    targets = torch.where(assessed, labels, torch.zeros_like(labels))
    losses = F.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=positive_weight, reduction="none"
    )
    return losses * assessed


FREQUENCY_SCALE = 0.5
"""κ of `frequency`: on all of NIH ChestX-ray14 the paper's formula is .46 · N / n_i."""


def positive_weights(
    labels: Float[Tensor, "image finding"], cap: float, weighting: PositiveWeighting = "ratio"
) -> Float[Tensor, "finding"]:
    """What a positive of each finding weighs; 1 for a finding without positives.

    With N assessed films of a finding and n of them positive:

    - `ratio`: (N - n) / n, between 1 and `cap`.
    - `frequency`: κ N / n with κ = .5, at most `cap`; below 1 for what most films have. The
      reading of Sriker et al. ("inverse frequency of each label") that does not depend on the
      size of the data.
    - `paper`: n_min² / n to the letter of their equation 5, n_min being the positives of the
      rarest finding that has any. It is a count, and so neither free of scale nor capped: from
      2.6 (Infiltration) to 227 (Hernia) on all of NIH ChestX-ray14, thousands on larger sets.
    """
    positives = (labels == 1).sum(dim=0).to(labels.dtype)
    negatives = (labels == 0).sum(dim=0).to(labels.dtype)
    divisor = positives.clamp(min=1)
    if weighting == "ratio":
        weights = (negatives / divisor).clamp(1.0, cap)
    elif weighting == "frequency":
        weights = (FREQUENCY_SCALE * (positives + negatives) / divisor).clamp(max=cap)
    else:
        rarest = torch.where(positives > 0, positives, torch.inf).min()
        weights = rarest.square() / divisor
    return torch.where(positives > 0, weights, torch.ones_like(weights))
