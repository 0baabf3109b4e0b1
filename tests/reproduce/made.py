"""Tables of cases with made-up answers, and the plain numbers that they must come to."""

from collections.abc import Sequence

import numpy as np

from dwarf_cxr.evaluation.cases import Cases
from tests.map_tables import empty_map_tables


def made_cases(
    rng: np.random.Generator,
    *,
    patients: Sequence[int],
    findings: Sequence[str],
    labels: np.ndarray | None = None,
    lift: float = 0.0,
) -> Cases:
    """A film of each entry of `patients`; scores and Dice random, `lift` higher on positives."""
    shape = (len(patients), len(findings))
    if labels is None:
        labels = (rng.random(shape) < 0.5).astype(np.float64)
    maps = {
        **empty_map_tables(*shape),
        "shuffled_dice": np.full(shape, np.nan),
        "shuffled_hit": np.full(shape, np.nan),
    }
    for column in ("dice", "max_dice", "hit", "shuffled_dice"):
        maps[column] = np.where(labels == 1, np.clip(rng.random(shape) + lift, 0, 1), np.nan)
    return Cases(
        image_ids=tuple(f"film{number}" for number in range(len(patients))),
        patient_ids=tuple(f"p{patient}" for patient in patients),
        findings=tuple(findings),
        labels=labels,
        scores=rng.random(shape) + lift * labels,
        present=(rng.random(shape) < 0.5).astype(np.float64),
        n_regions=labels.copy(),
        maps=maps,
    )
