"""From regions, moved with their film, back to boxes.

Training moves a film and the masks of its regions together. The boxes that a detector learns are
the tight boxes around the connected parts of the moved mask, cut at the film's edge. Without
rotation a box stays a box; with it the box around the turned one is larger than what was drawn.
Boxes of a finding that touch or overlap become one.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from dwarf_cxr.detection.boxes import FilmBoxes

COVERED = 0.5
"""A cell belongs to a region that covers half of it, so that edges are off by half a cell."""


def boxes_of_mask(shares: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "box 4"]:
    """Tight boxes, in cells, of the connected parts (8 neighbours) of a mask of covered shares.

    A region too small to cover half of any cell is boxed around its most covered ones.
    """
    limit = min(COVERED, float(shares.max(initial=0.0)))
    if limit <= 0:
        return np.zeros((0, 4), dtype=np.float32)
    _, _, parts, _ = cv2.connectedComponentsWithStats((shares >= limit).astype(np.uint8))
    low = parts[1:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    sides = parts[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    return np.concatenate([low, low + sides], axis=1).astype(np.float32)


def boxes_of_regions(
    regions: Float[Tensor, "batch finding h w"],
    supervised: Bool[Tensor, "batch finding"],
    image_size: int,
) -> list[FilmBoxes]:
    """The boxes of every film's supervised findings, in pixels of a square image of `image_size`.

    Args:
        regions: covered shares in [0, 1]; the regions of findings that are not supervised are not
            looked at.
    """
    scale = torch.tensor([image_size / side for side in (regions.shape[3], regions.shape[2])] * 2)
    films: list[tuple[list[Tensor], list[int]]] = [([], []) for _ in range(len(regions))]
    for film, finding in supervised.nonzero().tolist():
        mask = regions[film, finding].detach().float().cpu().numpy()
        found = torch.from_numpy(boxes_of_mask(mask)) * scale
        films[film][0].append(found)
        films[film][1].extend([finding] * len(found))
    return [
        FilmBoxes(
            torch.cat([torch.zeros(0, 4), *boxes]).to(regions.device),
            torch.tensor(findings, dtype=torch.int64, device=regions.device),
        )
        for boxes, findings in films
    ]
