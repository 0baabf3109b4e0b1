"""Whether readers agree with each other, and a reader with themselves."""

import numpy as np
from jaxtyping import Int


def cohen_kappa(table: Int[np.ndarray, "category category"]) -> float:
    """Cohen's kappa of two readers: agreement beyond chance (Educ Psychol Meas 20, 1960).

    Args:
        table: how often the first reader said the row and the second the column.

    Returns:
        At most 1; NaN without answers, and where chance alone would agree always.
    """
    total = table.sum()
    if total == 0:
        return float("nan")
    shares = table / total
    chance = float((shares.sum(axis=1) * shares.sum(axis=0)).sum())
    if np.isclose(chance, 1.0):
        return float("nan")
    return (float(np.trace(shares)) - chance) / (1 - chance)


def fleiss_kappa(counts: Int[np.ndarray, "case category"]) -> float:
    """Fleiss' kappa of several readers (Psychol Bull 76, 1971).

    Args:
        counts: how many readers said each category of each case; the same number for every case.

    Returns:
        At most 1; NaN without cases, and where chance alone would agree always.

    Raises:
        ValueError: the cases have different numbers of readers, or fewer than two.
    """
    if not len(counts):
        return float("nan")
    readers = counts.sum(axis=1)
    if (readers != readers[0]).any() or readers[0] < 2:
        raise ValueError("every case needs the same readers, two at least")
    raters = int(readers[0])
    within = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    shares = counts.sum(axis=0) / counts.sum()
    chance = float((shares**2).sum())
    if np.isclose(chance, 1.0):
        return float("nan")
    return (float(within.mean()) - chance) / (1 - chance)
