"""Intervals by resampling patients: films of one patient stay together."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from dwarf_cxr.evaluation.scores import Weights

LEVEL = (2.5, 97.5)
CHUNK = 250
CHUNK_WEIGHTS = 5_000_000
"""At most so many draws, and so many weights of patients in them, are in memory together."""
ENOUGH = 0.5
"""An interval is given when the metric is defined in at least this share of the draws."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % interval, or why it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As metrics.json holds it."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def bounds(low: float | None, high: float | None) -> tuple[float, float] | None:
    """The ends of an interval; None where there is none.

    Equal ends are no interval: every draw gives one value, as with a single film, or with films
    that do not differ, and nothing is said of other patients. They may differ by rounding.
    """
    if low is None or high is None or math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        return None
    return low, high


def excludes_zero(low: float | None, high: float | None) -> bool:
    """Whether there is an interval and it lies on one side of 0, without touching it."""
    ends = bounds(low, high)
    return ends is not None and not ends[0] <= 0 <= ends[1]


def patient_codes(patient_ids: tuple[str, ...]) -> Int64[np.ndarray, "image"]:
    """A number from 0 for each patient, for each image."""
    return np.unique(np.array(patient_ids, dtype=object), return_inverse=True)[1].astype(np.int64)


def patient_weights(patients: int, draws: int, seed: int) -> Iterator[Weights]:
    """How often each patient is drawn, in chunks of draws; the same for the same seed."""
    generator = np.random.default_rng(seed)
    shares = np.full(patients, 1 / patients)
    # a draw takes the same random numbers in whatever chunk it is
    chunk = max(1, min(CHUNK, CHUNK_WEIGHTS // patients))
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        drawn = generator.multinomial(patients, shares, size=count)
        # patient by patient in memory, as products with sparse tables read it: else each copies it
        yield drawn.astype(np.float64, order="F")


def interval(
    value: float, per_draw: Float64[np.ndarray, "draw"], n: int, reason: str | None = None
) -> Estimate:
    """Percentile interval over the draws in which the metric is defined."""
    if np.isnan(value):
        return Estimate(None, reason=reason or "undefined")
    defined = per_draw[~np.isnan(per_draw)]
    if len(defined) < ENOUGH * len(per_draw) or not len(defined):
        return Estimate(value, None, None, n)
    low, high = np.percentile(defined, LEVEL)
    return Estimate(value, float(low), float(high), n)


def weighted_means(
    values: Float64[np.ndarray, "image"],
    patients: Int64[np.ndarray, "image"],
    weights: Weights,
) -> Float64[np.ndarray, "draw"]:
    """Mean of the values that are not NaN, for each draw; NaN in draws without any."""
    scored = ~np.isnan(values)
    sums = np.bincount(patients[scored], values[scored], minlength=weights.shape[1])
    counts = np.bincount(patients[scored], minlength=weights.shape[1])
    total = weights @ counts
    means = np.full(len(total), np.nan)
    return np.divide(weights @ sums, total, out=means, where=total > 0)
