"""What several trainings of a row say together: means over seeds, intervals over patients.

Every training and every row is resampled by the same draws of patients, so that the difference of
two rows is paired. Seeds are averaged within each draw: the interval is that of the mean of these
trainings on other patients, and the standard deviation over seeds stands beside it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.bootstrap import excludes_zero, interval, patient_weights
from dwarf_cxr.evaluation.cases import Cases, mean_over_findings

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Summary:
    """A macro value of a row; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    """Standard deviation over seeds; None for one seed."""
    seeds: int = 0
    findings: int | None = None
    """How many the value is a mean over; None where it is none over findings."""

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and it lies on one side of 0."""
        return excludes_zero(self.low, self.high)


@dataclass(frozen=True)
class SeedMean:
    """One metric of several trainings: every training's own value, and their mean in each draw."""

    findings: tuple[str, ...]
    points: Float64[np.ndarray, "seed finding"]
    draws: Float64[np.ndarray, "draw finding"]

    def summary(self) -> Summary:
        """Macro mean over the findings that every training defines."""
        defined = ~np.isnan(self.points).any(axis=0)
        if not defined.any():
            return Summary(None, seeds=len(self.points))
        per_seed = mean_over_findings(self.points, defined).tolist()
        return _summary(per_seed, mean_over_findings(self.draws, defined), int(defined.sum()))


def seed_mean(tables: Sequence[Cases], metric: str, *, draws: int) -> SeedMean:
    """Resample patients, the same for every training, and average the trainings in each draw.

    Raises:
        DataError: the trainings were not evaluated on the same films.
    """
    first = tables[0]
    for other in tables[1:]:
        refuse_other_films(first, other)
    patients = len(set(first.patient_ids))
    points = np.stack([table.per_finding(metric, np.ones((1, patients)))[0] for table in tables])
    chunks = [
        np.mean([table.per_finding(metric, weights) for table in tables], axis=0)
        for weights in patient_weights(patients, draws, BOOTSTRAP_SEED)
    ]
    sampled = np.concatenate(chunks) if chunks else np.empty((0, len(first.findings)))
    return SeedMean(first.findings, points, sampled)


def paired_difference(one: SeedMean, two: SeedMean) -> Summary:
    """`two` - `one`, macro over the findings that both know and every training defines.

    Without a standard deviation: the seeds of two rows are no pairs.
    """
    shared = [name for name in one.findings if name in two.findings]
    left, right = ([half.findings.index(name) for name in shared] for half in (one, two))
    a, b = one.points[:, left], two.points[:, right]
    defined = ~np.isnan(a).any(axis=0) & ~np.isnan(b).any(axis=0)
    seeds = min(len(a), len(b))
    if not defined.any():
        return Summary(None, seeds=seeds)
    means = [mean_over_findings(points, defined) for points in (a, b)]
    drawn = mean_over_findings(two.draws[:, right] - one.draws[:, left], defined)
    value = float(means[1].mean() - means[0].mean())
    estimate = interval(value, drawn, int(defined.sum()))
    return Summary(value, estimate.low, estimate.high, seeds=seeds, findings=int(defined.sum()))


def spread(values: Sequence[float | None]) -> Summary:
    """Mean and standard deviation over seeds alone; None where a training has no value."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    if not known or len(known) < len(values):
        return Summary(None, seeds=len(values))
    sd = statistics.stdev(known) if len(known) > 1 else None
    return Summary(statistics.mean(known), sd=sd, seeds=len(known))


def refuse_other_films(one: Cases, other: Cases) -> None:
    """Stop where two tables are not about the same films, in the same order.

    Raises:
        DataError: other films, patients or labels.
    """
    shared = [name for name in one.findings if name in other.findings]
    left, right = ([table.findings.index(name) for name in shared] for table in (one, other))
    if (
        one.image_ids != other.image_ids
        or one.patient_ids != other.patient_ids
        or not np.array_equal(one.labels[:, left], other.labels[:, right], equal_nan=True)
        or not np.array_equal(one.n_regions[:, left], other.n_regions[:, right])
    ):
        raise DataError(
            "the runs of a table were evaluated on different films, labels or regions; remove "
            "their eval-test folders and call reproduce again"
        )


def _summary(per_seed: list[float], drawn: Float64[np.ndarray, "draw"], findings: int) -> Summary:
    over_seeds = spread(per_seed)
    if over_seeds.value is None:
        return over_seeds
    estimate = interval(over_seeds.value, drawn, len(per_seed))
    return Summary(
        over_seeds.value, estimate.low, estimate.high, over_seeds.sd, len(per_seed), findings
    )
