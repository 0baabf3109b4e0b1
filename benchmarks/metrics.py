"""Metrics against their naive twins, in one run: `python benchmarks/metrics.py`.

Prints how many times faster the exact vectorised metric is than the plain loop it must equal. Times
depend on the machine; the ratios, taken side by side in one process, do so much less.
"""

import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import f1_score, matthews_corrcoef, roc_auc_score

from dwarf_cxr.evaluation.bootstrap import patient_weights
from dwarf_cxr.evaluation.maps import max_dice, upsample
from dwarf_cxr.evaluation.scores import area_under_curve, decisions, rank_sums

IMAGES, PATIENTS, FINDINGS, DRAWS = 15_000, 6_000, 13, 1000
NAIVE_DRAWS = 2
MAPS = 30


def main() -> None:
    """Print one line per comparison."""
    generator = np.random.default_rng(0)
    bootstrap(generator)
    best_dice(generator)


def bootstrap(generator: np.random.Generator) -> None:
    """AUC, F1 and MCC of every finding for 1,000 patient resamples."""
    labels = (generator.random((IMAGES, FINDINGS)) < 0.08).astype(float)
    scores = generator.random((IMAGES, FINDINGS)) + 0.3 * labels
    patients = generator.integers(0, PATIENTS, IMAGES)
    present = (scores > 0.8).astype(float)

    def ours() -> None:
        for weights in patient_weights(PATIENTS, DRAWS, seed=0):
            for finding in range(FINDINGS):
                sums = rank_sums(labels[:, finding], scores[:, finding], patients, weights)
                area_under_curve(sums)
                decisions(labels[:, finding], present[:, finding], patients, weights)

    def naive() -> None:
        for weights in patient_weights(PATIENTS, NAIVE_DRAWS, seed=0):
            for draw in weights:
                rows = np.repeat(np.arange(IMAGES), draw[patients].astype(int))
                for finding in range(FINDINGS):
                    truth = labels[rows, finding]
                    roc_auc_score(truth, scores[rows, finding])
                    f1_score(truth, present[rows, finding])
                    matthews_corrcoef(truth, present[rows, finding])

    fast = best_of(ours, 2)
    slow = best_of(naive, 1) * DRAWS / NAIVE_DRAWS
    print(
        f"bootstrap of AUC, F1, MCC, {IMAGES} images, {FINDINGS} findings, {DRAWS} draws: "
        f"{fast:.2f} s; scikit-learn loop {slow:.0f} s (from {NAIVE_DRAWS} draws): "
        f"{slow / fast:.0f}x"
    )


def best_dice(generator: np.random.Generator) -> None:
    """Maximum Dice over thresholds of 224 px maps."""
    maps = [upsample(generator.random((14, 14)).astype(np.float32), 224) for _ in range(MAPS)]
    truths = []
    for _ in range(MAPS):
        truth = np.zeros((224, 224))
        x, y = generator.integers(0, 150, 2)
        truth[y : y + 50, x : x + 60] = 1
        truths.append(truth.ravel())
    flat = [map_.ravel() for map_ in maps]

    def ours() -> list[float]:
        return [max_dice(m, y) for m, y in zip(flat, truths, strict=True)]

    def naive() -> list[float]:
        found = []
        for m, y in zip(flat, truths, strict=True):
            best = 0.0
            for threshold in np.linspace(0, 1, 100):
                chosen = m >= threshold
                best = max(best, 2 * (chosen * y).sum() / (chosen.sum() + y.sum()))
            found.append(best)
        return found

    fast, slow = best_of(ours, 5) / MAPS, best_of(naive, 2) / MAPS
    error = max(a - b for a, b in zip(ours(), naive(), strict=True))
    print(
        f"maximum Dice of a 224 px map: {fast * 1e3:.3f} ms, exact; 100-threshold loop "
        f"{slow * 1e3:.2f} ms: {slow / fast:.0f}x, and up to {error:.4f} too low"
    )


def best_of(work: Callable[[], object], times: int) -> float:
    """The shortest of `times` runs, in seconds."""
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations)


if __name__ == "__main__":
    main()
