"""In which order films are reviewed; ties keep the order of the data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64

from dwarf_cxr.data.rows import doubles, listed
from dwarf_cxr.errors import DataError

Order = Int64[np.ndarray, "queued"]
"""Indices of films."""

CUT = 0.5
"""The threshold of a finding for which the model has none."""


def uncertainty(
    scores: Float[np.ndarray, "image finding"], thresholds: Sequence[float | None]
) -> Float64[np.ndarray, "image"]:
    """How near a film's least certain finding is to its threshold, in [0, 1].

    1 at the threshold, 0 at a score of 0 or 1, linear between.
    """
    cut = _cuts(thresholds)
    scores = scores.astype(np.float64)
    room = np.where(scores >= cut, 1 - cut, cut)
    distance = np.divide(np.abs(scores - cut), room, out=np.zeros_like(scores), where=room > 0)
    return (1 - distance).max(axis=1, initial=0.0)


def disagreement(
    scores: Float[np.ndarray, "image finding"],
    labels: Float[np.ndarray, "image finding"],
    thresholds: Sequence[float | None],
) -> Float64[np.ndarray, "image"]:
    """How far beyond its threshold a film's most contradicted label is scored, in [0, 1].

    0 where the model contradicts no label of the film; a label never assessed cannot be
    contradicted.
    """
    cut = _cuts(thresholds)
    scores = scores.astype(np.float64)
    room = np.where(scores >= cut, 1 - cut, cut)
    distance = np.divide(np.abs(scores - cut), room, out=np.zeros_like(scores), where=room > 0)
    contradicts = np.where(scores >= cut, labels == 0, labels == 1)
    # at the threshold itself a contradiction is still one
    beyond = np.where(contradicts, np.maximum(distance, np.finfo(np.float64).tiny), 0.0)
    return beyond.max(axis=1, initial=0.0)


def highest_first(values: Float64[np.ndarray, "image"]) -> Order:
    """All films, the highest value first."""
    return np.argsort(-values, kind="stable").astype(np.int64)


def listed_order(path: Path, image_ids: Sequence[str]) -> Order:
    """The films that a text file names, an image id a line, in its order.

    Raises:
        DataError: no such file, no film in it, an unknown image id, or one twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; give uncertainty, disagreement, or a file with an image id a "
            "line"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the list as UTF-8") from None
    wanted = [line.strip() for line in lines if line.strip()]
    index = {image_id: number for number, image_id in enumerate(image_ids)}
    unknown = [name for name in wanted if name not in index]
    if unknown:
        raise DataError(f"{path}: not among the data's image ids: {listed(unknown)}")
    if repeated := doubles(wanted):
        raise DataError(f"{path}: given twice: {listed(repeated)}; name every film once")
    if not wanted:
        raise DataError(f"{path}: names no film; write an image id a line")
    return np.array([index[name] for name in wanted], dtype=np.int64)


def _cuts(thresholds: Sequence[float | None]) -> Float64[np.ndarray, "finding"]:
    return np.array([CUT if one is None else one for one in thresholds], dtype=np.float64)
