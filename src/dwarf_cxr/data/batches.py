"""Training batches: pixels from the cache, labels, and the regions that supervise maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dwarf_cxr.data.store import PreparedData


class Batch(NamedTuple):
    """Images with what supervises them, for the findings that are being trained.

    Pixels and shares stay in 8 bits until they are on the device: as numbers in [0, 1] they are
    four times as long, and making them costs ten times what reading the pixels does.
    """

    pixels: UInt8[Tensor, "batch height width"]
    """Grey."""
    labels: Float[Tensor, "batch finding"]
    """1, 0 or NaN."""
    shares: UInt8[Tensor, "batch finding h w"]
    """Share of each cell that the finding's regions cover; 255 is all of it."""
    supervised: Bool[Tensor, "batch finding"]
    """Whether the finding is present and carries a region there."""

    @property
    def images(self) -> Float[Tensor, "batch height width"]:
        """Grey in [0, 1]."""
        return in_unit_range(self.pixels)

    @property
    def regions(self) -> Float[Tensor, "batch finding h w"]:
        """Share, in [0, 1], of each cell that the finding's regions cover."""
        return in_unit_range(self.shares)

    def pinned(self) -> "Batch":
        """In memory from which a GPU copies while the host goes on."""
        return Batch(*(part.pin_memory() for part in self))


def in_unit_range(values: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """8-bit values as numbers in [0, 1], on the device where they are."""
    return values.float().div_(255)


@dataclass(frozen=True)
class RegionTargets:
    """Every supervised (image, finding) pair's region, as 8-bit shares on a size×size grid."""

    rows: np.ndarray
    """(n, C) int64: row of `shares`, or -1 where there is no region on a present finding."""
    shares: np.ndarray
    """(pairs, size, size) uint8: 255 is a fully covered cell."""

    @classmethod
    def of(cls, data: PreparedData, indices: np.ndarray, size: int) -> "RegionTargets":
        """The regions of the images `indices`; a region of a finding not present is left out."""
        chosen = np.zeros(len(data.image_ids), dtype=bool)
        chosen[indices] = True
        pairs = np.argwhere(data.has_region() & (data.labels == 1) & chosen[:, None])
        rows = np.full(data.labels.shape, -1, dtype=np.int64)
        shares = np.zeros((len(pairs), size, size), dtype=np.uint8)
        for row, (image, finding) in enumerate(pairs):
            share = data.coverage(int(image), data.findings[finding], size)
            # a region too small for one step of 255 is still not nothing
            shares[row] = np.maximum(np.round(share * 255), share > 0)
            rows[image, finding] = row
        return cls(rows, shares)


def load_batch(
    data: PreparedData, targets: RegionTargets, indices: np.ndarray, findings: Sequence[int]
) -> Batch:
    """The images `indices` with labels and regions of `findings` (indices into data.findings)."""
    columns = np.asarray(findings, dtype=np.int64)
    rows = targets.rows[np.ix_(indices, columns)]
    size = targets.shares.shape[-1]
    shares = np.zeros((*rows.shape, size, size), dtype=np.uint8)
    supervised = rows >= 0
    shares[supervised] = targets.shares[rows[supervised]]
    return Batch(
        torch.from_numpy(np.ascontiguousarray(data.pixels[indices])),
        torch.from_numpy(data.labels[np.ix_(indices, columns)]),
        torch.from_numpy(shares),
        torch.from_numpy(supervised),
    )
