"""Sets of tiny films, no two alike, for tests of long and of interrupted preparations."""

from pathlib import Path

import cv2
import numpy as np

from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet

FINDINGS = ("Mass", "Edema", "Nodule")


def write_films(folder: Path, count: int, *, width: int = 14, height: int = 10) -> SourceSet:
    """`count` films of noise with labels, a box on every third, in all three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    radiographs = []
    for number in range(count):
        path = folder / f"film{number:04d}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width), dtype=np.uint8))
        box = Box(1.0, 2.0, 4.0 + number % 8, 7.5)
        radiographs.append(
            Radiograph(
                image_id=path.stem,
                patient_id=f"patient{number // 2:04d}",
                path=path,
                labels={"Mass": number % 3 == 0, "Edema": number % 2 == 0},
                regions=(Region("Mass", box, "reader 1"),) if number % 3 == 0 else (),
                split=("train", "val", "test")[number // 2 % 3],
            )
        )
    return SourceSet("made", FINDINGS, tuple(radiographs), "generated", "CC0-1.0", "nobody")
