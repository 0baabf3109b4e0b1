"""Attention over the regions of a frozen detector, trained with reports, asked with films alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.config import ReportAttentionSettings
from dwarf_cxr.detection.boxes import (
    box_area,
    clip_to_image,
    decode,
    non_maximum_suppression,
    rasterise,
)
from dwarf_cxr.detection.roi_align import pyramid_roi_align
from dwarf_cxr.models.findings_classifier import FindingsClassifier
from dwarf_cxr.models.outputs import Prediction
from dwarf_cxr.models.region_attention import RegionAnswer, RegionAttention, Regions
from dwarf_cxr.models.retinanet import STRIDES, RetinaNet

CANDIDATES = 400
"""Best-scored anchors of a film that suppression chooses regions from."""
DISTINCT = 0.7
"""Regions that overlap by more are one: the best anchors of a film often lie in one place."""


class FoundRegions(NamedTuple):
    """The regions of films that the detector ranks highest, and lowest."""

    best: Regions
    boxes: Float[Tensor, "batch region 4"]
    """Of the best, in pixels of the image."""
    worst: Regions


class ReportAttention(FindingsClassifier):
    """A detector whose regions are ranked by what reports say of such regions.

    The detector is frozen. A film's findings and maps come from its regions: a finding's score is
    the detector's, averaged over regions by their attention; its boxes are the regions that the
    detector takes for it, ranked by attention times the detector's score; its map is these boxes
    drawn (the original has no findings, only boxes of pneumonia). `attributes` are told from the
    attended regions.
    """

    def __init__(
        self,
        settings: ReportAttentionSettings,
        detector: RetinaNet,
        attributes: Sequence[str],
        generator: torch.Generator,
    ) -> None:
        super().__init__(detector.findings, detector.image_size, STRIDES[0])
        self.settings = settings
        self.attributes = tuple(attributes)
        self.detector = detector.requires_grad_(False)
        self.attention = RegionAttention(
            detector.settings.width * settings.roi_size**2,
            len(self.findings),
            len(self.attributes),
            settings.width,
            settings.dropout,
        )
        self._initialise(generator)
        self.train()

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for part in self.attention.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight, generator=generator)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def train(self, mode: bool = True) -> "ReportAttention":
        """Set the mode; the frozen detector stays in evaluation mode."""
        super().train(mode)
        self.detector.eval()
        return self

    @torch.no_grad()
    def regions(self, images: Float[Tensor, "batch height width"]) -> FoundRegions:
        """The detector's regions of films, with features from its pyramid."""
        levels = self.detector.pyramid(images)
        class_logits, offsets = self.detector.score_anchors(levels)
        scores = class_logits.float().sigmoid()
        ranked, places = scores.amax(dim=-1).topk(min(CANDIDATES, scores.shape[1]), dim=1)
        size = self.image_size
        decoded = clip_to_image(decode(offsets.float(), self.detector.anchors), size, size)
        boxes = decoded.gather(1, places[..., None].expand(-1, -1, 4))
        scores = scores.gather(1, places[..., None].expand(-1, -1, scores.shape[-1]))
        stays = non_maximum_suppression(boxes, ranked, DISTINCT) & (box_area(boxes) > 0)
        best: list[Tensor] = []
        worst: list[Tensor] = []
        for film in stays:
            rows = film.nonzero()[:, 0]
            best.append(rows[: self.settings.best_regions])
            # never a region of both kinds, be there ever so few
            worst.append(rows[self.settings.best_regions :][-self.settings.worst_regions :])
        chosen = [box[rows] for box, rows in zip(boxes, best, strict=True)]
        return FoundRegions(
            self._take(levels, boxes, scores, best, self.settings.best_regions),
            _padded(chosen, self.settings.best_regions),
            self._take(levels, boxes, scores, worst, self.settings.worst_regions),
        )

    def _take(
        self,
        levels: Sequence[Tensor],
        boxes: Float[Tensor, "batch candidate 4"],
        scores: Float[Tensor, "batch candidate finding"],
        rows: Sequence[Tensor],
        count: int,
    ) -> Regions:
        chosen = [box[row] for box, row in zip(boxes, rows, strict=True)]
        features = pyramid_roi_align(
            levels, STRIDES, chosen, self.settings.roi_size, canonical=self.image_size / 4
        )
        side = self.image_size
        geometry = [
            torch.cat([box / side, box_area(box)[:, None] / side**2], dim=-1) for box in chosen
        ]
        there = torch.zeros(len(rows), count, dtype=torch.bool, device=boxes.device)
        for film, row in enumerate(rows):
            there[film, : len(row)] = True
        return Regions(
            _padded([one.flatten(1).float() for one in features], count),
            _padded(geometry, count),
            _padded([score[row] for score, row in zip(scores, rows, strict=True)], count),
            there,
        )

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        findings: Sequence[int] | None = None,
    ) -> Prediction:
        """Scores and maps of `findings` (indices into `self.findings`; default all).

        Returns:
            Logits (B, C) of the attended mean of the detector's scores; maps (B, C, h, w), each
            cell the largest score of the finding's boxes that cover it. Extras: "attributes" (B, K)
            logits, "attention" (B, region), "boxes" (B, C, region, 4) and "box_scores"
            (B, C, region), 0 for regions that are no box of the finding.
        """
        return self.judge(self.regions(images), findings)

    def judge(self, found: FoundRegions, findings: Sequence[int] | None = None) -> Prediction:
        """`forward`, of regions that are there already."""
        answer: RegionAnswer = self.attention(found.best)
        asked = list(range(len(self.findings)) if findings is None else findings)
        share = torch.einsum("bi,bic->bc", answer.attention, found.best.scores)
        scores = self._box_scores(found, answer.attention)[:, asked]
        boxes = found.boxes[:, None].expand(-1, len(asked), -1, -1)
        maps = rasterise(boxes, scores, self.image_size, self.grid)
        extras = {
            "attributes": answer.attributes,
            "attention": answer.attention,
            "boxes": boxes,
            "box_scores": scores,
        }
        logits = torch.logit(share[:, asked], eps=1e-6)
        return Prediction(logits, maps.clamp(0, 1), self.map_domain, extras)

    def _box_scores(
        self, found: FoundRegions, attention: Float[Tensor, "batch region"]
    ) -> Float[Tensor, "batch finding region"]:
        """Attention times the detector's score of each finding's boxes; 0 for other regions.

        Attention is a share of the largest of the film: alone it ranks a film's regions, and would
        give the best of every film, ill or not, the same score.
        """
        relative = attention / attention.amax(dim=1, keepdim=True).clamp(min=1e-12)
        own = found.best.scores.argmax(dim=-1)[:, None] == torch.arange(
            len(self.findings), device=attention.device
        ).reshape(1, -1, 1)
        attended = relative[:, None] * own
        # a finding's own best region stays, however little it is attended beside another's
        limit = self.settings.keep_share * attended.amax(dim=-1, keepdim=True)
        scores = attended * (attended >= limit) * found.best.scores.transpose(1, 2)
        spread = found.boxes[:, None].expand(-1, len(self.findings), -1, -1)
        # what was dropped scores 0, comes last and removes nothing
        return scores * non_maximum_suppression(spread, scores, self.settings.box_overlap)

    def architecture(self) -> dict[str, Any]:
        """What `models/building.py` needs to build the same network without its weights."""
        return {
            "settings": self.settings.model_dump(),
            "detector": self.detector.architecture(),
            "attributes": list(self.attributes),
            "findings": list(self.findings),
            "image_size": self.image_size,
        }


def _padded(parts: Sequence[Tensor], count: int) -> Tensor:
    """Films' rows, each filled with zeros to `count`: (B, count, ...)."""
    padded = parts[0].new_zeros(len(parts), count, *parts[0].shape[1:])
    for film, part in enumerate(parts):
        padded[film, : len(part)] = part
    return padded
