"""A patient's proportions and their pose on a film: outlines and centre lines, no pixels yet.

Geometry is in chest units: x from the midline (positive to the image's right, which is the
patient's left), y from the top of the film; the film is one unit high.
"""

from dataclasses import dataclass

import numpy as np

from dwarf_cxr.data.synthetic.raster import closed_curve, smooth_curve

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
    def draw(cls, generator: np.random.Generator) -> "Proportions":
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
    def draw(cls, size: int, generator: np.random.Generator) -> "Pose":
        """A random pose: up to 3.5 degrees of tilt, a scale of 0.9 to 1.05, 3% of shift."""
        scale, angle, right, down = generator.uniform(
            (0.90, -0.06, -0.03, -0.025), (1.05, 0.06, 0.03, 0.03)
        ).tolist()
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]])
        # The film's centre, chest point (0, 0.5), is what the patient turns about.
        offset = np.array([0.5 + right, 0.5 + down]) - np.array([0.0, 0.5]) @ matrix
        return cls(size=size, scale=scale, matrix=matrix, offset=offset)

    def __call__(self, points: np.ndarray, size: int | None = None) -> np.ndarray:
        """Chest units (..., 2) to pixels of this film, or of a copy `size` pixels wide."""
        return (points @ self.matrix + self.offset) * (size or self.size)


def mirrored(points: np.ndarray, side: int) -> np.ndarray:
    """The points on the given side of the midline, from those of the right side of the image."""
    return points * (side, 1)


def both(points: np.ndarray) -> np.ndarray:
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
    return mirrored(outline, side), mirrored(edge[6:], side)


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
            (0.36 * left, top + 0.05 * height),
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
        smooth_curve(np.concatenate([mirrored(posterior, side) for side in SIDES]), 20),
        smooth_curve(np.concatenate([mirrored(anterior, side) for side in SIDES]), 20),
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
        clavicles=pose(np.stack([mirrored(clavicle, side) for side in SIDES])),
        rib_width=body.rib_width * pose.scale * pose.size,
    )
