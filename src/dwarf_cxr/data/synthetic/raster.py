"""Drawing primitives of the generator: smooth curves, filled shapes, ramps and textures.

Points are (x, y) in pixels of the film, x to the right; a pixel's square starts at its index, so
that the same unit geometry lands in the same place at every film size.
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

SUBPIXEL_BITS = 4
"""OpenCV takes polygon corners as integers with this many fractional bits."""


@lru_cache(maxsize=64)
def _spline_basis(points: int, samples: int) -> np.ndarray:
    """Weights (samples, points) of an open uniform Catmull-Rom spline."""
    basis = np.zeros((samples, points))
    for row, position in enumerate(np.linspace(0, points - 1, samples)):
        start = min(int(position), points - 2)
        t = position - start
        weights = (
            (-(t**3) + 2 * t**2 - t) / 2,
            (3 * t**3 - 5 * t**2 + 2) / 2,
            (-3 * t**3 + 4 * t**2 + t) / 2,
            (t**3 - t**2) / 2,
        )
        for offset, weight in enumerate(weights, start=-1):
            basis[row, min(max(start + offset, 0), points - 1)] += weight
    return basis


def smooth_curve(points: Sequence | np.ndarray, samples: int = 24) -> np.ndarray:
    """A smooth open curve (samples, 2) through `points` (k, 2), k >= 2.

    A stack of curves (n, k, 2) gives (n, samples, 2).
    """
    controls = np.asarray(points, dtype=np.float64)
    return _spline_basis(controls.shape[-2], samples) @ controls


def closed_curve(points: Sequence[Sequence[float]], samples: int = 48) -> np.ndarray:
    """A smooth closed outline (samples, 2) through `points`, wrapping around."""
    controls = np.asarray(points, dtype=np.float64)
    wrapped = np.concatenate([controls[-2:], controls, controls[:3]])
    total = len(wrapped) - 1
    dense = smooth_curve(wrapped, samples * total // len(controls) + 1)
    positions = np.linspace(0, total, len(dense))
    return dense[(positions >= 2) & (positions < 2 + len(controls))]


def ribbon(centre: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Outline of a band along centre lines (..., k, 2), `width` broad: (..., 2 k, 2)."""
    along = np.empty_like(centre)
    along[..., 1:-1, :] = centre[..., 2:, :] - centre[..., :-2, :]
    along[..., 0, :] = centre[..., 1, :] - centre[..., 0, :]
    along[..., -1, :] = centre[..., -1, :] - centre[..., -2, :]
    length = np.sqrt((along**2).sum(axis=-1, keepdims=True)) + 1e-9
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1) / length
    offset = normal * (np.asarray(width)[..., None] / 2)
    return np.concatenate([centre + offset, (centre - offset)[..., ::-1, :]], axis=-2)


def _fixed_point(shapes: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
    if isinstance(shapes, np.ndarray):
        return list(np.rint((shapes - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32))
    return [np.rint((shape - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32) for shape in shapes]


def fill(
    size: int,
    outlines: Sequence[np.ndarray] | np.ndarray,
    *,
    value: int = 255,
    onto: np.ndarray | None = None,
) -> np.ndarray:
    """Cover of the outlines, uint8 (size, size): `value` inside, its share on the edge.

    OpenCV's smooth edge reaches about half a pixel beyond the outline. Outlines of one call must
    not overlap. `onto` is painted over in place instead of a new cover.
    """
    cover = np.zeros((size, size), np.uint8) if onto is None else onto
    cv2.fillPoly(cover, _fixed_point(outlines), value, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    return cover


def strokes(
    cover: np.ndarray,
    lines: Sequence[np.ndarray] | np.ndarray,
    thickness: int = 1,
    value: int = 255,
) -> None:
    """Draw open lines onto a uint8 cover, in place."""
    cv2.polylines(
        cover,
        _fixed_point(lines),
        False,
        value,
        thickness,
        lineType=cv2.LINE_AA,
        shift=SUBPIXEL_BITS,
    )


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Blur of a bell's shape, `sigma` in pixels; below a third of a pixel the field as it is.

    Broad bells are two box filters of the same variance: several times faster than Gaussians.
    """
    if sigma < 0.33:
        return field
    if sigma < 1.3:
        side = 3 if sigma < 0.8 else 5
        return cv2.GaussianBlur(field, (side, side), sigma)
    # A box of width w has the variance (w^2 - 1) / 12.
    side = 2 * round((np.sqrt(6 * sigma**2 + 1) - 1) / 2) + 1
    return cv2.blur(cv2.blur(field, (side, side)), (side, side))


def depth_inside(mask: np.ndarray) -> np.ndarray:
    """Distance in pixels to the nearest pixel outside a bool mask: float32, 0 outside, >= 1 inside.

    The frame's edge does not count as outside.
    """
    depth = np.zeros(mask.shape, np.float32)
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return depth
    window = (
        slice(max(top - 1, 0), top + height + 1),
        slice(max(left - 1, 0), left + width + 1),
    )
    depth[window] = cv2.distanceTransform(mask[window].view(np.uint8), cv2.DIST_L2, 3)
    return depth


def inner_ramp(mask: np.ndarray, feather: float) -> np.ndarray:
    """0 outside a bool mask, rising to 1 within `feather` pixels inside it: float32."""
    return np.minimum(depth_inside(mask) / np.float32(max(feather, 1.0)), np.float32(1))


def blob(
    centre: np.ndarray, radii: tuple[float, float], roughness: float, generator: np.random.Generator
) -> np.ndarray:
    """An irregular closed outline (40, 2) around `centre`; `roughness` 0 gives an ellipse."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = np.arange(2, 7)
    swing = generator.normal(0, roughness, 5) / np.sqrt(waves)
    phase = generator.uniform(0, 2 * np.pi, 5)
    radius = 1 + (swing[:, None] * np.cos(waves[:, None] * turn + phase[:, None])).sum(0)
    radius = np.clip(radius, 0.45, 1.7)
    tilt = generator.uniform(0, np.pi) if roughness else 0.0
    x, y = radii[0] * radius * np.cos(turn), radii[1] * radius * np.sin(turn)
    if radii[0] == radii[1]:
        x, y = x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)
    return centre + np.stack([x, y], axis=1)


@lru_cache(maxsize=1)
def _circle() -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """Outline (28, 2) of an upright ellipse."""
    return _circle() * radii + centre


@lru_cache(maxsize=8)
def cloud_tile(size: int) -> np.ndarray:
    """Smooth clouds of several scales, (2 size, 2 size) float32, mean 0, deviation 1."""
    generator = np.random.default_rng(20_240_001)
    tile = np.zeros((2 * size, 2 * size), np.float32)
    for cells, weight in ((12, 1.0), (26, 0.7), (56, 0.5), (110, 0.3)):
        grain = generator.standard_normal((cells, cells)).astype(np.float32)
        tile += weight * cv2.resize(grain, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC)
    return _standardised(tile)


@lru_cache(maxsize=8)
def grain_tile(size: int) -> np.ndarray:
    """Quantum noise of the detector, (2 size, 2 size) float32, mean 0, deviation 1."""
    generator = np.random.default_rng(20_240_002)
    tile = generator.standard_normal((2 * size, 2 * size)).astype(np.float32)
    return _standardised(blur(tile, 0.55 * size / 224))


@lru_cache(maxsize=8)
def net_tile(size: int) -> np.ndarray:
    """A net of fine lines around irregular cells, (2 size, 2 size) float32 in [0, 1]."""
    generator = np.random.default_rng(20_240_003)
    cells = 124
    # A jittered lattice: the lines are where the nearest and the second nearest seed are equal.
    seeds = (np.indices((cells, cells)).reshape(2, -1).T + generator.random((cells**2, 2))) / cells
    places = np.minimum((seeds * 2 * size).astype(int), 2 * size - 1)
    empty = np.full((2 * size, 2 * size), 255, np.uint8)
    empty[places[:, 0], places[:, 1]] = 0
    _, owner = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    border = np.zeros_like(empty)
    border[:-1] |= np.where(owner[:-1] != owner[1:], 255, 0).astype(np.uint8)
    border[:, :-1] |= np.where(owner[:, :-1] != owner[:, 1:], 255, 0).astype(np.uint8)
    lines = blur(border.astype(np.float32), 0.55 * size / 224)
    return lines / lines.max()


def _standardised(tile: np.ndarray) -> np.ndarray:
    return ((tile - tile.mean()) / tile.std()).astype(np.float32)


def crop(tile: np.ndarray, size: int, corner: tuple[float, float]) -> np.ndarray:
    """The (size, size) window of a tile at `corner`, (x, y) in [0, 1] of the room there is."""
    left, top = (int(place * (tile.shape[0] - size)) for place in corner)
    return tile[top : top + size, left : left + size]
