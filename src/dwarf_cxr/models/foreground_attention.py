"""HAM's foreground attention: one map, the same for all findings, that the features are raised by.

Ouyang et al., IEEE TMI 2021. It is the attention of the activations, as class activation maps are
that of the gradients (`models/ham.py`); no loss of HAM's refers to it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

REDUCTION = 8
"""Channels per hidden unit of the channel gate."""


class ForegroundAttention(nn.Module):
    """X + γ·(s·z), with a map s·z of one channel; γ starts at 0, so the module does as identity.

    A softmax over positions, p = softmax(uᵀX), pools X to m = Σ p·X; m gates the channels of a 1×1
    convolution of X, which become the one channel of scores s; z = sigmoid(BN(conv3×3(s))).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // REDUCTION)
        self.position = nn.Conv2d(width, 1, 1, bias=False)
        self.squeeze = nn.Linear(width, hidden, bias=False)
        self.excite = nn.Linear(hidden, width, bias=False)
        self.value = nn.Conv2d(width, width, 1, bias=False)
        self.score = nn.Conv2d(width, 1, 1, bias=False)
        self.gate = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(
        self, features: Float[Tensor, "batch width h w"]
    ) -> tuple[Float[Tensor, "batch width h w"], Float[Tensor, "batch h w"]]:
        """The raised features, and the foreground map s·z (of either sign, before γ)."""
        weights = self.position(features).flatten(2).softmax(dim=-1)
        pooled = (features.flatten(2) * weights).sum(dim=-1)
        channels = torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))
        scores = self.score(self.value(features) * channels[:, :, None, None])
        foreground = scores * torch.sigmoid(self.gate(scores))
        return features + self.gamma * foreground, foreground[:, 0]
