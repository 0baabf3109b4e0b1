"""Paper-style scores: thresholds chosen on the very images that they are judged on.

KAD, whose tables the paper continues, takes for each finding the threshold with the largest MCC of
the evaluated scores, and gives MCC, F1 and accuracy there; MedKLIP takes the largest F1 instead.
Both look at the answers. They stand here so that published numbers have a counterpart, apart from
the metrics at thresholds of the validation split, and are no result.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from dwarf_cxr.evaluation.cases import DECISION_METRICS, Cases, summarise
from dwarf_cxr.evaluation.scores import DecisionScores, scores_of_counts

POLICY = (
    "oracle: for each finding the threshold with the largest {metric} of the evaluated scores "
    "themselves; it looks at the evaluated labels and is no result. Candidates are the scores, "
    "present is score >= threshold, of equals the highest threshold. Intervals resample patients "
    "at that threshold, which is not chosen anew, and so are too narrow"
)


def oracle(cases: Cases, *, draws: int, seed: int) -> dict[str, Any]:
    """The block `oracle` of metrics.json: KAD's protocol, and within it MedKLIP's as `max_f1`.

    Each has `policy`, `thresholds` by finding, and of MCC, F1 and accuracy `macro` and `findings`.
    """
    by_mcc = _block(cases, lambda scored: scored.mcc, "MCC", draws, seed)
    by_f1 = _block(cases, lambda scored: scored.f1, "F1", draws, seed)
    return {**by_mcc, "max_f1": by_f1}


def oracle_threshold(
    labels: Float[np.ndarray, "image"],
    scores: Float[np.ndarray, "image"],
    quality: Callable[[DecisionScores], Float64[np.ndarray, "candidate"]],
) -> float | None:
    """The score at which `score >= threshold` has the largest quality; of equals the highest.

    Images with label NaN have no part. None without positives or negatives.
    """
    assessed = ~np.isnan(labels)
    labels, scores = labels[assessed], scores[assessed]
    if not (labels == 1).any() or not (labels == 0).any():
        return None
    candidates, rank = np.unique(-scores, return_inverse=True)
    tp = np.cumsum(np.bincount(rank, labels == 1)).astype(np.float64)
    fp = np.cumsum(np.bincount(rank, labels == 0)).astype(np.float64)
    values = quality(scores_of_counts(tp, fp, tp[-1] - tp, fp[-1] - fp))
    return -float(candidates[int(np.argmax(values))])


def _block(
    cases: Cases,
    quality: Callable[[DecisionScores], Float64[np.ndarray, "candidate"]],
    metric: str,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    thresholds = [
        oracle_threshold(cases.labels[:, finding], cases.scores[:, finding], quality)
        for finding in range(len(cases.findings))
    ]
    limits = np.array([np.nan if limit is None else limit for limit in thresholds])
    present = np.where(np.isnan(limits), np.nan, cases.scores >= limits)
    decided = replace(cases, present=present)
    findings, macro = summarise(decided, DECISION_METRICS, draws=draws, seed=seed)
    return {
        "policy": POLICY.format(metric=metric),
        "thresholds": dict(zip(cases.findings, thresholds, strict=True)),
        "macro": {name: estimate.to_json() for name, estimate in macro.items()},
        "findings": {
            finding: {name: estimate.to_json() for name, estimate in estimates.items()}
            for finding, estimates in findings.items()
        },
    }
