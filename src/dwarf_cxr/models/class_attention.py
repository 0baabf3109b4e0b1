"""Class-based attention (Sriker, Greenspan and Goldberger, ISBI 2022), and its two baselines.

Three stages of a convolutional network are pooled by attention. A position i of stage s with the
local features l_si is compared with the global vector g, the pooled last stage:

    c_si = compatibility of l_si and g,   W_s = softmax over i of c_si,   g_s = Σ_i W_si l_si

Image-based attention (Jetley et al., ICLR 2018) has one mask in each stage. In class-based
attention the third stage has one for every finding j, and the finding's score sees its own:

    logit_j = v_j · [g_1; g_2; g_3j] + b_j

The plain network scores the pooled last stage; its maps are class activation maps.

Each stage is normalised over its film first (`FilmNorm`), which the paper does not
have: features of the starter's backbone are so large that tanh would be saturated mostly.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.config import ClassAttentionSettings, Compatibility
from dwarf_cxr.models.findings_classifier import FindingsClassifier
from dwarf_cxr.models.outputs import MapDomain, Prediction
from dwarf_cxr.objectives.attention_mining import unit_scaled


class FilmNorm(nn.Module):
    """Group norm of one group: mean 0 and deviation 1 over all of a film's features of a stage.

    In single precision, and written out: the backward pass of nn.GroupNorm (torch 2.13, CPU, bf16,
    channels last, as this network uses it) ends the process with a segmentation fault.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, features: Float[Tensor, "batch channel h w"]
    ) -> Float[Tensor, "batch channel h w"]:
        """The normalised features, times a channel's weight, plus its bias."""
        variance, mean = torch.var_mean(
            features.float(), dim=(-3, -2, -1), keepdim=True, correction=0
        )
        scale = (variance + self.eps).rsqrt() * self.weight[:, None, None]
        return (features - mean) * scale + self.bias[:, None, None]


class StageAttention(nn.Module):
    """One or several masks over the positions of a stage, from local features and a global vector.

    With B (`local`), g = P · pooled (`pooled`) and a vector A for each mask (`vectors`), a
    position with the features l is worth

        linear   A · (B l + g)        the paper's formula. A · g is the same at all positions, so
                                      that the softmax removes it: g has no say and no gradient
        tanh     A · tanh(B l + g)    additive attention; here g matters
        dot      Σ_k A_k (B l)_k g_k  <B l, g> of Jetley et al., A being part of B with one mask
    """

    def __init__(
        self,
        channels: int,
        pooled_channels: int,
        width: int,
        masks: int,
        compatibility: Compatibility,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.compatibility = compatibility
        self.local = _fresh(nn.Linear(channels, width, bias=False), generator)
        self.pooled = _fresh(nn.Linear(pooled_channels, width), generator)
        self.vectors = nn.Parameter(torch.empty(masks, width))
        nn.init.normal_(self.vectors, std=1 / math.sqrt(width), generator=generator)

    def forward(
        self,
        positions: Float[Tensor, "batch position channel"],
        pooled: Float[Tensor, "batch pooled"],
        asked: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch mask position"]:
        """Logarithms of the masks `asked` (default all), in single precision."""
        vectors = self.vectors if asked is None else self.vectors[list(asked)]
        local, whole = self.local(positions), self.pooled(pooled)[:, None]
        if self.compatibility == "dot":
            compared = local * whole
        else:
            compared = local + whole
            if self.compatibility == "tanh":
                compared = compared.tanh()
        return (compared @ vectors.T).transpose(1, 2).float().log_softmax(dim=-1)


class ClassAttentionClassifier(FindingsClassifier):
    """A convolutional network that scores findings from features pooled by attention."""

    def __init__(
        self,
        settings: ClassAttentionSettings,
        image_encoder: nn.Module,
        findings: Sequence[str],
        image_size: int,
        generator: torch.Generator,
    ) -> None:
        stride = 32 if settings.attention == "none" else 16
        super().__init__(findings, image_size, stride)
        self.settings = settings
        self.image_encoder = image_encoder
        first, second, third, last = image_encoder.channels  # type: ignore[misc]
        used = (last,) if settings.attention == "none" else (first, second, third, last)
        self.norms = nn.ModuleList(FilmNorm(channels) for channels in used)
        if settings.attention == "none":
            self.score = _fresh(nn.Linear(last, len(self.findings)), generator)
        else:
            masks = len(self.findings) if settings.attention == "class" else 1
            self.stages = nn.ModuleList(
                StageAttention(
                    channels,
                    last,
                    min(channels, settings.width),
                    number,
                    settings.compatibility,
                    generator,
                )
                for channels, number in ((first, 1), (second, 1), (third, masks))
            )
            shared = first + second + (last if settings.append_global else 0)
            self.score = _fresh(nn.Linear(shared, len(self.findings)), generator)
            third_only = nn.Linear(third, len(self.findings), bias=False)
            self.score_third = _fresh(third_only, generator)

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        findings: Sequence[int] | None = None,
    ) -> Prediction:
        """Scores and maps of `findings` (indices into `self.findings`; default all).

        Args:
            images: grey in [0, 1].

        Returns:
            Logits (B, C). With attention, maps (B, C, h, w) are the third stage's masks, which sum
            to 1; extras are "attention", the same, "log_attention", their logarithms in single
            precision, and the masks of the other stages, "attention_1" (B, h1, w1) and
            "attention_2" (B, h2, w2), which belong to no finding. The mask of image-based
            attention belongs to no finding either: all findings have the same map. Without
            attention, maps are class activation maps of the last stage, each from 0 to 1.
        """
        asked = list(range(len(self.findings)) if findings is None else findings)
        stages = self.image_encoder.stages(images)[-len(self.norms) :]  # type: ignore[operator]
        *local, last = (norm(stage) for norm, stage in zip(self.norms, stages, strict=True))
        pooled = last.mean(dim=(-2, -1))
        if self.settings.attention == "none":
            weight, bias = self.score.weight[asked], self.score.bias[asked]
            maps = class_activation_maps(last, weight)
            return Prediction(pooled @ weight.T + bias, maps, self.map_domain, {})

        own = asked if self.settings.attention == "class" else None
        masks, vectors = [], []
        for stage, features, chosen in zip(self.stages, local, (None, None, own), strict=True):
            positions = features.flatten(2).transpose(1, 2)
            mask = stage(positions, pooled, chosen)
            masks.append(mask.unflatten(-1, features.shape[-2:]))
            vectors.append(mask.exp() @ positions)
        shared = [vectors[0][:, 0], vectors[1][:, 0]]
        if self.settings.append_global:
            shared.append(pooled)
        logits = (
            torch.cat(shared, dim=1) @ self.score.weight[asked].T
            # with one mask for all, its vector is every finding's
            + torch.einsum("bmc,mc->bm", vectors[2], self.score_third.weight[asked])
            + self.score.bias[asked]
        )
        log_attention = masks[2].expand(-1, len(asked), -1, -1)
        attention = log_attention.exp()
        extras = {
            "attention": attention,
            "log_attention": log_attention,
            "attention_1": masks[0][:, 0].exp(),
            "attention_2": masks[1][:, 0].exp(),
        }
        return Prediction(logits, attention, self.map_domain, extras)

    @property
    def map_domain(self) -> MapDomain:
        """The domain of `forward`'s maps."""
        return "unit" if self.settings.attention == "none" else "simplex"


def class_activation_maps(
    features: Float[Tensor, "batch channel h w"], weight: Float[Tensor, "finding channel"]
) -> Float[Tensor, "batch finding h w"]:
    """Σ_k w_jk F_k of each finding (Zhou et al., CVPR 2016), scaled to [0, 1] film by film.

    The scale hides how much there is: the map of an absent finding reaches 1 too.
    """
    raw = torch.einsum("bkhw,jk->bjhw", features, weight)
    return unit_scaled(raw.flatten(0, 1)).unflatten(0, raw.shape[:2])


@torch.no_grad()
def _fresh(layer: nn.Linear, generator: torch.Generator) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
