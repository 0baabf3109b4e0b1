"""RetinaNet's loss: focal loss on every anchor, smooth L1 on the offsets of those that match.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. An anchor is compared with each
finding by itself, since two findings can lie in the same place.

What is not known is left out: a film's finding that is present but has no box there is somewhere,
not nowhere, and one that was not assessed may be anywhere. Neither counts in the class loss, at any
anchor. Where a finding has boxes on a film, they are taken to be all there are: its other anchors
are negatives, as are all of a finding that is absent.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dwarf_cxr.detection.anchors import match_anchors
from dwarf_cxr.detection.boxes import FilmBoxes, encode

ALPHA = 0.25
GAMMA = 2.0
SMOOTH_BELOW = 1 / 9
"""Offsets that differ by less are compared by their square (Detectron's value for RetinaNet)."""


def focal_loss(
    logits: Float[Tensor, "*shape"],
    targets: Float[Tensor, "*shape"],
    alpha: float = ALPHA,
    gamma: float = GAMMA,
) -> Float[Tensor, "*shape"]:
    """-alpha_t (1 - p_t)^gamma log p_t, term by term, for targets of 0 and 1.

    p_t is the probability of the truth; alpha_t is `alpha` for a positive, 1 - `alpha` else.
    """
    signed = (2 * targets - 1) * logits
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    return -weight * torch.sigmoid(-signed) ** gamma * F.logsigmoid(signed)


def known_findings(
    labels: Float[Tensor, "batch finding"], boxed: Bool[Tensor, "batch finding"]
) -> Bool[Tensor, "batch finding"]:
    """Where the class loss counts: the finding is absent, or its boxes on the film are known."""
    return boxed | (labels == 0)


def detection_loss(
    class_logits: Float[Tensor, "batch anchor finding"],
    offsets: Float[Tensor, "batch anchor 4"],
    anchors: Float[Tensor, "anchor 4"],
    truths: Sequence[FilmBoxes],
    known: Bool[Tensor, "batch finding"],
) -> Float[Tensor, "batch"]:
    """Class loss plus box loss of every film, each divided by its foreground anchors, at least 1.

    An anchor between background and foreground for a finding's box has no say on that finding. The
    box loss compares an anchor's offsets with the nearest of all boxes that it stands for.

    Args:
        truths: of each film.
        known: as `known_findings` says; a finding with boxes on a film must be known there.
    """
    losses = []
    for film, truth in enumerate(truths):
        matches = match_anchors(anchors, truth.boxes)
        foreground = (matches.nearest >= 0).nonzero()[:, 0]
        targets, ignored = (
            _any_of_each_finding(pairs, truth, class_logits.shape[-1])
            for pairs in (matches.foreground, matches.ignored)
        )
        counts = known[film] & (targets | ~ignored)
        class_terms = focal_loss(class_logits[film].float(), targets.float()) * counts
        wanted = encode(truth.boxes[matches.nearest[foreground]], anchors[foreground])
        box_terms = F.smooth_l1_loss(
            offsets[film, foreground].float(), wanted, reduction="none", beta=SMOOTH_BELOW
        )
        losses.append((class_terms.sum() + box_terms.sum()) / max(1, len(foreground)))
    return torch.stack(losses)


def _any_of_each_finding(
    pairs: Bool[Tensor, "anchor truth"], truth: FilmBoxes, findings: int
) -> Bool[Tensor, "anchor finding"]:
    """Whether any pair of an anchor is with a truth of the finding."""
    found = torch.zeros(len(pairs), findings, device=pairs.device)
    return found.index_add(1, truth.findings, pairs.float()) > 0
