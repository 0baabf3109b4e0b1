"""An opened data set of noise, without the files that preparing would take."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dwarf_cxr.data.records import Box, Region
from dwarf_cxr.data.store import PreparedData

BOX = Box(100.0, 200.0, 400.0, 600.0)
"""Of every region; films have 1024×1024 pixels."""


def made_up(
    folder: Path,
    pixels: np.memmap,
    labels: np.ndarray,
    findings: tuple[str, ...],
    boxed: Mapping[int, tuple[int, ...]],
    *,
    split: str = "train",
    films_per_patient: int = 1,
) -> PreparedData:
    """Films of `pixels` (n, size, size) with `labels` (n, C); `boxed` has findings by film."""
    count = len(pixels)
    names = tuple(f"{number:08d}" for number in range(count))
    return PreparedData(
        folder=folder,
        name="made up",
        size=pixels.shape[1],
        findings=findings,
        image_ids=names,
        patient_ids=tuple(f"p{number // films_per_patient:08d}" for number in range(count)),
        sources=names,
        splits=(split,) * count,
        widths=np.full(count, 1024),
        heights=np.full(count, 1024),
        labels=labels,
        texts=(None,) * count,
        pixels=pixels,
        fingerprint="made up",
        notes=(),
        regions_by_image={
            film: tuple(Region(findings[column], BOX) for column in columns)
            for film, columns in boxed.items()
        },
        patients_of="made up",
        harmonised={},
        file_hashes=np.arange(count),
    )


def noise(path: Path, shape: tuple[int, int, int], generator: np.random.Generator) -> np.memmap:
    """Pixels of noise in the file `path`, opened as a prepared data set's are."""
    generator.integers(0, 256, shape, dtype=np.uint8).tofile(path)
    return np.memmap(path, np.uint8, "r", shape=shape)
