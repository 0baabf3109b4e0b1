"""Small films of patients with two films each, to teach on; every patient's films bear a mark."""

from pathlib import Path

import cv2
import numpy as np

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.store import PreparedData

WIDTH, HEIGHT, SIZE = 96, 64, 32
PATIENTS = {"train": 9, "val": 3, "test": 2}
TEACHABLE, RARE = "Mass", "Pleural/Scar"
"""RARE has regions of two training patients alone."""


def write_teaching(folder: Path, *, seed: int = 0) -> PreparedData:
    """Every patient has a Mass, bright on both films, and a region of it on the first film only.

    The last training patient's second film has no Mass. The mark is the grey of the upper left
    eighth: ten times the patient's number.
    """
    rng = np.random.default_rng(seed)
    radiographs = []
    numbers = iter(range(1, 100))
    for split, patients in PATIENTS.items():
        for place in range(patients):
            patient = next(numbers)
            for film in range(2):
                absent = split == "train" and place == patients - 1 and film == 1
                pixels = rng.integers(60, 100, (HEIGHT, WIDTH), dtype=np.uint8)
                pixels[: HEIGHT // 8, : WIDTH // 8] = 10 * patient
                x, y = (int(number) for number in rng.integers(20, 40, 2))
                if not absent:
                    pixels[y : y + 20, x : x + 30] = 230
                regions = []
                if film == 0:
                    mass = Box(float(x), float(y), x + 30.0, y + 20.0)
                    regions.append(Region(TEACHABLE, mass, "reader"))
                if film == 0 and (split != "train" or place < 2):
                    regions.append(Region(RARE, Box(4.0, 40.0, 30.0, 60.0), "reader"))
                labels = {TEACHABLE: not absent, RARE: any(one.finding == RARE for one in regions)}
                path = folder.with_name(folder.name + "-films") / f"{patient}-{film}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
                radiographs.append(
                    Radiograph(
                        f"film{patient}-{film}",
                        f"patient{patient}",
                        path,
                        labels,
                        tuple(regions),
                        None,
                        split,
                    )
                )
    findings = (TEACHABLE, RARE)
    source = SourceSet("twice", findings, tuple(radiographs), "generated", "CC0-1.0", "nobody")
    return prepare(source, folder, size=SIZE, workers=1, progress=lambda done, total: None)


def mark_of(image: np.ndarray) -> int:
    """The patient's number that an image, of any size, bears."""
    return round(float(image[0, 0]) / 10)
