"""A small prepared data set of oblong films, and what readers might say of it."""

from pathlib import Path

import cv2
import numpy as np

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Polygon, Radiograph, Region, SourceSet
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.review.annotation import Assessment, MarkedRegion

FINDINGS = ("Mass", "Effusion", "Nodule")
WIDTH, HEIGHT = 90, 120
SECRET_NAME = "doe-jane-1961"
"""Stands in patient ids, image ids and file names: no page may show it."""


def write_data(folder: Path, films: int = 6, *, size: int = 64) -> PreparedData:
    """Films of 90×120 whose patients, ids and files bear `SECRET_NAME`.

    Film i has finding i mod 3, with a box for even i; the last film's labels were never assessed.
    """
    rng = np.random.default_rng(films)
    radiographs = []
    for number in range(films):
        film = rng.integers(40, 90, (HEIGHT, WIDTH), dtype=np.uint8)
        film[30:60, 20:50] = 200
        name = f"{SECRET_NAME}-{number}"
        path = folder.with_name(f"{folder.name}-films") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), film)
        labels = {finding: at == number % 3 for at, finding in enumerate(FINDINGS)}
        box = Region(FINDINGS[number % 3], Box(20.0, 30.0, 50.0, 60.0), "first")
        is_last = number == films - 1
        radiographs.append(
            Radiograph(
                image_id=name,
                patient_id=f"patient-{name}",
                path=path,
                labels={} if is_last else labels,
                regions=() if is_last or number % 2 else (box,),
                split=("train", "train", "val", "test")[number % 4],
                text=f"Report of {SECRET_NAME}",
            )
        )
    source = SourceSet("made", FINDINGS, tuple(radiographs), "generated", "CC0-1.0", "nobody")
    return prepare(source, folder, size=size, workers=1, progress=lambda done, total: None)


def triangle(*corners: tuple[float, float]) -> Polygon:
    return Polygon(np.array(corners, dtype=np.float64))


def present(*shapes) -> Assessment:
    return Assessment("present", tuple(map(MarkedRegion, shapes)))


ABSENT = Assessment("absent")


def box(*corners: float) -> Box:
    return Box(*map(float, corners))
