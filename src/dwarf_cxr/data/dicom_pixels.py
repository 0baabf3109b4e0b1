"""Stored pixels of a DICOM image, whatever its transfer syntax.

The size that a compressed frame states of itself is compared with that of the image before it is
decoded, so that a small file cannot unpack to any size.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from dwarf_cxr.data.jpeg_lossless import FrameHeader, decode_lossless_jpeg, frame_header
from dwarf_cxr.errors import ImageError

IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
"""How a JP2 file begins."""
_J2K = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins: its size comes first."""
_NATIVE = (IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED)

Words = UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]
_Decode = Callable[[bytes, "Layout"], tuple[Words, int]]

EXPORT_AGAIN = "export it as Explicit VR Little Endian or JPEG 2000 (for example with dcmdjpeg)"


@dataclass(frozen=True, slots=True)
class Layout:
    """How one frame is stored: size in pixels, bits of a word."""

    height: int
    width: int
    bits_allocated: int
    in_words: bool
    """Whether native pixels are a row of 16-bit words (OW), which may hold two pixels each."""


class MissingCodecError(Exception):
    """A decoder's package is not installed; its argument is the package's name."""


def stored_words(
    pixel_data: bytes, transfer_syntax: str, layout: Layout, where: str
) -> tuple[Words, int]:
    """The words of the only frame, and how many of their low bits the coding carries.

    Bits above those that the image says it stores are as the file has them.

    Raises:
        ImageError: the pixels are truncated or damaged, or coded in a way that is not decoded
            here.
    """
    if transfer_syntax in _NATIVE:
        return _native(pixel_data, transfer_syntax, layout, where), layout.bits_allocated
    if transfer_syntax not in _CODECS:
        raise ImageError(
            f"{where}: its pixels are coded as {_name_of(transfer_syntax)}, which no free package "
            f"decodes; {EXPORT_AGAIN}"
        )
    name, decode = _CODECS[transfer_syntax]
    try:
        return decode(_only_frame(pixel_data), layout)
    except MissingCodecError as missing:
        raise ImageError(
            f"{where}: its pixels are coded as {name}; install {missing} (pip install {missing}), "
            f"or {EXPORT_AGAIN}"
        ) from None
    except _OtherCodingError as other:
        raise ImageError(f"{where}: {name} pixels {other}; {EXPORT_AGAIN}") from None
    except Exception:  # each decoder has its own, down to a bare RuntimeError
        raise ImageError(
            f"{where}: damaged or truncated pixels (coded as {name}); fetch it again"
        ) from None


class _OtherCodingError(Exception):
    """The frame is whole, but not what can be decoded; says what it is."""


def _name_of(transfer_syntax: str) -> str:
    from pydicom.uid import UID

    name = UID(transfer_syntax).name
    if name != transfer_syntax:
        return f"{name} ({transfer_syntax})"
    # a damaged file may have anything there
    return transfer_syntax if re.fullmatch(r"[\d.]{1,64}", transfer_syntax) else "something unknown"


def _native(pixel_data: bytes, transfer_syntax: str, layout: Layout, where: str) -> Words:
    count = layout.height * layout.width
    needed = count * layout.bits_allocated // 8
    # two pixels stand in a word, the first of them in its low byte, which then comes second
    swapped = layout.bits_allocated == 8 and layout.in_words and transfer_syntax == BIG_ENDIAN
    if swapped:
        needed += needed % 2
    if len(pixel_data) < needed:
        raise ImageError(
            f"{where}: truncated pixels: {len(pixel_data):,} bytes where {layout.width}×"
            f"{layout.height} pixels need {needed:,}; fetch it again"
        )
    if swapped:
        pairs = np.frombuffer(pixel_data, np.uint8, needed).reshape(-1, 2)
        return pairs[:, ::-1].reshape(-1)[:count].reshape(layout.height, layout.width)
    order = ">" if transfer_syntax == BIG_ENDIAN else "<"
    kind = np.dtype(f"{order}u{layout.bits_allocated // 8}")
    words = np.frombuffer(pixel_data, kind, count).reshape(layout.height, layout.width)
    return words.astype(kind.newbyteorder("="), copy=False)


def _only_frame(pixel_data: bytes) -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(pixel_data, 0, number_of_frames=1)


def _run_lengths(frame: bytes, layout: Layout) -> tuple[Words, int]:
    """RLE Lossless (DICOM part 5, annex G): a plane of PackBits per byte, the highest first."""
    planes, *offsets = struct.unpack_from("<16L", frame)
    if planes != layout.bits_allocated // 8:
        raise ValueError("wrong number of planes")
    size = layout.height * layout.width
    words: np.ndarray = np.zeros(size, np.uint8 if planes == 1 else np.uint16)
    ends = [*offsets[1:planes], len(frame)]
    for first, end in zip(offsets, ends, strict=False):
        plane = np.frombuffer(_packed_bits(frame[first:end], size), np.uint8, size)
        words = plane if planes == 1 else words << 8 | plane
    return words.reshape(layout.height, layout.width), layout.bits_allocated


def _packed_bits(segment: bytes, size: int) -> bytearray:
    """The first `size` bytes that a PackBits segment stands for, or fewer."""
    unpacked = bytearray()
    position, end = 0, len(segment) - 1
    while position < end and len(unpacked) < size:
        head = segment[position]
        if head < 128:
            unpacked += segment[position + 1 : position + 2 + head]
            position += 2 + head
        elif head > 128:
            unpacked += segment[position + 1 : position + 2] * (257 - head)
            position += 2
        else:
            position += 1
    return unpacked


def _checked_header(frame: bytes, layout: Layout) -> FrameHeader:
    header = frame_header(frame)
    if header.components != 1:
        raise _OtherCodingError(f"of {header.components} components")
    _check_size((header.height, header.width), layout)
    return header


def _check_size(size: tuple[int, int], layout: Layout) -> None:
    if size != (layout.height, layout.width):
        raise _OtherCodingError(
            f"of {size[1]}×{size[0]} where the header says {layout.width}×{layout.height}"
        )


def _lossless_jpeg(frame: bytes, layout: Layout) -> tuple[Words, int]:
    header = _checked_header(frame, layout)
    return decode_lossless_jpeg(frame), header.bits


def _lossy_jpeg(frame: bytes, layout: Layout) -> tuple[Words, int]:
    header = _checked_header(frame, layout)
    if header.bits != 8:
        raise _OtherCodingError(f"of {header.bits} bits, which no free package decodes")
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
        return np.array(image.convert("L"), np.uint8), 8


def _jpeg_ls(frame: bytes, layout: Layout) -> tuple[Words, int]:
    try:
        import jpeg_ls
    except ImportError:
        raise MissingCodecError("pyjpegls") from None
    header = _checked_header(frame, layout)
    decoded, _ = jpeg_ls.decode_pixel_data(frame)
    return _as_words(decoded, header.bits, layout), header.bits


def _jpeg_2000(frame: bytes, layout: Layout) -> tuple[Words, int]:
    try:
        import openjpeg.utils
    except ImportError:
        raise MissingCodecError("pylibjpeg-openjpeg") from None
    # nothing but what was checked goes to the decoder
    stream = _codestream(frame)
    right, bottom, left, top = struct.unpack_from(">4L", stream, 8)
    components, depth = struct.unpack_from(">HB", stream, 40)
    if components != 1:
        raise _OtherCodingError(f"of {components} components")
    _check_size((bottom - top, right - left), layout)
    signed, bits = depth >> 7, (depth & 127) + 1
    words = _as_words(openjpeg.utils.decode_pixel_data(stream, version=2), bits, layout)
    if signed and bits < layout.bits_allocated:
        # a negative value becomes that of the whole word, which then holds all its bits
        half = 1 << (bits - 1)
        words = ((words.astype(np.int32) & (2 * half - 1) ^ half) - half).astype(np.uint16)
        return words, 16
    return words, bits


def _codestream(frame: bytes) -> bytes:
    """The JPEG 2000 codestream of a frame: all of it, or what its box of a JP2 file holds.

    Raises:
        ValueError: there is none.
    """
    stream = frame
    if frame.startswith(_JP2):
        stream = next((content for kind, content in _boxes(frame) if kind == b"jp2c"), b"")
    if not stream.startswith(_J2K):
        raise ValueError("no codestream where one must begin")
    return stream


def _boxes(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes of a JP2 file (ISO/IEC 15444-1, annex I)."""
    position = 0
    while position < len(file):
        length, kind = struct.unpack_from(">L4s", file, position)
        content = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", file, content)
            content += 8
        end = position + length if length else len(file)
        if not content <= end <= len(file):
            raise ValueError("a box is cut off")
        yield kind, file[content:end]
        position = end


def _as_words(decoded: bytearray | np.ndarray, bits: int, layout: Layout) -> Words:
    """All that a decoder delivered, which must be exactly one frame."""
    if bits > 16:
        raise _OtherCodingError(f"of {bits} bits")
    # for another size the values would be those of other pixels
    words = np.frombuffer(decoded, np.dtype("u1" if bits <= 8 else "<u2"))
    return words.reshape(layout.height, layout.width)


_CODECS: dict[str, tuple[str, _Decode]] = {
    "1.2.840.10008.1.2.5": ("RLE Lossless", _run_lengths),
    "1.2.840.10008.1.2.4.50": ("JPEG", _lossy_jpeg),
    "1.2.840.10008.1.2.4.51": ("JPEG", _lossy_jpeg),
    "1.2.840.10008.1.2.4.57": ("lossless JPEG", _lossless_jpeg),
    "1.2.840.10008.1.2.4.70": ("lossless JPEG", _lossless_jpeg),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", _jpeg_ls),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", _jpeg_ls),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", _jpeg_2000),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", _jpeg_2000),
    "1.2.840.10008.1.2.4.201": ("JPEG 2000 (HT)", _jpeg_2000),
    "1.2.840.10008.1.2.4.202": ("JPEG 2000 (HT)", _jpeg_2000),
    "1.2.840.10008.1.2.4.203": ("JPEG 2000 (HT)", _jpeg_2000),
}
"""Name and decoder by transfer syntax."""
