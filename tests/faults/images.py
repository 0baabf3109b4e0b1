"""Faults 1 to 11: image files."""

import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from dwarf_cxr.data.images import MAX_PIXELS, read_grey
from dwarf_cxr.errors import ImageError
from tests.faults.fault import Fault, dwarf, need, shortened
from tests.faults.films import (
    SIZE,
    jpeg,
    noise,
    png,
    prepare,
    refuse_again,
    refuse_prepared,
    write_films,
)

WHITE_SHARE = np.array([0.299, 0.587, 0.114])
"""Luminance of red, green and blue, ITU-R 601."""


def truncated_jpeg(place: Path) -> str:
    """A JPEG that ends in the middle."""
    return refuse_prepared(
        place, lambda root: cut(root / "film1.jpg"), names=["film1.jpg"], remedy="fetch it again"
    )


def truncated_png(place: Path) -> str:
    """A PNG that ends in the middle."""
    return refuse_prepared(
        place, lambda root: cut(root / "film0.png"), names=["film0.png"], remedy="fetch it again"
    )


def cut(file: Path) -> None:
    """Keep the first half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flipped_byte(place: Path) -> str:
    """A byte of a JPEG changes after preparing, and the decoder does not notice."""
    root, out = write_films(place / "films"), place / "data"
    _, data = prepare(root, out)
    file = root / "film1.jpg"
    passed = flip_unnoticed(file)
    outcome = dwarf("data", "check", out)
    need(outcome.status == 1, f"exit {outcome.status}")
    for part in ("film1.jpg", "SHA-256", "restore it"):
        need(part in outcome.text, f"does not say {part!r}: {outcome.text}")
    need(data.pixels.any() and passed, "the decoder noticed the byte by itself")
    return shortened(outcome.text)


def flip_unnoticed(file: Path) -> bool:
    """Flip a bit of the pixels such that the file still decodes; False if there is no such."""
    whole = file.read_bytes()
    for position in range(len(whole) - 3, len(whole) // 2, -1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        try:
            read_grey(file)
        except ImageError:
            continue
        return True
    return False


def empty_file(place: Path) -> str:
    """A file of no bytes."""
    return refuse_prepared(
        place,
        lambda root: (root / "film3.png").write_bytes(b""),
        names=["film3.png", "empty"],
        remedy="fetch it again",
    )


def web_page(place: Path) -> str:
    """What a failed download leaves."""
    page = b"<!DOCTYPE html><html><body>404: not found</body></html>"
    return refuse_prepared(
        place,
        lambda root: (root / "film3.png").write_bytes(page),
        names=["film3.png", "a web page"],
        remedy="fetch the image itself",
    )


def missing_file(place: Path) -> str:
    """A listed file that is not there."""
    return refuse_prepared(
        place,
        lambda root: (root / "film4.png").unlink(),
        names=["film4.png", "images.csv, line 6"],
        remedy="restore it",
    )


def pixel_bomb(place: Path) -> str:
    """A small PNG of more than 100 million pixels; its memory is measured."""
    bomb = png_of_one_bit(12_000, 10_000)  # fewer than Pillow itself refuses
    need(MAX_PIXELS < 12_000 * 10_000 and len(bomb) < 30_000, "the bomb is none")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = refuse_prepared(
        place,
        lambda root: (root / "film0.png").write_bytes(bomb),
        names=["film0.png", "its header says 12000×10000"],
        remedy="reduce it first",
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    need(grown < 60, f"the memory grew by {grown:.0f} MB")
    return got


def png_of_one_bit(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", check)

    header = struct.pack(">LLBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width // 8 + 1) * height), 9)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def sixteen_bits(place: Path) -> str:
    """A 12-bit film in a 16-bit PNG."""
    stored = np.random.default_rng().integers(0, 4096, (SIZE, SIZE), dtype=np.uint16)
    stored[0, 0] = 4095
    root = write_films(place / "films")
    (root / "film0.png").write_bytes(png(stored))
    _, data = prepare(root, place / "data")
    expected = np.round(stored * (255 / 4095))
    need((data.pixels[0] == expected).all(), "pixels are not value · 255 / 4095")
    return f"{SIZE}² pixels equal value · 255 / 4095, 0 to {data.pixels[0].max()}"


def colours(place: Path) -> str:
    """Alpha over black, a palette and CMYK, against the formulas."""
    rng = np.random.default_rng()
    root = write_films(place / "films")
    colour = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (SIZE, SIZE, 1), dtype=np.uint8)
    palette = rng.integers(0, 256, (8, 3), dtype=np.uint8)
    entries = rng.integers(0, 8, (SIZE, SIZE), dtype=np.uint8)
    inks = np.full((SIZE, SIZE, 4), rng.integers(30, 200, 4), dtype=np.uint8)
    indexed = Image.fromarray(entries).convert("P")
    indexed.putdata(entries.ravel().tolist())
    indexed.putpalette(palette.ravel().tolist())
    Image.fromarray(np.concatenate([colour, alpha], axis=2)).save(root / "film0.png")
    indexed.save(root / "film3.png")
    Image.fromarray(inks, "CMYK").save(root / "film1.jpg", quality=100)
    _, data = prepare(root, place / "data")
    paper = 255 * (1 - inks[..., :3] / 255) * (1 - inks[..., 3:] / 255)
    expected = {
        "alpha": (0, (colour * (alpha / 255)) @ WHITE_SHARE),
        "palette": (3, palette[entries] @ WHITE_SHARE),
        "CMYK": (1, paper @ WHITE_SHARE),
    }
    worst = {
        kind: np.abs(data.pixels[index] - grey).max() for kind, (index, grey) in expected.items()
    }
    need(max(worst.values()) < 3, f"grey is off by {worst}")
    off = ", ".join(f"{kind} {by:.1f}" for kind, by in worst.items())
    return f"luminance (ITU-R 601) as the formula has it; at most off: {off} of 255"


def turned(place: Path) -> str:
    """A JPEG whose EXIF data say that it lies on its side."""
    root = write_films(place / "films")
    pixels = noise(9, 24, SIZE)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(stream, "JPEG", quality=100, exif=exif)
    (root / "film1.jpg").write_bytes(stream.getvalue())
    _, data = prepare(root, place / "data")
    size = (int(data.widths[1]), int(data.heights[1]))
    need(size == (24, SIZE), f"it is taken for {size}")
    upright = np.rot90(pixels, -1).repeat(2, axis=1)
    off, *others = (
        np.abs(data.pixels[1].astype(int) - way).mean()
        for way in (upright, upright[::-1], upright[:, ::-1], upright[::-1, ::-1])
    )
    need(off < min(others) / 2, f"off by {off:.1f}, another way by {min(others):.1f}")
    return f"a file of {SIZE}×24 is a film of 24×{SIZE}, turned upright (mean error {off:.1f})"


def constant_image(place: Path) -> str:
    """A film without any contrast."""
    root, out = write_films(place / "films"), place / "data"
    (root / "film1.jpg").write_bytes(jpeg(np.full((SIZE, SIZE), 9, np.uint8)))
    said, _ = prepare(root, out)
    checked = dwarf("data", "check", out)
    need(checked.status == 0, f"data check: exit {checked.status}")
    need("film1" in checked.text and "every pixel is the same" in checked.text, checked.text)
    note = next((line for line in said.splitlines() if "every pixel" in line), "")
    need("film1.jpg" in note, f"no warning: {said}")
    refuse_again(root, out, "--strict", names=["film1.jpg"], remedy="drop it")
    return f"{shortened(note)[:70]}…; refused with --strict"


FAULTS = (
    Fault(1, "truncated JPEG", "refused, names the file", truncated_jpeg),
    Fault(2, "truncated PNG", "refused, names the file", truncated_png),
    Fault(3, "flipped byte that decodes", "data check: SHA-256 differs, file named", flipped_byte),
    Fault(4, "empty file", "refused, names the file", empty_file),
    Fault(5, "HTML named .png", "refused as a web page", web_page),
    Fault(6, "missing file", "refused, names file and row", missing_file),
    Fault(7, "pixel bomb, 120 Mpx in 15 kB", "refused from the header, memory flat", pixel_bomb),
    Fault(8, "16-bit PNG", "scaled by its bit depth", sixteen_bits),
    Fault(9, "alpha, palette, CMYK", "defined conversion to grey", colours),
    Fault(10, "EXIF-rotated", "size and pixels as displayed", turned),
    Fault(11, "constant image", "warning; refused with --strict", constant_image),
)
