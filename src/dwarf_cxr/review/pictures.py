"""The pictures that the pages show: the film in its own size, and a model's map to lay over it."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float

from dwarf_cxr.data.originals import original_film
from dwarf_cxr.errors import ImageError
from dwarf_cxr.review.folder import Review

MAP_COLOUR = (255, 150, 40)
"""Red, green, blue: warm on grey, and not the colour of anything that readers draw."""
MAP_SIDE = 256
FILMS_KEPT = 12
"""Encoded films in memory."""


def film_png(review: Review, film: int) -> bytes:
    """A film as PNG without any metadata, of the original's width and height.

    From the original file, if it is still there and of its size; else from the prepared pixels,
    scaled up.
    """
    return _film_png(review, film)


@lru_cache(maxsize=FILMS_KEPT)
def _film_png(review: Review, film: int) -> bytes:
    width, height = review.frame(film)
    grey = original_film(review.data, film)
    if grey is None or grey.shape != (height, width):
        pixels = np.ascontiguousarray(review.data.pixels[film])
        grey = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return _encoded(grey)


def map_png(map_: Float[np.ndarray, "h w"], threshold: float | None) -> bytes:
    """A map as a coloured veil over a film, PNG with alpha.

    Half opaque at the map's threshold, opaque from twice it on; without a threshold as opaque as
    the map is high.
    """
    fine = cv2.resize(map_.astype(np.float32), (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_LINEAR)
    full = 1.0 if threshold is None or threshold <= 0 else 2 * threshold
    veil = np.empty((MAP_SIDE, MAP_SIDE, 4), np.uint8)
    veil[..., :3] = MAP_COLOUR[::-1]
    veil[..., 3] = np.round(255 * np.clip(fine / full, 0, 1)).astype(np.uint8)
    return _encoded(veil)


def _encoded(picture: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not done:
        raise ImageError(f"a picture of {picture.shape} could not be written as PNG")
    return content.tobytes()
