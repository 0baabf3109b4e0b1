"""Findings of what surrounds the lung: the pleural space, the pleura, ribs and clavicles."""

import cv2
import numpy as np

from dwarf_cxr.data.synthetic.anatomy import Chest
from dwarf_cxr.data.synthetic.body import RIBS_PER_SIDE, SIDE_NAMES, SIDES
from dwarf_cxr.data.synthetic.places import (
    Drawn,
    lognormal,
    lung_of,
    pick,
    point_in,
    random_side,
    random_sides,
    share_of_air,
    with_point,
    within,
)
from dwarf_cxr.data.synthetic.raster import fill, inner_ramp, ribbon, smooth_curve, strokes


def effusion(chest: Chest, generator: np.random.Generator) -> Drawn:
    """Fluid that fills a costophrenic angle up to a meniscus, on one or both sides."""
    mask = np.zeros((chest.size, chest.size), bool)
    depth = np.zeros((chest.size, chest.size), np.float32)
    sides = random_sides(generator, 0.5)
    for side in sides:
        edge = chest.geometry.edges[SIDES.index(side)]
        angle, apex = edge[-1], edge[0]
        height = lognormal(generator, 0.38, 0.62, 0.10, 0.85) * (angle[1] - apex[1])
        # The meniscus: highest at the chest wall, lowest a little beside the heart.
        level = angle[1] - height
        far = chest.length(0.34) * side
        wall = np.interp(level, edge[:, 1], edge[:, 0])
        dip = level + 0.42 * min(height, chest.length(0.22))
        meniscus = smooth_curve(
            [
                (wall + 0.08 * far, level - 0.10 * height),
                (wall - 0.03 * far, level + 0.05 * height),
                (wall - 0.30 * far, dip - 0.05 * height),
                (wall - 0.60 * far, dip + 0.06 * height),
                (wall - 1.10 * far, dip + 0.02 * height),
            ],
            16,
        )
        beyond = side * (side * edge[:, 0]).max() + 0.3 * far
        floor = [
            (wall - 1.1 * far, 2.0 * chest.size),
            (beyond, 2.0 * chest.size),
            (beyond, level - 0.10 * height),
        ]
        cover = fill(chest.size, [np.concatenate([meniscus, floor])])
        anchor = point_in(lung_of(chest, side), side, 0.9, 0.97)
        pool = with_point(within(chest, side, cover), anchor)
        # Only the meniscus fades; against chest wall and diaphragm the fluid leaves no gap.
        depth = np.maximum(depth, inner_ramp(cover > 127, 0.035 * chest.size) * pool)
        mask |= pool
    depth *= 0.1 + 0.9 * share_of_air(chest)
    chest.attenuation += np.float32(generator.uniform(0.46, 0.68)) * depth
    chest.markings *= 1 - depth
    if len(sides) == 2:
        sentence = pick(generator, "Bilateral pleural effusions.", "Effusions at both bases.")
    else:
        name = SIDE_NAMES[sides[0]]
        sentence = pick(
            generator,
            f"{name.capitalize()} pleural effusion.",
            f"Fluid fills the {name} costophrenic angle with a meniscus.",
        )
    return Drawn(mask, sentence)


def pneumothorax(chest: Chest, generator: np.random.Generator) -> Drawn:
    """A dark rim without markings between chest wall and a thin pleural line."""
    side = random_side(generator)
    lung = lung_of(chest, side)
    edge = chest.geometry.edges[SIDES.index(side)]
    depth = chest.length(lognormal(generator, 0.030, 0.50, 0.016, 0.11))
    reach = int(np.clip(12 + 260 * depth / chest.size, 16, 36))
    part = np.linspace(0, 1, reach)
    # The lung falls away from the apex and the side wall, less and less towards the base.
    fall = depth * np.minimum(1, 8 * part) * np.minimum(1, 2.2 * (1 - part))
    hilum = chest.geometry.hila[SIDES.index(side)]
    inwards = hilum - edge[:reach]
    inwards /= np.linalg.norm(inwards, axis=1, keepdims=True)
    pleura = edge[:reach] + inwards * fall[:, None]
    outside = edge[:reach] - inwards * chest.length(0.03)
    cover = fill(chest.size, [np.concatenate([outside, pleura[::-1]])]) > 127
    mask = with_point(cover & lung, point_in(lung, side, 0.6, 0.06))
    chest.markings[mask] = 0
    chest.attenuation -= np.float32(generator.uniform(0.07, 0.12)) * mask
    line = np.zeros((chest.size, chest.size), np.uint8)
    strokes(line, [pleura], max(1, round(chest.size / 224)))
    chest.attenuation += line * (mask * np.float32(0.22 / 255))
    name = SIDE_NAMES[side]
    sentence = pick(
        generator,
        f"{name.capitalize()} pneumothorax with a visible pleural line.",
        f"A rim of air without lung markings lies around the {name} lung.",
    )
    return Drawn(mask, sentence)


def pleural_thickening(chest: Chest, generator: np.random.Generator) -> Drawn:
    """A lumpy band along the lung's outer edge."""
    size = chest.size
    mask = np.zeros((size, size), bool)
    sides = random_sides(generator, 0.3)
    for side in sides:
        lung = lung_of(chest, side)
        edge = chest.geometry.edges[SIDES.index(side)]
        count = int(generator.integers(9, 24))
        # At the apex, or anywhere down the side wall.
        start = 0 if generator.random() < 0.3 else int(generator.integers(6, 39 - count))
        piece = edge[start : start + count]
        width = size * lognormal(generator, 0.021, 0.30, 0.011, 0.045)
        swell = np.sin(np.linspace(0.12, np.pi - 0.12, count)) ** 0.6
        lumps = np.clip(1 + 0.18 * generator.standard_normal(24)[:count], 0.6, 1.5)
        lumps = np.convolve(np.pad(lumps, 2, mode="edge"), np.full(5, 0.2), mode="valid")
        band = ribbon(piece, 2 * width * swell * lumps)
        anchor = point_in(lung, side, 1.0, 0.3)
        patch = (fill(size, [band]) > 127) & lung
        mask |= with_point(patch, anchor)
    depth = inner_ramp(mask, 0.010 * size)
    density = np.float32(generator.uniform(0.26, 0.46))
    chest.attenuation += density * depth
    chest.markings *= 1 - np.float32(0.7) * depth
    word = "Bilateral" if len(sides) == 2 else SIDE_NAMES[sides[0]].capitalize()
    sentence = pick(
        generator,
        f"{word} pleural thickening.",
        f"{word} thickening of the pleura along the chest wall.",
    )
    return Drawn(mask, sentence)


def fracture(chest: Chest, generator: np.random.Generator) -> Drawn:
    """A step and a gap in one to three neighbouring ribs or a clavicle."""
    size = chest.size
    mask = np.zeros((size, size), bool)
    names = []
    side = random_side(generator)
    first = int(generator.integers(2, RIBS_PER_SIDE - 2))
    clavicle = generator.random() < 0.2
    for number in range(int(generator.choice([1, 2, 3], p=[0.45, 0.35, 0.20]))):
        if clavicle and number == 0:
            line = chest.geometry.clavicles[SIDES.index(side)]
            names.append(f"{SIDE_NAMES[side]} clavicle")
        else:
            rib = min(first + number, RIBS_PER_SIDE - 1)
            line = chest.geometry.posterior_ribs[SIDES.index(side) * RIBS_PER_SIDE + rib]
            names.append(f"{SIDE_NAMES[side]} rib {rib + 1}")
        at = int(generator.integers(7, 15))
        radius = size * float(generator.uniform(0.028, 0.048))
        mask |= _break_bone(chest, line[at], line[at + 1] - line[at - 1], radius, generator)
    sentence = f"Fracture of the {' and the '.join(names)}."
    return Drawn(mask, sentence)


def _break_bone(
    chest: Chest,
    centre: np.ndarray,
    along: np.ndarray,
    radius: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Step, gap and swelling around `centre` (x, y); returns the round mask of what changed.

    Beyond the break the bone is shifted across its axis, most at the break and not at all at the
    mask's edge, as an angulated fragment is.
    """
    size = chest.size
    along = along / np.linalg.norm(along)
    across = np.array([-along[1], along[0]]) * (1 if generator.random() < 0.5 else -1)
    step = chest.geometry.rib_width * float(generator.uniform(0.55, 1.0))
    reach = int(np.ceil(radius)) + 1
    column, row = int(centre[0]), int(centre[1])
    left, top = max(column - reach, 0), max(row - reach, 0)
    window = (slice(top, row + reach + 1), slice(left, column + reach + 1))
    bones = chest.bones[window]
    height, width = bones.shape
    y, x = np.mgrid[top : top + height, left : left + width].astype(np.float32)
    right, down = x + 0.5 - np.float32(centre[0]), y + 0.5 - np.float32(centre[1])
    away = np.sqrt(right**2 + down**2) / np.float32(radius)
    inside = away < 1
    beyond = right * np.float32(along[0]) + down * np.float32(along[1])
    moved = np.where(beyond > 0, step * np.clip(1 - away, 0, 1), 0).astype(np.float32)
    shifted = cv2.remap(
        bones,
        x - left - moved * np.float32(across[0]),
        y - top - moved * np.float32(across[1]),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    sideways = right * np.float32(across[0]) + down * np.float32(across[1])
    gap = np.clip(1 - np.abs(beyond) / np.float32(0.0065 * size), 0, 1)
    gap *= np.abs(sideways) < np.float32(0.9 * chest.geometry.rib_width)
    swelling = np.float32(generator.uniform(0.05, 0.10)) * np.clip(1 - away, 0.12, 1)
    chest.bones[window] = np.where(inside, shifted * (1 - 0.8 * gap) + swelling, bones)
    mask = np.zeros((size, size), bool)
    mask[window] = inside
    return mask
