"""How well scores rank and decide: AUC, average precision, F1, MCC, accuracy of one finding.

Every metric is computed for many weightings of the patients at once. With weights of one it is the
plain metric; with a bootstrap draw's counts it is the metric of that resample, image by image
repeated. Scores are never transformed: any order-preserving scale gives the same AUC.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy import sparse

from dwarf_cxr.errors import DataError

Weights = Float64[np.ndarray, "draw patient"]
PerDraw = Float64[np.ndarray, "draw"]


def refuse_nan_scores(
    scores: Float[np.ndarray, "image finding"],
    image_ids: tuple[str, ...],
    findings: tuple[str, ...],
) -> None:
    """Raise where a score is not a number.

    Raises:
        DataError: names the first finding and image, and how many there are.
    """
    bad = np.argwhere(np.isnan(scores))
    if len(bad):
        image, finding = bad[0]
        raise DataError(
            f"score of {findings[finding]} for image {image_ids[image]} is not a number "
            f"({len(bad)} such scores); the model is damaged or its training diverged"
        )


@dataclass(frozen=True)
class RankSums:
    """Sums from which AUC and average precision follow, for each draw.

    Only distinct scores of positives matter: `positives[k]` is the weight of positives at the k-th
    of them (ascending), `negatives` the weight of negatives below the first, at it, between it and
    the second, at that, … above the last.
    """

    positives: Float64[np.ndarray, "level draw"]
    negatives: Float64[np.ndarray, "bucket draw"]


def rank_sums(
    labels: Float[np.ndarray, "image"],
    scores: Float[np.ndarray, "image"],
    patients: Int64[np.ndarray, "image"],
    weights: Weights,
) -> RankSums:
    """Bucket the weights of assessed images (label 1 or 0; NaN is left out) by score."""
    positive, negative = labels == 1, labels == 0
    levels, level = np.unique(scores[positive], return_inverse=True)
    below = np.searchsorted(levels, scores[negative], side="left")
    at_or_below = np.searchsorted(levels, scores[negative], side="right")
    count = weights.shape[1]
    return RankSums(
        _sums(level, patients[positive], len(levels), count, weights),
        _sums(below + at_or_below, patients[negative], 2 * len(levels) + 1, count, weights),
    )


def area_under_curve(sums: RankSums) -> PerDraw:
    """Area under the ROC curve, ties counted half; NaN in draws without positives or negatives."""
    reached = np.cumsum(sums.negatives, axis=0)
    strictly_below, tied = reached[0::2][:-1], sums.negatives[1::2]
    wins = (sums.positives * (strictly_below + 0.5 * tied)).sum(axis=0)
    return _ratio(wins, sums.positives.sum(axis=0) * sums.negatives.sum(axis=0))


def average_precision(sums: RankSums) -> PerDraw:
    """Average precision as scikit-learn defines it; NaN in draws without positives."""
    true = np.cumsum(sums.positives[::-1], axis=0)[::-1]
    false = np.cumsum(sums.negatives[::-1], axis=0)[::-1][1::2]
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
    return _ratio((sums.positives * precision).sum(axis=0), sums.positives.sum(axis=0))


class DecisionScores(NamedTuple):
    """How well decisions fit, for each draw."""

    f1: PerDraw
    """2·TP / (2·TP + FP + FN); NaN in draws without positives."""
    mcc: PerDraw
    """Matthews' correlation, 0 where all decisions are equal, as in scikit-learn; NaN in draws
    without positives or negatives."""
    accuracy: PerDraw
    """Share decided rightly; NaN in draws without assessed images."""


def decisions(
    labels: Float[np.ndarray, "image"],
    present: Float[np.ndarray, "image"],
    patients: Int64[np.ndarray, "image"],
    weights: Weights,
) -> DecisionScores:
    """Scores of the decisions `present` (1 or 0) on assessed images (label 1 or 0)."""
    table = np.zeros((weights.shape[1], 4))
    for column, (label, decision) in enumerate(((1, 1), (0, 1), (1, 0), (0, 0))):
        chosen = (labels == label) & (present == decision)
        table[:, column] = np.bincount(patients[chosen], minlength=weights.shape[1])
    tp, fp, fn, tn = (weights @ table).T
    return scores_of_counts(tp, fp, fn, tn)


def scores_of_counts(
    tp: Float64[np.ndarray, "draw"],
    fp: Float64[np.ndarray, "draw"],
    fn: Float64[np.ndarray, "draw"],
    tn: Float64[np.ndarray, "draw"],
) -> DecisionScores:
    """Scores of true and false positives, false and true negatives."""
    positives, negatives = tp + fn, fp + tn
    f1 = np.where(positives > 0, _ratio(2 * tp, 2 * tp + fp + fn), np.nan)
    product = positives * negatives * (tp + fp) * (fn + tn)
    root = np.sqrt(product)
    mcc = np.divide(tp * tn - fp * fn, root, out=np.zeros_like(root), where=root > 0)
    return DecisionScores(
        f1,
        np.where((positives > 0) & (negatives > 0), mcc, np.nan),
        _ratio(tp + tn, positives + negatives),
    )


def fit_score_threshold(
    labels: Float[np.ndarray, "image"], scores: Float[np.ndarray, "image"]
) -> float | None:
    """The threshold with the largest F1 of `score >= threshold`, over every possible one.

    It lies halfway between the lowest accepted score and the next lower one. None without positives
    or negatives among the assessed labels.

    Raises:
        DataError: a score is not a number.
    """
    assessed = ~np.isnan(labels)
    labels, scores = labels[assessed], scores[assessed]
    if np.isnan(scores).any():
        raise DataError(
            f"{int(np.isnan(scores).sum())} of {len(scores)} scores are not a number, so no "
            "threshold can be fitted; the model is damaged or its training diverged"
        )
    if not (labels == 1).any() or not (labels == 0).any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order] == 1)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    last_of_its_score = np.append(ranked[1:] != ranked[:-1], True)
    best = int(np.argmax(np.where(last_of_its_score, f1, -1.0)))
    if best + 1 == len(ranked):
        return float(ranked[best])
    halfway = (ranked[best] + ranked[best + 1]) / 2
    # between neighbouring floats there is no half: the sum may round down to the refused one
    return float(halfway if halfway > ranked[best + 1] else ranked[best])


def _sums(
    buckets: np.ndarray,
    patients: np.ndarray,
    bucket_count: int,
    patient_count: int,
    weights: Weights,
) -> Float64[np.ndarray, "bucket draw"]:
    """Weight in each bucket: a sparse (bucket, patient) table of image counts times the weights."""
    table = sparse.csr_array(
        (np.ones(len(buckets)), (buckets, patients)), shape=(bucket_count, patient_count)
    )
    return np.asarray(table @ weights.T)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    undefined = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
