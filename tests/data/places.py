"""Whether the regions that a contact sheet draws lie where the films show them, by pixels."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageColor import getrgb
from scipy import ndimage

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import SourceSet
from dwarf_cxr.data.show import OKABE_ITO, contact_sheet
from tests.data.made_films import BRIGHT

WIDEST_GAP = 6
"""Pixels of the sheet that an outline, with its dark rim and the film's blur, may hide."""


def assert_outlines_enclose_what_is_bright(source: SourceSet, folder: Path) -> int:
    """Draw each film that has a region and compare its outline with its bright pixels.

    Films are as `made_films.write_film` makes them: bright exactly where their one region is. Every
    bright pixel must lie within the drawn outline, and reach to it on all four sides. Returns how
    many films were compared, so that a test can say how many it expects.
    """
    films = [one for one in source.radiographs if one.regions]
    for number, film in enumerate(films):
        assert len(film.regions) == 1, f"{film.image_id}: the check is for one region a film"
        alone = dataclasses.replace(
            source, radiographs=(dataclasses.replace(film, split="train"),), notes=()
        )
        data = prepare(alone, folder / f"data{number}", size=224)
        sheet = folder / f"sheet{number}.png"
        contact_sheet(data, sheet, images=1)
        _compare(sheet, film.image_id)
    return len(films)


def _compare(sheet: Path, image_id: str) -> None:
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # text is a little darker than white, and the film's bright part the only white
    bright = (pixels > BRIGHT - 5).all(axis=-1)
    colour = np.abs(pixels - getrgb(OKABE_ITO[0])).max(axis=-1) < 60
    parts, count = ndimage.label(colour, structure=np.ones((3, 3)))
    assert count, f"{image_id}: no outline on {sheet}"
    # the legend has a line of the same colour, which is shorter
    outline = parts == 1 + np.argmax(ndimage.sum_labels(colour, parts, range(1, count + 1)))
    inside = ndimage.binary_fill_holes(outline) & ~outline
    assert bright.any(), f"{image_id}: nothing bright on {sheet}"
    astray = int((bright & ~inside).sum())
    assert not astray, f"{image_id}: {astray} bright pixels outside the outline on {sheet}"
    gaps = np.abs(np.array(_extent(outline)) - np.array(_extent(bright)))
    assert gaps.max() <= WIDEST_GAP, f"{image_id}: outline {gaps} pixels off on {sheet}"


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row, first and last column of a mask."""
    rows, columns = np.nonzero(mask)
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())
