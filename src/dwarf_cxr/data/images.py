"""Reading radiographs from PNG, JPEG and DICOM files into 8-bit grey, and finding them in folders.

A DICOM file is told by its content, not by its name (`data/dicom.py`). Conversions, the same for
every PNG and JPEG file: alpha is laid over black; colour, palette and CMYK become
luminance (ITU-R 601); an orientation in the EXIF data is applied, so that width, height and
coordinates are those of the image as it is displayed; 16-bit grey is scaled by its bit depth.
"""

import io
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from dwarf_cxr.data.rows import listed
from dwarf_cxr.errors import DataError, ImageError

DECODING = 1
"""Raised by every change after which decoding or resizing, here or in data/dicom*.py, gives other
pixels for some file: what an interrupted preparation decoded before is then not used."""

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header: a small file can unpack to any size."""

MAX_BYTES = 1 << 30
"""Larger files are not even read: an uncompressed image of `MAX_PIXELS` in 16-bit colour and alpha
has 0.8 of it."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")

DICOM_MARK = (128, b"DICM")
"""Where a DICOM file says that it is one, and how."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error)
"""What Pillow raises on damaged pixels, chunks and EXIF data."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of the EXIF standard."""

_TILE = 1024
"""Side of the squares, in pixels, that are converted at a time."""

Grey = UInt8[np.ndarray, "height width"]


def read_grey(path: Path) -> Grey:
    """The image of a PNG, JPEG or DICOM file in 8-bit grey.

    Raises:
        ImageError: the file is missing, empty, damaged, too large or no such image; names it.
    """
    return decode_grey(read_content(path), str(path))


def read_content(path: Path, where: str | None = None) -> bytes:
    """The bytes of an image file, which errors name by `where` or else by its path.

    Raises:
        ImageError: the file is missing, cannot be opened, is empty, or is larger than `MAX_BYTES`;
            then nothing of it is read.
    """
    name = where or str(path)
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise ImageError(
                f"{name}: a file of {size:,} bytes, more than {MAX_BYTES:,}; no film is as large, "
                "reduce it first or leave it out"
            )
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; restore it or drop its row") from None
    except OSError as fault:
        raise ImageError(f"{name}: cannot be read ({fault.strerror})") from None
    if not content:
        raise ImageError(f"{name}: empty file; fetch it again")
    return content


def decode_grey(content: bytes, where: str) -> Grey:
    """PNG, JPEG or DICOM bytes in 8-bit grey; `where` names them in errors.

    Raises:
        ImageError: the bytes are damaged, of more than `MAX_PIXELS`, or no such image.
    """
    if is_dicom(content):
        from dwarf_cxr.data.dicom import decode_dicom

        return decode_dicom(content, where)
    too_large = f"{where}: an image of more than {MAX_PIXELS:,} pixels; reduce it first"
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{too_large} (its header says {image.width}×{image.height})")
            image.load()
            return _to_grey(_upright(image), where)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(too_large) from None
    except UnidentifiedImageError:
        raise ImageError(f"{where}: {_what_it_is(content)}") from None
    except _DAMAGE as fault:
        raise ImageError(f"{where}: damaged or truncated image ({fault}); fetch it again") from None


def is_dicom(content: bytes) -> bool:
    """Whether the bytes are those of a DICOM file, going by its mark."""
    place, mark = DICOM_MARK
    return content[place : place + len(mark)] == mark


def _upright(image: Image.Image) -> Image.Image:
    """The image as it is displayed.

    Pillow's own `exif_transpose` writes all EXIF fields anew and fails on odd ones that do not
    matter here.
    """
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _what_it_is(content: bytes) -> str:
    start = content[:512].lstrip().lower()
    if not content:
        return "empty file; fetch it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "a web page, not an image (a failed download?); fetch the image itself"
    if content.startswith((b"\x89PNG", b"\xff\xd8")):
        return "a PNG or JPEG with a damaged header; fetch it again"
    return "not a PNG, JPEG or DICOM image; convert it to one of them"


def _to_grey(image: Image.Image, where: str) -> Grey:
    """The image in grey, tile by tile: conversions of a whole image take many times its size."""
    if image.mode.startswith("I"):
        table = _grey_of_16_bit(image, where)
    grey = np.empty((image.height, image.width), np.uint8)
    for place, tile in _tiles(image):
        grey[place] = table[np.asarray(tile)] if tile.mode.startswith("I") else _luminance(tile)
    return grey


def _tiles(image: Image.Image) -> Iterator[tuple[tuple[slice, slice], Image.Image]]:
    """The parts of an image, with the rows and columns where each is."""
    for top in range(0, image.height, _TILE):
        for left in range(0, image.width, _TILE):
            bottom, right = min(top + _TILE, image.height), min(left + _TILE, image.width)
            yield np.s_[top:bottom, left:right], image.crop((left, top, right, bottom))


def _luminance(image: Image.Image) -> Grey:
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, coloured).convert("RGB")
    elif image.mode not in ("1", "L", "RGB", "YCbCr"):
        image = image.convert("RGB")
    return np.array(image.convert("L"), dtype=np.uint8)


def _grey_of_16_bit(image: Image.Image, where: str) -> UInt8[np.ndarray, "65536"]:
    """The grey of every value, scaled by the fewest bits, of 8, 10, 12, 14 and 16, that hold the
    brightest pixel.

    Detectors give 10 to 14 bits and most exporters store them unshifted; dividing those by
    65,535 would leave the film nearly black.
    """
    extremes = [(int(tile.min()), int(tile.max())) for tile in _arrays(image)]
    least, most = min(low for low, _ in extremes), max(high for _, high in extremes)
    if least < 0 or most > 65535:
        raise ImageError(f"{where}: grey values outside 0 to 65535; export it as 16-bit or 8-bit")
    brightest = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if most < 2**bits)
    grey = np.round(np.arange(65536) * (255 / brightest))
    return np.minimum(grey, 255).astype(np.uint8)


def _arrays(image: Image.Image) -> Iterator[np.ndarray]:
    return (np.asarray(tile) for _, tile in _tiles(image))


def is_constant(grey: Grey) -> bool:
    """Whether every pixel is the same, as in a blank or failed export."""
    return bool(grey.min() == grey.max())


def resize(grey: Grey, size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """`grey` as a size×size square; the aspect ratio is not kept.

    Each side is averaged over areas where it shrinks and interpolated where it grows: plain
    interpolation skips pixels when it shrinks and so aliases.
    """
    height, width = grey.shape
    shrunk = (min(width, size), min(height, size))
    if shrunk != (width, height):
        grey = cv2.resize(grey, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        grey = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR)
    return grey


def image_stem(name: str) -> str:
    """A file name or image id without its folder and its image suffix; other dots are kept."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, suffix = os.path.splitext(base)
    return stem if suffix.lower() in IMAGE_SUFFIXES else base


def find_images(root: Path) -> dict[str, tuple[Path, ...]]:
    """All files under `root` with a suffix of an image, by stem, in sorted order."""
    found: dict[str, list[Path]] = {}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            # macOS leaves "._name" companions in archives.
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                found.setdefault(image_stem(name), []).append(Path(folder, name))
    return {stem: tuple(paths) for stem, paths in found.items()}


def only_image(stem: str, images: Mapping[str, tuple[Path, ...]]) -> Path | None:
    """The one image with that stem; None when there is none.

    Raises:
        ImageError: there are several.
    """
    paths = images.get(stem, ())
    if len(paths) > 1:
        raise ImageError(
            f"{paths[0]}: the same image name also stands in {paths[1].parent}; keep one of them"
        )
    return paths[0] if paths else None


def left_out(
    absent: Sequence[str],
    listed_images: int,
    named: str,
    root: Path,
    missing: Literal["error", "skip"],
) -> list[str]:
    """Notes on listed images that are not there: that they are left out; none if all are there.

    Raises:
        DataError: some are not there and `missing` is "error", or none of them is.
    """
    if not absent:
        return []
    what = f"{len(absent)} of {listed_images} {named} are not under {root}"
    if missing == "error" or len(absent) == listed_images:
        raise DataError(
            f"{what}: {listed(absent)}; unpack them there, or use --skip-missing to leave them out"
        )
    return [f"{what}; left out"]
