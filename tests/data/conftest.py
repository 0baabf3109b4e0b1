"""Small generated films and data sets that the tests of reading and preparing share."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Write a grey PNG or JPEG of noise under the test's folder."""
    rng = np.random.default_rng(7)

    def write(name: str, width: int = 24, height: int = 16) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width), dtype=np.uint8))
        return path

    return write


@pytest.fixture
def source(draw: Draw) -> SourceSet:
    """Six films of six patients, two findings, boxes on two films, all three splits."""
    splits = ("train", "train", "val", "val", "test", "test")
    radiographs = []
    for number, split in enumerate(splits):
        present = number % 2 == 0
        regions = (
            (Region("Mass", Box(2.0, 3.0, 10.0, 9.0), "reader 1"),) if number in (0, 4) else ()
        )
        radiographs.append(
            Radiograph(
                image_id=f"film{number}",
                patient_id=f"patient{number}",
                path=draw(f"films/film{number}.png"),
                labels={"Mass": present}
                if number == 5
                else {"Mass": present, "Edema": not present},
                regions=regions,
                split=split,
                text="A mass, in the left lung." if number == 0 else None,
            )
        )
    return SourceSet(
        "tiny", ("Mass", "Edema"), tuple(radiographs), "generated", "CC0", "nobody", ("a note",)
    )
