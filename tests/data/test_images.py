import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from dwarf_cxr.data.images import (
    MAX_BYTES,
    decode_grey,
    find_images,
    image_stem,
    is_constant,
    only_image,
    read_grey,
    resize,
)
from dwarf_cxr.errors import ImageError


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng().integers(0, 256, (height, width), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    start = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_grey_png_is_read_as_it_is(tmp_path):
    pixels = noise()
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(pixels)))
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_image_is_refused_by_name(kind, kept):
    content = encoded(Image.fromarray(noise(200, 300)), kind)
    with pytest.raises(ImageError, match=r"film7\.img: .*(truncated|damaged).*fetch it again"):
        decode_grey(content[: int(len(content) * kept)], "film7.img")


def test_flipped_bytes_in_a_png_are_refused():
    content = bytearray(encoded(Image.fromarray(noise(200, 300))))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        decode_grey(bytes(content), "a.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page, not an image"),
        (b"\n <html>", "a web page"),
        (b"\x00" * 128 + b"DICM" + b"\x00" * 20, "names no transfer syntax"),
        (b"\x89PNG\r\n", "damaged header"),
        (b"hello", "not a PNG, JPEG or DICOM image"),
        (b"BM" + b"\x00" * 60, "not a PNG, JPEG or DICOM image"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(tmp_path, content, message):
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_grey(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        read_grey(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_grey(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 20_000, 65_000])
def test_pixel_bomb_is_refused_from_its_header(side):
    with pytest.raises(ImageError, match=r"bomb\.png: .*more than 100,000,000 pixels"):
        decode_grey(png_header(side, side), "bomb.png")


def test_16_bit_png_keeps_its_greys():
    pixels = noise()
    content = encoded(Image.fromarray(pixels.astype(np.uint16) * 257))
    # 255 must occur, or the depth could be taken for less than 16 bits.
    np.testing.assert_array_equal(decode_grey(content, "a.png"), pixels)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_unshifted_detector_depths_are_not_black(bits):
    values = np.linspace(0, 2**bits - 1, 300).round().astype(np.uint16).reshape(15, 20)
    got = decode_grey(encoded(Image.fromarray(values)), "a.png")
    want = values.astype(float) * 255 / (2**bits - 1)
    assert np.abs(got - want).max() <= 0.5


def test_colour_becomes_luminance():
    colour = np.random.default_rng().integers(0, 256, (9, 7, 3), dtype=np.uint8)
    want = colour @ np.array([0.299, 0.587, 0.114])
    got = decode_grey(encoded(Image.fromarray(colour)), "a.png")
    assert np.abs(got - want).max() <= 1


def test_alpha_is_laid_over_black():
    grey, alpha = noise(8, 6), noise(8, 6)
    both = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    got = decode_grey(encoded(both), "a.png")
    assert np.abs(got - grey.astype(float) * alpha / 255).max() <= 1.5


def test_palette_bilevel_and_cmyk_are_converted():
    grey = noise(8, 6)
    palette = Image.fromarray(grey).convert("P")
    np.testing.assert_array_equal(decode_grey(encoded(palette), "a.png"), grey)
    inverted = Image.fromarray(grey % 6, "P")
    inverted.putpalette([value for entry in range(6) for value in [250 - 50 * entry] * 3])
    want = 250 - 50 * (grey % 6)
    np.testing.assert_array_equal(decode_grey(encoded(inverted), "a.png"), want)
    black_white = Image.fromarray(grey > 99)
    np.testing.assert_array_equal(decode_grey(encoded(black_white), "a.png"), (grey > 99) * 255)
    flat = Image.new("CMYK", (16, 16), (0, 0, 0, 55))
    assert np.abs(decode_grey(encoded(flat, "JPEG"), "a.jpg") - 200.0).max() <= 2


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_exif_orientation_is_applied(mode):
    pixels = noise(20, 30)
    image = Image.fromarray(pixels if mode == "L" else pixels.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    got = decode_grey(encoded(image, exif=exif), "a.png")
    np.testing.assert_array_equal(got, np.rot90(pixels, -1))


def whole_at_once(image: Image.Image) -> np.ndarray:
    """The conversions without tiles, as they are documented."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        bits = next(bits for bits in (8, 10, 12, 14, 16) if values.max() < 2**bits)
        return np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.asarray(image.convert("RGB").convert("L"))


def made(mode: str, height: int, width: int, bits: int = 8) -> Image.Image:
    rng = np.random.default_rng(3)
    if mode.startswith("I"):
        return Image.fromarray(rng.integers(0, 2**bits, (height, width), dtype=np.uint16))
    colour = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    return colour if mode == "RGBA" else colour.convert("RGB").convert(mode)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2100), (1030, 5), (1025, 1026)])
@pytest.mark.parametrize("mode", ["I;16", "RGBA", "LA", "RGB", "L", "P", "1", "CMYK"])
def test_tiles_do_not_change_a_value(mode, shape):
    content = encoded(made(mode, *shape), "JPEG" if mode == "CMYK" else "PNG")
    expected = whole_at_once(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode_grey(content, "a.png"), expected)


@pytest.mark.parametrize("bits", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
def test_values_of_every_depth_are_those_of_the_whole_image(bits):
    content = encoded(made("I;16", 300, 301, bits))
    expected = whole_at_once(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode_grey(content, "a.png"), expected)


def test_a_transparent_colour_is_black_in_every_tile():
    colour = Image.new("RGB", (1500, 3), (200, 200, 200))
    colour.paste((9, 8, 7), (1200, 0, 1400, 3))
    got = decode_grey(encoded(colour, transparency=(200, 200, 200)), "a.png")
    np.testing.assert_array_equal(np.flatnonzero(got[1]), np.arange(1200, 1400))


PEAK = """
import io, resource, sys
from PIL import Image
from dwarf_cxr.data.images import decode_grey

side, mode = 4000, sys.argv[1]
stream = io.BytesIO()
small = Image.new(mode, (64, 64))
small.save(stream, "PNG")
decode_grey(stream.getvalue(), "x")
stream = io.BytesIO()
Image.new(mode, (side, side), 77 if mode == "I;16" else (9, 8, 7, 77)).save(stream, "PNG")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_grey(stream.getvalue(), "x")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / side**2)
"""


@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
def test_decoding_takes_little_more_than_the_image(mode):
    # making the file has held the image once already: what is counted here comes on top of that
    done = subprocess.run(
        [sys.executable, "-c", PEAK, mode], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 5  # bytes per pixel; 20 and more for conversions of the whole


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.png"
    path.touch()
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"huge\.png: a file of 1,073,741,825 bytes, more than"):
        read_grey(path)


def test_constant_images_are_seen():
    assert is_constant(np.full((4, 5), 9, np.uint8))
    assert not is_constant(noise())


def test_resize_averages_areas():
    pixels = noise(60, 40)
    want = pixels.reshape(10, 6, 10, 4).mean(axis=(1, 3))
    assert np.abs(resize(pixels, 10) - want).max() <= 1
    assert resize(pixels, 50).shape == (50, 50)
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    assert np.abs(resize(stripes, 16) - 100.0).max() <= 1


def test_stems_lose_only_image_suffixes():
    assert image_stem("a/b/00000032_037.png") == "00000032_037"
    assert image_stem("1.2.840.113") == "1.2.840.113"
    assert image_stem("scan.v2.JPEG") == "scan.v2"
    assert image_stem("x.dcm") == "x"


def test_images_are_found_anywhere_and_doubles_refused(draw, tmp_path):
    first, second = draw("one/a.png"), draw("two/deep/b.JPG")
    draw("two/._a.png"), draw(".cache/c.png")
    images = find_images(tmp_path)
    assert images == {"a": (first,), "b": (second,)}
    assert only_image("a", images) == first
    assert only_image("c", images) is None
    draw("two/a.jpg")
    with pytest.raises(ImageError, match="the same image name also stands in"):
        only_image("a", find_images(tmp_path))


@pytest.mark.parametrize("tag", [(0x014A, 1, 1, 258), (0x010E, 11, 1, 258)])
def test_an_odd_exif_field_does_not_keep_the_image_from_being_turned(tag):
    turned = struct.pack("<HHLL", 0x0112, 3, 1, 6)
    fields = sorted([turned, struct.pack("<HHLL", *tag)])
    exif = struct.pack("<2sHLH", b"II", 42, 8, 2) + b"".join(fields) + struct.pack("<L", 0)
    content = io.BytesIO()
    Image.new("L", (5, 3), 9).save(content, "JPEG", exif=b"Exif\0\0" + exif)
    assert decode_grey(content.getvalue(), "x.jpg").shape == (5, 3)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_undone_as_pillow_does(orientation):
    image = Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5) * 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    image.save(content, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(content)))
    np.testing.assert_array_equal(decode_grey(content.getvalue(), "x.png"), expected)
