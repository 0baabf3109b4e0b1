"""Random changes of a batch of radiographs, together with their regions."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dwarf_cxr.config import TrainingSettings


class Changes(NamedTuple):
    """One random change per image; all tensors are (B, ...)."""

    affine: Float[Tensor, "batch 2 3"]
    """From output to input coordinates, each axis from -1 to 1."""
    contrast: Float[Tensor, "batch"]
    brightness: Float[Tensor, "batch"]

    def rows(self, rows: slice) -> "Changes":
        """The changes of some of the images."""
        return Changes(*(part[rows] for part in self))


def draw_changes(settings: TrainingSettings, count: int, generator: torch.Generator) -> Changes:
    """Independent uniform rotation, translation, scale and intensity for `count` images.

    Drawn for the whole batch on the CPU, so that every process of a distributed run, and every
    device, sees the same ones.
    """
    uniform = torch.rand(6, count, generator=generator) * 2 - 1
    angle = uniform[0] * torch.pi * settings.rotate / 180
    zoom = 1 + uniform[1] * settings.scale
    # affine_grid's coordinates span 2, a shift is a share of the side
    shift_x, shift_y = 2 * settings.shift * uniform[2], 2 * settings.shift * uniform[3]
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    mirror = torch.ones(count)
    if settings.flip:
        mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    affine = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift_x], dim=-1),
            torch.stack([sine * mirror, cosine, shift_y], dim=-1),
        ],
        dim=1,
    )
    return Changes(affine, 1 + uniform[4] * settings.intensity, uniform[5] * settings.intensity / 2)


def apply_changes(
    images: Float[Tensor, "batch height width"],
    regions: Float[Tensor, "batch finding h w"],
    changes: Changes,
) -> tuple[Float[Tensor, "batch height width"], Float[Tensor, "batch finding h w"]]:
    """Change images in [0, 1] and the regions' shares in [0, 1] by the same movement.

    Both are sampled bilinearly; what comes from outside the film is black and no region.
    """
    moved = _move(images[:, None], changes.affine)[:, 0]
    contrast, brightness = changes.contrast[:, None, None], changes.brightness[:, None, None]
    adjusted = ((moved - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    if regions.shape[1] == 0:
        return adjusted, regions
    return adjusted, _move(regions, changes.affine)


def _move(planes: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, mode="bilinear", align_corners=False)
