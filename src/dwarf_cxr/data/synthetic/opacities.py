"""Findings inside the lung: its airspaces, its tissue and what grows in it."""

from dataclasses import dataclass

import cv2
import numpy as np

from dwarf_cxr.data.synthetic.anatomy import Chest
from dwarf_cxr.data.synthetic.body import SIDE_NAMES, SIDES
from dwarf_cxr.data.synthetic.places import (
    Drawn,
    clouds,
    lognormal,
    lung_of,
    pick,
    point_in,
    random_side,
    random_sides,
    share_of_air,
    span,
    where,
    with_point,
    within,
    zone_of,
)
from dwarf_cxr.data.synthetic.raster import (
    blob,
    blur,
    crop,
    depth_inside,
    fill,
    inner_ramp,
    net_tile,
    ribbon,
    smooth_curve,
)


@dataclass(frozen=True, slots=True)
class Collapse:
    """Which kind of atelectasis a film shows: bands, or a lobe that lost its volume."""

    side: int
    lobar: bool
    upper: bool

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "Collapse":
        """A random kind; the lower zones collapse more often than the upper ones."""
        side, lobar, upper = generator.random(3)
        return cls(side=1 if side < 0.5 else -1, lobar=bool(lobar < 0.5), upper=bool(upper < 0.3))


def consolidation(chest: Chest, generator: np.random.Generator) -> Drawn:
    """Fluffy airspace opacity of one or both lungs that hides the vessels."""
    mask = np.zeros((chest.size, chest.size), bool)
    depth = np.zeros((chest.size, chest.size), np.float32)
    sides = random_sides(generator, 0.5)
    for side in sides:
        outwards, down = generator.uniform((0.2, 0.25), (0.8, 0.92)).tolist()
        centre = point_in(lung_of(chest, side), side, outwards, down)
        radius = chest.length(lognormal(generator, 0.118, 0.55, 0.05, 0.32))
        stretch = float(generator.uniform(0.9, 1.7))
        cover = fill(chest.size, [blob(centre, (radius, stretch * radius), 0.16, generator)])
        patch = with_point(within(chest, side, cover), centre)
        depth = np.maximum(depth, inner_ramp(cover > 127, 0.035 * chest.size) * patch)
        mask |= patch
    depth *= 0.1 + 0.9 * share_of_air(chest)
    density = float(generator.uniform(0.26, 0.52))
    fluff = np.clip(1 + 0.38 * clouds(chest, generator), 0.25, 1.7)
    chest.attenuation += np.float32(density) * depth * fluff
    # Filled airspaces hide the vessels; the bronchi in them stay full of air.
    bronchi = np.float32(0.9 + 0.7 * generator.random()) * depth
    chest.markings -= bronchi * np.minimum(chest.markings, np.float32(0.16))
    side_word = "Bilateral" if len(sides) == 2 else SIDE_NAMES[sides[0]].capitalize()
    zone = zone_of(chest, mask, sides[0])
    sentence = pick(
        generator,
        f"{side_word} {zone} zone consolidation.",
        f"Airspace consolidation in {where(sides)}.",
    )
    return Drawn(mask, sentence)


def atelectasis(chest: Chest, generator: np.random.Generator, collapse: Collapse) -> Drawn:
    """Thin bands, or a lobe that has folded up into a wedge with a sharp edge."""
    side = collapse.side
    lung = lung_of(chest, side)
    name = SIDE_NAMES[side]
    mask = np.zeros((chest.size, chest.size), bool)
    if not collapse.lobar:
        for _ in range(int(generator.integers(1, 4))):
            outwards, down, tilt, half = generator.uniform(
                (0.35, 0.60, -0.25, 0.08), (0.65, 0.88, 0.45, 0.15)
            ).tolist()
            centre = point_in(lung, side, outwards, down)
            arm = chest.length(half) * np.array([side * np.cos(tilt), np.sin(tilt)])
            bow = np.array([0.0, -chest.length(0.012)])
            band = ribbon(
                smooth_curve([centre - arm, centre + bow, centre + arm], 12),
                chest.length(float(generator.uniform(0.016, 0.040)))
                * (0.35 + 0.65 * np.sin(np.linspace(0.15, np.pi - 0.15, 12))),
            )
            mask |= with_point((fill(chest.size, [band]) > 127) & lung, centre)
        chest.attenuation += np.float32(generator.uniform(0.22, 0.42)) * inner_ramp(
            mask, 0.014 * chest.size
        )
        sentence = pick(
            generator,
            f"Plate-like atelectasis in the {name} {zone_of(chest, mask, side)} zone.",
            f"Band atelectasis of the {name} lung.",
        )
        return Drawn(mask, sentence)

    amount = float(generator.uniform(0.80, 1.45))
    top, bottom = span(lung)
    tall = bottom - top
    edge = chest.geometry.edges[SIDES.index(side)]
    if collapse.upper:
        # The fissure swings up: a wedge from the hilum to the apex with a curved lower border.
        near = point_in(lung, side, 0.0, 0.34 * amount)
        far_row = top + 0.20 * amount * tall
        far = np.array([np.interp(far_row, edge[:, 1], edge[:, 0]), far_row])
        bow = (near + far) / 2 - (0, 0.05 * tall)
        fissure = smooth_curve([near - (side * 0.1 * chest.size, 0), bow, far], 12)
        roof = [
            (far[0] + side * 0.1 * chest.size, -tall),
            (near[0] - side * 0.1 * chest.size, -tall),
        ]
        anchor = point_in(lung, side, 0.5, 0.08)
    else:
        # The lower lobe folds behind the heart: a triangle at the base beside the midline.
        near = point_in(lung, side, 0.0, 0.56 - 0.12 * amount)
        foot = point_in(lung, side, min(0.15 + 0.45 * amount, 0.8), 0.87)
        bow = (near + foot) / 2 + (side * 0.025 * chest.size, -0.01 * chest.size)
        fissure = smooth_curve([near, bow, foot], 12)
        roof = [
            (foot[0] + side * 0.03 * chest.size, foot[1] + tall),
            (near[0] - side * 0.2 * chest.size, foot[1] + tall),
        ]
        roof.append((near[0] - side * 0.2 * chest.size, near[1]))
        anchor = point_in(lung, side, 0.1, 0.85)
    cover = fill(chest.size, [np.concatenate([fissure, np.array(roof)])])
    mask = with_point(within(chest, side, cover), anchor)
    depth = inner_ramp(cover > 127, 0.012 * chest.size) * mask
    depth *= 0.1 + 0.9 * share_of_air(chest)
    fluff = np.clip(1 + 0.15 * clouds(chest, generator), 0.6, 1.4)
    chest.attenuation += np.float32(generator.uniform(0.30, 0.50)) * depth * fluff
    chest.markings *= 1 - np.float32(0.8) * depth
    lobe = "upper" if collapse.upper else "lower"
    sentence = pick(
        generator,
        f"Atelectasis of the {name} {lobe} lobe with loss of volume.",
        f"Collapse of the {name} {lobe} lobe.",
    )
    return Drawn(mask, sentence)


def fibrosis(chest: Chest, generator: np.random.Generator) -> Drawn:
    """A net of fine lines at the bases or, less often, at the apices."""
    mask = np.zeros((chest.size, chest.size), bool)
    sides = random_sides(generator, 0.5)
    apical = generator.random() < 0.35
    for side in sides:
        lung = lung_of(chest, side)
        low, high = ((0.3, 0.15), (0.7, 0.35)) if apical else ((0.45, 0.62), (0.95, 0.92))
        outwards, down = generator.uniform(low, high).tolist()
        centre = point_in(lung, side, outwards, down)
        radius = chest.length(lognormal(generator, 0.078, 0.65, 0.022, 0.28))
        outline = blob(centre, (radius, 1.25 * radius), 0.18, generator)
        mask |= with_point((fill(chest.size, [outline]) > 127) & lung, centre)
    depth = inner_ramp(mask, 0.022 * chest.size)
    corner = generator.random(2).tolist()
    net = crop(net_tile(chest.size), chest.size, (corner[0], corner[1]))
    strength = float(generator.uniform(0.22, 0.42))
    uneven = np.clip(1 + 0.4 * clouds(chest, generator), 0.3, 1.8)
    chest.attenuation += depth * uneven * (np.float32(strength) * net + np.float32(0.05))
    sentence = pick(
        generator,
        f"Reticular opacities in {where(sides)} suggest fibrosis.",
        f"Fibrotic changes in the {zone_of(chest, mask, sides[0])} zone of {where(sides)}.",
    )
    return Drawn(mask, sentence)


def mass(chest: Chest, generator: np.random.Generator) -> Drawn:
    """One round opacity, rough in outline, of a tenth to a quarter of the film."""
    side = random_side(generator)
    lung = lung_of(chest, side)
    outwards, down = generator.uniform((0.15, 0.15), (0.9, 0.85)).tolist()
    centre = point_in(lung, side, outwards, down)
    radius = chest.length(lognormal(generator, 0.080, 0.28, 0.052, 0.14))
    roughness = float(generator.uniform(0.03, 0.14))
    squash = float(generator.uniform(0.85, 1.2))
    cover = fill(chest.size, [blob(centre, (radius, squash * radius), roughness, generator)])
    # A mass may bulge into the mediastinum, not out of the chest.
    inside = fill(chest.size, [chest.geometry.lungs[SIDES.index(side)]])
    mask = with_point((cover > 127) & (inside > 127), centre)
    depth = depth_inside(mask)
    dome = np.sqrt(np.minimum(depth / np.float32(0.6 * radius), np.float32(1)))
    density = np.float32(generator.uniform(0.28, 0.50))
    chest.attenuation += density * dome * np.clip(1 + 0.10 * clouds(chest, generator), 0.6, 1.4)
    chest.markings *= 1 - np.float32(0.8) * dome
    name = SIDE_NAMES[side]
    sentence = pick(
        generator,
        f"Mass in the {name} {zone_of(chest, mask, side)} zone.",
        f"A large rounded mass lies in the {name} lung.",
    )
    return Drawn(mask, sentence)


def nodule(chest: Chest, generator: np.random.Generator) -> Drawn:
    """One to four round opacities under three centimetres."""
    mask = np.zeros((chest.size, chest.size), bool)
    sides = []
    for _ in range(int(generator.choice([1, 2, 3, 4], p=[0.45, 0.27, 0.16, 0.12]))):
        side = random_side(generator)
        sides.append(side)
        lung = lung_of(chest, side)
        outwards, down = generator.uniform((0.1, 0.1), (0.9, 0.92)).tolist()
        centre = point_in(lung, side, outwards, down)
        radius = chest.length(lognormal(generator, 0.026, 0.30, 0.014, 0.045))
        squash = float(generator.uniform(0.85, 1.15))
        cover = fill(chest.size, [blob(centre, (radius, squash * radius), 0.035, generator)])
        spot = with_point((cover > 127) & lung, centre)
        depth = depth_inside(spot)
        dome = np.sqrt(np.minimum(depth / np.float32(0.7 * radius), np.float32(1)))
        chest.attenuation += np.float32(generator.uniform(0.20, 0.38)) * dome
        mask |= spot
    sides = sorted(set(sides))
    sentence = pick(
        generator,
        f"Nodule in the {SIDE_NAMES[sides[0]]} lung."
        if len(sides) == 1
        else "Nodules in both lungs.",
        f"Small round nodular opacity in {where(sides)}.",
    )
    return Drawn(mask, sentence)


def diffuse_nodule(chest: Chest, generator: np.random.Generator) -> Drawn:
    """Hundreds of small round opacities over one or both lungs."""
    size = chest.size
    sides = random_sides(generator, 0.75)
    spared = float(generator.uniform(0.0, 0.25))
    mask = np.zeros((size, size), bool)
    spots = np.zeros((size, size), np.uint8)
    for side in SIDES:
        places = generator.random((200, 2))
        radii = generator.uniform(0.0035, 0.0075, 200) * size
        greys = generator.integers(100, 256, 200).tolist()
        if side not in sides:
            continue
        field = lung_of(chest, side).copy()
        top, bottom = span(field)
        field[: round(top + spared * (bottom - top))] = False
        mask |= field
        outer, inner = chest.geometry.lungs[SIDES.index(side)][:, 0], chest.geometry.hila[0][0]
        left, right = min(outer.min(), inner), max(outer.max(), inner)
        x = (left + places[:, 0] * (right - left)) * 16
        y = (top + places[:, 1] * (bottom - top)) * 16
        for column, row, radius, grey in zip(
            x.astype(int).tolist(), y.astype(int).tolist(), radii.tolist(), greys, strict=True
        ):
            cv2.circle(
                spots, (column, row), int(radius * 16), grey, -1, lineType=cv2.LINE_AA, shift=4
            )
    density = np.float32(generator.uniform(0.26, 0.44))
    haze = np.float32(0.035) * inner_ramp(mask, 0.05 * size)
    sown = blur(spots, 0.0035 * size) * mask
    chest.attenuation += haze + sown * np.float32(density / 255)
    sentence = pick(
        generator,
        f"Diffuse small nodules throughout {where(sides)}.",
        f"Innumerable small nodular opacities in {where(sides)}.",
    )
    return Drawn(mask, sentence)


def calcification(chest: Chest, generator: np.random.Generator) -> Drawn:
    """Dense granulomas in the lung, or a calcified piece of the aortic arch."""
    size = chest.size
    mask = np.zeros((size, size), bool)
    if generator.random() < 0.35:
        # A calcified arch: the shell of the aortic knob, in pieces.
        start = int(generator.integers(0, 4))
        arc = chest.geometry.knob[start : start + 7] - (0.008 * size, 0)
        band = ribbon(arc, float(generator.uniform(0.011, 0.022)) * size)
        mask |= with_point(fill(size, [band]) > 127, arc[3])
        place = "Calcified aortic arch."
    else:
        for _ in range(int(generator.integers(1, 4))):
            side = random_side(generator)
            lung = lung_of(chest, side)
            outwards, down = generator.uniform((0.05, 0.1), (0.95, 0.8)).tolist()
            centre = point_in(lung, side, outwards, down)
            radius = size * lognormal(generator, 0.012, 0.65, 0.006, 0.06)
            outline = blob(centre, (radius, radius), 0.16, generator)
            mask |= with_point((fill(size, [outline]) > 127) & lung, centre)
        place = f"Calcified granuloma in the {SIDE_NAMES[side]} lung."
    specks = np.clip(1 + 0.5 * clouds(chest, generator), 0.4, 1.8)
    density = np.float32(generator.uniform(0.60, 1.0))
    chest.attenuation += density * inner_ramp(mask, 0.006 * size) * specks
    return Drawn(mask, pick(generator, place, "Dense calcification."))


def emphysema(chest: Chest, generator: np.random.Generator) -> Drawn:
    """Dark, marking-poor patches in lungs that `findings.altered` has overinflated."""
    mask = chest.lungs[0] | chest.lungs[1]
    # Bullae and lost vessels: darker patches without markings.
    patches = np.clip(clouds(chest, generator), -1, 1.5) * inner_ramp(mask, 0.03 * chest.size)
    chest.attenuation -= np.float32(0.028) * patches + np.float32(0.015) * mask
    chest.markings *= 1 - np.float32(0.3) * np.clip(patches, 0, 1)
    sentence = pick(
        generator,
        "Hyperinflated, dark lungs with a flat diaphragm in keeping with emphysema.",
        "Emphysema with overinflation of both lungs.",
    )
    return Drawn(mask, sentence)
