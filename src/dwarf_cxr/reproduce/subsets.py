"""The paper's versions with 4, 7 and 13 findings, carried over to any data set with regions."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import CHESTX_DET_4, CHESTX_DET_7, CHESTX_DET_13, SYNONYMS

Subset = Literal[4, 7, 13]
"""A version of ChestX-Det by its number of findings (paper, section 3.1)."""
SUBSETS: dict[Subset, tuple[str, ...]] = {4: CHESTX_DET_4, 7: CHESTX_DET_7, 13: CHESTX_DET_13}


def findings_with_regions(data: PreparedData) -> tuple[str, ...]:
    """The findings with a region on a training image that has them, in the data's order.

    Raises:
        DataError: there is none, so that no method of the tables can be trained.
    """
    train = data.indices("train")
    supervised = (data.has_region() & (data.labels == 1))[train]
    found = tuple(
        name for name, any_ in zip(data.findings, supervised.any(axis=0), strict=True) if any_
    )
    if not found:
        raise DataError(
            f"{data.folder}: no training image has a region, and the paper's tables compare "
            "methods that are trained on regions; prepare a data set with regions"
        )
    return found


def annotated_cases(data: PreparedData, findings: Sequence[str]) -> int:
    """The most training images that any of the findings is annotated on."""
    restricted = data.restrict(findings)
    supervised = restricted.has_region() & (restricted.labels == 1)
    return int(np.max(supervised[data.indices("train")].sum(axis=0), initial=0))


def subset_findings(available: Sequence[str], subset: Subset) -> tuple[str, ...]:
    """The findings of `available` that stand for the paper's `subset`, in `available`'s order.

    Where all of ChestX-Det's 13 are there, they are the paper's. Elsewhere 4 stands for the first
    half, in the order in which the paper's versions take findings in, and 7 and 13 for all.
    """
    plain = {SYNONYMS.get(name, name): name for name in available}
    if set(CHESTX_DET_13) <= plain.keys():
        chosen = {plain[name] for name in SUBSETS[subset]}
    elif subset == 4:
        taken_in = dict.fromkeys([*CHESTX_DET_4, *CHESTX_DET_7, *CHESTX_DET_13, *plain])
        order = [plain[name] for name in taken_in if name in plain]
        chosen = set(order[: max(1, len(order) // 2)])
    else:
        chosen = set(available)
    return tuple(name for name in available if name in chosen)
