"""Attention mining of GAIN (Li et al., CVPR 2018): erase what is attended, ask again.

A finding's map A is scaled to [0, 1]; the soft mask T(A) = sigmoid(omega · (A - sigma)) erases it
from the film, I* = I - T(A) · I; the finding's score on I* is the loss. It falls when the map
covers all that speaks for the finding, and its gradient reaches the map through T.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RANGE_FLOOR = 1e-5
"""A flat map is not stretched further than by this range: it erases nothing, noise would."""


def unit_scaled(attention: Float[Tensor, "*maps h w"]) -> Float[Tensor, "*maps h w"]:
    """(A - min A) / (max A - min A) of each map, in single precision; 0 for a flat map."""
    attention = attention.float()
    lowest = attention.amin(dim=(-2, -1), keepdim=True)
    extent = attention.amax(dim=(-2, -1), keepdim=True) - lowest
    return (attention - lowest) / extent.clamp(min=RANGE_FLOOR)


def erase(
    images: Float[Tensor, "pair height width"],
    attention: Float[Tensor, "pair h w"],
    *,
    slope: float,
    threshold: float,
) -> Float[Tensor, "pair height width"]:
    """I* = I - T(A) · I, with the scaled map upsampled bilinearly to the film (GAIN, section 3.1).

    Args:
        images: grey in [0, 1]; what is erased turns black.
        attention: non-negative, of any scale.
        slope: omega > 0; in half precision the steep sigmoid would be a step, so this is not.
        threshold: sigma in [0, 1].
    """
    size = list(images.shape[-2:])
    upsampled = F.interpolate(
        unit_scaled(attention)[:, None], size, mode="bilinear", align_corners=False
    )[:, 0]
    mask = torch.sigmoid(slope * (upsampled - threshold))
    return images - mask * images


def mining_loss(erased_logits: Float[Tensor, "pair"]) -> Float[Tensor, "pair"]:
    """The probability, in [0, 1], that remains for each pair's finding on its erased film."""
    return erased_logits.float().sigmoid()


def external_loss(
    attention: Float[Tensor, "pair h w"], regions: Float[Tensor, "pair height width"]
) -> Float[Tensor, "pair"]:
    """GAIN_ext's mean squared error, in [0, 1], of each scaled map to its finding's region.

    Args:
        attention: as for `erase`; upsampled to the regions' grid.
        regions: true shares in [0, 1].
    """
    upsampled = F.interpolate(
        unit_scaled(attention)[:, None],
        list(regions.shape[-2:]),
        mode="bilinear",
        align_corners=False,
    )[:, 0]
    return (upsampled - regions).square().mean(dim=(-2, -1))
