"""Boxes, polygons and masks: area, clipping, scaling, and the share of each grid cell they cover.

Coordinates are (x, y) in pixels, x to the right and y downwards; pixel (0, 0) covers the square
from (0, 0) to (1, 1). A frame is (width, height). A polygon is filled by its non-zero winding
number, and a pixel belongs to it when the pixel's centre does.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64

from dwarf_cxr.data.records import Box, Mask, Polygon, Region, Shape
from dwarf_cxr.errors import DataError

Frame = tuple[int, int]
"""(width, height) in pixels."""


def bounding_box(shape: Shape) -> Box:
    """The smallest box around `shape`; an empty mask has the box (0, 0, 0, 0)."""
    if isinstance(shape, Box):
        return shape
    if isinstance(shape, Polygon):
        (x1, y1), (x2, y2) = shape.points.min(axis=0), shape.points.max(axis=0)
        return Box(float(x1), float(y1), float(x2), float(y2))
    rows, columns = np.nonzero(decode_mask(shape))
    if len(rows) == 0:
        return Box(0.0, 0.0, 0.0, 0.0)
    return Box(
        float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1
    )


def area(shape: Shape) -> float:
    """Area in square pixels; of a polygon by the shoelace formula."""
    if isinstance(shape, Box):
        return max(0.0, shape.x2 - shape.x1) * max(0.0, shape.y2 - shape.y1)
    if isinstance(shape, Polygon):
        x, y = shape.points.astype(np.float64).T
        return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
    return float(sum(shape.counts[1::2]))


def fault_of(shape: Shape) -> str | None:
    """Why `shape` cannot be a region (not finite, no area, malformed), or None when it can."""
    if isinstance(shape, Box):
        corners = (shape.x1, shape.y1, shape.x2, shape.y2)
        if not all(map(math.isfinite, corners)):
            return f"box {corners} is not finite"
        if shape.x2 <= shape.x1 or shape.y2 <= shape.y1:
            return f"box {corners} has no area (x2 <= x1 or y2 <= y1)"
    elif isinstance(shape, Polygon):
        if shape.points.ndim != 2 or shape.points.shape[1:] != (2,) or len(shape.points) < 3:
            return f"polygon of shape {shape.points.shape} needs at least three (x, y) points"
        if not np.isfinite(shape.points).all():
            return "polygon has a coordinate that is not finite"
        if area(shape) == 0:
            return "polygon has no area"
    else:
        if any(count < 0 for count in shape.counts):
            return "mask has a negative run length"
        if sum(shape.counts) != shape.height * shape.width:
            return (
                f"mask runs over {sum(shape.counts)} pixels, "
                f"but its size is {shape.width}×{shape.height}"
            )
        if area(shape) == 0:
            return "mask is empty"
    return None


def is_inside(shape: Shape, frame: Frame) -> bool:
    """Whether no part of `shape` lies outside `frame`."""
    box, (width, height) = bounding_box(shape), frame
    return box.x1 >= 0 and box.y1 >= 0 and box.x2 <= width and box.y2 <= height


def covers_anything(shape: Shape, frame: Frame) -> bool:
    """Whether `shape` covers any of `frame`: a box any area, others the centre of a pixel.

    Raises:
        DataError: a mask's size is not that of `frame`.
    """
    if isinstance(shape, Box):
        return area(shape) > 0
    return bool(_paint([shape], frame, _pixel_bounds([shape], frame)).any())


def clip(shape: Shape, frame: Frame) -> Shape | None:
    """The part of a box or polygon inside `frame`, None when there is none; masks as they are.

    Polygons are cut by Sutherland and Hodgman's method (Communications of the ACM 17, 1974).
    """
    if isinstance(shape, Mask) or is_inside(shape, frame):
        return shape
    width, height = map(float, frame)
    if isinstance(shape, Box):
        cut = Box(
            min(max(shape.x1, 0.0), width),
            min(max(shape.y1, 0.0), height),
            min(max(shape.x2, 0.0), width),
            min(max(shape.y2, 0.0), height),
        )
        return cut if area(cut) > 0 else None
    points = shape.points.astype(np.float64)
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        points = _cut(points, axis, limit, sign)
        if len(points) < 3:
            return None
    return Polygon(points) if area(Polygon(points)) > 0 else None


def _cut(
    points: Float64[np.ndarray, "before 2"], axis: int, limit: float, sign: int
) -> Float64[np.ndarray, "after 2"]:
    """The part of a closed outline where sign * (coordinate - limit) >= 0."""
    kept: list[np.ndarray] = []
    depth = sign * (points[:, axis] - limit)
    for index in range(len(points)):
        before, after = depth[index - 1], depth[index]
        if (before < 0) != (after < 0):
            share = before / (before - after)
            crossing = points[index - 1] + share * (points[index] - points[index - 1])
            crossing[axis] = limit
            kept.append(crossing)
        if after >= 0:
            kept.append(points[index])
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def scale(shape: Shape, source: Frame, target: Frame) -> Shape:
    """`shape`, given in the frame `source`, in the frame `target`; x and y scale separately.

    A mask takes at every new pixel the value found under that pixel's centre.

    Raises:
        DataError: a mask's size is not that of `source`.
    """
    if source == target:
        return shape
    x, y = target[0] / source[0], target[1] / source[1]
    if isinstance(shape, Box):
        return Box(shape.x1 * x, shape.y1 * y, shape.x2 * x, shape.y2 * y)
    if isinstance(shape, Polygon):
        return Polygon(shape.points.astype(np.float64) * (x, y))
    _check_size(shape, source)
    columns = ((np.arange(target[0]) + 0.5) / x).astype(np.int64)
    rows = ((np.arange(target[1]) + 0.5) / y).astype(np.int64)
    return encode_mask(decode_mask(shape)[np.ix_(rows, columns)])


def rasterise(shapes: Sequence[Shape], frame: Frame) -> Bool[np.ndarray, "height width"]:
    """The union of `shapes` as the pixels of `frame` whose centres it contains.

    Raises:
        DataError: a mask's size is not that of `frame`.
    """
    return _paint(shapes, frame, (0, 0, *frame))


def overlap_pixels(one: Sequence[Shape], other: Sequence[Shape], frame: Frame) -> tuple[int, int]:
    """How many pixels of `frame` two unions of shapes share, and how many either has.

    As of two `rasterise`d pictures, but only the part where there are shapes is looked at.

    Raises:
        DataError: a mask's size is not that of `frame`.
    """
    shapes = [*one, *other]
    if not shapes:
        return 0, 0
    left, top, right, bottom = _pixel_bounds(shapes, frame)
    if left >= right or top >= bottom:
        return 0, 0
    first, second = (_paint(its, frame, (left, top, right, bottom)) for its in (one, other))
    both, either = np.count_nonzero(first & second), np.count_nonzero(first | second)
    return int(both), int(either)


def coverage(
    regions: Sequence[Region], frame: Frame, size: int
) -> Float32[np.ndarray, "{size} {size}"]:
    """The share, in [0, 1], of each cell of a size×size grid that the union of `regions` covers.

    The grid divides `frame` evenly. Boxes count with their exact fractional edges, polygons and
    masks by the pixels of `frame` that they contain; the areas are then exact: the mean of the
    result times the frame's area is the area of the union. Zeros when there is no region.

    Raises:
        DataError: a mask's size is not that of `frame`.
    """
    shapes = [part for region in regions if (part := clip(region.shape, frame)) is not None]
    if not shapes:
        return np.zeros((size, size), dtype=np.float32)
    width, height = frame
    boxes = [shape for shape in shapes if isinstance(shape, Box)]
    painted = [shape for shape in shapes if not isinstance(shape, Box)]
    # The plane is divided at every edge that matters, evenly or not: within each of the
    # rectangles between them the union is either everywhere or nowhere.
    x_edges = [edge for box in boxes for edge in (box.x1, box.x2)]
    y_edges = [edge for box in boxes for edge in (box.y1, box.y2)]
    if painted:
        left, top, right, bottom = _pixel_bounds(painted, frame)
        x_edges.extend(range(left, right + 1))
        y_edges.extend(range(top, bottom + 1))
    x, y = np.unique(np.array(x_edges, float)), np.unique(np.array(y_edges, float))
    occupied = np.zeros((len(y) - 1, len(x) - 1), dtype=bool)
    if painted:
        pixels = _paint(painted, frame, (left, top, right, bottom))
        columns = np.floor((x[:-1] + x[1:]) / 2).astype(np.int64) - left
        rows = np.floor((y[:-1] + y[1:]) / 2).astype(np.int64) - top
        in_columns = (columns >= 0) & (columns < right - left)
        in_rows = (rows >= 0) & (rows < bottom - top)
        occupied[np.ix_(in_rows, in_columns)] = pixels[np.ix_(rows[in_rows], columns[in_columns])]
    for box in boxes:
        rows_inside = slice(*np.searchsorted(y, (box.y1, box.y2)))
        occupied[rows_inside, slice(*np.searchsorted(x, (box.x1, box.x2)))] = True
    shares = _overlap(y, height, size) @ occupied @ _overlap(x, width, size).T
    return np.clip(shares, 0.0, 1.0).astype(np.float32)


def _overlap(
    edges: Float64[np.ndarray, "edges"], length: int, size: int
) -> Float64[np.ndarray, "{size} intervals"]:
    """What share of each of `size` equal cells of [0, length] each interval of `edges` covers."""
    cells = np.arange(size + 1) * (length / size)
    low = np.maximum(cells[:-1, None], edges[None, :-1])
    high = np.minimum(cells[1:, None], edges[None, 1:])
    return np.maximum(high - low, 0.0) * (size / length)


def _pixel_bounds(shapes: Sequence[Shape], frame: Frame) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the whole pixels of `frame` that hold all `shapes`."""
    boxes = [bounding_box(shape) for shape in shapes]
    return (
        max(0, math.floor(min(box.x1 for box in boxes))),
        max(0, math.floor(min(box.y1 for box in boxes))),
        min(frame[0], math.ceil(max(box.x2 for box in boxes))),
        min(frame[1], math.ceil(max(box.y2 for box in boxes))),
    )


def _paint(
    shapes: Sequence[Shape], frame: Frame, window: tuple[int, int, int, int]
) -> Bool[np.ndarray, "rows columns"]:
    """The union of `shapes` on the pixels of `frame` inside a (left, top, right, bottom) window."""
    left, top, right, bottom = window
    pixels = np.zeros((bottom - top, right - left), dtype=bool)
    for shape in shapes:
        if isinstance(shape, Box):
            columns = np.arange(left, right) + 0.5
            rows = np.arange(top, bottom) + 0.5
            in_rows = (rows >= shape.y1) & (rows < shape.y2)
            pixels |= in_rows[:, None] & (columns >= shape.x1) & (columns < shape.x2)
        elif isinstance(shape, Polygon):
            pixels |= _fill(shape.points - (left, top), right - left, bottom - top)
        else:
            _check_size(shape, frame)
            pixels |= decode_mask(shape)[top:bottom, left:right]
    return pixels


def _fill(
    points: Float64[np.ndarray, "points 2"], width: int, height: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """The pixels whose centre a closed outline winds around."""
    start, end = points, np.roll(points, -1, axis=0)
    downward = end[:, 1] > start[:, 1]
    upper = np.where(downward[:, None], start, end)
    lower = np.where(downward[:, None], end, start)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    crossed = stop - first
    edge = np.repeat(np.arange(len(points)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    rise, run = (lower - upper)[edge, 1], (lower - upper)[edge, 0]
    x = upper[edge, 0] + run * (row + 0.5 - upper[edge, 1]) / rise
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    winding = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(winding, (row, column), np.where(downward, 1, -1)[edge])
    return np.cumsum(winding, axis=1)[:, :width] != 0


def _check_size(mask: Mask, frame: Frame) -> None:
    if (mask.width, mask.height) != frame:
        raise DataError(
            f"mask of {mask.width}×{mask.height} pixels on an image of {frame[0]}×{frame[1]}; "
            f"give the mask in the image's own size"
        )


def encode_mask(pixels: Bool[np.ndarray, "height width"]) -> Mask:
    """A binary mask as COCO run lengths."""
    height, width = pixels.shape
    flat = pixels.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate(([0], changes, [flat.size]))
    counts = np.diff(bounds).tolist()
    # Runs start with zeros, so a mask that starts with ones begins with an empty run.
    first = [0] if flat.size and flat[0] else []
    return Mask(height, width, tuple(first + counts))


def decode_mask(mask: Mask) -> Bool[np.ndarray, "height width"]:
    """The pixels of COCO run lengths.

    Raises:
        DataError: the run lengths do not add up to the mask's size.
    """
    if sum(mask.counts) != mask.height * mask.width or min(mask.counts, default=0) < 0:
        raise DataError(
            f"mask runs over {sum(mask.counts)} pixels, but its size is {mask.width}×{mask.height};"
            f" encode it again"
        )
    values = np.arange(len(mask.counts)) % 2 == 1
    flat = np.repeat(values, np.array(mask.counts, dtype=np.int64))
    return flat.reshape((mask.height, mask.width), order="F")


def compress_counts(counts: Sequence[int]) -> str:
    """COCO's text form of run lengths: differences to the last but one, six bits a character."""
    text = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr((bits | (0x20 if more else 0)) + 48))
    return "".join(text)


def decompress_counts(text: str) -> tuple[int, ...]:
    """Run lengths from COCO's text form.

    Raises:
        DataError: the text is not of that form.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise DataError(f"run-length text has the character {character!r}; encode it again")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("run-length text stops in the middle of a number; encode it again")
    return tuple(counts)
