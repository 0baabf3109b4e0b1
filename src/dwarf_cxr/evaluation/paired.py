"""Two runs on the same films: differences with intervals, paired over the same patients."""

import dataclasses
from pathlib import Path

import numpy as np

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.bootstrap import Estimate, interval, patient_weights
from dwarf_cxr.evaluation.cases import METRICS, Cases, mean_over_findings, read_cases


def compare_runs(
    baseline: Path, other: Path, *, draws: int = 1000, seed: int = 0
) -> tuple[dict[str, dict[str, Estimate]], dict[str, Estimate]]:
    """Differences `other` - `baseline` of two cases.csv, by finding and metric, and macro.

    Findings that both runs have are compared; a macro difference is the mean over findings that
    both define. Every draw resamples the same patients for both, and a map metric is compared on
    the images that both runs score.

    Raises:
        DataError: different images, patients, labels or regions, or no finding in common.
    """
    one, two = _aligned(read_cases(baseline), read_cases(other), baseline, other)
    patients = len(set(one.patient_ids))
    weights = np.ones((1, patients))
    points = {m: two.per_finding(m, weights)[0] - one.per_finding(m, weights)[0] for m in METRICS}
    drawn: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for chunk in patient_weights(patients, draws, seed):
        for metric in METRICS:
            drawn[metric].append(two.per_finding(metric, chunk) - one.per_finding(metric, chunk))
    findings: dict[str, dict[str, Estimate]] = {name: {} for name in one.findings}
    macro: dict[str, Estimate] = {}
    reason = "undefined in one of the runs"
    for metric in METRICS:
        samples = np.concatenate(drawn[metric]) if drawn[metric] else np.empty((0, len(findings)))
        defined = ~np.isnan(points[metric])
        for index, name in enumerate(one.findings):
            count = one.counted(metric, index)
            point = float(points[metric][index])
            findings[name][metric] = interval(point, samples[:, index], count, reason)
        macro[metric] = interval(
            float(points[metric][defined].mean()) if defined.any() else np.nan,
            mean_over_findings(samples, defined),
            int(defined.sum()),
            reason,
        )
    return findings, macro


def _aligned(one: Cases, two: Cases, baseline: Path, other: Path) -> tuple[Cases, Cases]:
    shared = [name for name in one.findings if name in two.findings]
    if not shared:
        raise DataError(f"{baseline} and {other} have no finding in common")
    if set(one.image_ids) != set(two.image_ids):
        only = sorted(set(one.image_ids) ^ set(two.image_ids))
        raise DataError(
            f"{baseline} and {other} are about different films ({len(only)} are in one only, "
            f"{only[0]} for one); evaluate both runs on the same split of the same data"
        )
    row = {name: index for index, name in enumerate(two.image_ids)}
    order = [row[name] for name in one.image_ids]
    left = _chosen(one, list(range(len(order))), shared)
    right = _chosen(two, order, shared)
    if left.patient_ids != right.patient_ids or not np.array_equal(
        left.labels, right.labels, equal_nan=True
    ):
        raise DataError(
            f"{baseline} and {other} know different patients or labels of the same films; "
            "evaluate both runs on the same data with the same label map"
        )
    if not np.array_equal(left.n_regions, right.n_regions):
        image, finding = np.argwhere(left.n_regions != right.n_regions)[0]
        raise DataError(
            f"{baseline} and {other} know different regions ({shared[finding]} in film "
            f"{left.image_ids[image]}: {left.n_regions[image, finding]:.0f} and "
            f"{right.n_regions[image, finding]:.0f}); evaluate both runs on the same data"
        )
    return _scored_by_both(left, right), _scored_by_both(right, left)


def _scored_by_both(cases: Cases, partner: Cases) -> Cases:
    """Without the map values that the partner lacks: a mean over other films is no difference."""
    maps = {
        column: np.where(np.isnan(partner.maps[column]), np.nan, table)
        for column, table in cases.maps.items()
    }
    return dataclasses.replace(cases, maps=maps)


def _chosen(cases: Cases, images: list[int], findings: list[str]) -> Cases:
    columns = [cases.findings.index(name) for name in findings]
    place = np.ix_(images, columns)
    return Cases(
        tuple(cases.image_ids[image] for image in images),
        tuple(cases.patient_ids[image] for image in images),
        tuple(findings),
        cases.labels[place],
        cases.scores[place],
        cases.present[place],
        cases.n_regions[place],
        {column: table[place] for column, table in cases.maps.items()},
    )
