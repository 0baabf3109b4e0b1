"""Lossless JPEG, the commonest coding of X-ray films, decoded in numpy.

ITU-T T.81, annexes C, F and H (process 14: Huffman, predictors 1 to 7, 2 to 16 bits, one
component). The free library that decodes it ends the whole process on some damaged files (17 of
1,500 in our trial), so a damaged file would take a night's work with it; this one cannot.

Huffman codes are found in two steps. For every bit of the stream a table says how long the symbol
would be that began there; a walk then hops from symbol to symbol. Differences are read at all
places of the walk at once.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16

_CHUNK = 1 << 17
"""Bytes of the stream that are taken at a time; each of their bits has an entry in memory."""
_INVALID = 255
"""Length of a symbol where no code begins; the longest real symbol has 31 bits."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of a frame header: all processes of JPEG, and JPEG-LS."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a JPEG or JPEG-LS stream says of itself; `process` is the marker's second byte."""

    process: int
    bits: int
    height: int
    width: int
    components: int


@dataclass(frozen=True, slots=True)
class _Codes:
    """By the next 16 bits of the stream: bits of the code, its category, bits of the symbol."""

    code_bits: np.ndarray
    category: np.ndarray
    symbol_bits: np.ndarray


def frame_header(stream: bytes) -> FrameHeader:
    """The frame header of a JPEG or JPEG-LS stream.

    Raises:
        ValueError: there is none.
    """
    for marker, content, _ in _segments(stream):
        if marker in _FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", content)
            return FrameHeader(marker, bits, height, width, components)
    raise ValueError("no frame header")


def decode_lossless_jpeg(stream: bytes) -> UInt16[np.ndarray, "height width"]:
    """The values of a lossless JPEG stream of one component.

    The caller has checked the size that `frame_header` states: memory grows with it.

    Raises:
        ValueError: the stream is damaged, ends early, or is of another process.
    """
    frame: FrameHeader | None = None
    tables: dict[int, _Codes] = {}
    restart_interval = 0
    for marker, content, end in _segments(stream):
        if marker in _FRAMES:
            frame = frame_header(stream)
            if marker != 0xC3 or frame.components != 1 or not 2 <= frame.bits <= 16:
                raise ValueError("not lossless JPEG of one component")
        elif marker == 0xC4:
            tables |= _huffman_tables(content)
        elif marker == 0xDD:
            (restart_interval,) = struct.unpack_from(">H", content)
        elif marker == 0xDA:
            components, _, table, predictor, _, approximation = struct.unpack_from(
                ">BBBBBB", content
            )
            if frame is None or components != 1 or table >> 4 not in tables:
                raise ValueError("scan without its frame or table")
            return _decode_scan(
                stream[end:],
                frame,
                tables[table >> 4],
                predictor,
                approximation & 15,
                restart_interval,
            )
    raise ValueError("no scan")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and end of each segment up to the first scan."""
    if stream[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG stream")
    position = 2
    while position + 4 <= len(stream):
        if stream[position] != 0xFF:
            raise ValueError("a marker is missing")
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        end = position + 2 + length
        if length < 2 or end > len(stream):
            raise ValueError("a segment is cut off")
        content = stream[position + 4 : end]
        if len(content) < 6 and (marker in _FRAMES or marker == 0xDA):
            raise ValueError("a header is too short")
        yield marker, content, end
        if marker == 0xDA:
            return
        position = end


def _huffman_tables(content: bytes) -> dict[int, _Codes]:
    """The tables of a DHT segment, expanded to all 16-bit words (T.81, annex C)."""
    tables = {}
    while content:
        if len(content) < 17:
            raise ValueError("a code table is cut off")
        counts = list(content[1:17])
        values = content[17 : 17 + sum(counts)]
        if len(values) < sum(counts):
            raise ValueError("a code table is cut off")
        code_bits = np.zeros(65536, np.uint8)
        category = np.zeros(65536, np.uint8)
        place, at = 0, 0
        for bits, count in enumerate(counts, start=1):
            for value in values[at : at + count]:
                words = 1 << (16 - bits)
                if value > 16 or place + words > 65536:
                    raise ValueError("a code table is wrong")
                code_bits[place : place + words] = bits
                category[place : place + words] = value
                place += words
            at += count
        own_bits = np.where(category == 16, 0, category)
        symbol_bits = np.where(code_bits > 0, code_bits + own_bits, _INVALID).astype(np.uint8)
        tables[content[0] & 15] = _Codes(code_bits, category, symbol_bits)
        content = content[17 + sum(counts) :]
    return tables


def _decode_scan(
    coded: bytes, frame: FrameHeader, codes: _Codes, predictor: int, shift: int, interval: int
) -> UInt16[np.ndarray, "height width"]:
    if not 1 <= predictor <= 7 or shift >= frame.bits:
        raise ValueError("unknown predictor or point transform")
    end = re.search(rb"\xff[^\x00\xd0-\xd7\xff]", coded)
    coded = coded[: end.start()] if end else coded
    height, width = frame.height, frame.width
    if not interval:
        rows, parts = height, iter([coded])
    elif interval % width:
        raise ValueError("restarts within a row")
    else:
        rows, parts = interval // width, iter(re.split(rb"\xff[\xd0-\xd7]", coded))
    values = np.empty((height, width), np.uint16)
    for first in range(0, height, rows):
        part = next(parts, None)
        if part is None:
            raise ValueError("ends early")
        block = values[first : first + rows]
        data = part.replace(b"\xff\x00", b"\xff")
        block[:] = _differences(data, codes, block.size).reshape(block.shape)
        _undo_prediction(block, predictor, 1 << (frame.bits - shift - 1))
    return values << shift


def _differences(data: bytes, codes: _Codes, count: int) -> UInt16[np.ndarray, "{count}"]:
    """The first `count` differences of Huffman-coded `data`, modulo 65536."""
    differences = np.empty(count, np.uint16)
    bits = 8 * len(data)
    padded = np.frombuffer(data + bytes(16), np.uint8)
    # the 64 bits from each byte on
    words = np.ndarray((len(padded) - 8,), ">u8", padded, strides=(1,))
    done, position = 0, 0
    for start in range(0, len(data), _CHUNK):
        # bit numbers are within the chunk; the last symbol reaches into the next one
        end = min(start + _CHUNK, len(data))
        places = _walk(padded[start : end + 2], codes, position, count - done)
        if places:
            at = np.array(places, np.int64) + 8 * start
            differences[done : done + len(at)] = _read_differences(words, at, codes)
            done += len(at)
            position = places[-1] + _symbol_bits(words, int(at[-1]), codes)
            if 8 * start + position > bits:
                break
        if done == count:
            return differences
        position -= 8 * _CHUNK
    raise ValueError("ends early")


def _walk(chunk: np.ndarray, codes: _Codes, position: int, most: int) -> list[int]:
    """The bits at which symbols begin, from `position` on, in all but the last 2 bytes.

    Of these the first `most`, since what follows the last difference may be anything.
    """
    wide = chunk.astype(np.uint32)
    next_24 = wide[:-2] << 16 | wide[1:-1] << 8 | wide[2:]
    steps_by_bit = np.empty((len(next_24), 8), np.uint8)
    for bit in range(8):
        steps_by_bit[:, bit] = codes.symbol_bits[next_24 >> (8 - bit) & 0xFFFF]
    steps = steps_by_bit.tobytes()
    places: list[int] = []
    add, end = places.append, len(steps)
    for _ in range(most):
        if position >= end:
            break
        add(position)
        position += steps[position]
    return places


def _symbol_bits(words: np.ndarray, at: int, codes: _Codes) -> int:
    window = int(words[at >> 3]) << (at & 7) & 0xFFFFFFFFFFFFFFFF
    return int(codes.symbol_bits[window >> 48])


def _read_differences(words: np.ndarray, at: np.ndarray, codes: _Codes) -> np.ndarray:
    """The differences whose symbols begin at the bits `at`, as T.81 writes them (table H.2)."""
    windows = words[at >> 3].astype(np.uint64) << (at & 7).astype(np.uint64)
    code = (windows >> np.uint64(48)).astype(np.int64)
    code_bits = codes.code_bits[code]
    if not code_bits.all():
        raise ValueError("a code is wrong")
    category = codes.category[code].astype(np.int64)
    own = windows << code_bits.astype(np.uint64)
    # shifted in two steps: numpy leaves a shift by all 64 bits undefined
    own = (own >> np.uint64(1) >> (63 - category).astype(np.uint64)).astype(np.int64)
    half = np.int64(1) << np.maximum(category - 1, 0)
    differences = np.where(own < half, own - 2 * half + 1, own)
    differences[category == 0] = 0
    differences[category == 16] = 32768
    return differences & 0xFFFF


def _undo_prediction(block: np.ndarray, predictor: int, start: int) -> None:
    """Turn differences into values, in place; arithmetic is modulo 65536 (T.81, H.1.2.1)."""
    height, width = block.shape
    block[0, 0] = (int(block[0, 0]) + start) & 0xFFFF
    np.cumsum(block[0], dtype=np.uint16, out=block[0])
    np.cumsum(block[:, 0], dtype=np.uint16, out=block[:, 0])
    if predictor == 1:
        np.cumsum(block[1:], axis=1, dtype=np.uint16, out=block[1:])
        return
    if width == 1:
        return
    flat = block.reshape(-1)
    # along a diagonal from lower left to upper right no pixel depends on another
    for diagonal in range(2, height + width - 1):
        top, bottom = max(1, diagonal - width + 1), min(height - 1, diagonal - 1)
        first, step = diagonal + top * (width - 1), width - 1
        here = slice(first, diagonal + bottom * step + 1, step)
        left, above, corner = (
            flat[first - back : here.stop - back : step].astype(np.int32)
            for back in (1, width, width + 1)
        )
        flat[here] += _predicted(predictor, left, above, corner).astype(np.uint16)


def _predicted(
    predictor: int, left: np.ndarray, above: np.ndarray, corner: np.ndarray
) -> np.ndarray:
    """Table H.1 of T.81, but for predictor 1."""
    match predictor:
        case 2:
            return above
        case 3:
            return corner
        case 4:
            return left + above - corner
        case 5:
            return left + (above - corner >> 1)
        case 6:
            return above + (left - corner >> 1)
        case _:
            return left + above >> 1
