"""Films that are bright exactly where a region is, so that places can be checked by pixels."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

DARK, BRIGHT = 40, 255

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


def write_film(
    path: Path,
    size: tuple[int, int],
    bright: Sequence[Corners] = (),
    frame: tuple[int, int] | None = None,
) -> Path:
    """A dark film of (width, height) pixels with bright rectangles, given in `frame` or its own.

    Corners must fall between pixels of the film, so that the rectangles are exact.
    """
    width, height = size
    pixels = np.full((height, width), DARK, dtype=np.uint8)
    for x1, y1, x2, y2 in bright:
        across, down = (width / frame[0], height / frame[1]) if frame else (1.0, 1.0)
        corners = np.array([x1 * across, y1 * down, x2 * across, y2 * down])
        if not np.array_equal(corners, corners.round()):
            raise ValueError(f"corners {corners} fall into pixels of a film of {width}×{height}")
        left, top, right, bottom = corners.astype(int)
        pixels[top:bottom, left:right] = BRIGHT
    # eight pixels in a corner say which film it is: no two files are the same
    digits = [zlib.crc32(path.name.encode()) >> 4 * place & 15 for place in range(8)]
    pixels[0, : min(width, 8)] = digits[: min(width, 8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path}: not written")
    return path
