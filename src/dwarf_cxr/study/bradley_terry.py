"""Strengths of several runs from comparisons of two (Bradley and Terry, Biometrika 39, 1952).

The odds that run i is preferred to run j are the ratio of their strengths. A tie counts half a win
for each. Strengths are found by Hunter's minorisation-maximisation (Annals of Statistics 32, 2004).
"""

import numpy as np
from jaxtyping import Float

TOLERANCE = 1e-10
MOST_STEPS = 10_000


def log_strengths(wins: Float[np.ndarray, "run run"]) -> Float[np.ndarray, "run"] | None:
    """Natural logarithms of the strengths, their mean 0.

    Args:
        wins: how often the row was preferred to the column, ties half.

    Returns:
        None where the likelihood has no finite maximum: some runs were never preferred to any of
        the others (Ford, Amer Math Monthly 64, 1957).
    """
    runs = len(wins)
    if not _strongly_connected(wins > 0):
        return None
    games = wins + wins.T
    strengths = np.ones(runs)
    won = wins.sum(axis=1)
    for _ in range(MOST_STEPS):
        sums = games / (strengths[:, None] + strengths[None, :])
        np.fill_diagonal(sums, 0.0)
        fresh = won / sums.sum(axis=1)
        fresh /= np.exp(np.log(fresh).mean())
        if np.max(np.abs(np.log(fresh / strengths))) < TOLERANCE:
            strengths = fresh
            break
        strengths = fresh
    logs: np.ndarray = np.log(strengths)
    return logs - logs.mean()


def standard_errors(
    wins: Float[np.ndarray, "cluster run run"], logs: Float[np.ndarray, "run"]
) -> Float[np.ndarray, "run"]:
    """Standard errors of the log strengths where clusters are independent, not their answers.

    The sandwich of Huber (1967) and White (1982) with clusters / (clusters - 1); NaN of a single
    cluster.

    Args:
        wins: by cluster, how often the row was preferred to the column.
        logs: `log_strengths` of the wins of all clusters.
    """
    clusters = len(wins)
    if clusters < 2:
        return np.full(len(logs), np.nan)
    chances = 1 / (1 + np.exp(logs[None, :] - logs[:, None]))
    games = wins + wins.transpose(0, 2, 1)
    scores = (wins - games * chances).sum(axis=2)
    weights = games.sum(axis=0) * chances * (1 - chances)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    spread = clusters / (clusters - 1) * scores.T @ scores
    variances = np.diag(inverse @ spread @ inverse)
    return np.sqrt(np.maximum(variances, 0.0))


def _strongly_connected(beats: np.ndarray) -> bool:
    """Whether every run beat every other, directly or through others."""
    reached = beats | np.eye(len(beats), dtype=bool)
    for _ in range(len(beats)):
        reached = (reached.astype(int) @ reached.astype(int)) > 0
    return bool(reached.all())
