"""Regions of a film against the words of its report (Bhalodia et al., MICCAI 2021, section 2).

Every region has an attribute-by-attribute share of attention and every attribute a
region-by-region one; a film and its report are similar where what they attend to agrees. The
triplet loss wants that more of a film's own regions and words than of its worst regions, or of
words that are near but other.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

VERY_LOW = -1e9


class Similarity(NamedTuple):
    """How similar a film and its report are, seen from either."""

    regions: Float[Tensor, "batch"]
    """S_roi: mean over regions of the cosine with the words that each attends to."""
    words: Float[Tensor, "batch"]
    """S_text: mean over words of the cosine with the regions that each attends to."""


def similarity(
    regions: Float[Tensor, "batch region d"],
    weights: Float[Tensor, "batch region"],
    there: Bool[Tensor, "batch region"],
    words: Float[Tensor, "batch word d"],
    said: Bool[Tensor, "batch word"],
    *,
    word_sharpness: float,
    region_sharpness: float,
) -> Similarity:
    """S_roi and S_text of films with their words.

    With s_ij = cos(region_i, word_j): a_ij = softmax over words (word_sharpness · s_ij), b_ij =
    softmax over regions (region_sharpness · s_ij); A_j = Σ_i weight_i a_ij region_i and B_i = Σ_j
    b_ij word_j. Then S_text is the mean over words of cos(A_j, word_j), S_roi the mean over regions
    of cos(B_i, region_i). Their weights do not sum to 1, which cosines do not see.

    Args:
        weights: alpha of every region, not negative.
        there: regions that are not padding; `said`: words of the report. A film without any has a
            similarity of 0.
    """
    cosines = torch.einsum("bid,bjd->bij", F.normalize(regions, dim=-1), F.normalize(words, dim=-1))
    pairs = there[:, :, None] & said[:, None, :]
    low = torch.full_like(cosines, VERY_LOW)
    to_words = torch.where(said[:, None, :], word_sharpness * cosines, low).softmax(dim=2)
    to_regions = torch.where(there[:, :, None], region_sharpness * cosines, low).softmax(dim=1)
    to_words, to_regions = to_words * pairs, to_regions * pairs
    of_words = torch.einsum("bi,bij,bid->bjd", weights, to_words, regions)
    of_regions = torch.einsum("bij,bjd->bid", to_regions, words)
    by_word = F.cosine_similarity(of_words, words, dim=-1)
    by_region = F.cosine_similarity(of_regions, regions, dim=-1)
    return Similarity(_mean(by_region, there), _mean(by_word, said))


def triplet_loss(
    own: Similarity,
    worst_regions: Float[Tensor, "batch"],
    other_words: Float[Tensor, "batch"],
    margin: float,
) -> Float[Tensor, "batch"]:
    """[margin - S_roi(I, T) + S_roi(I_n, T)]₊ + [margin - S_text(I, T) + S_text(I, T_n)]₊.

    Args:
        worst_regions: S_roi of the regions of the same film that the detector ranks lowest.
        other_words: S_text of the words of T, each replaced by a near other one.
    """
    return F.relu(margin - own.regions + worst_regions) + F.relu(margin - own.words + other_words)


def _mean(
    values: Float[Tensor, "batch item"], counted: Bool[Tensor, "batch item"]
) -> Float[Tensor, "batch"]:
    return (values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
