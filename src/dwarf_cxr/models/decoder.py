"""The query decoder: each finding's prompt attends to the image tokens (KAD's TQN).

Attention is written out, because a map used in a loss must come from the probabilities before
dropout: `torch.nn.MultiheadAttention` returns them after it, with rows that do not sum to 1.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.config import MapLayers, QueryContext


class Attention(nn.Module):
    """Multi-head attention that also returns its scores and its probabilities before dropout."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "batch query width"],
        memory: Float[Tensor, "batch token width"],
        only_self: bool = False,
    ) -> tuple[
        Float[Tensor, "batch query width"],
        Float[Tensor, "batch head query token"],
        Float[Tensor, "batch head query token"],
    ]:
        """Attended values, scores before the softmax, probabilities before dropout.

        `only_self` lets query i see token i alone.
        """
        q, k, v = (
            self._split(part)
            for part in (self.query(queries), self.key(memory), self.value(memory))
        )
        scores = q @ k.transpose(-1, -2) * self.scale
        if only_self:
            visible = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
            scores = scores.masked_fill(~visible, float("-inf"))
        probabilities = scores.softmax(dim=-1)
        attended = self.dropout(probabilities) @ v
        merged = attended.transpose(1, 2).flatten(2)
        return self.output(merged), scores, probabilities

    def _split(self, part: Tensor) -> Tensor:
        return part.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Pre-norm: queries among themselves, queries to image tokens, feed-forward."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.expand = nn.Linear(width, feedforward)
        self.contract = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, tokens: Tensor, context: QueryContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updated queries with this layer's cross-attention scores and probabilities."""
        normed = self.norm1(queries)
        mixed, _, _ = self.self_attention(normed, normed, only_self=context == "isolated")
        queries = queries + self.dropout(mixed)
        seen, scores, probabilities = self.cross_attention(self.norm2(queries), tokens)
        queries = queries + self.dropout(seen)
        hidden = self.dropout(F.relu(self.expand(self.norm3(queries))))
        return queries + self.dropout(self.contract(hidden)), scores, probabilities


class QueryDecoder(nn.Module):
    """Prompts in, one decoded vector and one attention map per prompt out.

    One LayerNorm serves image tokens, prompts and the result, as in KAD; with `norm_inputs=False`
    the result alone, as in MedKLIP. In the `isolated` context a query does not see the others, so
    that a finding's score and map are the same whichever other findings are asked for; `joint` is
    KAD's.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        norm_inputs: bool = True,
    ) -> None:
        super().__init__()
        self.norm_inputs = norm_inputs
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, feedforward, dropout) for _ in range(layers)
        )

    def forward(
        self,
        prompts: Float[Tensor, "query width"],
        tokens: Float[Tensor, "batch token width"],
        context: QueryContext,
        map_layers: MapLayers = "last",
    ) -> tuple[
        Float[Tensor, "batch query width"],
        Float[Tensor, "batch query token"],
        Float[Tensor, "batch query token"],
    ]:
        """Decoded queries, and head-mean attention and head-mean scores of `map_layers`."""
        if self.norm_inputs:
            tokens, prompts = self.norm(tokens), self.norm(prompts)
        queries = prompts.expand(tokens.shape[0], -1, -1)
        attention: list[Tensor] = []
        logits: list[Tensor] = []
        for layer in self.layers:
            queries, scores, probabilities = layer(queries, tokens, context)
            attention.append(probabilities.mean(dim=1))
            logits.append(scores.mean(dim=1))
        decoded = self.norm(queries)
        if map_layers == "last":
            return decoded, attention[-1], logits[-1]
        return decoded, torch.stack(attention).mean(dim=0), torch.stack(logits).mean(dim=0)
