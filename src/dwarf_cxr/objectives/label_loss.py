"""Cross-entropy on labels, in which an unassessed finding has no say."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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


def positive_weights(
    labels: Float[Tensor, "image finding"], cap: float
) -> Float[Tensor, "finding"]:
    """Negatives over positives of each finding, between 1 and `cap`; 1 without positives."""
    positives = (labels == 1).sum(dim=0)
    negatives = (labels == 0).sum(dim=0)
    ratio = negatives / positives.clamp(min=1)
    return torch.where(positives > 0, ratio.clamp(1.0, cap), torch.ones_like(ratio))
