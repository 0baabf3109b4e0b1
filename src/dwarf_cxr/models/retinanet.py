"""RetinaNet: a detector over a feature pyramid, as a classifier that also gives boxes.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; the pyramid by the same authors,
CVPR 2017. Here it has three levels (strides 8, 16, 32), since films are small, and norms in its
subnets, since trainings are short. Findings are scored by themselves, by sigmoids: two can lie in
the same place.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dwarf_cxr.config import RetinaNetSettings
from dwarf_cxr.detection.anchors import RATIOS, SCALES, make_anchors
from dwarf_cxr.detection.boxes import clip_to_image, decode, non_maximum_suppression, rasterise
from dwarf_cxr.models.findings_classifier import FindingsClassifier
from dwarf_cxr.models.outputs import Prediction

STRIDES = (8, 16, 32)
SHAPES = len(SCALES) * len(RATIOS)
"""Anchors of a cell."""
PRIOR_PROBABILITY = 0.01
"""What every anchor's score is at the start, so that the many negatives do not swamp the loss."""
CANDIDATES = 100
"""Best-scored boxes of a film and finding that are drawn, and that suppression chooses from."""


class RetinaNet(FindingsClassifier):
    """Scores every anchor for every finding, and says where its box would be."""

    def __init__(
        self,
        settings: RetinaNetSettings,
        image_encoder: nn.Module,
        findings: Sequence[str],
        image_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(findings, image_size, STRIDES[0])
        self.settings = settings
        self.image_encoder = image_encoder
        grids = [(-(-image_size // stride),) * 2 for stride in STRIDES]
        self.anchors: Tensor
        anchors = make_anchors(
            [(rows, columns) for rows, columns in grids],
            STRIDES,
            [settings.anchor_size * stride for stride in STRIDES],
        )
        self.register_buffer("anchors", anchors, persistent=False)
        channels: tuple[int, ...] = image_encoder.channels  # type: ignore[assignment]
        width = settings.width
        self.lateral = nn.ModuleList(nn.Conv2d(given, width, 1) for given in channels[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in STRIDES)
        self.class_subnet = _subnet(width, settings.depth, SHAPES * len(self.findings))
        self.box_subnet = _subnet(width, settings.depth, SHAPES * 4)
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for root in (self.lateral, self.smooth, self.class_subnet, self.box_subnet):
            for part in root.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.xavier_uniform_(part.weight, generator=generator)
                    nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        for subnet, bias in (
            (self.class_subnet, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)),
            (self.box_subnet, 0.0),
        ):
            output = subnet[-1]
            nn.init.normal_(output.weight, std=0.01, generator=generator)  # type: ignore[arg-type]
            nn.init.constant_(output.bias, bias)  # type: ignore[arg-type]

    def pyramid(self, images: Float[Tensor, "batch height width"]) -> tuple[Tensor, ...]:
        """Features (B, width, h, w) at `STRIDES`, each with what the coarser ones know."""
        stages = self.image_encoder.stages(images)[1:]  # type: ignore[operator]
        levels: list[Tensor] = []
        for lateral, stage in zip(reversed(self.lateral), reversed(stages), strict=True):
            level = lateral(stage)
            if levels:
                level = level + F.interpolate(levels[0], level.shape[-2:], mode="nearest")
            levels.insert(0, level)
        return tuple(smooth(level) for smooth, level in zip(self.smooth, levels, strict=True))

    def score_anchors(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, A, C) of all findings, and offsets (B, A, 4), of every anchor."""
        scored = [_per_anchor(self.class_subnet(level), len(self.findings)) for level in levels]
        moved = [_per_anchor(self.box_subnet(level), 4) for level in levels]
        return torch.cat(scored, dim=1), torch.cat(moved, dim=1)

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        findings: Sequence[int] | None = None,
    ) -> Prediction:
        """Scores and maps of `findings` (indices into `self.findings`; default all).

        Args:
            images: grey in [0, 1], of the model's `image_size`.

        Returns:
            Logits (B, C), the largest of all anchors'. Maps (B, C, h, w) are boxes drawn on the
            finest level's grid: a cell has the largest score of the candidates over it, before any
            suppression, by the share that they cover. They have no gradient, and how many boxes
            there are, and where one ends inside another, is lost. Extras: "class_logits" (B, A, C),
            "offsets" (B, A, 4) and "anchors" (A, 4), and in evaluation mode "boxes" (B, C, n, 4)
            with "box_scores" (B, C, n): of each finding the best `kept_boxes`, however low they
            score, where to cut being for who uses them, and 0 for the others. A finding's score is
            that of its best box.
        """
        class_logits, offsets = self.score_anchors(self.pyramid(images))
        if findings is not None:
            class_logits = class_logits[..., list(findings)]
        boxes, scores = self.candidates(class_logits, offsets)
        maps = rasterise(boxes, scores, self.image_size, self.grid)
        extras = {"class_logits": class_logits, "offsets": offsets, "anchors": self.anchors}
        if not self.training:  # losses are of anchors
            extras |= {"boxes": boxes, "box_scores": scores * self._stays(boxes, scores)}
        return Prediction(class_logits.amax(dim=1), maps, self.map_domain, extras)

    @torch.no_grad()
    def candidates(
        self,
        class_logits: Float[Tensor, "batch anchor finding"],
        offsets: Float[Tensor, "batch anchor 4"],
    ) -> tuple[Float[Tensor, "batch finding box 4"], Float[Tensor, "batch finding box"]]:
        """The best-scored boxes of each film and finding, best first, and their scores.

        They are in pixels of the image and cut at its edge; they have no gradient.
        """
        scores = class_logits.float().sigmoid().transpose(1, 2)
        best, places = scores.topk(min(CANDIDATES, scores.shape[-1]), dim=-1)
        films = torch.arange(len(offsets), device=offsets.device)[:, None, None]
        boxes = decode(offsets.float()[films, places], self.anchors[places])
        return clip_to_image(boxes, self.image_size, self.image_size), best

    def _stays(
        self,
        boxes: Float[Tensor, "batch finding box 4"],
        scores: Float[Tensor, "batch finding box"],
    ) -> Bool[Tensor, "batch finding box"]:
        stays = non_maximum_suppression(boxes, scores, self.settings.box_overlap)
        # best first: the count of those that stay is the rank
        return stays & (stays.cumsum(dim=-1) <= self.settings.kept_boxes)


def _subnet(width: int, depth: int, outputs: int) -> nn.Sequential:
    """Convolutions that all levels share, with norms, and the output of every anchor of a cell."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(math.gcd(width, 16), width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width, outputs, 3, padding=1))


def _per_anchor(output: Tensor, values: int) -> Tensor:
    """(B, shapes · values, h, w) to (B, h · w · shapes, values), in the order of the anchors."""
    return output.permute(0, 2, 3, 1).reshape(len(output), -1, values)
