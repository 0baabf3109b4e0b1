"""Few annotated cases: labels stay, regions are withheld but those of some training images."""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from dwarf_cxr.config import ObjectiveSettings
from dwarf_cxr.data.store import PreparedData


def supervising(data: PreparedData, objective: ObjectiveSettings, seed: int) -> PreparedData:
    """`data` with the regions that train the maps by these settings."""
    chosen = data.with_regions(objective.regions)
    if objective.region_cases is not None:
        chosen = keep_region_cases(chosen, objective.region_cases, seed)
    if objective.region_share is not None:
        chosen = keep_region_share(chosen, objective.region_share, seed)
    return chosen


def keep_region_cases(data: PreparedData, cases: int, seed: int) -> PreparedData:
    """`data` with the regions of at most `cases` training images of every finding.

    Which images is drawn by the seed for each finding by itself, whatever other findings there are,
    and nested: those of 4 cases are among those of 8. Other splits keep their regions.
    """
    supervised = _supervised(data)
    kept: set[tuple[int, str]] = set()
    for column, finding in enumerate(data.findings):
        generator = np.random.default_rng([seed, zlib.crc32(finding.encode())])
        order = generator.permutation(np.flatnonzero(supervised[:, column]))
        kept |= {(int(index), finding) for index in order[:cases]}
    return _withhold(data, lambda index, finding: (index, finding) in kept)


def keep_region_share(data: PreparedData, share: float, seed: int) -> PreparedData:
    """`data` with the regions of a share in (0, 1] of the annotated training images, at least one.

    An image keeps all of its regions or none. Which images is drawn by the seed, and nested: those
    of a quarter are among those of a half. Other splits keep their regions.
    """
    annotated = np.flatnonzero(_supervised(data).any(axis=1))
    order = np.random.default_rng([seed, zlib.crc32(b"region_share")]).permutation(annotated)
    kept = set(order[: max(1, round(share * len(order)))].tolist())
    return _withhold(data, lambda index, finding: index in kept)


def _supervised(data: PreparedData) -> Bool[np.ndarray, "image finding"]:
    """The present findings of training images that carry a region."""
    train = np.zeros(len(data.image_ids), dtype=bool)
    train[data.indices("train")] = True
    return data.has_region() & (data.labels == 1) & train[:, None]


def _withhold(data: PreparedData, kept: Callable[[int, str], bool]) -> PreparedData:
    """`data` with those regions of training images alone that are `kept` (image, finding)."""
    train = set(data.indices("train").tolist())
    regions = {
        index: tuple(
            region for region in drawn if index not in train or kept(index, region.finding)
        )
        for index, drawn in data.regions_by_image.items()
    }
    return dataclasses.replace(data, regions_by_image=regions)
