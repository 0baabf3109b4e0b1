"""Intervals that know that answers about one patient belong together, whoever gave them.

Two readers of one film see the same maps, and two films of one patient are alike, so that their
answers are not independent ones. Patients are what is sampled; readers are the ones who were asked,
and an interval speaks of further patients read by them. Two ways are given, and the report names
them:

- Wilson's interval with an effective number of answers: the number divided by the design effect,
  the ratio of the variance between patients to that of independent answers (Rao and Scott,
  Biometrics 48, 1992; Korn and Graubard, Survey Methodology 24, 1998), with Student's t for few
  patients. It is the interval to read: in simulated studies of 20 to 40 patients 95 to 97 of 100
  held the truth.
- percentiles of a bootstrap that draws whole patients: 91 to 94 of 100 there, since percentiles are
  too short with few clusters. It serves what has no formula: kappas, strengths, half-counted ties.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dwarf_cxr.study.preference import Z, wilson

LEVEL = (2.5, 97.5)
ENOUGH = 0.5
"""An interval is given when the number is defined in at least this share of the draws."""
NO_SPREAD = 1e-9
"""Draws that differ by less, and so by rounding alone, are the same."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def patient_weights(patients: int, draws: int, seed: int) -> Int[np.ndarray, "draw patient"]:
    """How often each patient is drawn in each draw."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(patients, np.full(patients, 1 / patients), size=draws)


def design_effect(
    successes: Float[np.ndarray, "patient"], trials: Float[np.ndarray, "patient"]
) -> float:
    """Variance of the share between patients over that of as many independent answers; at least 1.

    The linearised variance of a ratio with patients as clusters. Patients without trials count for
    nothing. Where it cannot be told, from a single patient or from answers that are all alike, the
    answers of a patient are taken as one: the effect is their mean number.
    """
    there = trials > 0
    successes, trials = successes[there], trials[there]
    patients, total = len(trials), trials.sum()
    if not patients:
        return 1.0
    share = successes.sum() / total
    independent = share * (1 - share) / total
    if patients == 1 or independent <= 0:
        return float(total / patients)
    between = (
        patients / (patients - 1) * float(((successes - share * trials) ** 2).sum()) / total**2
    )
    return max(1.0, float(between / independent))


def clustered_wilson(
    successes: Float[np.ndarray, "patient"], trials: Float[np.ndarray, "patient"]
) -> Interval:
    """Wilson's interval of a share with the effective number of answers.

    Raises:
        ValueError: no trial.
    """
    total = float(trials.sum())
    patients = int((trials > 0).sum())
    if total <= 0:
        raise ValueError("an interval needs at least one trial")
    share = float(successes.sum()) / total
    effective = total / design_effect(successes, trials)
    if patients > 1 and 0 < share < 1:
        effective *= (Z / _t_quantile(patients - 1)) ** 2
    return Interval(*wilson(share * effective, effective))


def bootstrap_share(
    successes: Float[np.ndarray, "patient"],
    trials: Float[np.ndarray, "patient"],
    weights: Int[np.ndarray, "draw patient"],
) -> Interval | None:
    """Percentiles of the share over draws of patients; None where it is mostly undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (weights @ successes) / (weights @ trials)
    return percentiles(shares)


def bootstrap(
    statistic: Callable[[Int[np.ndarray, "patient"]], float],
    weights: Int[np.ndarray, "draw patient"],
) -> Interval | None:
    """Percentiles of a statistic of the patients' weights, NaN where it is undefined."""
    return percentiles(np.array([statistic(draw) for draw in weights], dtype=np.float64))


def percentiles(values: Float[np.ndarray, "draw"]) -> Interval | None:
    """The middle 95 % of the defined values; None if fewer than half are defined.

    None too if all are the same, as of a single patient or of patients that are all alike: drawing
    them again tells nothing of others, and an interval without length would claim certainty.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < ENOUGH * len(values) or not len(defined):
        return None
    if np.ptp(defined) < NO_SPREAD:
        return None
    low, high = np.percentile(defined, LEVEL)
    return Interval(float(low), float(high))


def around(value: float, error: float, clusters: int) -> Interval | None:
    """By Student's t; None without a spread from which to tell."""
    if clusters < 2 or not error > NO_SPREAD:
        return None
    half = _t_quantile(clusters - 1) * error
    return Interval(value - half, value + half)


def _t_quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))
