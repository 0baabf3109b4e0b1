"""Few annotated cases: labels stay, regions are withheld but those of some images per finding."""

import dataclasses
import zlib

import numpy as np

from dwarf_cxr.data.store import PreparedData


def keep_region_cases(data: PreparedData, cases: int, seed: int) -> PreparedData:
    """`data` with the regions of at most `cases` training images of every finding.

    Which images is drawn by the seed for each finding by itself, whatever other findings there are,
    and nested: those of 4 cases are among those of 8. Other splits keep their regions.
    """
    train = np.zeros(len(data.image_ids), dtype=bool)
    train[data.indices("train")] = True
    supervised = data.has_region() & (data.labels == 1) & train[:, None]
    kept: set[tuple[int, str]] = set()
    for column, finding in enumerate(data.findings):
        generator = np.random.default_rng([seed, zlib.crc32(finding.encode())])
        order = generator.permutation(np.flatnonzero(supervised[:, column]))
        kept |= {(int(index), finding) for index in order[:cases]}
    regions = {
        index: tuple(
            region for region in drawn if not train[index] or (index, region.finding) in kept
        )
        for index, drawn in data.regions_by_image.items()
    }
    return dataclasses.replace(data, regions_by_image=regions)
