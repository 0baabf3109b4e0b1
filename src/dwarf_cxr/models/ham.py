"""HAM, hierarchical attention mining (Ouyang et al., IEEE TMI 2021).

Three attentions: the foreground's raises the features, then come the abnormality's map and the
findings' maps, which are class activation maps (CAM). Through log-sum-exp pooling the gradient of a
score with respect to a feature map, summed over positions, is the classifier's weight, so that CAM
is Grad-CAM but for a constant 1/(h·w): maps cost no backward pass, in training or evaluation.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.config import HamSettings
from dwarf_cxr.models.findings_classifier import FindingsClassifier
from dwarf_cxr.models.foreground_attention import ForegroundAttention
from dwarf_cxr.models.outputs import Prediction
from dwarf_cxr.objectives.attention_mining import unit_scaled


class HamClassifier(FindingsClassifier):
    """A convolutional network whose findings' maps lie in an abnormality's, in the foreground.

    `backbone` gives features E of its last stage, at stride `settings.output_stride`. E and what
    foreground attention makes of it are joined to F; F is pooled to one vector, and two linear
    layers without bias score it: any finding at all, and each finding.
    """

    def __init__(
        self,
        settings: HamSettings,
        backbone: nn.Module,
        findings: Sequence[str],
        image_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(findings, image_size, settings.output_stride)
        self.settings = settings
        self.image_encoder = backbone
        channels: int = backbone.channels[-1]  # type: ignore[index, assignment]
        width = settings.width
        self.before = _convolution(channels, width)
        self.foreground = ForegroundAttention(width)
        self.after = _convolution(width, width)
        self.join = _convolution(channels + width, width)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.anomaly_score = nn.Linear(width, 1, bias=False)
        self.class_scores = nn.Linear(width, len(self.findings), bias=False)
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for root in (self.before, self.foreground, self.after, self.join):
            for module in root.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        for scores in (self.anomaly_score, self.class_scores):
            nn.init.normal_(scores.weight, std=0.01, generator=generator)

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        findings: Sequence[int] | None = None,
    ) -> Prediction:
        """Scores and maps of `findings` (indices into `self.findings`; default all).

        A map is the finding's CAM with its range brought to [0, 1], by itself on each film; a flat
        one becomes 0. Its scale says nothing of whether the finding is there: the score does.

        Args:
            images: grey in [0, 1].

        Returns:
            Logits (B, C), maps (B, C, h, w); extras "cam" (B, C, h, w) and "anomaly_cam" (B, h, w),
            both after ReLU and not scaled, with gradients into the features but not into the
            classifiers; "anomaly_logit" (B,), of any finding at all; "foreground" (B, h, w), of
            either sign.
        """
        asked = list(range(len(self.findings)) if findings is None else findings)
        last = self.image_encoder.stages(images)[-1]  # type: ignore[operator]
        raised, foreground = self.foreground(self.before(last))
        joined = torch.cat([last, self.after(raised)], dim=1)
        features = self.dropout(F.relu(self.join(joined)))
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            pooled = log_sum_exp_pool(features, self.settings.sharpness)
            class_weights = self.class_scores.weight[asked]
            cam = class_activation(features, class_weights)
            extras = {
                "cam": cam,
                "anomaly_cam": class_activation(features, self.anomaly_score.weight)[:, 0],
                "anomaly_logit": self.anomaly_score(pooled)[:, 0],
                "foreground": foreground.float(),
            }
            logits = F.linear(pooled, class_weights)
        return Prediction(logits, unit_scaled(cam), self.map_domain, extras)


def log_sum_exp_pool(
    features: Float[Tensor, "batch width h w"], sharpness: float
) -> Float[Tensor, "batch width"]:
    """v = (1/r) · [log Σ exp(r·F) - log(h·w)]: between the mean (r → 0) and the maximum (r → ∞)."""
    values = features.flatten(2)
    total = torch.logsumexp(sharpness * values, dim=-1)
    return (total - math.log(values.shape[-1])) / sharpness


def class_activation(
    features: Float[Tensor, "batch width h w"], weights: Float[Tensor, "class width"]
) -> Float[Tensor, "batch class h w"]:
    """M_c = ReLU(Σ w_c·F), without a gradient into the weights.

    Else a loss on the maps would also move what scores are made with.
    """
    return F.relu(torch.einsum("bkhw,ck->bchw", features, weights.detach()))


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )
