"""The mean map of every finding over the films on which it is the only one present.

Figure 3 of Sriker et al. (ISBI 2022): where does a method look for a finding, on the whole? A mean
map says what a method has learned of a finding's place, not whether it follows a film.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import write_bytes

FEWEST_FILMS = 3
"""The mean of fewer is not kept: it would be the film and map of a patient."""


@dataclass(frozen=True)
class MeanMaps:
    """Mean maps and films of an evaluated split, by finding."""

    findings: tuple[str, ...]
    counts: Int64[np.ndarray, "finding"]
    """Films on which the finding is present and all other evaluated ones are absent."""
    maps: Float32[np.ndarray, "finding h w"]
    """In [0, 1]; NaN with fewer than `FEWEST_FILMS` films."""
    films: UInt8[np.ndarray, "finding size size"]
    """The mean of those films; 0 with too few."""


class MeanMapsSum:
    """Collects mean maps batch by batch."""

    def __init__(self, findings: Sequence[str], domain: str) -> None:
        """`domain` is that of the network's own maps; of "simplex" the masks are averaged."""
        self.findings, self.domain = tuple(findings), domain
        self.counts = np.zeros(len(self.findings), dtype=np.int64)
        self.maps: np.ndarray | None = None
        self.films: np.ndarray | None = None

    def add(
        self,
        labels: Float[np.ndarray, "image finding"],
        pixels: UInt8[np.ndarray, "image size size"],
        maps: Float[np.ndarray, "image finding h w"],
    ) -> None:
        """Take films with their labels and unit maps."""
        if self.maps is None or self.films is None:
            self.maps = np.zeros((len(self.findings), *maps.shape[2:]))
            self.films = np.zeros((len(self.findings), *pixels.shape[1:]))
        for row, finding in np.argwhere(only_positive(labels)):
            map_ = maps[row, finding].astype(np.float64)
            self.counts[finding] += 1
            self.maps[finding] += _relative(map_) if self.domain == "simplex" else map_
            self.films[finding] += pixels[row]

    def take(self, other: "MeanMapsSum") -> None:
        """Add what another one was given."""
        if other.maps is None or other.films is None:
            return
        self.counts += other.counts
        self.maps = other.maps if self.maps is None else self.maps + other.maps
        self.films = other.films if self.films is None else self.films + other.films

    def mean(self) -> MeanMaps:
        """The means of what was added.

        Raises:
            DataError: nothing was added.
        """
        if self.maps is None or self.films is None:
            raise DataError("no film was added: there is no mean map")
        divisor = np.maximum(self.counts, 1)[:, None, None]
        enough = (self.counts >= FEWEST_FILMS)[:, None, None]
        maps = self.maps / divisor
        if self.domain == "simplex":
            maps = maps / (1 + maps)
        return MeanMaps(
            self.findings,
            self.counts,
            np.where(enough, maps, np.nan).astype(np.float32),
            np.where(enough, np.round(self.films / divisor), 0).astype(np.uint8),
        )


def summed(parts: Sequence[MeanMapsSum]) -> MeanMapsSum:
    """What all were given."""
    whole = MeanMapsSum(parts[0].findings, parts[0].domain)
    for part in parts:
        whole.take(part)
    return whole


def only_positive(
    labels: Float[np.ndarray, "image finding"],
) -> Bool[np.ndarray, "image finding"]:
    """Where a finding is present and every other one absent; not assessed is not absent."""
    present, absent = labels == 1, labels == 0
    alone = (present.sum(axis=1) == 1) & (absent.sum(axis=1) == labels.shape[1] - 1)
    return present & alone[:, None]


def write_mean_maps(means: MeanMaps, path: Path) -> None:
    """Write mean-maps.npz, atomically."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        findings=np.array(means.findings),
        counts=means.counts,
        maps=means.maps,
        films=means.films,
    )
    write_bytes(path, stream.getvalue())


def read_mean_maps(path: Path) -> MeanMaps | None:
    """Read mean-maps.npz; None where an older evaluation wrote none.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return MeanMaps(
                tuple(map(str, stored["findings"])),
                stored["counts"],
                stored["maps"],
                stored["films"],
            )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as fault:
        raise DataError(f"{path}: damaged ({fault}); evaluate the run again") from None


def _relative(unit: np.ndarray) -> np.ndarray:
    """r = N·A, the attention relative to a uniform one, of the unit value r / (1 + r)."""
    return unit / np.maximum(1 - unit, np.finfo(np.float32).eps)
