"""The chest without disease, drawn as attenuation.

Attenuation is a unitless sum along the ray, as film density is: 0 in air, about 1 through the
soft tissue of the chest. Lengths are in the chest units of `body.py`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dwarf_cxr.data.synthetic.body import (
    SIDES,
    VESSELS_PER_SIDE,
    Geometry,
    Pose,
    Proportions,
    both,
    mirrored,
    place,
)
from dwarf_cxr.data.synthetic.raster import (
    blur,
    closed_curve,
    cloud_tile,
    crop,
    ellipse,
    fill,
    ribbon,
    smooth_curve,
    strokes,
)

# Parts that are alike in all patients, in chest units; the shoulders are moved down as a whole.
_BLADES = both(
    closed_curve(
        [
            (0.36, 0.155),
            (0.305, 0.20),
            (0.275, 0.29),
            (0.285, 0.40),
            (0.325, 0.42),
            (0.36, 0.31),
            (0.40, 0.21),
        ],
        30,
    )
)
_CRESTS = both(smooth_curve([(0.30, 0.175), (0.36, 0.13), (0.425, 0.115)], 8))
_ARM_HEADS = both(ellipse((0.445, 0.185), (0.045, 0.048)))
_ARMS = both(ribbon(smooth_curve([(0.455, 0.21), (0.50, 0.42), (0.545, 0.7)], 8), 0.052))
_TRACHEA = ribbon(smooth_curve([(0, -0.1), (0.002, 0.12), (-0.004, 0.30)], 10), 0.036)
_BRONCHI = ribbon(
    smooth_curve(
        [
            [(-0.004, 0.29), (-0.045, 0.335), (-0.075, 0.375)],
            [(-0.004, 0.29), (0.050, 0.330), (0.090, 0.355)],
        ],
        8,
    ),
    0.020,
)


def _vertebrae() -> np.ndarray:
    """Vertebral bodies from the neck down, (17, 4, 2): clockwise from the upper left corner."""
    top = np.arange(-0.02, 1.06, 0.066)
    right, bottom = 0.027 + 0.010 * top, top + 0.053
    corners = [(-right, top), (right, top), (right, bottom), (-right, bottom)]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


_VERTEBRAE = _vertebrae()


@dataclass(slots=True, eq=False)
class Chest:
    """A chest being drawn; findings change `attenuation`, `markings` and `bones` in place."""

    size: int
    body: Proportions
    geometry: Geometry
    air: tuple[np.ndarray, np.ndarray]
    """Share of each pixel that is lung beside heart and mediastinum, uint8, 255 all of it."""
    lungs: tuple[np.ndarray, np.ndarray]
    """The same as bool (size, size): half of the pixel or more."""
    heart: np.ndarray
    """The heart's silhouette, bool (size, size)."""
    attenuation: np.ndarray
    """Everything but the bones and the vessels, float32 (size, size)."""
    markings: np.ndarray
    """Vessels and texture of the lungs, float32 (size, size)."""
    bones: np.ndarray
    """Ribs, clavicles, scapulae, spine, float32 (size, size)."""

    def length(self, part: float) -> float:
        """A part of the film's side in pixels."""
        return part * self.size


def draw_chest(body: Proportions, pose: Pose, generator: np.random.Generator) -> Chest:
    """Draw a chest without local disease; `generator` only moves the soft tissue's clouds."""
    size = pose.size
    geometry = place(body, pose)
    covers = [fill(size, [outline]) for outline in geometry.lungs]
    heart = fill(size, [geometry.heart])
    middle = fill(size, [geometry.mediastinum])
    shadow = np.maximum(heart, middle)
    left, right = (blur(np.minimum(cover, 255 - shadow), 0.0035 * size) for cover in covers)
    air = np.maximum(left, right)

    attenuation = _soft_tissue(body, pose, air, generator)
    attenuation -= air * np.float32(0.86 * body.air / 255)
    attenuation += blur(shadow, 0.008 * size) * np.float32(0.30 / 255)

    markings = _vessels(body, geometry, size)
    corner = tuple(generator.random(2).tolist())
    texture = crop(cloud_tile(size), size, (corner[0], corner[1]))
    markings += np.float32(0.020) * texture
    markings *= air * np.float32(1 / 255)
    return Chest(
        size=size,
        body=body,
        geometry=geometry,
        air=(left, right),
        lungs=(left > 127, right > 127),
        heart=heart > 127,
        attenuation=attenuation,
        markings=markings,
        bones=_bones(body, geometry, pose),
    )


def _soft_tissue(
    body: Proportions, pose: Pose, air: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Torso, neck, arms, abdomen and breasts; smooth, so drawn at half the size."""
    small = max(pose.size // 2, 16)
    w, flank = body.half_width, body.half_width + body.wall
    drop = body.shoulder_drop
    right_half = np.array(
        [
            (body.neck, -0.15),
            (body.neck, 0.0),
            (body.neck + 0.035, 0.045),
            (0.24, 0.070 + 0.4 * drop),
            (0.37, 0.095 + drop),
            (0.47, 0.150 + drop),
            (0.52, 0.28 + drop),
            (0.57, 0.50),
            (0.60, 0.72),
            (0.52, 0.72),
            (0.475, 0.52),
            (flank + 0.035, 0.37),
            (flank, 0.50),
            (flank - 0.005, 0.75),
            (flank + 0.005, 1.2),
        ]
    )
    outline = np.concatenate([right_half, mirrored(right_half, -1)[::-1]])
    torso = fill(small, [pose(smooth_curve(outline, 120), small)])
    rounded = blur(torso, 0.045 * small)
    tissue = torso * np.float32(0.30 / 255) + rounded * np.float32(0.62 / 255)

    # Heights along the midline, in chest units; the tilt is too small to matter here.
    lift = pose.offset[1] + 0.5 * (pose.matrix[1, 1] - 1)
    row = (np.arange(small, dtype=np.float32) + 0.5) / small - lift
    rise = np.clip((row - (body.dome_right - 0.16)) / 0.26, 0, 1)
    top = np.clip((0.32 - row) / 0.32, 0, 1)
    tissue += tissue * (0.62 * rise - 0.22 * top)[:, None].astype(np.float32)

    inner = cv2.resize(air, (small, small), interpolation=cv2.INTER_AREA)
    tissue -= blur(inner, 0.035 * small) * np.float32(0.14 * body.air / 255)
    if body.breast > 0:
        mound = ellipse((0.60 * w, body.dome_right - 0.03), (0.145, 0.155))
        mounds = fill(small, pose(both(mound), small))
        tissue += blur(mounds, 0.016 * small) * np.float32(body.breast / 255)
    if body.gastric_bubble > 0:
        under = body.dome(1) + body.angle_depth * 0.4 + 0.065
        gas = fill(small, [pose(ellipse((0.55 * w, under), (0.055, 0.026)), small)])
        tissue -= blur(gas, 0.006 * small) * np.float32((0.25 + body.gastric_bubble) / 255)
    airways = fill(small, pose(_BRONCHI, small), value=128)
    fill(small, [pose(_TRACHEA, small)], onto=airways)
    tissue -= blur(airways, 0.007 * small) * np.float32(0.32 / 255)
    unevenness = generator.normal(0, 0.035, (7, 7)).astype(np.float32)
    tissue *= 1 + cv2.resize(unevenness, (small, small), interpolation=cv2.INTER_CUBIC)
    tissue *= np.float32(body.thickness)
    return cv2.resize(tissue, (pose.size, pose.size), interpolation=cv2.INTER_LINEAR)


def _vessels(body: Proportions, geometry: Geometry, size: int) -> np.ndarray:
    """Vessels that branch out of the hila and thin towards the edge, float32."""
    fan = body.vessel_fan
    part = (np.arange(VESSELS_PER_SIDE) + 1.9 * fan[..., 0] - 0.45) / VESSELS_PER_SIDE
    heading = np.pi * (-0.46 + 0.94 * part)
    reach = (0.10 + 0.28 * fan[..., 1]) * (1 + 0.5 * np.clip(part - 0.55, 0, 1)) * size
    bend = (fan[..., 2] - 0.5) * 1.5
    # They leave the hilum one below the other, not from one point.
    spread = np.stack([0.02 * (fan[..., 3] - 0.5), 0.115 * (part - 0.45)], axis=-1) * size
    roots = np.stack(geometry.hila)[:, None] + spread
    main = _branches(roots, heading, reach, bend)
    twigs = []
    for position, column in ((3, 3), (4, 4), (6, 5)):
        split = np.where(fan[..., column] > 0.5, 1, -1) * (0.35 + 0.5 * fan[..., column])
        twigs.append(
            _branches(
                main[:, :, position],
                heading + bend * position / 8 + split,
                reach * (0.28 + 0.35 * fan[..., 5 - column % 3]),
                -bend,
                samples=5,
            )
        )
    cover = np.zeros((size, size), np.uint8)
    unit = size / 224
    strokes(cover, np.concatenate(twigs).reshape(-1, 5, 2), max(1, round(0.8 * unit)), 80)
    lines = main.reshape(-1, 9, 2)
    strokes(cover, lines, max(1, round(0.9 * unit)), 105)
    strokes(cover, lines[:, :5], max(1, round(1.4 * unit)), 135)
    strokes(cover, lines[::2, :3], max(2, round(2.7 * unit)), 150)
    field = blur(cover, 0.6 * unit) * np.float32(0.25 * body.vessels / 255)
    ring = ellipse((0.0, 0.0), (0.022 * size, 0.052 * size))
    hilar = fill(size, [hilum + ring for hilum in geometry.hila])
    field += blur(hilar, 0.018 * size) * np.float32(0.20 / 255)
    return field


def _branches(
    start: np.ndarray, heading: np.ndarray, reach: np.ndarray, bend: np.ndarray, samples: int = 9
) -> np.ndarray:
    """Curved lines (2, n, samples, 2) from `start`; heading 0 points away from the midline."""
    t = np.linspace(0, 1, samples)
    angle = heading[..., None] + bend[..., None] * t
    outward = np.array(SIDES)[:, None, None]
    step = np.stack([outward * np.cos(angle), np.sin(angle)], axis=-1) / (samples - 1)
    path = np.cumsum(step, axis=-2) - step
    return start[..., None, :] + path * reach[..., None, None]


def _bones(body: Proportions, geometry: Geometry, pose: Pose) -> np.ndarray:
    """Ribs, clavicles, scapulae, upper arms and spine, float32."""
    size, unit = pose.size, pose.size / 224
    hair = max(1, round(unit))
    # Three covers of different sharpness; within one, what is drawn later lies in front.
    bands = ribbon(geometry.posterior_ribs, geometry.rib_width)
    half = bands.shape[1] // 2
    sharp = fill(size, bands, value=112)
    strokes(sharp, bands[:, :half], hair, 175)
    strokes(sharp, bands[:, half:], hair, 200)

    bands = ribbon(geometry.anterior_ribs, 1.12 * geometry.rib_width)
    soft = fill(size, bands, value=75)
    strokes(soft, bands[:, half:], hair, 100)
    vertebrae = pose(_VERTEBRAE)
    fill(size, vertebrae, value=165, onto=soft)
    strokes(soft, vertebrae[:, :2], hair, 255)
    strokes(soft, vertebrae[:, 2:], hair, 255)

    down = (0.0, body.shoulder_drop)
    girdle = fill(size, pose(_ARMS + down), value=125)
    fill(size, pose(_ARM_HEADS + down), value=135, onto=girdle)
    blades = pose(_BLADES + down)
    fill(size, blades, value=65, onto=girdle)
    strokes(girdle, blades, hair, 130)
    strokes(girdle, pose(_CRESTS + down), max(2, round(3 * unit)), 115)
    strokes(girdle, geometry.edges, max(1, round(2.6 * unit)), 120)
    bulge = 1 + 0.35 * np.abs(np.linspace(-1, 1, 20)) ** 2
    bands = ribbon(geometry.clavicles, 0.020 * size * bulge)
    fill(size, bands, value=170, onto=girdle)
    strokes(girdle, bands[:, :half], hair, 235)
    strokes(girdle, bands[:, half:], hair, 255)

    bones = blur(sharp, 0.5 * unit) * np.float32(0.18 * body.bone / 255)
    bones += blur(soft, 1.0 * unit) * np.float32(0.19 * body.bone / 255)
    bones += blur(girdle, 0.7 * unit) * np.float32(0.30 * body.bone / 255)
    return bones
