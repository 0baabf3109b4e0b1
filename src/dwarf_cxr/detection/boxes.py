"""Boxes as tensors: overlap, offsets from anchors, clipping, non-maximum suppression, drawing.

A box is (x1, y1, x2, y2) in pixels of the model's image, x to the right and y downwards. These few
functions are written out because torchvision's need its compiled wheel and `monai.data.box_utils`,
right but for that, takes seconds to import and suppresses in a Python loop; MONAI's serve as the
tests' second opinion.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

LOG_RATIO_LIMIT = math.log(1000 / 16)
"""A decoded side is at most this many times (as a logarithm) its anchor's, as in Detectron: an
untrained regression must not overflow."""


class FilmBoxes(NamedTuple):
    """The boxes that are true of one film, with the finding of each."""

    boxes: Float[Tensor, "box 4"]
    findings: Int64[Tensor, "box"]
    """Columns of the logits that they are compared with."""


def box_area(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box"]:
    """Area in square pixels; 0 where a side is negative."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def box_iou(
    first: Float[Tensor, "*batch n 4"], second: Float[Tensor, "*batch m 4"]
) -> Float[Tensor, "*batch n m"]:
    """Intersection over union of every pair, in [0, 1]; 0 where both boxes have no area."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    union = box_area(first)[..., :, None] + box_area(second)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def encode(
    boxes: Float[Tensor, "*box 4"], anchors: Float[Tensor, "*#box 4"]
) -> Float[Tensor, "*box 4"]:
    """Offsets (x, y, width, height) that lead from an anchor to a box (R-CNN, appendix C).

    Centres are moved by shares of the anchor's sides; sides are multiplied by an exponential. Both
    boxes need an area.
    """
    centre, sides = _centre_and_sides(boxes)
    anchor_centre, anchor_sides = _centre_and_sides(anchors)
    return torch.cat(
        [(centre - anchor_centre) / anchor_sides, (sides / anchor_sides).log()], dim=-1
    )


def decode(
    offsets: Float[Tensor, "*box 4"], anchors: Float[Tensor, "*#box 4"]
) -> Float[Tensor, "*box 4"]:
    """The boxes that `offsets` lead to from `anchors`: the inverse of `encode`."""
    anchor_centre, anchor_sides = _centre_and_sides(anchors)
    centre = anchor_centre + offsets[..., :2] * anchor_sides
    half = anchor_sides * offsets[..., 2:].clamp(max=LOG_RATIO_LIMIT).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip_to_image(
    boxes: Float[Tensor, "*box 4"], height: int, width: int
) -> Float[Tensor, "*box 4"]:
    """The part of each box that lies on the image; without area where none does."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1
    )


def non_maximum_suppression(
    boxes: Float[Tensor, "*batch n 4"], scores: Float[Tensor, "*batch n"], iou_limit: float
) -> Bool[Tensor, "*batch n"]:
    """Which boxes stay when each, best first, removes those that overlap it by more than a limit.

    Of equal scores the first box goes first. Batches are independent of each other. It is the
    greedy rule exactly, by iteration: a box stays if no better one that stays overlaps it, which
    settles from the best downwards (Cluster-NMS, Zheng et al. 2020); steps are as many as the
    longest chain of boxes that remove one another, not as the boxes.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    ranked = boxes.gather(-2, order[..., None].expand(*order.shape, 4))
    removes = (box_iou(ranked, ranked) > iou_limit).triu(diagonal=1)
    stays = torch.ones_like(scores, dtype=torch.bool)
    while True:
        settled = ~(removes & stays[..., :, None]).any(dim=-2)
        if bool((settled == stays).all()):
            break
        stays = settled
    return torch.empty_like(stays).scatter(-1, order, stays)


def rasterise(
    boxes: Float[Tensor, "*batch n 4"],
    scores: Float[Tensor, "*batch n"],
    image_size: int,
    grid: tuple[int, int],
) -> Float[Tensor, "*batch rows columns"]:
    """The largest score of the boxes over each cell of a grid on a square image.

    A box counts by the share of the cell that it covers. 0 where there is none. Which box a cell's
    score comes from, and how many overlap there, is lost.
    """
    if boxes.shape[-2] == 0:
        return boxes.new_zeros(*boxes.shape[:-2], *grid)
    x1, y1, x2, y2 = boxes.unbind(-1)
    down = _covered(y1, y2, image_size, grid[0]) * scores[..., None]
    across = _covered(x1, x2, image_size, grid[1])
    return (down[..., :, None] * across[..., None, :]).amax(dim=-3)


def _covered(low: Tensor, high: Tensor, image_size: int, cells: int) -> Tensor:
    """Share of each cell of an axis that lies between `low` and `high` (…, n) -> (…, n, cells)."""
    side = image_size / cells
    edges = torch.arange(cells, dtype=low.dtype, device=low.device) * side
    inside = torch.minimum(high[..., None], edges + side) - torch.maximum(low[..., None], edges)
    return inside.clamp(min=0) / side


def _centre_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
