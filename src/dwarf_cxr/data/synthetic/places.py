"""Where a finding may lie, how large it is, and how a report names the place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_cxr.data.synthetic.anatomy import Chest
from dwarf_cxr.data.synthetic.body import SIDE_NAMES, SIDES
from dwarf_cxr.data.synthetic.raster import cloud_tile, crop


@dataclass(frozen=True, slots=True)
class Drawn:
    """One finding as drawn: its mask, bool (size, size), and the sentence of the report."""

    mask: np.ndarray
    sentence: str


def lung_of(chest: Chest, side: int) -> np.ndarray:
    """What is seen of one lung, bool."""
    return chest.lungs[SIDES.index(side)]


def within(chest: Chest, side: int, cover: np.ndarray) -> np.ndarray:
    """The part of a uint8 cover that lies on a lung, with the lung's soft rim: bool."""
    return (cover > 127) & (chest.air[SIDES.index(side)] > 25)


def share_of_air(chest: Chest) -> np.ndarray:
    """Share of each pixel that is lung, float32: what fills the lung fades as the lung does."""
    return np.maximum(chest.air[0], chest.air[1]) * np.float32(1 / 255)


def random_side(generator: np.random.Generator) -> int:
    """One of the two sides."""
    return SIDES[int(generator.integers(2))]


def random_sides(generator: np.random.Generator, both: float) -> tuple[int, ...]:
    """Both sides with probability `both`, otherwise one."""
    side = random_side(generator)
    return SIDES if generator.random() < both else (side,)


def span(lung: np.ndarray) -> tuple[int, int]:
    """First and last row of a lung."""
    rows = np.flatnonzero(lung.any(axis=1))
    return int(rows[0]), int(rows[-1])


def point_in(lung: np.ndarray, side: int, outwards: float, down: float) -> np.ndarray:
    """A point (x, y) inside a lung: `outwards` 0 medial to 1 lateral, `down` 0 apex to 1 base."""
    rows = np.flatnonzero(lung.any(axis=1))
    # A large heart may cut a lung in two, so the wanted row can be empty: take the nearest.
    row = rows[np.argmin(np.abs(rows - (rows[0] + down * (rows[-1] - rows[0]))))]
    columns = np.flatnonzero(lung[row])
    inner, outer = (columns[0], columns[-1]) if side > 0 else (columns[-1], columns[0])
    column = columns[np.argmin(np.abs(columns - (inner + outwards * (outer - inner))))]
    return np.array([column + 0.5, row + 0.5])


def with_point(mask: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The mask, or the pixel of `point` where it is empty: no lesion vanishes on a small film."""
    if not mask.any():
        column, row = point.astype(int)
        mask[row, column] = True
    return mask


def zone_of(chest: Chest, mask: np.ndarray, side: int) -> str:
    """Which third of a lung the middle of a mask is in."""
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = span(lung_of(chest, side))
    part = ((rows[0] + rows[-1]) / 2 - top) / max(bottom - top, 1)
    return ("upper", "mid", "lower")[min(max(int(3 * part), 0), 2)]


def where(sides: Sequence[int]) -> str:
    """The lungs of these sides in words."""
    return "both lungs" if len(sides) == 2 else f"the {SIDE_NAMES[sides[0]]} lung"


def pick(generator: np.random.Generator, *choices: str) -> str:
    """One of several wordings."""
    return choices[int(generator.integers(len(choices)))]


def lognormal(
    generator: np.random.Generator, median: float, spread: float, low: float, high: float
) -> float:
    """A lognormal length or share, cut off at both ends."""
    return float(np.clip(median * np.exp(spread * generator.standard_normal()), low, high))


def clouds(chest: Chest, generator: np.random.Generator) -> np.ndarray:
    """A random window of the cloud texture, float32 (size, size), deviation 1."""
    corner = generator.random(2).tolist()
    return crop(cloud_tile(chest.size), chest.size, (corner[0], corner[1]))
