"""Attention over a detector's regions, from which a report's attributes are told.

Bhalodia et al. (MICCAI 2021), section 2. The text gives no form for the attention; here it is that
of multiple-instance learning (Ilse et al.), softmax of uᵀ tanh(W φ).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

GEOMETRY = 5
"""x1 / W, y1 / H, x2 / W, y2 / H and area / (W H)."""


class Regions(NamedTuple):
    """A detector's regions of films, ranked by its score; padded to the same number."""

    features: Float[Tensor, "batch region feature"]
    geometry: Float[Tensor, "batch region 5"]
    scores: Float[Tensor, "batch region finding"]
    """The detector's probability of each finding."""
    there: Bool[Tensor, "batch region"]
    """False for padding."""

    def rows(self, indices: Tensor) -> "Regions":
        """Some of the films."""
        return Regions(*(part[indices] for part in self))


class RegionAnswer(NamedTuple):
    """What the network makes of the regions of films."""

    embedded: Float[Tensor, "batch region d"]
    """φ of every region, in the space of the words."""
    attention: Float[Tensor, "batch region"]
    """α, sums to 1 over a film's regions; 0 for padding."""
    attributes: Float[Tensor, "batch attribute"]
    """Logits."""


class RegionAttention(nn.Module):
    """φ = W₁ r + W₂ [LN(W_g g); LN(W_s s)], α = softmax uᵀ tanh(W_a φ), logits = MLP(Σ α φ)."""

    def __init__(
        self, features: int, findings: int, attributes: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        half = width // 2
        self.of_features = nn.Linear(features, width)
        self.of_geometry = nn.Sequential(nn.Linear(GEOMETRY, half), nn.LayerNorm(half))
        self.of_scores = nn.Sequential(nn.Linear(findings, half), nn.LayerNorm(half))
        self.of_both = nn.Linear(2 * half, width)
        self.attend = nn.Linear(width, width)
        self.rank = nn.Linear(width, 1, bias=False)
        self.tell = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, attributes),
        )

    def embed(self, regions: Regions) -> Float[Tensor, "batch region d"]:
        """φ of every region."""
        placed = torch.cat(
            [self.of_geometry(regions.geometry), self.of_scores(regions.scores)], dim=-1
        )
        return self.of_features(regions.features) + self.of_both(placed)

    def forward(self, regions: Regions) -> RegionAnswer:
        """Embeddings, attention and attributes; films without any region attend to nothing."""
        embedded = self.embed(regions)
        ranks = self.rank(torch.tanh(self.attend(embedded))).squeeze(-1)
        attention = ranks.masked_fill(~regions.there, -1e9).softmax(dim=1) * regions.there
        pooled = torch.einsum("bi,bid->bd", attention, embedded)
        return RegionAnswer(embedded, attention, self.tell(pooled))
