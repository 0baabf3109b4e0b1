import io
import struct

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from dwarf_cxr.study.pictures import film_frame, film_png, map_png, outline_png, stretched


def chunks(content):
    """Names of the parts of a PNG."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, names = 8, []
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        names.append(content[at + 4 : at + 8].decode())
        at += 12 + length
    return names


def some_map(seed, shape=(7, 9)):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def test_frames():
    assert film_frame(2000, 1000, 256) == (256, 128)
    assert film_frame(1, 3000, 100) == (1, 100)


def test_maps_have_one_size_whatever_is_on_them():
    flat = np.zeros((14, 14), dtype=np.float32)
    sizes = {len(map_png(one, (256, 200))) for one in (flat, flat + 1, some_map(1), some_map(2))}
    assert len(sizes) == 1


def test_nothing_but_the_picture():
    assert set(chunks(film_png(np.zeros((20, 30), dtype=np.uint8), (30, 20)))) == {
        "IHDR",
        "IDAT",
        "IEND",
    }
    for content in (map_png(some_map(1), (90, 70)), outline_png(np.eye(20, dtype=bool))):
        assert set(chunks(content)) == {"IHDR", "PLTE", "tRNS", "IDAT", "IEND"}


def test_map_in_the_colours_of_reports():
    values = np.array([[0.0, 0.25], [0.5, 1.0]], dtype=np.float32)
    shown = np.asarray(Image.open(io.BytesIO(map_png(values, (2, 2)))).convert("RGBA"))
    for value, pixel in zip(values.flat, shown.reshape(-1, 4), strict=True):
        colour = np.round(np.array(colormaps["viridis"](round(value * 255))[:3]) * 255)
        np.testing.assert_array_equal(pixel[:3], colour)
        assert pixel[3] == round(value * 255)


def test_film_keeps_its_grey():
    grey = np.random.default_rng(0).integers(0, 256, (13, 17), dtype=np.uint8)
    image = Image.open(io.BytesIO(film_png(grey, (17, 13))))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), grey)
    assert Image.open(io.BytesIO(film_png(grey, (8, 6)))).size == (8, 6)


def test_outline_is_around_the_region():
    region = np.zeros((60, 80), dtype=bool)
    region[20:40, 30:60] = True
    shown = np.asarray(Image.open(io.BytesIO(outline_png(region))).convert("RGBA"))
    assert shown[20, 45].tolist() == [255, 255, 255, 255]
    assert shown[30, 45, 3] == 0
    assert shown[5, 5, 3] == 0
    assert not np.asarray(Image.open(io.BytesIO(outline_png(~region & region))).convert("RGBA"))[
        ..., 3
    ].any()


@pytest.mark.parametrize("seed", range(3))
def test_stretched(seed):
    wide = stretched(some_map(seed) * 0.1 + 0.3)
    assert (wide.min(), wide.max()) == (0, 1)
    assert not stretched(np.full((3, 4), 0.4, dtype=np.float32)).any()
