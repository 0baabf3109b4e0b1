"""Maps and outlines on a film, as plain arrays: colour of a value, blending, outlines, encoding.

Pictures are (height, width, 3) uint8 in RGB. Values of maps lie in [0, 1] and always get the same
colours, so that pictures of different films and methods can be compared.
"""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from dwarf_cxr.errors import DwarfError

Picture = UInt8[np.ndarray, "height width 3"]
Colour = tuple[int, int, int]

COLOUR_MAP = "viridis"
OPACITY = 0.6
"""Share of the map's colour in a blend where the map is 1; it falls to none where the map is 0, so
that the film stays visible wherever the map says little."""
TRUTH: Colour = (255, 255, 255)
THRESHOLD: Colour = (255, 150, 40)
DETECTED: Colour = (86, 180, 233)
"""Of a detector's boxes: Okabe and Ito's sky blue, apart from the others for every eye."""
HALO: Colour = (0, 0, 0)
"""A dark rim keeps outlines visible on bright bone."""
BOX_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito's, without those that vanish on film; boxes also carry the finding's name."""
LEAST_SCORE = 0.01
"""Lower scores of boxes are not written out."""
SMALLEST_TEXT = 8
CAPTION_SHARE = 0.4
"""A caption is at most this share of its picture's height."""
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
    values = np.clip(map_, 0, 1).astype(np.float32)
    colours = colour_table()[np.round(values * 255).astype(np.uint8)]
    share = OPACITY * values[..., None]
    return np.round(picture * (1 - share) + colours * share).astype(np.uint8)


def tinted(
    picture: Picture, map_: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """`picture` under the colours of `map_`, as strong where the map is low as where it is high."""
    values = np.clip(map_, 0, 1).astype(np.float32)
    colours = colour_table()[np.round(values * 255).astype(np.uint8)]
    return np.round(picture * (1 - OPACITY) + colours * OPACITY).astype(np.uint8)


def enlarged(
    map_: Float32[np.ndarray, "h w"], picture: Picture
) -> Float32[np.ndarray, "height width"]:
    """The map in the size of the picture."""
    height, width = picture.shape[:2]
    return cv2.resize(map_, (width, height), interpolation=cv2.INTER_LINEAR)


def map_on_film(
    film: Picture,
    map_: Float32[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "height width"],
    marked: Bool[np.ndarray, "height width"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """`film` with the map over it, the true region outlined, what the map marks dashed."""
    picture = outlined(blend(film, enlarged(map_, film)), truth, TRUTH)
    return picture if marked is None else outlined(picture, marked, THRESHOLD, dashed=True)


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
    return max(1, round(max(picture.shape[:2]) / 220))


def captioned(picture: Picture, lines: Sequence[str]) -> UInt8[np.ndarray, "higher width 3"]:
    """`picture` with lines of text on a dark band below it: no part of the film is covered.

    The text is broken into more lines where it is too wide, and made smaller, down to
    `SMALLEST_TEXT` pixels, where the band would be too high; what then does not fit is left out,
    with an ellipsis, never cut through.
    """
    height, width = picture.shape[:2]
    size = _text_size(picture)
    while True:
        font = _font(size)
        margin, line_height = max(2, size // 3), round(size * 1.3)
        wrapped = [part for line in lines for part in _wrapped(line, font, width - 2 * margin)]
        most = max(1, int((height * CAPTION_SHARE - 2 * margin) / line_height))
        if len(wrapped) <= most or size <= SMALLEST_TEXT:
            break
        size -= 1
    if len(wrapped) > most:
        wrapped = [*wrapped[: most - 1], _shortened(wrapped[most - 1], font, width - 2 * margin)]
    image = Image.new("RGB", (width, height + len(wrapped) * line_height + 2 * margin))
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    for place, line in enumerate(wrapped):
        draw.text((margin, height + margin + place * line_height), line, fill="white", font=font)
    return np.asarray(image).copy()


def labelled_boxes(
    picture: Picture, boxes: Sequence[tuple[str, Sequence[Mapping[str, float]]]]
) -> UInt8[np.ndarray, "height width 3"]:
    """`picture` with the boxes (x1, y1, x2, y2 in its pixels) of each name, labelled with it."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    line, font = line_width(picture), _font(_text_size(picture))
    for place, (_, parts) in enumerate(boxes):
        colour = BOX_COLOURS[place % len(BOX_COLOURS)]
        for box in parts:
            corners = (box["x1"], box["y1"], box["x2"] - 1, box["y2"] - 1)
            rim = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
            draw.rectangle(rim, outline=HALO, width=line + 2)
            draw.rectangle(corners, outline=colour, width=line)
    plates: list[tuple[float, float, float, float]] = []
    for place, (name, parts) in enumerate(boxes):
        label = name if font.getlength(name) <= width - 4 else _shortened(name, font, width - 4)
        for box in parts:
            plate = _free_plate(label, box, font, plates, (width, height))
            plates.append(plate)
            draw.rectangle(plate, fill=BOX_COLOURS[place % len(BOX_COLOURS)])
            draw.text((plate[0] + 2, plate[1]), label, fill="black", font=font)
    return np.asarray(image).copy()


def boxes_on_film(
    film: Picture,
    truths: Float[np.ndarray, "truth 4"],
    found: Float[np.ndarray, "box 4"],
    scores: Float[np.ndarray, "box"],
) -> UInt8[np.ndarray, "height width 3"]:
    """`film` with the true boxes solid, a detector's dashed, each of those with its score.

    Boxes are (x1, y1, x2, y2) in pixels of the picture; the first of `found` lies on top.
    """
    height, width = film.shape[:2]
    drawn = film
    for box in truths:
        drawn = outlined(drawn, _filled(box, height, width), TRUTH)
    for box in found[::-1]:
        drawn = outlined(drawn, _filled(box, height, width), DETECTED, dashed=True)
    image = Image.fromarray(drawn)
    draw = ImageDraw.Draw(image)
    # larger than on overlays: on a page these pictures are shown at half their size
    font = _font(max(SMALLEST_TEXT, round(min(height, width) / 20)))
    plates: list[tuple[float, float, float, float]] = []
    for (x1, y1, x2, y2), score in zip(found, scores, strict=True):
        corners = {"x1": float(x1), "y1": float(y1), "x2": float(x2), "y2": float(y2)}
        label = f"{score:.2f}" if score >= LEAST_SCORE else f"<{LEAST_SCORE}"
        plate = _free_plate(label, corners, font, plates, (width, height))
        plates.append(plate)
        draw.rectangle(plate, fill=DETECTED)
        draw.text((plate[0] + 2, plate[1]), label, fill="black", font=font)
    return np.asarray(image).copy()


def scale_picture(width: int, height: int) -> Picture:
    """The colours from 0 (left) to 1 (right), on middle grey, as blending makes them."""
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return blend(np.full((height, width, 3), 110, dtype=np.uint8), ramp)


def tint_scale_picture(width: int, height: int) -> Picture:
    """The colours of `tinted` from the lowest (left) to the highest value, on middle grey."""
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return tinted(np.full((height, width, 3), 110, dtype=np.uint8), ramp)


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


def _text_size(picture: Picture) -> int:
    return max(SMALLEST_TEXT, round(min(picture.shape[:2]) / 34))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries a typeface with accents and Greek, wherever this runs
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size)


def _wrapped(line: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """`line` in parts that are at most `width` pixels wide; words that are wider are broken."""
    parts = [""]
    for word in line.split():
        longer = f"{parts[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            parts[-1] = longer
            continue
        if parts[-1]:
            parts.append("")
        for letter in word:
            if parts[-1] and font.getlength(parts[-1] + letter) > width:
                parts.append("")
            parts[-1] += letter
    return parts


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"


def _filled(
    box: Float[np.ndarray, "4"], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """The pixels of a box, at least one, as far as it lies on the picture."""
    left, top = (
        min(max(round(float(one)), 0), size - 1)
        for one, size in zip(box[:2], (width, height), strict=True)
    )
    right, bottom = max(left + 1, round(float(box[2]))), max(top + 1, round(float(box[3])))
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _free_plate(
    label: str,
    box: Mapping[str, float],
    font: ImageFont.FreeTypeFont,
    taken: Sequence[tuple[float, float, float, float]],
    frame: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Where a box's label lies: at a corner or near it, in the frame, off others if possible."""
    wide, high = font.getlength(label) + 4, font.size * 1.3
    corners = [
        (box["x1"], box["y1"] - high),
        (box["x2"] - wide, box["y2"]),
        (box["x1"], box["y2"]),
        (box["x1"], box["y1"]),
        (box["x2"] - wide, box["y2"] - high),
        *((box["x1"], box["y1"] - step * high) for step in (2, 3)),
        *((box["x2"] - wide, box["y2"] + step * high) for step in (1, 2)),
    ]
    plates = []
    for left, top in corners:
        x = min(max(left, 0.0), max(frame[0] - wide, 0.0))
        y = min(max(top, 0.0), max(frame[1] - high, 0.0))
        plates.append((x, y, x + wide, y + high))
    free = (plate for plate in plates if not any(_overlap(plate, other) for other in taken))
    return next(free, plates[0])


def _overlap(
    one: tuple[float, float, float, float], two: tuple[float, float, float, float]
) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


@cache
def colour_table() -> UInt8[np.ndarray, "256 3"]:
    """The colour of every value from 0 to 1 in 255 steps, in RGB."""
    shades = colormaps[COLOUR_MAP](np.arange(256))[:, :3]
    return np.round(shades * 255).astype(np.uint8)


def _strokes(border: np.ndarray, dashed: bool, width: int) -> list[np.ndarray]:
    """A closed border as lines: itself, or dashes."""
    closed = np.concatenate([border, border[:1]])
    if not dashed:
        return [closed]
    dash, period = DASH * width, (DASH + GAP) * width
    return [closed[start : start + dash] for start in range(0, len(closed), period)]
