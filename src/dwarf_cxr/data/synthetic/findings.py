"""The thirteen findings of ChestX-Det, drawn where the disease would lie.

A finding changes the chest in one or both of two ways. `altered` bends a patient's proportions
before anything is drawn (a larger heart, a flatter diaphragm). A drawer of `DRAWERS` then paints
on the drawn chest and returns the mask.

What the masks are:

- Cardiomegaly: the enlarged heart's silhouette, above the diaphragm as below it.
- Emphysema: both lungs as far as they are seen beside heart and mediastinum.
- every other finding: exactly the pixels that its drawer painted. Nothing outside changes, with
  one exception: atelectasis that takes volume also raises the diaphragm and draws the heart
  over on its side, as in the patient, and those secondary signs are not part of its mask.
- Diffuse Nodule: the field of lung in which the nodules are sown, as annotators outline it;
  between the nodules the field is a little hazy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dwarf_cxr.data.synthetic.anatomy import (
    RIBS_PER_SIDE,
    SIDE_NAMES,
    SIDES,
    Chest,
    Proportions,
)
from dwarf_cxr.data.synthetic.raster import (
    blob,
    blur,
    cloud_tile,
    crop,
    depth_inside,
    fill,
    inner_ramp,
    net_tile,
    ribbon,
    smooth_curve,
    strokes,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One finding as drawn: its mask, bool (size, size), and the sentence of the report."""

    mask: np.ndarray
    sentence: str


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


def altered(
    body: Proportions,
    present: Sequence[str],
    generators: dict[str, np.random.Generator],
) -> tuple[Proportions, Collapse | None]:
    """The patient's proportions as the disease has bent them, and the kind of atelectasis.

    Only Cardiomegaly, Emphysema and Atelectasis bend them; each takes its own random numbers
    first here and goes on with them in its drawer.
    """
    collapse = None
    if "Emphysema" in present:
        more = generators["Emphysema"].uniform(0.6, 1.2)
        body = replace(
            body,
            dome_right=body.dome_right + 0.050 * more,
            dome_step=0.5 * body.dome_step,
            flatness=0.80 + 0.12 * more,
            angle_depth=0.75 * body.angle_depth,
            half_width=body.half_width * (1 + 0.035 * more),
            wall=0.8 * body.wall,
            heart_ratio=body.heart_ratio - 0.075 * more,
            rib_spacing=body.rib_spacing * (1 + 0.05 * more),
            rib_drop=0.75 * body.rib_drop,
            air=body.air + 0.05 + 0.06 * more,
            vessels=body.vessels * (0.75 - 0.25 * more),
        )
    if "Cardiomegaly" in present:
        ratio = float(generators["Cardiomegaly"].uniform(0.545, 0.655))
        body = replace(
            body,
            heart_ratio=ratio,
            heart_height=body.heart_height * (1 + 0.55 * (ratio - 0.5)),
            vessels=1.15 * body.vessels,
        )
    if "Atelectasis" in present:
        collapse = Collapse.draw(generators["Atelectasis"])
        if collapse.lobar:
            rise = 0.035 if collapse.upper else 0.050
            shift = 0.09 * collapse.side
            body = replace(
                body,
                dome_right=body.dome_right - (rise if collapse.side < 0 else 0.0),
                dome_step=body.dome_step + (-rise if collapse.side > 0 else rise),
                heart_left_share=body.heart_left_share + shift,
            )
    return body, collapse


# --- where -----------------------------------------------------------------------------------


def _lung(chest: Chest, side: int) -> np.ndarray:
    return chest.lungs[SIDES.index(side)]


def _side(generator: np.random.Generator) -> int:
    return SIDES[int(generator.integers(2))]


def _sides(generator: np.random.Generator, both: float) -> tuple[int, ...]:
    """Both sides with probability `both`, otherwise one."""
    side = _side(generator)
    return SIDES if generator.random() < both else (side,)


def _span(lung: np.ndarray) -> tuple[int, int]:
    """First and last row of a lung."""
    rows = np.flatnonzero(lung.any(axis=1))
    return int(rows[0]), int(rows[-1])


def _point_in(lung: np.ndarray, side: int, outwards: float, down: float) -> np.ndarray:
    """A point (x, y) inside a lung: `outwards` 0 medial to 1 lateral, `down` 0 apex to 1 base."""
    rows = np.flatnonzero(lung.any(axis=1))
    # A large heart may cut a lung in two, so the wanted row can be empty: take the nearest.
    row = rows[np.argmin(np.abs(rows - (rows[0] + down * (rows[-1] - rows[0]))))]
    columns = np.flatnonzero(lung[row])
    inner, outer = (columns[0], columns[-1]) if side > 0 else (columns[-1], columns[0])
    column = columns[np.argmin(np.abs(columns - (inner + outwards * (outer - inner))))]
    return np.array([column + 0.5, row + 0.5])


def _with_point(mask: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The mask with the pixel of `point` set, so that a tiny lesion never vanishes."""
    column, row = point.astype(int)
    mask[row, column] = True
    return mask


def _zone(chest: Chest, mask: np.ndarray, side: int) -> str:
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = _span(_lung(chest, side))
    part = ((rows[0] + rows[-1]) / 2 - top) / max(bottom - top, 1)
    return ("upper", "mid", "lower")[min(max(int(3 * part), 0), 2)]


def _where(sides: Sequence[int]) -> str:
    return "both lungs" if len(sides) == 2 else f"the {SIDE_NAMES[sides[0]]} lung"


def _pick(generator: np.random.Generator, *choices: str) -> str:
    return choices[int(generator.integers(len(choices)))]


def _lognormal(
    generator: np.random.Generator, median: float, spread: float, low: float, high: float
) -> float:
    return float(np.clip(median * np.exp(spread * generator.standard_normal()), low, high))


def _clouds(chest: Chest, generator: np.random.Generator) -> np.ndarray:
    corner = generator.random(2).tolist()
    return crop(cloud_tile(chest.size), chest.size, (corner[0], corner[1]))


# --- the drawers -----------------------------------------------------------------------------


def _cardiomegaly(chest: Chest, generator: np.random.Generator) -> Drawn:
    sentence = _pick(
        generator,
        "The heart is enlarged.",
        "Cardiomegaly.",
        "The cardiac silhouette is wider than half of the chest.",
    )
    return Drawn(chest.heart.copy(), sentence)


def _emphysema(chest: Chest, generator: np.random.Generator) -> Drawn:
    mask = chest.lungs[0] | chest.lungs[1]
    # Bullae and lost vessels: darker patches without markings.
    patches = np.clip(_clouds(chest, generator), -1, 1.5) * inner_ramp(mask, 0.03 * chest.size)
    chest.attenuation -= np.float32(0.028) * patches + np.float32(0.015) * mask
    chest.markings *= 1 - np.float32(0.3) * np.clip(patches, 0, 1)
    sentence = _pick(
        generator,
        "Hyperinflated, dark lungs with a flat diaphragm in keeping with emphysema.",
        "Emphysema with overinflation of both lungs.",
    )
    return Drawn(mask, sentence)


def _consolidation(chest: Chest, generator: np.random.Generator) -> Drawn:
    mask = np.zeros((chest.size, chest.size), bool)
    sides = _sides(generator, 0.45)
    for side in sides:
        lung = _lung(chest, side)
        outwards, down = generator.uniform((0.2, 0.25), (0.8, 0.92)).tolist()
        centre = _point_in(lung, side, outwards, down)
        radius = chest.length(_lognormal(generator, 0.115, 0.40, 0.05, 0.24))
        stretch = float(generator.uniform(0.9, 1.45))
        outline = blob(centre, (radius, stretch * radius), 0.16, generator)
        patch = (fill(chest.size, [outline]) > 127) & lung
        mask |= _with_point(patch, centre)
    depth = inner_ramp(mask, 0.035 * chest.size)
    density = float(generator.uniform(0.26, 0.52))
    fluff = np.clip(1 + 0.38 * _clouds(chest, generator), 0.25, 1.7)
    chest.attenuation += np.float32(density) * depth * fluff
    # Filled airspaces hide the vessels; the bronchi in them stay full of air.
    bronchi = np.float32(0.9 + 0.7 * generator.random()) * depth
    chest.markings -= bronchi * np.minimum(chest.markings, np.float32(0.16))
    side_word = "Bilateral" if len(sides) == 2 else SIDE_NAMES[sides[0]].capitalize()
    zone = _zone(chest, mask, sides[0])
    sentence = _pick(
        generator,
        f"{side_word} {zone} zone consolidation.",
        f"Airspace consolidation in {_where(sides)}.",
    )
    return Drawn(mask, sentence)


def _effusion(chest: Chest, generator: np.random.Generator) -> Drawn:
    mask = np.zeros((chest.size, chest.size), bool)
    sides = _sides(generator, 0.45)
    for side in sides:
        lung = _lung(chest, side)
        edge = chest.geometry.edges[SIDES.index(side)]
        angle, apex = edge[-1], edge[0]
        height = _lognormal(generator, 0.30, 0.62, 0.10, 0.80) * (angle[1] - apex[1])
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
        floor = [(wall - 1.1 * far, 2.0 * chest.size), (wall + 0.5 * far, 2.0 * chest.size)]
        cover = fill(chest.size, [np.concatenate([meniscus, floor])]) > 127
        mask |= _with_point(cover & lung, _point_in(lung, side, 0.9, 0.97))
    depth = inner_ramp(mask, 0.030 * chest.size)
    density = np.float32(generator.uniform(0.62, 0.92))
    chest.attenuation += density * (np.float32(0.15) + np.float32(0.85) * depth) * mask
    chest.markings *= 1 - depth
    if len(sides) == 2:
        sentence = _pick(generator, "Bilateral pleural effusions.", "Effusions at both bases.")
    else:
        name = SIDE_NAMES[sides[0]]
        sentence = _pick(
            generator,
            f"{name.capitalize()} pleural effusion.",
            f"Fluid fills the {name} costophrenic angle with a meniscus.",
        )
    return Drawn(mask, sentence)


def _pneumothorax(chest: Chest, generator: np.random.Generator) -> Drawn:
    side = _side(generator)
    lung = _lung(chest, side)
    edge = chest.geometry.edges[SIDES.index(side)]
    depth = chest.length(_lognormal(generator, 0.030, 0.50, 0.016, 0.11))
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
    mask = _with_point(cover & lung, _point_in(lung, side, 0.6, 0.06))
    chest.markings[mask] = 0
    chest.attenuation -= np.float32(generator.uniform(0.07, 0.12)) * mask
    line = np.zeros((chest.size, chest.size), np.uint8)
    strokes(line, [pleura], max(1, round(chest.size / 224)))
    chest.attenuation += line * (mask * np.float32(0.22 / 255))
    name = SIDE_NAMES[side]
    sentence = _pick(
        generator,
        f"{name.capitalize()} pneumothorax with a visible pleural line.",
        f"A rim of air without lung markings lies around the {name} lung.",
    )
    return Drawn(mask, sentence)


def _fibrosis(chest: Chest, generator: np.random.Generator) -> Drawn:
    mask = np.zeros((chest.size, chest.size), bool)
    sides = _sides(generator, 0.5)
    apical = generator.random() < 0.35
    for side in sides:
        lung = _lung(chest, side)
        low, high = ((0.3, 0.15), (0.7, 0.35)) if apical else ((0.45, 0.62), (0.95, 0.92))
        outwards, down = generator.uniform(low, high).tolist()
        centre = _point_in(lung, side, outwards, down)
        radius = chest.length(_lognormal(generator, 0.085, 0.50, 0.028, 0.22))
        outline = blob(centre, (radius, 1.25 * radius), 0.18, generator)
        mask |= _with_point((fill(chest.size, [outline]) > 127) & lung, centre)
    depth = inner_ramp(mask, 0.022 * chest.size)
    corner = generator.random(2).tolist()
    net = crop(net_tile(chest.size), chest.size, (corner[0], corner[1]))
    strength = float(generator.uniform(0.30, 0.55))
    uneven = np.clip(1 + 0.4 * _clouds(chest, generator), 0.3, 1.8)
    chest.attenuation += depth * uneven * (np.float32(strength) * net + np.float32(0.05))
    sentence = _pick(
        generator,
        f"Reticular opacities in {_where(sides)} suggest fibrosis.",
        f"Fibrotic changes in the {_zone(chest, mask, sides[0])} zone of {_where(sides)}.",
    )
    return Drawn(mask, sentence)


def _atelectasis(chest: Chest, generator: np.random.Generator, collapse: Collapse) -> Drawn:
    side = collapse.side
    lung = _lung(chest, side)
    name = SIDE_NAMES[side]
    mask = np.zeros((chest.size, chest.size), bool)
    if not collapse.lobar:
        for _ in range(int(generator.integers(1, 4))):
            outwards, down, tilt, half = generator.uniform(
                (0.35, 0.60, -0.25, 0.07), (0.65, 0.88, 0.45, 0.13)
            ).tolist()
            centre = _point_in(lung, side, outwards, down)
            arm = chest.length(half) * np.array([side * np.cos(tilt), np.sin(tilt)])
            bow = np.array([0.0, -chest.length(0.012)])
            band = ribbon(
                smooth_curve([centre - arm, centre + bow, centre + arm], 12),
                chest.length(float(generator.uniform(0.014, 0.032)))
                * (0.35 + 0.65 * np.sin(np.linspace(0.15, np.pi - 0.15, 12))),
            )
            mask |= _with_point((fill(chest.size, [band]) > 127) & lung, centre)
        chest.attenuation += np.float32(generator.uniform(0.22, 0.42)) * inner_ramp(
            mask, 0.007 * chest.size
        )
        sentence = _pick(
            generator,
            f"Plate-like atelectasis in the {name} {_zone(chest, mask, side)} zone.",
            f"Band atelectasis of the {name} lung.",
        )
        return Drawn(mask, sentence)

    amount = float(generator.uniform(0.75, 1.25))
    top, bottom = _span(lung)
    tall = bottom - top
    edge = chest.geometry.edges[SIDES.index(side)]
    if collapse.upper:
        # The fissure swings up: a wedge from the hilum to the apex with a curved lower border.
        near = _point_in(lung, side, 0.0, 0.34 * amount)
        far_row = top + 0.20 * amount * tall
        far = np.array([np.interp(far_row, edge[:, 1], edge[:, 0]), far_row])
        bow = (near + far) / 2 - (0, 0.05 * tall)
        fissure = smooth_curve([near - (side * 0.1 * chest.size, 0), bow, far], 12)
        roof = [
            (far[0] + side * 0.1 * chest.size, -tall),
            (near[0] - side * 0.1 * chest.size, -tall),
        ]
        anchor = _point_in(lung, side, 0.5, 0.08)
    else:
        # The lower lobe folds behind the heart: a triangle at the base beside the midline.
        near = _point_in(lung, side, 0.0, 0.50)
        foot = _point_in(lung, side, 0.35 + 0.3 * amount, 0.99)
        bow = (near + foot) / 2 + (side * 0.02 * chest.size, 0)
        fissure = smooth_curve([near, bow, foot], 12)
        roof = [(foot[0], foot[1] + tall), (near[0] - side * 0.2 * chest.size, foot[1] + tall)]
        roof.append((near[0] - side * 0.2 * chest.size, near[1]))
        anchor = _point_in(lung, side, 0.1, 0.85)
    cover = fill(chest.size, [np.concatenate([fissure, np.array(roof)])]) > 127
    mask = _with_point(cover & lung, anchor)
    depth = inner_ramp(mask, 0.012 * chest.size)
    fluff = np.clip(1 + 0.15 * _clouds(chest, generator), 0.6, 1.4)
    chest.attenuation += np.float32(generator.uniform(0.30, 0.50)) * depth * fluff
    chest.markings *= 1 - np.float32(0.8) * depth
    lobe = "upper" if collapse.upper else "lower"
    sentence = _pick(
        generator,
        f"Atelectasis of the {name} {lobe} lobe with loss of volume.",
        f"Collapse of the {name} {lobe} lobe.",
    )
    return Drawn(mask, sentence)


def _round_opacity(
    chest: Chest,
    centre: np.ndarray,
    radius: float,
    roughness: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Cover of a roundish lesion, uint8, without its part on the far side of the chest wall."""
    squash = float(generator.uniform(0.85, 1.2))
    cover = fill(chest.size, [blob(centre, (radius, squash * radius), roughness, generator)])
    return cover


def _mass(chest: Chest, generator: np.random.Generator) -> Drawn:
    side = _side(generator)
    lung = _lung(chest, side)
    outwards, down = generator.uniform((0.15, 0.15), (0.9, 0.85)).tolist()
    centre = _point_in(lung, side, outwards, down)
    radius = chest.length(_lognormal(generator, 0.080, 0.28, 0.052, 0.14))
    roughness = float(generator.uniform(0.03, 0.14))
    cover = _round_opacity(chest, centre, radius, roughness, generator)
    # A mass may bulge into the mediastinum, not out of the chest.
    inside = fill(chest.size, [chest.geometry.lungs[SIDES.index(side)]])
    mask = _with_point((cover > 127) & (inside > 127), centre)
    depth = depth_inside(mask)
    dome = np.sqrt(np.minimum(depth / np.float32(0.6 * radius), np.float32(1)))
    density = np.float32(generator.uniform(0.28, 0.50))
    chest.attenuation += density * dome * np.clip(1 + 0.10 * _clouds(chest, generator), 0.6, 1.4)
    chest.markings *= 1 - np.float32(0.8) * dome
    name = SIDE_NAMES[side]
    sentence = _pick(
        generator,
        f"Mass in the {name} {_zone(chest, mask, side)} zone.",
        f"A large rounded mass lies in the {name} lung.",
    )
    return Drawn(mask, sentence)


def _nodule(chest: Chest, generator: np.random.Generator) -> Drawn:
    mask = np.zeros((chest.size, chest.size), bool)
    sides = []
    for _ in range(int(generator.choice([1, 2, 3, 4], p=[0.45, 0.27, 0.16, 0.12]))):
        side = _side(generator)
        sides.append(side)
        lung = _lung(chest, side)
        outwards, down = generator.uniform((0.1, 0.1), (0.9, 0.92)).tolist()
        centre = _point_in(lung, side, outwards, down)
        radius = chest.length(_lognormal(generator, 0.026, 0.30, 0.014, 0.045))
        cover = _round_opacity(chest, centre, radius, 0.05, generator)
        spot = _with_point((cover > 127) & lung, centre)
        depth = depth_inside(spot)
        dome = np.sqrt(np.minimum(depth / np.float32(0.7 * radius), np.float32(1)))
        chest.attenuation += np.float32(generator.uniform(0.20, 0.38)) * dome
        mask |= spot
    sides = sorted(set(sides))
    sentence = _pick(
        generator,
        f"Nodule in the {SIDE_NAMES[sides[0]]} lung."
        if len(sides) == 1
        else "Nodules in both lungs.",
        f"Small round nodular opacity in {_where(sides)}.",
    )
    return Drawn(mask, sentence)


def _diffuse_nodule(chest: Chest, generator: np.random.Generator) -> Drawn:
    size = chest.size
    sides = _sides(generator, 0.75)
    spared = float(generator.uniform(0.0, 0.25))
    mask = np.zeros((size, size), bool)
    spots = np.zeros((size, size), np.uint8)
    for side in SIDES:
        places = generator.random((110, 2))
        radii = generator.uniform(0.0048, 0.0100, 110) * size
        if side not in sides:
            continue
        field = _lung(chest, side).copy()
        top, bottom = _span(field)
        field[: round(top + spared * (bottom - top))] = False
        mask |= field
        outer, inner = chest.geometry.lungs[SIDES.index(side)][:, 0], chest.geometry.hila[0][0]
        left, right = min(outer.min(), inner), max(outer.max(), inner)
        x = (left + places[:, 0] * (right - left)) * 16
        y = (top + places[:, 1] * (bottom - top)) * 16
        for column, row, radius in zip(
            x.astype(int).tolist(), y.astype(int).tolist(), radii.tolist(), strict=True
        ):
            value = 120 + (column * 7 + row * 13) % 136
            cv2.circle(
                spots, (column, row), int(radius * 16), value, -1, lineType=cv2.LINE_AA, shift=4
            )
    density = np.float32(generator.uniform(0.26, 0.44))
    haze = np.float32(0.035) * inner_ramp(mask, 0.05 * size)
    sown = blur(spots, 0.004 * size) * mask
    chest.attenuation += haze + sown * np.float32(density / 255)
    sentence = _pick(
        generator,
        f"Diffuse small nodules throughout {_where(sides)}.",
        f"Innumerable small nodular opacities in {_where(sides)}.",
    )
    return Drawn(mask, sentence)


def _calcification(chest: Chest, generator: np.random.Generator) -> Drawn:
    size = chest.size
    mask = np.zeros((size, size), bool)
    if generator.random() < 0.35:
        # A calcified arch: the shell of the aortic knob, in pieces.
        start = int(generator.integers(0, 4))
        arc = chest.geometry.knob[start : start + 7] - (0.008 * size, 0)
        band = ribbon(arc, float(generator.uniform(0.011, 0.022)) * size)
        mask |= _with_point(fill(size, [band]) > 127, arc[3])
        place = "Calcified aortic arch."
    else:
        for _ in range(int(generator.integers(1, 4))):
            side = _side(generator)
            lung = _lung(chest, side)
            outwards, down = generator.uniform((0.05, 0.1), (0.95, 0.8)).tolist()
            centre = _point_in(lung, side, outwards, down)
            radius = size * _lognormal(generator, 0.014, 0.55, 0.007, 0.05)
            outline = blob(centre, (radius, radius), 0.16, generator)
            mask |= _with_point((fill(size, [outline]) > 127) & lung, centre)
        place = f"Calcified granuloma in the {SIDE_NAMES[side]} lung."
    specks = np.clip(1 + 0.5 * _clouds(chest, generator), 0.4, 1.8)
    density = np.float32(generator.uniform(0.60, 1.0))
    chest.attenuation += density * inner_ramp(mask, 0.006 * size) * specks
    return Drawn(mask, _pick(generator, place, "Dense calcification."))


def _pleural_thickening(chest: Chest, generator: np.random.Generator) -> Drawn:
    size = chest.size
    mask = np.zeros((size, size), bool)
    sides = _sides(generator, 0.3)
    for side in sides:
        lung = _lung(chest, side)
        edge = chest.geometry.edges[SIDES.index(side)]
        count = int(generator.integers(9, 24))
        # At the apex, or anywhere down the side wall.
        start = 0 if generator.random() < 0.3 else int(generator.integers(6, 39 - count))
        piece = edge[start : start + count]
        width = size * _lognormal(generator, 0.021, 0.30, 0.011, 0.045)
        swell = np.sin(np.linspace(0.12, np.pi - 0.12, count)) ** 0.6
        lumps = np.clip(1 + 0.18 * generator.standard_normal(24)[:count], 0.6, 1.5)
        lumps = np.convolve(np.pad(lumps, 2, mode="edge"), np.full(5, 0.2), mode="valid")
        band = ribbon(piece, 2 * width * swell * lumps)
        anchor = _point_in(lung, side, 1.0, 0.3)
        patch = (fill(size, [band]) > 127) & lung
        mask |= patch if patch.any() else _with_point(patch, anchor)
    depth = inner_ramp(mask, 0.010 * size)
    density = np.float32(generator.uniform(0.26, 0.46))
    chest.attenuation += density * depth
    chest.markings *= 1 - np.float32(0.7) * depth
    word = "Bilateral" if len(sides) == 2 else SIDE_NAMES[sides[0]].capitalize()
    sentence = _pick(
        generator,
        f"{word} pleural thickening.",
        f"{word} thickening of the pleura along the chest wall.",
    )
    return Drawn(mask, sentence)


def _fracture(chest: Chest, generator: np.random.Generator) -> Drawn:
    size = chest.size
    mask = np.zeros((size, size), bool)
    names = []
    side = _side(generator)
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


DRAWERS: dict[str, Callable[[Chest, np.random.Generator], Drawn]] = {
    "Fracture": _fracture,
    "Emphysema": _emphysema,
    "Cardiomegaly": _cardiomegaly,
    "Fibrosis": _fibrosis,
    "Diffuse Nodule": _diffuse_nodule,
    "Nodule": _nodule,
    "Mass": _mass,
    "Consolidation": _consolidation,
    "Calcification": _calcification,
    "Pleural Thickening": _pleural_thickening,
    "Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
}
"""In the order of drawing: air and fluid in the pleural space come last, they hide the lung.

Atelectasis stands apart (`draw_findings`), because its kind is settled with the proportions.
"""


def draw_findings(
    chest: Chest,
    present: Sequence[str],
    generators: dict[str, np.random.Generator],
    collapse: Collapse | None,
) -> dict[str, Drawn]:
    """Draw all present findings onto the chest, in place; the masks as drawn."""
    drawn = {}
    if collapse is not None:
        drawn["Atelectasis"] = _atelectasis(chest, generators["Atelectasis"], collapse)
    for finding, drawer in DRAWERS.items():
        if finding in present:
            drawn[finding] = drawer(chest, generators[finding])
    return drawn
