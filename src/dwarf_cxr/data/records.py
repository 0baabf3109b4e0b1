"""What a data set says: radiographs, their labels and the regions clinicians drew.

Coordinates are (x, y) in pixels of the original image, x to the right and y downwards;
pixel (0, 0) covers the square from (0, 0) to (1, 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

Finding = str
RegionKind = Literal["expert", "pseudo"]


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel rectangle from (x1, y1) to (x2, y2)."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One closed outline; `points` is (k, 2) float64, k >= 3."""

    points: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A binary mask as COCO run lengths: column-major counts, starting with zeros."""

    height: int
    width: int
    counts: tuple[int, ...]


Shape = Box | Polygon | Mask


@dataclass(frozen=True, slots=True)
class Region:
    """Where one finding is in one radiograph, and who said so."""

    finding: Finding
    shape: Shape
    annotator: str = "unknown"
    kind: RegionKind = "expert"


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One image with what is known of it.

    `labels` holds True (present) or False (absent); a finding that is missing there was never
    assessed, which is not the same as absent. `regions` need not be exhaustive: a present finding
    without a region is *somewhere*, not nowhere.
    """

    image_id: str
    patient_id: str
    path: Path
    labels: Mapping[Finding, bool]
    regions: tuple[Region, ...] = ()
    region_frame: tuple[int, int] | None = None
    """(width, height) of the frame that `regions` are given in; None: the image file's own."""
    split: str | None = None
    text: str | None = None
    alias: str | None = None
    """What is written, in tables, notes and errors, in place of a path that may name a patient."""

    @property
    def shown(self) -> str:
        """The file as tables, notes and errors name it."""
        return self.alias or str(self.path)


@dataclass(frozen=True, slots=True)
class SourceSet:
    """A data set as its reader found it, before splitting and preparing."""

    name: str
    findings: tuple[Finding, ...]
    radiographs: tuple[Radiograph, ...]
    source: str
    licence: str
    citation: str
    notes: tuple[str, ...] = field(default=())
    """What the reader noticed and the user should know (clipped boxes, skipped rows, …)."""
    patients_of: str | None = None
    """Whose patient ids these are, where not the set's own: sets can share films and patients."""
    harmonised: Mapping[Finding, tuple[Finding, ...]] = field(default_factory=dict)
    """The set's own names and what they became; empty where findings bear the set's own names."""
