"""How often one of two is preferred, how sure that is, and how many answers would settle it.

Ties say that neither is preferred. They are left out of the share and its test, which ask of those
who saw a difference which way it went; beside it stands the share in which a tie counts half for
each, which a large number of ties draws to one half.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Z = 1.959963984540054
"""Normal quantile of a 95 % interval."""
POWER = 0.8
ALPHA = 0.05
EXACT_UP_TO = 400
"""Comparisons up to which the power is computed exactly; beyond, by the normal distribution."""
MOST_NEEDED = 100_000
FEWEST_DECIDED = 6
"""Fewer decided answers have no p of 5 % or less, even if all of them say the same."""


@dataclass(frozen=True)
class Counts:
    """Answers for the first, for the second, and ties."""

    first: int
    second: int
    ties: int

    @property
    def decided(self) -> int:
        """Answers that prefer one."""
        return self.first + self.second

    @property
    def total(self) -> int:
        """All answers."""
        return self.decided + self.ties

    @property
    def share(self) -> float | None:
        """Share of the first among decided answers; None if there is none."""
        return self.first / self.decided if self.decided else None

    @property
    def half_share(self) -> float | None:
        """Share of the first where a tie counts half; None without answers."""
        return (self.first + self.ties / 2) / self.total if self.total else None


def count(outcomes: Int[np.ndarray, "answer"]) -> Counts:
    """Counts of outcomes: 1 for the first, -1 for the second, 0 for a tie."""
    return Counts(
        int((outcomes == 1).sum()), int((outcomes == -1).sum()), int((outcomes == 0).sum())
    )


def wilson(successes: int | float, trials: int | float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (JASA 22, 1927); trials may be an effective number.

    Raises:
        ValueError: no trial.
    """
    if trials <= 0:
        raise ValueError("an interval needs at least one trial")
    share, spread = successes / trials, Z * Z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def binomial_p(successes: int, trials: int) -> float:
    """Exact two-sided p of a fair coin: everything no likelier than what was seen.

    For a fair coin that is twice the smaller tail, at most 1.
    """
    tail = min(successes, trials - successes)
    # whole numbers: no rounding, whatever the number of trials
    lower = sum(math.comb(trials, k) for k in range(tail + 1))
    return min(1.0, 2 * lower / 2**trials)


def power_of(trials: int, share: float) -> float:
    """Probability that the exact test at 5 % rejects a fair coin, of a coin that shows `share`."""
    least = _least_rejected(trials)
    if least is None:
        return 0.0
    probabilities = _binomial(trials, share)
    return float(probabilities[: trials - least + 1].sum() + probabilities[least:].sum())


def decided_needed(share: float) -> int | None:
    """Decided answers from which on the exact test finds `share` with a power of 80 %.

    From which on: an exact test's power is a saw, so that one number may reach what the next one
    does not. None if more than `MOST_NEEDED` would be, as with no preference at all.
    """
    distance = abs(share - 0.5)
    if distance == 0:
        return None
    for trials in range(EXACT_UP_TO, 0, -1):
        if power_of(trials, share) < POWER:
            if trials < EXACT_UP_TO:
                return trials + 1
            break
    else:
        return 1
    root = Z * 0.5 + 0.8416212335729143 * math.sqrt(share * (1 - share))
    needed = math.ceil((root / distance) ** 2 + 1 / distance)  # with the continuity correction
    return needed if needed <= MOST_NEEDED else None


def _least_rejected(trials: int) -> int | None:
    """The fewest successes above half whose p is at most 5 %."""
    tail, least = 0, None
    for successes in range(trials, trials // 2, -1):
        tail += math.comb(trials, successes)
        if 2 * tail / 2**trials > ALPHA:
            break
        least = successes
    return least


def _binomial(trials: int, share: float) -> Float[np.ndarray, "successes"]:
    k = np.arange(trials + 1)
    combinations = np.array(
        [math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in k]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = combinations + np.where(k > 0, k * np.log(share), 0.0)
        logs = logs + np.where(trials - k > 0, (trials - k) * np.log1p(-share), 0.0)
    return np.exp(logs)


def clusters_of(names: Sequence[str]) -> Int[np.ndarray, "answer"]:
    """A number from 0 for each name's cluster."""
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1].reshape(-1)
