"""Maps and outlines on a film, as plain arrays: colour of a value, blending, outlines, encoding.

Pictures are (height, width, 3) uint8 in RGB. Values of maps lie in [0, 1] and always get the same
colours, so that pictures of different films and methods can be compared.
"""

import base64
from functools import cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps

from dwarf_cxr.errors import DwarfError

Picture = UInt8[np.ndarray, "height width 3"]
Colour = tuple[int, int, int]

COLOUR_MAP = "viridis"
OPACITY = 0.45
"""Share of the map's colour in a blend; the same everywhere, so that a colour means one value."""
TRUTH: Colour = (255, 255, 255)
THRESHOLD: Colour = (255, 150, 40)
HALO: Colour = (0, 0, 0)
"""A dark rim keeps outlines visible on bright bone."""
DASH, GAP = 7, 5
"""Pixels of a dash and of the gap after it, for lines one pixel wide."""


def film_picture(grey: UInt8[np.ndarray, "h w"], frame: tuple[int, int]) -> Picture:
    """A grey film as a picture of `frame` (width, height) pixels."""
    if grey.shape[::-1] != frame:
        grey = cv2.resize(grey, frame, interpolation=cv2.INTER_CUBIC)
    return np.repeat(grey[..., None], 3, axis=2)


def blend(
    picture: Picture, map_: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """`picture` with the colours of `map_` over it."""
    colours = _table()[np.round(np.clip(map_, 0, 1) * 255).astype(np.uint8)]
    return cv2.addWeighted(picture, 1 - OPACITY, colours, OPACITY, 0)


def outlined(
    picture: Picture,
    mask: Bool[np.ndarray, "height width"],
    colour: Colour,
    *,
    dashed: bool = False,
) -> UInt8[np.ndarray, "height width 3"]:
    """`picture` with the outline of every part of `mask`; the line grows with the picture."""
    drawn = picture.copy()
    width = line_width(picture)
    borders, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [stroke for border in borders for stroke in _strokes(border, dashed, width)]
    for line_colour, thickness in ((HALO, width + 2), (colour, width)):
        cv2.polylines(drawn, lines, False, line_colour, thickness, cv2.LINE_AA)
    return drawn


def line_width(picture: Picture) -> int:
    """Pixels that a line is wide on a picture of this size."""
    return max(1, round(min(picture.shape[:2]) / 220))


def scale_picture(width: int, height: int) -> Picture:
    """The colours from 0 (left) to 1 (right), on middle grey, as blending makes them."""
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return blend(np.full((height, width, 3), 110, dtype=np.uint8), ramp)


def png_bytes(pixels: np.ndarray) -> bytes:
    """A picture, or a grey image of 8 or 16 bits, as PNG."""
    return _encoded(".png", pixels, [])


def data_uri(picture: Picture, *, lossless: bool = False) -> str:
    """A picture as a data URI, in WebP (good to the eye, small) or, lossless, in PNG."""
    if lossless:
        return embed(png_bytes(picture), "image/png")
    return embed(_encoded(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 88]), "image/webp")


def embed(content: bytes, media_type: str) -> str:
    """A data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(suffix: str, pixels: np.ndarray, options: list[int]) -> bytes:
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(suffix, pixels, options)
    if not done:
        raise DwarfError(f"an image of {pixels.shape} cannot be encoded as {suffix}")
    return bytes(buffer)


@cache
def _table() -> UInt8[np.ndarray, "256 3"]:
    shades = colormaps[COLOUR_MAP](np.arange(256))[:, :3]
    return np.round(shades * 255).astype(np.uint8)


def _strokes(border: np.ndarray, dashed: bool, width: int) -> list[np.ndarray]:
    """A closed border as lines: itself, or dashes."""
    closed = np.concatenate([border, border[:1]])
    if not dashed:
        return [closed]
    dash, period = DASH * width, (DASH + GAP) * width
    return [closed[start : start + dash] for start in range(0, len(closed), period)]
