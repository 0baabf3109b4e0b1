"""The chest without disease: a patient's proportions, posed on a film and drawn as attenuation.

Geometry is in chest units: x from the midline (positive to the image's right, which is the
patient's left), y from the top of the film; the film is one unit high. Attenuation is a unitless
sum along the ray, as film density is: 0 in air, about 1 through the soft tissue of the chest.
"""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

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

SIDES = (-1, 1)
"""Image left (the patient's right) and image right (the patient's left)."""

SIDE_NAMES = {-1: "right", 1: "left"}
"""The patient's side, as a report says it."""

RIBS_PER_SIDE = 9
VESSELS_PER_SIDE = 17

_RANGES: dict[str, tuple[float, float]] = {
    "half_width": (0.315, 0.365),
    "apex": (0.085, 0.125),
    "dome_right": (0.655, 0.745),
    "dome_step": (0.010, 0.040),
    "angle_depth": (0.055, 0.095),
    "flatness": (0.0, 0.25),
    "heart_ratio": (0.40, 0.485),
    "heart_left_share": (0.66, 0.76),
    "heart_height": (0.235, 0.275),
    "mediastinum": (0.046, 0.060),
    "aortic_knob": (0.066, 0.086),
    "rib_spacing": (0.064, 0.074),
    "rib_width": (0.015, 0.021),
    "rib_drop": (0.85, 1.20),
    "bone": (0.75, 1.25),
    "clavicle_tilt": (-0.030, 0.015),
    "shoulder_drop": (-0.015, 0.035),
    "neck": (0.085, 0.105),
    "wall": (0.055, 0.120),
    "thickness": (0.92, 1.10),
    "breast": (-0.18, 0.22),
    "gastric_bubble": (-0.5, 0.5),
    "air": (0.66, 0.76),
    "vessels": (0.75, 1.25),
}


@dataclass(frozen=True, slots=True)
class Proportions:
    """What makes a patient recognisable from film to film; lengths in chest units."""

    half_width: float
    """Midline to the inner chest wall at the base."""
    apex: float
    dome_right: float
    """Height of the right diaphragm's dome (image left)."""
    dome_step: float
    """How much lower the left dome is."""
    angle_depth: float
    """How far the costophrenic angle lies below the dome."""
    flatness: float
    """0 a rounded diaphragm, 1 a flat one."""
    heart_ratio: float
    """Cardiothoracic ratio: the heart's width over the inner width of the chest."""
    heart_left_share: float
    heart_height: float
    mediastinum: float
    aortic_knob: float
    rib_spacing: float
    rib_width: float
    rib_drop: float
    bone: float
    clavicle_tilt: float
    shoulder_drop: float
    neck: float
    wall: float
    """Soft tissue outside the ribs."""
    thickness: float
    breast: float
    """Attenuation of the breasts; none where negative."""
    gastric_bubble: float
    """Air under the left dome; none where negative."""
    air: float
    """What the air of the lungs takes off the attenuation."""
    vessels: float
    vessel_fan: np.ndarray
    """Random numbers in [0, 1) that place the vessels, (2, VESSELS_PER_SIDE, 6)."""

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Self:
        """A random patient."""
        low, high = np.array(list(_RANGES.values())).T
        drawn = dict(zip(_RANGES, generator.uniform(low, high).tolist(), strict=True))
        return cls(**drawn, vessel_fan=generator.random((2, VESSELS_PER_SIDE, 6)))

    def dome(self, side: int) -> float:
        """Height of one diaphragm's dome."""
        return self.dome_right + (self.dome_step if side > 0 else 0.0)


@dataclass(frozen=True, slots=True)
class Pose:
    """How the patient stood: a similarity from chest units to pixels."""

    size: int
    scale: float
    matrix: np.ndarray
    """(2, 2): chest units @ matrix turns and scales."""
    offset: np.ndarray
    """(2,): where the chest's origin lands, in parts of the film."""

    @classmethod
    def draw(cls, size: int, generator: np.random.Generator) -> Self:
        """A random pose: up to 3.5 degrees of tilt, 7% of scale, 3% of shift."""
        scale, angle, right, down = generator.uniform(
            (0.93, -0.06, -0.03, -0.025), (1.07, 0.06, 0.03, 0.03)
        ).tolist()
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]])
        # The film's centre, chest point (0, 0.5), is what the patient turns about.
        offset = np.array([0.5 + right, 0.5 + down]) - np.array([0.0, 0.5]) @ matrix
        return cls(size=size, scale=scale, matrix=matrix, offset=offset)

    def __call__(self, points: np.ndarray, size: int | None = None) -> np.ndarray:
        """Chest units (..., 2) to pixels of this film, or of a copy `size` pixels wide."""
        return (points @ self.matrix + self.offset) * (size or self.size)


def _mirrored(points: np.ndarray, side: int) -> np.ndarray:
    return points * (side, 1)


def _both(points: np.ndarray) -> np.ndarray:
    """The image's left and right copies (2, ..., 2) of a shape given for the right."""
    return np.stack([points * (-1, 1), points])


@dataclass(frozen=True, slots=True)
class Geometry:
    """Outlines and centre lines in pixels; two entries are image left and image right."""

    lungs: tuple[np.ndarray, np.ndarray]
    """Closed outlines of the lungs, each behind heart and mediastinum too."""
    edges: tuple[np.ndarray, np.ndarray]
    """The lungs' outer edges from apex to costophrenic angle, (40, 2) each."""
    heart: np.ndarray
    mediastinum: np.ndarray
    knob: np.ndarray
    """The aortic arch's outer edge, (12, 2), from above downwards."""
    hila: tuple[np.ndarray, np.ndarray]
    posterior_ribs: np.ndarray
    """(2 RIBS_PER_SIDE, 20, 2) from the spine outwards; first those of the image's left."""
    anterior_ribs: np.ndarray
    clavicles: np.ndarray
    """(2, 20, 2) from the sternum outwards."""
    rib_width: float
    """In pixels."""


def lung_outline(body: Proportions, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Outline (k, 2) of one lung in chest units, and its outer edge (40, 2) from the apex."""
    w, apex, dome = body.half_width, body.apex, body.dome(side)
    tip = dome + body.angle_depth
    middle = (apex + dome) / 2
    edge = smooth_curve(
        [
            (0.17 * w, apex + 0.045),
            (0.30 * w, apex),
            (0.52 * w, apex + 0.030),
            (0.74 * w, apex + 0.120),
            (0.89 * w, apex + 0.255),
            (0.97 * w, middle + 0.11),
            (1.00 * w, dome - 0.02),
            (0.985 * w, tip),
        ],
        46,
    )
    rise = 1 - body.flatness
    diaphragm = smooth_curve(
        [
            (0.985 * w, tip),
            (0.82 * w, tip - (0.30 + 0.30 * rise) * body.angle_depth),
            (0.56 * w, tip - (0.45 + 0.55 * rise) * body.angle_depth),
            (0.32 * w, tip - (0.40 + 0.48 * rise) * body.angle_depth),
            (0.10 * w, tip - (0.20 + 0.30 * rise) * body.angle_depth),
        ],
        18,
    )
    inner = np.array([(0.10 * w, 0.5), (0.10 * w, apex + 0.12)])
    outline = np.concatenate([edge, diaphragm[1:], inner])
    return _mirrored(outline, side), _mirrored(edge[6:], side)


def _heart(body: Proportions) -> np.ndarray:
    width = 2 * body.half_width * body.heart_ratio
    left, right = width * body.heart_left_share, -width * (1 - body.heart_left_share)
    bottom = body.dome(1) + 0.4 * body.angle_depth
    height = body.heart_height
    top = bottom - height
    return closed_curve(
        [
            (0.50 * right, top + 0.10 * height),
            (0.84 * right, top + 0.34 * height),
            (right, top + 0.60 * height),
            (0.93 * right, top + 0.86 * height),
            (0.40 * right, bottom),
            (0.40 * left, bottom + 0.01),
            (0.80 * left, bottom - 0.01),
            (0.99 * left, bottom - 0.14 * height),
            (0.965 * left, bottom - 0.33 * height),
            (0.78 * left, top + 0.42 * height),
            (0.55 * left, top + 0.20 * height),
            (0.36 * left, top + 0.02 * height),
            (0.16 * left, top + 0.02 * height),
        ],
        60,
    )


def _ribs(body: Proportions) -> tuple[np.ndarray, np.ndarray]:
    """Posterior (2 n, 20, 2) and anterior (2 n, 20, 2) centre lines in chest units."""
    number = np.arange(RIBS_PER_SIDE)
    start = body.apex - 0.012 + number * body.rib_spacing
    drop = body.rib_drop * (0.7 + 0.05 * number)
    turn = start + 0.115 * drop
    _, edge = lung_outline(body, 1)
    reach = np.interp(turn, edge[:, 1], edge[:, 0]) + 0.006
    reach[0] *= 0.9
    along = np.array([0.03 / body.half_width, 0.33, 0.66, 0.90, 1.0])
    fall = np.array([0.0, -0.012, 0.018, 0.070, 0.115])
    posterior = np.stack([reach[:, None] * along, start[:, None] + drop[:, None] * fall], axis=-1)
    back = np.array([1.0, 0.93, 0.74, 0.50, 0.34])
    sink = np.array([0.115, 0.165, 0.215, 0.245, 0.250])
    anterior = np.stack([reach[:, None] * back, start[:, None] + drop[:, None] * sink], axis=-1)
    return (
        smooth_curve(np.concatenate([_mirrored(posterior, side) for side in SIDES]), 20),
        smooth_curve(np.concatenate([_mirrored(anterior, side) for side in SIDES]), 20),
    )


def place(body: Proportions, pose: Pose) -> Geometry:
    """All outlines of a patient in the pixels of one film."""
    outlines = [lung_outline(body, side) for side in SIDES]
    m = body.mediastinum
    heart_top = body.dome(1) + 0.4 * body.angle_depth - body.heart_height
    knob_height = body.apex + 0.175
    knob = smooth_curve(
        [
            (0.92 * m, knob_height - 0.060),
            (0.95 * body.aortic_knob, knob_height - 0.022),
            (body.aortic_knob, knob_height + 0.012),
            (1.05 * m, knob_height + 0.055),
        ],
        12,
    )
    mediastinum = np.concatenate(
        [
            smooth_curve([(0.85 * m, -0.1), (0.75 * m, 0.02), (0.88 * m, body.apex + 0.04)], 8),
            knob,
            [(1.22 * m, heart_top - 0.02), (1.45 * m, heart_top + 0.05), (m, 0.75)],
            [(-m, 0.75), (-1.1 * m, heart_top + 0.06)],
            smooth_curve([(-1.05 * m, heart_top), (-0.98 * m, knob_height), (-0.8 * m, 0.03)], 10),
            [(-0.85 * m, -0.1)],
        ]
    )
    height = body.apex + 0.055
    clavicle = smooth_curve(
        [
            (0.030, height + 0.045),
            (0.10, height + 0.034),
            (0.20, height - 0.008 + 0.6 * body.clavicle_tilt),
            (0.29, height - 0.030 + body.clavicle_tilt + 0.3 * body.shoulder_drop),
            (0.37, height - 0.022 + body.clavicle_tilt + 0.7 * body.shoulder_drop),
        ],
        20,
    )
    posterior, anterior = _ribs(body)
    hilum = np.array([1.75 * m, (body.apex + body.dome_right) / 2 - 0.02])
    return Geometry(
        lungs=(pose(outlines[0][0]), pose(outlines[1][0])),
        edges=(pose(outlines[0][1]), pose(outlines[1][1])),
        heart=pose(_heart(body)),
        mediastinum=pose(mediastinum),
        knob=pose(knob),
        hila=(pose(hilum * (-1, 1)), pose(hilum - (0, 0.015))),
        posterior_ribs=pose(posterior),
        anterior_ribs=pose(anterior),
        clavicles=pose(np.stack([_mirrored(clavicle, side) for side in SIDES])),
        rib_width=body.rib_width * pose.scale * pose.size,
    )


@dataclass(slots=True, eq=False)
class Chest:
    """A chest being drawn; findings change `attenuation`, `markings` and `bones` in place."""

    size: int
    body: Proportions
    geometry: Geometry
    lungs: tuple[np.ndarray, np.ndarray]
    """What is seen of each lung beside heart and mediastinum, bool (size, size)."""
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
    lungs = [np.minimum(cover, 255 - shadow) for cover in covers]
    air = blur(np.maximum(lungs[0], lungs[1]), 0.0035 * size)

    attenuation = _soft_tissue(body, pose, air, generator)
    attenuation -= air * np.float32(0.86 * body.air / 255)
    attenuation += blur(shadow, 0.008 * size) * np.float32(0.30 / 255)
    attenuation += _airways(pose) * np.float32(-0.30 / 255)

    markings = _vessels(body, geometry, size)
    corner = tuple(generator.random(2).tolist())
    texture = crop(cloud_tile(size), size, (corner[0], corner[1]))
    markings += np.float32(0.020) * texture
    markings *= air * np.float32(1 / 255)
    return Chest(
        size=size,
        body=body,
        geometry=geometry,
        lungs=(lungs[0] > 127, lungs[1] > 127),
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
    outline = np.concatenate([right_half, _mirrored(right_half, -1)[::-1]])
    torso = fill(small, [pose(smooth_curve(outline, 120), small)])
    rounded = blur(torso, 0.045 * small)
    tissue = torso * np.float32(0.30 / 255) + rounded * np.float32(0.62 / 255)

    row = (np.arange(small, dtype=np.float32) + 0.5) / small - (
        pose.offset[1] + 0.5 * pose.matrix[1, 1] - 0.5
    )
    rise = np.clip((row - (body.dome_right - 0.16)) / 0.26, 0, 1)
    top = np.clip((0.32 - row) / 0.32, 0, 1)
    tissue += tissue * (0.62 * rise - 0.22 * top)[:, None].astype(np.float32)

    inner = cv2.resize(air, (small, small), interpolation=cv2.INTER_AREA)
    tissue -= blur(inner, 0.035 * small) * np.float32(0.14 * body.air / 255)
    if body.breast > 0:
        mound = ellipse((0.60 * w, body.dome_right - 0.03), (0.145, 0.155))
        mounds = fill(small, pose(_both(mound), small))
        tissue += blur(mounds, 0.016 * small) * np.float32(body.breast / 255)
    if body.gastric_bubble > 0:
        under = body.dome(1) + body.angle_depth * 0.4 + 0.065
        gas = fill(small, [pose(ellipse((0.55 * w, under), (0.055, 0.026)), small)])
        tissue -= blur(gas, 0.006 * small) * np.float32((0.25 + body.gastric_bubble) / 255)
    unevenness = generator.normal(0, 0.035, (7, 7)).astype(np.float32)
    tissue *= 1 + cv2.resize(unevenness, (small, small), interpolation=cv2.INTER_CUBIC)
    tissue *= np.float32(body.thickness)
    return cv2.resize(tissue, (pose.size, pose.size), interpolation=cv2.INTER_LINEAR)


def _airways(pose: Pose) -> np.ndarray:
    """Trachea and main bronchi, uint8."""
    trachea = ribbon(smooth_curve([(0, -0.1), (0.002, 0.12), (-0.004, 0.30)], 10), 0.036)
    bronchi = np.stack(
        [
            smooth_curve([(-0.004, 0.29), (-0.045, 0.335), (-0.075, 0.375)], 8),
            smooth_curve([(-0.004, 0.29), (0.050, 0.330), (0.090, 0.355)], 8),
        ]
    )
    cover = fill(pose.size, [pose(trachea)])
    cover = np.maximum(cover, fill(pose.size, pose(ribbon(bronchi, 0.020))) // 2)
    return blur(cover, 0.007 * pose.size)


def _vessels(body: Proportions, geometry: Geometry, size: int) -> np.ndarray:
    """Vessels that branch out of the hila and thin towards the edge, float32."""
    fan = body.vessel_fan
    part = (np.arange(VESSELS_PER_SIDE) + 1.9 * fan[..., 0] - 0.45) / VESSELS_PER_SIDE
    heading = np.pi * (-0.46 + 0.94 * part)
    reach = (0.13 + 0.24 * fan[..., 1]) * (1 + 0.5 * np.clip(part - 0.55, 0, 1)) * size
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
    field = blur(cover, 0.6 * unit) * np.float32(0.30 * body.vessels / 255)
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
    return (
        np.broadcast_to(start, heading.shape + (2,))[..., None, :] + path * reach[..., None, None]
    )


def _bones(body: Proportions, geometry: Geometry, pose: Pose) -> np.ndarray:
    """Ribs, clavicles, scapulae, upper arms and spine, float32."""
    size, unit = pose.size, pose.size / 224
    hair = max(1, round(unit))
    bones = np.zeros((size, size), np.float32)

    bands = ribbon(geometry.posterior_ribs, geometry.rib_width)
    cover = fill(size, bands) // 2
    half = bands.shape[1] // 2
    strokes(cover, bands[:, :half], hair, 190)
    strokes(cover, bands[:, half:], hair, 220)
    bones += blur(cover, 0.5 * unit) * np.float32(0.17 * body.bone / 255)

    bands = ribbon(geometry.anterior_ribs[:, :], 1.12 * geometry.rib_width)
    cover = fill(size, bands) // 2
    strokes(cover, bands[:, half:], hair, 170)
    bones += blur(cover, 0.7 * unit) * np.float32(0.10 * body.bone / 255)

    cover = np.zeros((size, size), np.uint8)
    strokes(cover, geometry.edges, max(1, round(2.6 * unit)))
    bones += blur(cover, 1.1 * unit) * np.float32(0.13 * body.bone / 255)

    bulge = 1 + 0.35 * np.abs(np.linspace(-1, 1, 20)) ** 2
    bands = ribbon(geometry.clavicles, 0.020 * size * bulge)
    cover = fill(size, bands) // 2
    strokes(cover, bands[:, :half], hair, 200)
    strokes(cover, bands[:, half:], hair, 230)
    bones += blur(cover, 0.5 * unit) * np.float32(0.34 * body.bone / 255)

    drop = body.shoulder_drop
    blade = closed_curve(
        [
            (0.36, 0.155 + drop),
            (0.305, 0.20 + drop),
            (0.275, 0.29 + drop),
            (0.285, 0.40 + drop),
            (0.325, 0.42 + drop),
            (0.36, 0.31 + drop),
            (0.40, 0.21 + drop),
        ],
        30,
    )
    spine_of_blade = smooth_curve(
        [(0.30, 0.175 + drop), (0.36, 0.13 + drop), (0.425, 0.115 + drop)], 8
    )
    head = ellipse((0.445, 0.185 + drop), (0.045, 0.048))
    shaft = ribbon(smooth_curve([(0.455, 0.21 + drop), (0.50, 0.42), (0.545, 0.7)], 8), 0.052)
    blades = pose(_both(blade))
    cover = fill(size, blades) // 3
    strokes(cover, blades, hair, 170)
    strokes(
        cover,
        [pose(_mirrored(spine_of_blade, side)) for side in SIDES],
        max(2, round(3 * unit)),
        150,
    )
    bones += blur(cover, 0.8 * unit) * np.float32(0.26 * body.bone / 255)
    cover = np.maximum(fill(size, pose(_both(head))), fill(size, pose(_both(shaft))))
    bones += blur(cover, 1.0 * unit) * np.float32(0.17 * body.bone / 255)

    levels = np.arange(-0.02, 1.06, 0.066)
    spread = 0.027 + 0.010 * levels
    quads = np.stack(
        [
            np.stack([-spread, levels], axis=-1),
            np.stack([spread, levels], axis=-1),
            np.stack([spread, levels + 0.053], axis=-1),
            np.stack([-spread, levels + 0.053], axis=-1),
        ],
        axis=1,
    )
    bodies = pose(quads)
    cover = fill(size, bodies) // 2
    strokes(cover, bodies[:, :2], hair, 200)
    strokes(cover, bodies[:, 2:], hair, 200)
    bones += blur(cover, 1.0 * unit) * np.float32(0.26 * body.bone / 255)
    return bones
