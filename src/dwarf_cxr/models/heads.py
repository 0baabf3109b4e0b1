"""Disease heads: from a finding's raw attention to its refined map.

The raw attention A of a finding is non-negative and sums to 1 over the N tokens. `to_map_space`
takes it to the space M_c in which a head works, a head maps M_c to M_c', and `to_map` brings the
result to [0, 1]:

| map space   | M_c                          | refined map          |
|-------------|------------------------------|----------------------|
| relative    | log(N·A), 0 where uniform    | sigmoid(head(M_c))   |
| logit       | head-mean scores before softmax | sigmoid(head(M_c)) |
| max         | A / max(A)                   | clamp(head(M_c), 0, 1) |
| probability | A                            | A (no head possible) |

An identity head keeps A's order of the tokens in every space but `logit`: the mean of several
heads' scores is not ordered as the mean of their probabilities.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.config import HeadKind, MapSpace
from dwarf_cxr.errors import ConfigError

LOG_FLOOR = -12.0
"""Smallest log(N·A): attention below exp(-12) of the uniform one is taken as that."""


def to_map_space(
    attention: Float[Tensor, "batch finding token"],
    scores: Float[Tensor, "batch finding token"],
    space: MapSpace,
) -> Float[Tensor, "batch finding token"]:
    """M_c from the head-mean attention (sums to 1) and the head-mean scores before the softmax."""
    if space == "relative":
        floor = math.exp(LOG_FLOOR) / attention.shape[-1]
        return (attention.shape[-1] * attention.clamp(min=floor)).log()
    if space == "logit":
        return scores
    if space == "max":
        return attention / attention.amax(dim=-1, keepdim=True)
    return attention


def to_map(refined: Tensor, space: MapSpace) -> Tensor:
    """The map shown and supervised; in [0, 1] for every space."""
    if space in ("relative", "logit"):
        return refined.sigmoid()
    if space == "max":
        return refined.clamp(0, 1)
    return refined


class LinearHead(nn.Module):
    """One finding's head: Linear(N -> N) on the flattened map.

    Starts as the identity (IEI, paper section 2.2), so that the refined map orders the tokens as
    the pretrained attention does; `identity=False` is the paper's random-start ablation.
    """

    def __init__(self, tokens: int, identity: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(tokens))
        self.bias = nn.Parameter(torch.zeros(tokens))
        if not identity:
            bound = 1 / math.sqrt(tokens)
            with torch.no_grad():
                self.weight.uniform_(-bound, bound, generator=generator)
                self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, flat: Float[Tensor, "batch token"]) -> Float[Tensor, "batch token"]:
        """The refined map before `to_map`."""
        return _refine_linearly([self], flat[:, None])[:, 0]


def _refine_linearly(
    heads: Sequence[LinearHead], raw: Float[Tensor, "batch finding token"]
) -> Float[Tensor, "batch finding token"]:
    weight = torch.stack([head.weight for head in heads])
    bias = torch.stack([head.bias for head in heads])
    return torch.einsum("bcn,cmn->bcm", raw, weight) + bias


class ConvHead(nn.Module):
    """A k×k convolution on the map, identity at the start; it knows no positions (ablation)."""

    def __init__(self, grid: tuple[int, int], kernel: int) -> None:
        super().__init__()
        self.grid = grid
        self.convolution = nn.Conv2d(1, 1, kernel, padding=kernel // 2)
        nn.init.dirac_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, flat: Float[Tensor, "batch token"]) -> Float[Tensor, "batch token"]:
        """The refined map before `to_map`."""
        refined = self.convolution(flat.reshape(-1, 1, *self.grid))
        return refined.reshape(flat.shape)


class PriorEvidenceHead(nn.Module):
    """Prior plus evidence (`dwarf-prior`): logit(prior) + gain · log(N·A).

    Where attention is uniform the map falls back to the prior, the mean lesion mask of the
    training regions; the two parts can be shown and scored apart.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.prior_logit = nn.Parameter(torch.zeros(tokens))
        self.gain = nn.Parameter(torch.ones(()))

    @torch.no_grad()
    def set_prior(self, prior: Float[Tensor, "token"]) -> None:
        """Start from a mean lesion mask in [0, 1], clamped to [.01, .99]."""
        self.prior_logit.copy_(prior.clamp(0.01, 0.99).logit())

    def forward(self, flat: Float[Tensor, "batch token"]) -> Float[Tensor, "batch token"]:
        """The refined map before `to_map`."""
        return self.prior_logit + self.evidence(flat)

    def evidence(self, flat: Float[Tensor, "batch token"]) -> Float[Tensor, "batch token"]:
        """What the image adds to the prior, as log-odds."""
        return self.gain * flat


def refine(
    heads: Iterable[nn.Module], raw: Float[Tensor, "batch finding token"]
) -> Float[Tensor, "batch finding token"]:
    """Refined maps before `to_map`, of one head per finding.

    Linear heads are applied together: on a GPU a step waits for the host to launch kernels, and one
    head after another launches some twenty for each finding.
    """
    heads = list(heads)
    linear = [head for head in heads if isinstance(head, LinearHead)]
    if linear and len(linear) == len(heads):
        return _refine_linearly(linear, raw)
    return torch.stack([head(raw[:, row]) for row, head in enumerate(heads)], dim=1)


def build_heads(
    kind: HeadKind, findings: int, grid: tuple[int, int], generator: torch.Generator
) -> nn.ModuleList:
    """One head per finding, separate modules, so that an unused head has no gradient at all."""
    tokens = grid[0] * grid[1]
    if kind == "none":
        return nn.ModuleList(nn.Identity() for _ in range(findings))
    if kind in ("linear", "linear-random"):
        identity = kind == "linear"
        return nn.ModuleList(LinearHead(tokens, identity, generator) for _ in range(findings))
    if kind in ("conv1", "conv3"):
        kernel = int(kind[-1])
        return nn.ModuleList(ConvHead(grid, kernel) for _ in range(findings))
    if kind == "prior":
        return nn.ModuleList(PriorEvidenceHead(tokens) for _ in range(findings))
    raise ConfigError(f"head {kind!r} is unknown; choose none, linear, conv1, conv3 or prior")
