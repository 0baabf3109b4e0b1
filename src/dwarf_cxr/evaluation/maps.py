"""How well a map covers a finding's true region.

The truth y is the exact share of each pixel that the region covers, so that sums are areas: the
Dice of a set of pixels with it is the Dice of that set with the region itself, however small.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from dwarf_cxr.errors import DataError

THRESHOLDS = np.arange(1, 1000) / 1000
"""Where `fit_map_threshold` looks."""

HAM_THRESHOLD = 0.4 + math.log(999) / 100
"""Of a map scaled to [0, 1]: HAM takes sigmoid(100·(map - .4)) >= .999 as the region, so .469."""
IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Of HAM's T(IoU)."""
IOR_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of HAM's T(IoR)."""


BINS = 1024
FEW_PIXELS = 4096
"""Of `max_dice`: so few are sorted at once."""


class MapScores(NamedTuple):
    """Metrics of one map on one image that has the finding; NaN without a threshold or energy."""

    soft_dice: float
    """2·sum m·y / (sum m + sum y)."""
    dice: float
    """2·|P∩Y| / (|P| + |Y|) of the pixels P with m >= threshold."""
    max_dice: float
    """The largest Dice over all thresholds, an oracle."""
    iou: float
    """|P∩Y| / |P∪Y| at the threshold."""
    hit: float
    """Whether the map's largest value lies in the region; the share that does, if it is tied."""
    energy_inside: float
    """sum m·y / sum m."""
    ior: float
    """|P∩Y| / |P| at the threshold, 0 where P is empty."""
    ham_iou: float
    """IoU of `ham_region` instead of P; needs no threshold."""
    ham_ior: float
    """IoR of `ham_region`."""
    t_iou: float
    """Share of `IOU_THRESHOLDS` that `iou` reaches; its mean over films is the mean T(IoU)."""
    t_ior: float
    """Share of `IOR_THRESHOLDS` that `ior` reaches."""
    ham_t_iou: float
    """Share of `IOU_THRESHOLDS` that `ham_iou` reaches."""
    ham_t_ior: float
    """Share of `IOR_THRESHOLDS` that `ham_ior` reaches."""


def upsample(map_: Float[np.ndarray, "h w"], size: int) -> Float32[np.ndarray, "{size} {size}"]:
    """Bilinear, pixel centres aligned (torch's align_corners=False)."""
    return cv2.resize(map_.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def score_map(
    map_: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "h w"],
    threshold: float | None,
) -> MapScores:
    """Score a map in [0, 1] against the true shares of a present finding.

    Raises:
        DataError: a value of the map is not a number, or the region covers nothing of the image.
    """
    return _score(map_, truth, None if threshold is None else reaches(map_, threshold))


def score_union(
    maps: Float[np.ndarray, "part h w"],
    truth: Float[np.ndarray, "size size"],
    thresholds: Sequence[float] | None,
) -> MapScores:
    """Score the maps of a finding's parts, on their own grid, as the finding's.

    Marked is what a part marks by its own threshold; all else is of the parts' largest map. Of one
    part these are the scores of its map.

    Raises:
        DataError: as `score_map`.
    """
    size = truth.shape[-1]
    drawn = [upsample(one, size) for one in maps]
    largest = drawn[0] if len(drawn) == 1 else upsample(maps.max(axis=0), size)
    return _score(largest, truth, None if thresholds is None else any_marks(drawn, thresholds))


def any_marks(
    maps: Sequence[Float[np.ndarray, "h w"]], thresholds: Sequence[float]
) -> Bool[np.ndarray, "h w"]:
    """Where the map of a part reaches the part's own threshold."""
    marked = [reaches(map_, limit) for map_, limit in zip(maps, thresholds, strict=True)]
    return np.any(marked, axis=0)


def _score(
    map_: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "h w"],
    marked: Bool[np.ndarray, "h w"] | None,
) -> MapScores:
    m, y = map_.ravel(), truth.astype(np.float64).ravel()
    area, energy, inside = y.sum(), m.sum(dtype=np.float64), float(m.astype(np.float64) @ y)
    if np.isnan(energy):
        raise DataError(
            f"{int(np.isnan(m).sum())} of {m.size} values of the map are not a number; "
            "the model is damaged or its training diverged"
        )
    if area == 0:
        raise DataError(
            "the region covers nothing of the image, so no map can be scored against it; "
            "correct or remove it (`dwarf data check`)"
        )
    dice, iou, ior = (np.nan, np.nan, np.nan) if marked is None else _overlaps(marked.ravel(), y)
    _, ham_iou, ham_ior = _overlaps(ham_region(m), y)
    return MapScores(
        soft_dice=float(2 * inside / (energy + area)),
        dice=dice,
        max_dice=max_dice(m, y),
        iou=iou,
        hit=pointing_hit(m, y),
        energy_inside=float(inside / energy) if energy > 0 else np.nan,
        ior=ior,
        ham_iou=ham_iou,
        ham_ior=ham_ior,
        t_iou=float(reached_share(iou, IOU_THRESHOLDS)),
        t_ior=float(reached_share(ior, IOR_THRESHOLDS)),
        ham_t_iou=float(reached_share(ham_iou, IOU_THRESHOLDS)),
        ham_t_ior=float(reached_share(ham_ior, IOR_THRESHOLDS)),
    )


def _overlaps(
    marked: Bool[np.ndarray, "pixel"], y: Float64[np.ndarray, "pixel"]
) -> tuple[float, float, float]:
    """Dice, IoU and IoR of a set of pixels."""
    overlap, count, area = y[marked].sum(), np.count_nonzero(marked), y.sum()
    dice, iou = 2 * overlap / (count + area), overlap / (count + area - overlap)
    return float(dice), float(iou), float(overlap / max(count, 1))


def ham_region(map_: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """HAM's predicted region: the map, scaled to [0, 1] by its extremes, is >= `HAM_THRESHOLD`.

    A constant map scales to 0 and marks nothing.
    """
    values = map_.astype(np.float64)
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(map_.shape, dtype=bool)
    region: np.ndarray = (values - low) / (high - low) >= HAM_THRESHOLD
    return region


def reached_share(
    values: Float[np.ndarray, "*shape"] | float, thresholds: Sequence[float]
) -> Float64[np.ndarray, "*shape"]:
    """Share of `thresholds` that each value is at least; NaN where it is NaN."""
    share = np.mean([np.asarray(values) >= threshold for threshold in thresholds], axis=0)
    return np.where(np.isnan(values), np.nan, share)


def reaches(map_: Float[np.ndarray, "*shape"], threshold: float) -> Bool[np.ndarray, "*shape"]:
    """Where the map is at least `threshold`, compared in double precision.

    numpy would round a plain float to the map's single precision, and so decide some pixels
    otherwise than the fit of the threshold did.
    """
    return map_ >= np.float64(threshold)


def max_dice(m: Float[np.ndarray, "pixel"], y: Float[np.ndarray, "pixel"]) -> float:
    """The largest Dice of {m >= t} over all thresholds t, exactly.

    Values are put in bins first. At the lower edge of a bin the Dice is known, and within it no
    threshold can do better than with all of the bin's overlap and none of its pixels: only in the
    few bins where that could be the best are pixels sorted.
    """
    touched = np.flatnonzero(y != 0)  # far faster than of the numbers themselves
    inside = y[touched]
    area = inside.sum()
    if len(m) <= FEW_PIXELS:
        order = np.argsort(-m)
        return _best_prefix(m[order], np.arange(1, len(m) + 1), np.cumsum(y[order]), area)
    bins = _bins(m)
    count = _from_above(np.bincount(bins, minlength=BINS + 2))
    overlap = _from_above(np.bincount(bins[touched], inside, minlength=BINS + 2))
    known = float((2 * overlap / (count + area)).max())
    bound = 2 * overlap[:-1] / (count[1:] + area)
    # a sum in another order differs in its last digits
    promising = np.append(bound >= known * (1 - 1e-9), False)
    chosen = np.flatnonzero(promising.take(bins))
    chosen = chosen[np.argsort(-m[chosen])]
    shares, own = y[chosen], bins[chosen]
    higher = _from_above(np.bincount(own, minlength=BINS + 2))
    higher_overlap = _from_above(np.bincount(own, shares, minlength=BINS + 2))
    # of bins that were not chosen all is known but the order within
    counts = np.arange(1, len(own) + 1) + (count - higher)[own + 1]
    overlaps = np.cumsum(shares) + (overlap - higher_overlap)[own + 1]
    return _best_prefix(m[chosen], counts, overlaps, area)


def _best_prefix(
    values: np.ndarray, counts: np.ndarray, overlaps: np.ndarray, area: float
) -> float:
    """The largest Dice of falling `values`, with the pixels and the overlap down to each."""
    # of equal values only the last has every pixel of that value before it
    last = np.append(values[1:] != values[:-1], True)
    return float((2 * overlaps[last] / (counts[last] + area)).max())


def _bins(m: Float[np.ndarray, "pixel"]) -> Int64[np.ndarray, "pixel"]:
    """From 0 to `BINS`, never falling where the value rises; all 0 for a constant map."""
    low = m.min()
    with np.errstate(divide="ignore", over="ignore"):
        scale = BINS / (m.max() - low)
    if not np.isfinite(scale):
        return np.zeros(len(m), dtype=np.int64)
    place = m - low
    place *= scale
    return place.astype(np.int64)


def _from_above(values: np.ndarray) -> np.ndarray:
    """Of every bin, the sum of it and all higher ones."""
    return np.cumsum(values[::-1])[::-1]


def pointing_hit(m: Float[np.ndarray, "pixel"], y: Float[np.ndarray, "pixel"]) -> float:
    """Pointing game: the arg-max pixel is at least half covered (or as covered as any can be).

    Of tied arg-max pixels the share that hits counts, which is what pointing at one of them at
    random reaches; a constant map gains nothing.
    """
    tied = y[m == m.max()]
    return float((tied >= min(0.5, y.max())).mean())


def fit_map_threshold(
    maps: Sequence[Float[np.ndarray, "h w"]], truths: Sequence[Float[np.ndarray, "h w"]]
) -> float | None:
    """The threshold out of .001, .002, … .999 with the largest mean Dice; None without maps."""
    if not len(maps):
        return None
    total = np.zeros(len(THRESHOLDS))
    for map_, truth in zip(maps, truths, strict=True):
        y = truth.astype(np.float64).ravel()
        # how many thresholds each pixel reaches; suffix sums then give areas at every threshold
        reached = np.searchsorted(THRESHOLDS, map_.ravel(), side="right")
        bins = len(THRESHOLDS) + 1
        count = np.cumsum(np.bincount(reached, minlength=bins)[::-1])[::-1][1:]
        overlap = np.cumsum(np.bincount(reached, weights=y, minlength=bins)[::-1])[::-1][1:]
        total += 2 * overlap / (count + y.sum())
    return float(THRESHOLDS[int(np.argmax(total))])
