import dataclasses

import numpy as np
import pytest
from PIL import Image
from PIL.ImageColor import getrgb

from dwarf_cxr.data.geometry import encode_mask
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Polygon, Region
from dwarf_cxr.data.show import OKABE_ITO, caption, contact_sheet
from dwarf_cxr.errors import DataError


def near(sheet, colour):
    """How many pixels of a picture have about that colour."""
    return int((np.abs(sheet.astype(int) - getrgb(colour)).max(axis=-1) < 25).sum())


def picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_regions_of_every_form_are_drawn_in_their_finding_s_colour(source, tmp_path):
    disc = np.hypot(*np.mgrid[-8:8, -12:12]) < 6
    shapes = Polygon(np.array([(2.0, 2.0), (20.0, 3.0), (9.0, 14.0)])), encode_mask(disc)
    films = list(source.radiographs)
    films[1] = dataclasses.replace(films[1], regions=(Region("Edema", shapes[0]),))
    films[3] = dataclasses.replace(films[3], regions=(Region("Edema", shapes[1]),))
    data = prepare(dataclasses.replace(source, radiographs=tuple(films)), tmp_path / "d", size=32)
    contact_sheet(data, tmp_path / "all.png")
    contact_sheet(data.restrict(["Mass"]), tmp_path / "mass.png")
    both, mass = picture(tmp_path / "all.png"), picture(tmp_path / "mass.png")
    assert near(both, OKABE_ITO[0]) > 100
    assert near(both, OKABE_ITO[1]) > 100
    assert near(mass, OKABE_ITO[1]) < 20


def test_no_finding_is_said_only_where_all_were_looked_for(source, tmp_path):
    labels = (
        {"Mass": False, "Edema": False},
        {"Mass": False},
        {},
        {"Mass": True},
        {"Edema": True, "Mass": True},
        {"Mass": False, "Edema": True},
    )
    films = tuple(
        dataclasses.replace(one, labels=its, regions=())
        for one, its in zip(source.radiographs, labels, strict=True)
    )
    data = prepare(dataclasses.replace(source, radiographs=films), tmp_path / "d", size=16)
    assert [caption(data, index) for index in range(6)] == [
        "no finding",
        "none present (1 of 2 assessed)",
        "not assessed",
        "Mass",
        "Mass, Edema",
        "Edema",
    ]


def test_the_number_of_films_is_respected(source, tmp_path):
    data = prepare(source, tmp_path / "d", size=16)
    contact_sheet(data, tmp_path / "one.png", images=1)
    contact_sheet(data, tmp_path / "six.png", images=99)
    assert picture(tmp_path / "one.png").shape[1] < picture(tmp_path / "six.png").shape[1]
    with pytest.raises(DataError, match="no film to show"):
        contact_sheet(data, tmp_path / "none.png", images=0)


def test_data_without_regions_is_shown_too(source, tmp_path):
    films = tuple(dataclasses.replace(one, regions=()) for one in source.radiographs)
    data = prepare(dataclasses.replace(source, radiographs=films), tmp_path / "d", size=16)
    contact_sheet(data, tmp_path / "sheet.png", images=4)
    assert near(picture(tmp_path / "sheet.png"), OKABE_ITO[0]) == 0


def test_names_are_plain_text(source, tmp_path):
    odd = r"Mass $\nothing^$"
    films = [
        dataclasses.replace(
            one,
            image_id=rf"$\x{number}$",
            labels={odd: True},
            regions=tuple(dataclasses.replace(region, finding=odd) for region in one.regions),
        )
        for number, one in enumerate(source.radiographs)
    ]
    odd_source = dataclasses.replace(
        source, name=r"$\set$", findings=(odd,), radiographs=tuple(films)
    )
    contact_sheet(prepare(odd_source, tmp_path / "d", size=16), tmp_path / "sheet.png")
    assert near(picture(tmp_path / "sheet.png"), OKABE_ITO[0]) > 100


def test_a_mask_that_fills_the_film_has_an_outline(source, tmp_path):
    full = Region("Mass", encode_mask(np.ones((16, 24), bool)))
    films = tuple(
        dataclasses.replace(one, regions=(full,) if one is source.radiographs[0] else ())
        for one in source.radiographs
    )
    data = prepare(dataclasses.replace(source, radiographs=films), tmp_path / "d", size=16)
    contact_sheet(data, tmp_path / "sheet.png")
    contact_sheet(data.restrict(["Edema"]), tmp_path / "none.png")
    legend = 400  # a line in the legend alone has fewer pixels
    assert near(picture(tmp_path / "sheet.png"), OKABE_ITO[0]) > legend
    assert near(picture(tmp_path / "none.png"), OKABE_ITO[0]) == 0
