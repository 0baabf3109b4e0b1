"""Predicted boxes against true ones: recall, films hit, average precision.

All for one finding at a time. A film takes part where its true boxes are known: those of a present
finding that was drawn, or none since the finding is absent. A box reaches a truth at a threshold t
when their intersection over union is at least t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from dwarf_cxr.evaluation.bootstrap import (
    Estimate,
    interval,
    patient_codes,
    patient_weights,
    weighted_means,
)
from dwarf_cxr.evaluation.cases import mean_over_findings
from dwarf_cxr.evaluation.scores import Weights

THRESHOLDS = (0.25, 0.5, 0.75)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads the precision."""
NO_BOX = "no image with the finding has a box"


def iou_matrix(
    predicted: Float[np.ndarray, "n 4"], truths: Float[np.ndarray, "m 4"]
) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every pair; 0 where both have no area."""
    first, second = predicted[:, None].astype(np.float64), truths[None].astype(np.float64)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(one[..., 2:] - one[..., :2], 0, None).prod(axis=-1) for one in (first, second)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def matched(
    overlap: Float64[np.ndarray, "n m"], order: Int64[np.ndarray, "n"], threshold: float
) -> Bool[np.ndarray, "n"]:
    """Which predicted boxes find a truth, when each truth can be found once.

    COCO's rule: boxes choose in the given `order`, each the truth with the largest overlap among
    those still free, if that is at least `threshold`; of equal overlaps the last.
    """
    hits = np.zeros(len(overlap), dtype=bool)
    free = np.ones(overlap.shape[1], dtype=bool)
    for box in order:
        offered = np.where(free, overlap[box], -1.0)
        if not len(offered):
            break
        choice = len(offered) - 1 - int(offered[::-1].argmax())
        # COCO's own tolerance for an overlap of exactly 1
        if offered[choice] >= min(threshold, 1 - 1e-10):
            hits[box], free[choice] = True, False
    return hits


def average_precision(
    hits: Float64[np.ndarray, "n"], misses: Float64[np.ndarray, "n"], truths: float
) -> float:
    """COCO's average precision: the mean of the best precision at a recall of 0, .01, …, 1 or more.

    Args:
        hits: of all films' boxes, in falling order of their scores: how many times the box counts
            as one that found a truth; 1 or 0, or a bootstrap's weight.
        misses: the same as one that did not.
        truths: how many boxes there are to find; NaN is returned for 0.
    """
    if truths == 0:
        return float("nan")
    found, wrong = np.cumsum(hits), np.cumsum(misses)
    precision = found / np.maximum(found + wrong, np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / truths, RECALL_LEVELS, side="left")
    return float(np.append(best, 0.0)[places].mean())


@dataclass(frozen=True)
class BoxCases:
    """One finding's predicted and true boxes on the films where the true ones are known.

    Boxes are (x1, y1, x2, y2) in pixels of the original image.
    """

    patient_ids: tuple[str, ...]
    predicted: tuple[Float[np.ndarray, "_ 4"], ...]
    scores: tuple[Float[np.ndarray, "_"], ...]
    truths: tuple[Float[np.ndarray, "_ 4"], ...]


METRICS = tuple(
    f"{name}_{round(100 * threshold)}"
    for name in ("recall", "image_hit", "image_hit_top1", "ap")
    for threshold in THRESHOLDS
)
"""recall: the share of true boxes that any predicted box reaches; image_hit: of films with a true
box, the share on which any predicted box reaches one, and top1: on which the best-scored does;
ap: COCO's average precision over all films."""


class _Scored:
    """What the metrics of a finding are recomputed from in every draw of patients."""

    def __init__(self, cases: BoxCases, everyone: Sequence[str]) -> None:
        code = {patient: number for number, patient in enumerate(sorted(set(everyone)))}
        self.patients = np.array([code[one] for one in cases.patient_ids], dtype=np.int64)
        overlaps = [
            iou_matrix(predicted, truths)
            for predicted, truths in zip(cases.predicted, cases.truths, strict=True)
        ]
        # stable, and film by film, as COCO breaks ties
        orders = [np.argsort(-scores, kind="stable") for scores in cases.scores]
        self.truths = np.array([overlap.shape[1] for overlap in overlaps], dtype=np.float64)
        best = [overlap.max(axis=0, initial=0.0) for overlap in overlaps]
        first = [
            overlap[order[0]].max(initial=0.0) if len(order) else 0.0
            for overlap, order in zip(overlaps, orders, strict=True)
        ]
        boxed = self.truths > 0
        self.found, self.hit, self.hit_top1 = (
            np.full((len(THRESHOLDS), len(overlaps)), np.nan) for _ in range(3)
        )
        ranked = [scores[order] for scores, order in zip(cases.scores, orders, strict=True)]
        merged = np.argsort(-np.concatenate([np.zeros(0), *ranked]), kind="stable")
        film_of = np.repeat(np.arange(len(ranked)), [len(one) for one in ranked])
        self.owners = self.patients[film_of[merged]]
        self.matches = []
        for number, threshold in enumerate(THRESHOLDS):
            self.found[number] = [(one >= threshold).sum() for one in best]
            self.hit[number, boxed] = self.found[number, boxed] > 0
            self.hit_top1[number, boxed] = np.array(first)[boxed] >= threshold
            hits = [
                matched(overlap, order, threshold)[order]
                for overlap, order in zip(overlaps, orders, strict=True)
            ]
            self.matches.append(np.concatenate([np.zeros(0, bool), *hits])[merged])

    def metrics(self, weights: Weights) -> Float64[np.ndarray, "draw metric"]:
        """In the order of `METRICS`; NaN where undefined."""
        per_patient = np.bincount(self.patients, self.truths, minlength=weights.shape[1])
        truths = weights @ per_patient
        columns = []
        for found in self.found:
            reached = weights @ np.bincount(self.patients, found, minlength=weights.shape[1])
            none = np.full(len(truths), np.nan)
            columns.append(np.divide(reached, truths, out=none, where=truths > 0))
        for values in (*self.hit, *self.hit_top1):
            columns.append(weighted_means(values, self.patients, weights))
        for matches in self.matches:
            columns.append(
                np.array(
                    [
                        average_precision(
                            own[self.owners] * matches, own[self.owners] * ~matches, total
                        )
                        for own, total in zip(weights, truths, strict=True)
                    ]
                )
            )
        return np.stack(columns, axis=1)


def box_samples(
    cases: Sequence[BoxCases], patient_ids: Sequence[str], *, draws: int, seed: int
) -> tuple[Float64[np.ndarray, "finding metric"], Float64[np.ndarray, "draw finding metric"]]:
    """All METRICS of each finding, on the films as they are and in every draw of patients.

    Args:
        patient_ids: of all films of the split, as in `summarise_boxes`.
    """
    scored = [_Scored(one, patient_ids) for one in cases]
    patients = int(patient_codes(tuple(patient_ids)).max(initial=-1)) + 1
    points = np.stack([one.metrics(np.ones((1, patients)))[0] for one in scored])
    samples = np.concatenate(
        [
            np.zeros((0, len(cases), len(METRICS))),
            *(
                np.stack([one.metrics(weights) for one in scored], axis=1)
                for weights in patient_weights(patients, draws, seed)
            ),
        ]
    )
    return points, samples


def summarise_boxes(
    cases: Sequence[BoxCases], patient_ids: Sequence[str], *, draws: int, seed: int
) -> tuple[list[dict[str, Estimate]], dict[str, Estimate]]:
    """Estimates of each finding by metric, and macro means over the findings that are defined.

    Args:
        patient_ids: of all films of the split; the bootstrap draws from these patients, the same
            for every finding.
    """
    points, samples = box_samples(cases, patient_ids, draws=draws, seed=seed)
    counted = [_counted(one) for one in cases]
    findings = [
        {
            metric: interval(
                float(points[row, column]), samples[:, row, column], counted[row][metric], NO_BOX
            )
            for column, metric in enumerate(METRICS)
        }
        for row in range(len(cases))
    ]
    macro = {}
    for column, metric in enumerate(METRICS):
        defined = ~np.isnan(points[:, column])
        macro[metric] = interval(
            float(points[defined, column].mean()) if defined.any() else np.nan,
            mean_over_findings(samples[:, :, column], defined),
            int(defined.sum()),
            "undefined for every finding",
        )
    return findings, macro


def _counted(cases: BoxCases) -> dict[str, int]:
    """What each metric is a share of: true boxes, films with one, or films."""
    truths = [len(boxes) for boxes in cases.truths]
    counts = {
        "recall": sum(truths),
        "image_hit": sum(number > 0 for number in truths),
        "ap": len(truths),
    }
    return {
        metric: next(count for name, count in counts.items() if metric.startswith(name))
        for metric in METRICS
    }
