"""Entropy regularisation of attention (Sriker et al., ISBI 2022): absent findings look nowhere."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def normalised_entropy(
    log_attention: Float[Tensor, "batch finding h w"],
) -> Float[Tensor, "batch finding"]:
    """H / log(h·w) of each map, in [0, 1] and single precision: 1 where uniform, 0 at one cell.

    H = -Σ A log A; a map of a single cell is uniform. Divided by its largest value, so that a
    weight means the same on every grid.

    Args:
        log_attention: logarithms of maps that sum to 1.
    """
    logs = log_attention.float().flatten(2)
    cells = logs.shape[-1]
    if cells == 1:
        return torch.ones_like(logs[..., 0])
    # where a map has no mass at all, A log A is 0 and not 0 · -inf
    logs = logs.clamp(min=torch.finfo(logs.dtype).min)
    return -(logs.exp() * logs).sum(dim=-1) / math.log(cells)


def absent_entropy_loss(
    log_attention: Float[Tensor, "batch finding h w"], labels: Float[Tensor, "batch finding"]
) -> Float[Tensor, "batch finding"]:
    """1 - H / log(h·w) where the finding is absent; 0 where it is present or not assessed.

    The paper adds λ H to the log-likelihood of the negatives (its equation 5), so that the entropy
    is maximised; the constant 1 only makes the term a loss from 0 on. It has no part in positives.
    """
    concentrated = 1 - normalised_entropy(log_attention)
    return torch.where(labels == 0, concentrated, torch.zeros_like(concentrated))
