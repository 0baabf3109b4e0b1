"""ROI align: features inside boxes, on a small grid, by bilinear sampling.

He et al., "Mask R-CNN", ICCV 2017; the level of a pyramid by Lin et al., "Feature Pyramid
Networks", CVPR 2017, equation 1. Differentiable with respect to the features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from dwarf_cxr.detection.boxes import box_area

SAMPLES = 2
"""Sampling points per cell and axis, of which the cell's value is the mean."""


def roi_align(
    features: Float[Tensor, "channel h w"],
    boxes: Float[Tensor, "box 4"],
    stride: int,
    size: int,
    samples: int = SAMPLES,
) -> Float[Tensor, "box channel {size} {size}"]:
    """Features of one film inside each box, as the means of samples in size×size equal cells.

    Pixel coordinates are divided by `stride` and pixel centres lie at halves (`aligned=True` of
    Detectron). Samples beyond the outermost pixel centres take the value of the edge.
    """
    height, width = features.shape[-2:]
    points = size * samples
    steps = (torch.arange(points, dtype=boxes.dtype, device=boxes.device) + 0.5) / points
    x1, y1, x2, y2 = boxes.to(steps.dtype).unbind(-1)
    # grid_sample's axes run from -1 to 1 over the edges of the outermost pixels, as the image's do
    x = (x1[:, None] + steps * (x2 - x1)[:, None]) * (2 / (stride * width)) - 1
    y = (y1[:, None] + steps * (y2 - y1)[:, None]) * (2 / (stride * height)) - 1
    grid = torch.stack(
        [x[:, None, :].expand(-1, points, -1), y[:, :, None].expand(-1, -1, points)], dim=-1
    )
    sampled = F.grid_sample(
        features[None],
        grid.reshape(1, len(boxes) * points, points, 2).to(features.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[0]
    cells = sampled.unflatten(1, (len(boxes), size, samples)).unflatten(-1, (size, samples))
    return cells.mean(dim=(3, 5)).movedim(0, 1)


def level_of(
    boxes: Float[Tensor, "*box 4"], levels: int, canonical: float
) -> Int64[Tensor, "*box"]:
    """The level, 0 being the finest, that a box's features are taken from.

    A box with a side (square root of the area) of at least `canonical` pixels takes level 1, of
    twice that level 2, of less level 0.
    """
    octave = (box_area(boxes).clamp(min=1e-6).sqrt() / canonical).log2().floor()
    return (octave + 1).clamp(0, levels - 1).long()


def pyramid_roi_align(
    levels: Sequence[Float[Tensor, "batch channel _ _"]],
    strides: Sequence[int],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    size: int,
    canonical: float,
    samples: int = SAMPLES,
) -> list[Float[Tensor, "_ channel {size} {size}"]]:
    """Features inside each film's boxes, each from the level that `level_of` says.

    Args:
        boxes: of each film; any number of them.
    """
    channels = levels[0].shape[1]
    films = []
    for film, own in enumerate(boxes):
        chosen = level_of(own, len(levels), canonical)
        inside = levels[0].new_zeros(len(own), channels, size, size)
        for number, (features, stride) in enumerate(zip(levels, strides, strict=True)):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                taken = roi_align(features[film], own[rows], stride, size, samples)
                inside = inside.index_copy(0, rows, taken)
        films.append(inside)
    return films
