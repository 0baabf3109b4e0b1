"""Films: a patient, a pose, findings, an exposure and markers, as a pure function of a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import cv2
import numpy as np

from dwarf_cxr.data.synthetic.anatomy import draw_chest
from dwarf_cxr.data.synthetic.body import Pose, Proportions
from dwarf_cxr.data.synthetic.findings import altered, draw_findings
from dwarf_cxr.data.synthetic.raster import crop, grain_tile
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import CHESTX_DET_13, select

SMALLEST_SIZE, LARGEST_SIZE = 64, 1024
DEFAULT_PREVALENCE = 0.15
"""Of every finding: about two findings a film, and one film in eight without any."""


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """What films are drawn.

    Raises:
        ConfigError: a size, a probability or a finding's name is out of range.
    """

    size: int = 224
    """Side of the square film in pixels; made for 224 to 512."""
    prevalence: float | Mapping[str, float] = DEFAULT_PREVALENCE
    """Probability of each finding, the same for all or by name (a finding left out: never)."""
    portable_share: float = 0.3
    """Probability of the PORTABLE marker where it does not follow a finding."""
    portable_correlation: tuple[str, float] | None = None
    """(finding, p): PORTABLE with probability p where the finding is present, 1 - p where not.

    p = 0.5 is no correlation; at p = 1 the marker gives the label away.
    """

    def __post_init__(self) -> None:
        if not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            raise ConfigError(
                f"size: {self.size} px; choose {SMALLEST_SIZE} to {LARGEST_SIZE}, best 224 to 512"
            )
        shares = {"portable_share": self.portable_share}
        if isinstance(self.prevalence, Mapping):
            if self.prevalence:
                select(tuple(self.prevalence), CHESTX_DET_13, where="prevalence")
            shares |= {f"prevalence of {name}": p for name, p in self.prevalence.items()}
        else:
            shares["prevalence"] = self.prevalence
        if self.portable_correlation is not None:
            finding, probability = self.portable_correlation
            select((finding,), CHESTX_DET_13, where="portable_correlation")
            shares[f"portable_correlation with {finding}"] = probability
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name}: {share} is not a probability; choose 0 to 1")

    def prevalence_of(self, finding: str) -> float:
        """Probability that a film shows `finding`."""
        if isinstance(self.prevalence, Mapping):
            return float(self.prevalence.get(finding, 0.0))
        return float(self.prevalence)


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """One radiograph with all that is true of it.

    The image's left is the patient's right, as on a frontal radiograph.
    """

    pixels: np.ndarray
    """uint8 (size, size), air dark."""
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Finding to bool (size, size), present findings only; `findings.py` says what each covers."""
    text: str = ""
    """The report: a sentence per finding, in the vocabulary's order."""
    patient: int = 0
    markers: tuple[str, ...] = ()
    """Of "R", "L" and "PORTABLE", those on the film."""


# One stream of random numbers per part, so that no part moves when another is changed: the film
# without a finding is the same film in everything else.
_PATIENT, _POSE, _LABELS, _MARKERS, _EXPOSURE, _TISSUE, _FINDINGS = range(7)


def _generator(seed: int, kind: int, index: int, part: int = 0) -> np.random.Generator:
    return np.random.default_rng((seed, kind, index, part))


def patient_of(index: int) -> int:
    """Of three successive films two are of one patient and the third of another."""
    return 2 * (index // 3) + (index % 3) // 2


def findings_of(seed: int, index: int, settings: FilmSettings) -> tuple[str, ...]:
    """The findings that `draw_film` draws, without drawing."""
    chances = _generator(seed, _LABELS, index).random(len(CHESTX_DET_13))
    return tuple(
        finding
        for finding, chance in zip(CHESTX_DET_13, chances.tolist(), strict=True)
        if chance < settings.prevalence_of(finding)
    )


def draw_film(
    seed: int,
    index: int,
    settings: FilmSettings = FilmSettings(),
    *,
    findings: Sequence[str] | None = None,
) -> Film:
    """Draw film `index` of the endless series that `seed` opens.

    A pure function: the same arguments give the same bytes, whatever was drawn before (with the
    same versions of NumPy and OpenCV, whose random streams and rasterisers it uses). The findings
    follow `settings.prevalence`; `findings` sets them instead, and everything else of the film
    stays as it was, which gives a film's twin with or without a disease. A marker that is
    correlated with a finding goes with it.

    Raises:
        ConfigError: seed or index is negative, or a finding is unknown or given twice.
    """
    if seed < 0 or index < 0:
        raise ConfigError(f"seed {seed}, index {index}: both must be 0 or more")
    if findings is None:
        present = findings_of(seed, index, settings)
    elif findings:
        wanted = select(tuple(findings), CHESTX_DET_13, where="findings")
        present = tuple(name for name in CHESTX_DET_13 if name in wanted)
    else:
        present = ()
    patient = patient_of(index)
    generators = {
        name: _generator(seed, _FINDINGS, index, CHESTX_DET_13.index(name)) for name in present
    }
    body, collapse = altered(
        Proportions.draw(_generator(seed, _PATIENT, patient)), present, generators
    )
    pose = Pose.draw(settings.size, _generator(seed, _POSE, index))
    chest = draw_chest(body, pose, _generator(seed, _TISSUE, index))
    drawn = draw_findings(chest, present, generators, collapse)

    exposure = _generator(seed, _EXPOSURE, index)
    chest.attenuation += chest.markings
    chest.attenuation += chest.bones
    pixels = _expose(chest.attenuation, exposure)
    inside = _collimate(pixels, exposure)
    markers = _mark(pixels, present, settings, _generator(seed, _MARKERS, index))
    return Film(
        pixels=pixels,
        masks=MappingProxyType({name: drawn[name].mask & inside for name in present}),
        text=" ".join(drawn[name].sentence for name in present) or _unremarkable(exposure),
        patient=patient,
        markers=markers,
    )


def _unremarkable(generator: np.random.Generator) -> str:
    sentences = (
        "No acute abnormality.",
        "The lungs are clear.",
        "Heart and lungs are unremarkable.",
    )
    return sentences[int(generator.integers(len(sentences)))]


_STEPS = 4096
_DENSEST = 4.0


def _expose(attenuation: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Film density from attenuation: uint8, white where much is absorbed; with quantum noise."""
    size = attenuation.shape[0]
    contrast, gamma, veil, grain = generator.uniform(
        (0.95, 0.95, 0.0, 0.8), (1.45, 1.35, 14.0, 2.4)
    ).tolist()
    # A table instead of a power per pixel: faster, and the same on every processor.
    level = np.linspace(0, _DENSEST, _STEPS)
    tone = veil + (250 - veil) * (1 - np.exp(-contrast * level)) ** gamma
    table = tone.astype(np.float32)
    place = (attenuation * np.float32((_STEPS - 1) / _DENSEST)).astype(np.intp)
    grey = table.take(place, mode="clip")
    corner = generator.random(2).tolist()
    grey += np.float32(grain) * crop(grain_tile(size), size, (corner[0], corner[1]))
    np.clip(grey, 0, 255, out=grey)
    return grey.astype(np.uint8)


def _collimate(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blacken what lies outside the shutters of some films, in place; the exposed part, bool."""
    size = pixels.shape[0]
    chance, tilt, *margins = generator.uniform(
        (0, -0.02, -0.02, -0.02, -0.01, -0.02), (1, 0.02, 0.022, 0.022, 0.012, 0.03)
    ).tolist()
    if chance > 0.4:
        return np.ones((size, size), bool)
    left, right, top, bottom = margins
    corners = np.array([(left, top), (1 - right, top), (1 - right, 1 - bottom), (left, 1 - bottom)])
    centred = corners - 0.5
    turned = 0.5 + centred + tilt * np.stack([-centred[:, 1], centred[:, 0]], axis=1)
    cover = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(cover, np.rint(turned * size * 16).astype(np.int32), 1, shift=4)
    pixels *= cover
    return cover.view(bool)


def _mark(
    pixels: np.ndarray,
    present: Sequence[str],
    settings: FilmSettings,
    generator: np.random.Generator,
) -> tuple[str, ...]:
    """Lay lead letters on the film, in place: R at the image's left, L at its right."""
    laterality, portable, x, y, height, grey, spot = generator.random(7).tolist()
    chance = settings.portable_share
    if settings.portable_correlation is not None:
        finding, probability = settings.portable_correlation
        chance = probability if finding in present else 1 - probability
    markers = []
    value = int(205 + 50 * grey)
    tall = 0.034 + 0.016 * height
    if laterality < 0.6:
        _letters(pixels, "R", (0.03 + 0.07 * x, 0.03 + 0.06 * y), tall, value)
        markers.append("R")
    if laterality > 0.5:
        _letters(pixels, "L", (0.90 + 0.06 * x, 0.03 + 0.06 * y), tall, value)
        markers.append("L")
    if portable < chance:
        left, top = ((0.03, 0.16), (0.03, 0.93), (0.72, 0.16))[int(3 * spot)]
        _letters(pixels, "PORTABLE", (left, top), 0.8 * tall, value)
        markers.append("PORTABLE")
    return tuple(markers)


@lru_cache(maxsize=256)
def _stamp(text: str, height: int) -> np.ndarray:
    """Cover of a word, uint8, `height` pixels tall."""
    canvas = np.zeros((60, 40 * len(text) + 20), np.uint8)
    cv2.putText(canvas, text, (8, 46), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 4, cv2.LINE_AA)
    rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    word = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    width = max(1, round(word.shape[1] * height / word.shape[0]))
    return cv2.resize(word, (width, height), interpolation=cv2.INTER_AREA)


def _letters(
    pixels: np.ndarray, text: str, corner: tuple[float, float], tall: float, value: int
) -> None:
    size = pixels.shape[0]
    stamp = _stamp(text, max(5, round(tall * size)))
    left, top = round(corner[0] * size), round(corner[1] * size)
    window = pixels[top : top + stamp.shape[0], left : left + stamp.shape[1]]
    cover = stamp[: window.shape[0], : window.shape[1]].astype(np.uint16)
    # Lead letters are white; where the film is white already, they are burnt in black.
    if window.mean() > 160:
        value = 15
    window[...] = ((255 - cover) * window + cover * value) // 255
