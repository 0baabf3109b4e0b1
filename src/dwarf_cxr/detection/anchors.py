"""Anchors on the levels of a feature pyramid, and which truth each of them stands for.

RetinaNet: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dwarf_cxr.detection.boxes import box_iou

FOREGROUND = 0.5
BACKGROUND = 0.4
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
"""Height over width, at equal area."""


def make_anchors(
    grids: Sequence[tuple[int, int]],
    strides: Sequence[int],
    sizes: Sequence[float],
    scales: Sequence[float] = SCALES,
    ratios: Sequence[float] = RATIOS,
) -> Float[Tensor, "anchor 4"]:
    """Boxes of every scale and ratio around the centre of every cell of every level.

    Ordered by level, row, column, scale, ratio, as the heads' outputs are. They may reach over the
    image's edge.

    Args:
        grids: rows and columns of each level.
        strides: the side of each level's cell, in pixels.
        sizes: the side of each level's square anchor of scale 1, in pixels.
    """
    shapes = torch.tensor(
        [(scale / ratio**0.5, scale * ratio**0.5) for scale in scales for ratio in ratios]
    )
    levels = []
    for (rows, columns), stride, size in zip(grids, strides, sizes, strict=True):
        y, x = torch.meshgrid(
            (torch.arange(rows) + 0.5) * stride,
            (torch.arange(columns) + 0.5) * stride,
            indexing="ij",
        )
        centres = torch.stack([x, y], dim=-1)[:, :, None]
        half = shapes * size / 2
        levels.append(torch.cat([centres - half, centres + half], dim=-1).flatten(0, 2))
    return torch.cat(levels)


class Matches(NamedTuple):
    """Which truths a film's anchors stand for."""

    foreground: Bool[Tensor, "anchor truth"]
    """The anchor stands for the truth: IoU >= .5, or it is the truth's best anchor."""
    ignored: Bool[Tensor, "anchor truth"]
    """Between background and foreground: neither, for this truth."""
    nearest: Int64[Tensor, "anchor"]
    """Of those that the anchor stands for, the truth with the largest IoU; -1 without any."""


def match_anchors(
    anchors: Float[Tensor, "anchor 4"],
    truths: Float[Tensor, "truth 4"],
    foreground: float = FOREGROUND,
    background: float = BACKGROUND,
) -> Matches:
    """Pair anchors with truths by IoU: from `foreground` on, ignored from `background` on.

    Every truth keeps its best anchor (all that are equally good) whatever their IoU, unless they do
    not touch; where several truths have the same best anchor, it stands for each of them, nearest
    to the one with the largest IoU. Pairs are told apart truth by truth, not anchor by anchor,
    since two findings can lie in the same place.
    """
    overlap = box_iou(anchors, truths)
    if truths.shape[0] == 0:
        none = torch.zeros_like(overlap, dtype=torch.bool)
        return Matches(none, none, torch.full_like(overlap.sum(dim=1), -1).long())
    best = overlap.max(dim=0, keepdim=True).values
    stands = (overlap >= foreground) | ((overlap == best) & (overlap > 0))
    between = (overlap >= background) & ~stands
    nearest = torch.where(stands, overlap, -1.0).argmax(dim=1)
    return Matches(stands, between, torch.where(stands.any(dim=1), nearest, -1))
