"""The frozen pictures of a study, made so that they tell nothing but what they show.

All are PNG without a single optional field. A map is an image of 256 colours that is not
compressed: the files of two maps of a film are of the same size to the byte, whatever is on them.
"""

import io

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from dwarf_cxr.reporting.overlay import colour_table

FILM_SIDE = 1024
"""Longer side of a film's picture at most."""
MAP_SIDE = 256
"""Longer side of a map's picture: finer than any model's grid."""


def film_frame(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height in the film's proportions, the longer `side` pixels."""
    factor = side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def film_png(grey: UInt8[np.ndarray, "h w"], frame: tuple[int, int]) -> bytes:
    """A film in `frame` (width, height)."""
    smaller = frame[0] < grey.shape[1]
    resized = cv2.resize(grey, frame, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return _png(Image.fromarray(resized), None, compressed=True)


def map_png(map_: Float32[np.ndarray, "h w"], frame: tuple[int, int]) -> bytes:
    """A map in [0, 1] in the report's colours, clear where it is 0, to be laid over a film."""
    large = cv2.resize(map_, frame, interpolation=cv2.INTER_LINEAR)
    steps = np.round(np.clip(large, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(steps).convert("L")
    indexed = Image.frombytes("P", image.size, image.tobytes())
    indexed.putpalette(colour_table().tobytes())
    return _png(indexed, bytes(range(256)), compressed=False)


def outline_png(region: Bool[np.ndarray, "height width"]) -> bytes:
    """The outline of a region, white with a dark rim, to be laid over a film."""
    borders, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(region.shape, dtype=np.uint8)
    width = max(1, round(max(region.shape) / 400))
    cv2.drawContours(drawn, borders, -1, 1, width + 2)
    cv2.drawContours(drawn, borders, -1, 2, width)
    indexed = Image.frombytes("P", region.shape[::-1], drawn.tobytes())
    indexed.putpalette([0, 0, 0, 0, 0, 0, 255, 255, 255])
    return _png(indexed, bytes([0, 200, 255]), compressed=True)


def stretched(map_: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The map from 0 at its least value to 1 at its greatest; a constant map is 0."""
    low, high = float(map_.min()), float(map_.max())
    if high <= low:
        return np.zeros_like(map_)
    return ((map_ - low) / (high - low)).astype(np.float32)


def _png(image: Image.Image, transparency: bytes | None, *, compressed: bool) -> bytes:
    stream = io.BytesIO()
    level = 9 if compressed else 0
    if transparency is None:
        image.save(stream, "PNG", compress_level=level)
    else:
        image.save(stream, "PNG", compress_level=level, transparency=transparency, bits=8)
    return stream.getvalue()
