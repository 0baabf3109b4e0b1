"""Maps that do not look at the image: what every method must be compared with.

all_ones: the whole film. train_prior: the mean region of the training set, one fixed map per
finding. best_grid: the best possible set of cells of the model's grid; a map that is interpolated
between its cells can follow an outline more closely and so exceed it. shuffled:
the method's own maps, each put on another image with the same finding; what a method keeps of its
score when shuffled, it owes to the usual place of the finding and not to the film.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.maps import MapScores, score_map, score_union

REFERENCES = ("all_ones", "train_prior", "best_grid", "shuffled")
SHUFFLES = 5
"""Permutations that `shuffled` averages over."""


def mean_coverage(
    data: PreparedData, indices: np.ndarray
) -> Float32[np.ndarray, "finding size size"]:
    """Mean share of each pixel that regions cover, over present findings that carry one.

    Zeros for a finding without regions.
    """
    prior = np.zeros((len(data.findings), data.size, data.size), dtype=np.float64)
    counts = np.zeros(len(data.findings), dtype=np.int64)
    supervised = data.has_region() & (data.labels == 1)
    for index in indices:
        for finding in np.flatnonzero(supervised[index]):
            prior[finding] += data.coverage(int(index), data.findings[finding], data.size)
            counts[finding] += 1
    return (prior / np.maximum(counts, 1)[:, None, None]).astype(np.float32)


def all_ones(truth: Float[np.ndarray, "h w"]) -> MapScores:
    """Scores of the map that is 1 everywhere."""
    return score_map(np.ones_like(truth), truth, 1.0)


def best_grid(truth: Float[np.ndarray, "size size"], grid: tuple[int, int]) -> MapScores:
    """Scores of the set of grid cells with the largest Dice.

    For a given number of cells the most covered ones are best, so it is a prefix of the cells
    sorted by coverage.
    """
    rows, columns = grid
    cells = cv2.resize(truth, (columns, rows), interpolation=cv2.INTER_AREA)
    order = np.argsort(-cells, axis=None, kind="stable")
    overlap = np.cumsum(cells.ravel()[order].astype(np.float64))
    dice = 2 * overlap / (np.arange(1, len(order) + 1) + overlap[-1])
    chosen = np.zeros(rows * columns, dtype=np.float32)
    chosen[order[: int(np.argmax(dice)) + 1]] = 1
    map_ = cv2.resize(
        chosen.reshape(rows, columns), truth.shape[::-1], interpolation=cv2.INTER_NEAREST
    )
    return score_map(map_, truth, 1.0)


def shuffled(
    maps: Sequence[Float[np.ndarray, "part h w"]],
    truths: Iterable[Float[np.ndarray, "size size"]],
    thresholds: Sequence[float] | None,
    generator: np.random.Generator,
) -> list[MapScores] | None:
    """For each image the mean scores of the maps of other images with the finding.

    None for fewer than two images: there is no other. An image's maps are those of the finding's
    parts, which `thresholds` are of too. `truths` is read once, in order, so that it
    can be made on the way and only one has to be in memory.
    """
    count = len(maps)
    if count < 2:
        return None
    sources = []
    for _ in range(SHUFFLES):
        order = generator.permutation(count)
        # a cyclic shift of a random order leaves no image with its own map
        source = np.empty(count, dtype=np.int64)
        source[order] = np.roll(order, int(generator.integers(1, count)))
        sources.append(source)
    means = []
    for image, truth in enumerate(truths):
        rounds = [score_union(maps[source[image]], truth, thresholds) for source in sources]
        means.append(MapScores(*np.mean(np.array(rounds, dtype=np.float64), axis=0).tolist()))
    return means


def prior_scores(
    priors: Float[np.ndarray, "part size size"],
    truth: Float[np.ndarray, "size size"],
    thresholds: Sequence[float] | None,
) -> MapScores | None:
    """Scores of a finding's training priors, one for each of its parts that has one.

    None where the training set had no region of it.
    """
    return score_union(priors, truth, thresholds) if len(priors) else None
