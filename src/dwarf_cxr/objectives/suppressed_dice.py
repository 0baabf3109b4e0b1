"""The false-positive-suppressed Dice loss of DWARF (paper, equations 1-3)."""

from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6


def suppressed_dice_loss(
    maps: Float[Tensor, "pair h w"],
    regions: Float[Tensor, "pair h w"],
    *,
    fp_weight: float,
    smooth: float,
) -> Float[Tensor, "pair"]:
    """One minus DWARF's Dice, for each pair of an image and a present finding.

    With soft counts TP = sum p·y, FP = sum p·(1 - y), FN = sum (1 - p)·y the denominator
    |X| + |Y| + (w_FP - 1)·FP is 2·TP + w_FP·FP + FN, so this is the Tversky loss with
    alpha = w_FP / 2 and beta = 1 / 2, and the plain Dice loss at w_FP = 1. The paper writes the
    score where it minimises the loss; FP is soft, since a thresholded count has no gradient.

    Args:
        maps: refined attention p in [0, 1].
        regions: true share y in [0, 1] of each cell.
        fp_weight: w_FP >= 0, the weight of a false positive.
        smooth: alpha, in cells of the maps.

    Returns:
        The loss of each pair, in [0, 1] for w_FP >= 1.
    """
    overlap = (maps * regions).sum(dim=(-2, -1))
    false_positives = maps.sum(dim=(-2, -1)) - overlap
    false_negatives = regions.sum(dim=(-2, -1)) - overlap
    constant = smooth + EPSILON
    denominator = 2 * overlap + fp_weight * false_positives + false_negatives
    return 1 - (2 * overlap + constant) / (denominator + constant)
