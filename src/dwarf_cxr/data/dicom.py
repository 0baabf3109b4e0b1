"""A DICOM radiograph as the 8-bit grey film that a clinician would be shown.

In this order, as the standard has it (part 3, C.11; part 4, N.2): stored value → modality table, or
slope and intercept → VOI table, or window (LINEAR, LINEAR_EXACT or SIGMOID), or, where the file has
neither, the full range of its pixels → black and white turned round for MONOCHROME1 → 0 to 255.
Padding takes no part and becomes black. docs/dicom.md says what is refused and why.

Stored values have 16 bits at most, so all of this is one table from stored word to grey.

Nothing here reads a name or a patient's id.
"""

import io
import logging
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from dwarf_cxr.data.dicom_pixels import BIG_ENDIAN, DEFLATED, IMPLICIT, Layout, stored_words
from dwarf_cxr.data.images import DICOM_MARK, MAX_PIXELS, Grey
from dwarf_cxr.errors import ImageError

MODALITIES = ("CR", "DX", "RG")
"""Computed, digital and film-based radiography; a file that states none is taken too, since many
de-identified files do not."""

MAX_INFLATED = 2 * MAX_PIXELS + (16 << 20)
"""Bytes that a deflated file may unpack to: the largest image and a generous header."""

_PIXEL_DATA = 0x7FE00010
_REQUIRED = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PhotometricInterpretation",
)
_BLOCK = 1 << 22
"""Pixels that are looked up at a time: numpy widens indices to 64 bits."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A lookup table; `entries[0]` stands for `first` and all below it, the last for all above."""

    first: int
    entries: Int64[np.ndarray, "entry"]
    bits: int
    """Of a value as it is displayed: 2 ** bits - 1 is white."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window, in units behind the modality transformation, that shows something."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True, slots=True)
class _Header:
    """What the file says of its pixels, of everything that matters here; None where it does not."""

    transfer_syntax: str
    missing: tuple[str, ...]
    modality: str
    intent: str
    photometric: str
    samples: int
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    slope: float
    intercept: float
    modality_table: LookupTable | None
    voi_table: LookupTable | None
    window: Window | None
    pixel_data: bytes | None
    in_words: bool


def decode_dicom(content: bytes, where: str) -> Grey:
    """The film of a DICOM file in 8-bit grey, as shown by its own window; `where` names it.

    Raises:
        ImageError: the bytes are no DICOM file, damaged or truncated; not one monochrome
            radiograph for presentation; of more than `MAX_PIXELS`; or coded in a way that the
            installed packages do not decode.
    """
    header = guarded(lambda: _header(parse(io.BytesIO(content), where)), where)
    _refuse_unfit(header, where)
    layout = Layout(header.rows, header.columns, header.bits_allocated, header.in_words)
    if header.pixel_data is None:
        raise ImageError(f"{where}: no pixels (PixelData is missing or cut off); export it again")
    words, coded_bits = stored_words(header.pixel_data, header.transfer_syntax, layout, where)
    used = np.flatnonzero(_histogram(words))
    return _looked_up(_grey_of_words(header, coded_bits, used), words)


def guarded(read: Callable[[], _Value], where: str) -> _Value:
    """What `read` makes of a file, any failure being the file's damage.

    pydicom raises whatever a damaged file leads it to, often only when a field is used, and its
    messages and warnings quote fields, so that none of them is passed on.

    Raises:
        ImageError: `read` failed.
    """
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    try:
        return read()
    except ImageError:
        raise
    except Exception as fault:
        raise ImageError(
            f"{where}: damaged DICOM file ({type(fault).__name__}); fetch it again"
        ) from None


def parse(
    stream: io.BytesIO | io.BufferedReader, where: str, *, only: Sequence[int] = ()
) -> Dataset:
    """The data set of a DICOM file, with its transfer syntax; call it in `guarded`.

    With `only`, tags in front of the pixels, nothing else is read from the file.

    Raises:
        ImageError: no DICOM file, no transfer syntax, or a deflated file that unpacks to more
            than `MAX_INFLATED`.
    """
    place, mark = DICOM_MARK
    if stream.read(place + len(mark))[place:] != mark:
        raise ImageError(f"{where}: not a DICOM file (no DICM mark); export it again")
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise ImageError(f"{where}: names no transfer syntax; export it again")
    if syntax == DEFLATED:
        # the first field of the meta information holds the length of the others
        stream.seek(place + len(mark) + 12 + int(meta.FileMetaInformationGroupLength))
        stream = io.BytesIO(_inflated(stream.read(), where))

    def reached(tag: BaseTag, vr: str | None, length: int) -> bool:
        return bool(only) and tag > max(only)

    dataset = read_dataset(
        stream,
        is_implicit_VR=syntax == IMPLICIT,
        is_little_endian=syntax != BIG_ENDIAN,
        stop_when=reached,
        specific_tags=list(only) or None,
    )
    dataset.TransferSyntaxUID = UID(syntax)
    return dataset


def _inflated(deflated: bytes, where: str) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacker.decompress(deflated, MAX_INFLATED)
    if unpacker.unconsumed_tail and unpacker.decompress(unpacker.unconsumed_tail, 1):
        raise ImageError(
            f"{where}: unpacks to more than {MAX_INFLATED:,} bytes, more than any film; refused"
        )
    return content


def _header(dataset: Dataset) -> _Header:
    missing = [keyword for keyword in _REQUIRED if first_value(dataset, keyword) is None]
    if _PIXEL_DATA not in dataset:
        missing.append("PixelData")
    pixel_data = dataset.get("PixelData")
    bits_stored = _integer(dataset, "BitsStored")
    high_bit = first_value(dataset, "HighBit")
    return _Header(
        transfer_syntax=str(dataset.TransferSyntaxUID),
        missing=tuple(missing),
        modality=_words(dataset, "Modality"),
        intent=_words(dataset, "PresentationIntentType"),
        photometric=_words(dataset, "PhotometricInterpretation"),
        samples=_integer(dataset, "SamplesPerPixel", 1),
        frames=_integer(dataset, "NumberOfFrames", 1),
        rows=_integer(dataset, "Rows"),
        columns=_integer(dataset, "Columns"),
        bits_allocated=_integer(dataset, "BitsAllocated"),
        bits_stored=bits_stored,
        high_bit=bits_stored - 1 if high_bit is None else int(high_bit),
        signed=_integer(dataset, "PixelRepresentation") == 1,
        padding=_padding(dataset),
        slope=_number(dataset, "RescaleSlope", 1.0),
        intercept=_number(dataset, "RescaleIntercept", 0.0),
        modality_table=_table(dataset, "ModalityLUTSequence"),
        voi_table=_table(dataset, "VOILUTSequence"),
        window=next(iter(windows_of(dataset)), None),
        pixel_data=pixel_data if isinstance(pixel_data, bytes) else None,
        in_words="PixelData" in dataset and dataset["PixelData"].VR == "OW",
    )


def first_value(dataset: Dataset, keyword: str) -> Any:
    """The element's first value; None where it is missing or empty."""
    value = dataset.get(keyword)
    if isinstance(value, str | bytes) or not hasattr(value, "__getitem__"):
        return None if value in ("", b"") else value
    return value[0] if len(value) else None


def _words(dataset: Dataset, keyword: str) -> str:
    return str(first_value(dataset, keyword) or "").strip().upper()


def _integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    value = first_value(dataset, keyword)
    return default if value is None else int(value)


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    value = first_value(dataset, keyword)
    return default if value is None else float(value)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    value = first_value(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = first_value(dataset, "PixelPaddingRangeLimit")
    return int(value), int(value if limit is None else limit)


def windows_of(dataset: Dataset) -> tuple[Window, ...]:
    """The windows that a file offers, in its order, without those that show nothing.

    There are none where the first shows nothing, since that is the one the film was sent with.
    """
    function = _words(dataset, "VOILUTFunction")
    pairs = zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False)
    windows = [_usable(centre, width, function) for centre, width in pairs]
    if not windows or windows[0] is None:
        return ()
    return tuple(window for window in windows if window is not None)


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    value = dataset.get(keyword)
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [math.nan if one in (None, "") else float(one) for one in values]


def _usable(centre: float, width: float, function: str) -> Window | None:
    if not (math.isfinite(centre) and math.isfinite(width)) or width <= 0:
        return None
    match function:
        case "LINEAR_EXACT" | "SIGMOID":
            return Window(centre, width, function)
        case _:
            return Window(centre, width, "LINEAR") if width >= 1 else None


def _table(dataset: Dataset, keyword: str) -> LookupTable | None:
    """The first table of a sequence; None where there is none, or an empty one."""
    items = dataset.get(keyword)
    if not items:
        return None
    return lookup_table(items[0], big_endian=dataset.TransferSyntaxUID == BIG_ENDIAN)


def lookup_table(item: Dataset, *, big_endian: bool) -> LookupTable:
    """The table in an item of a ModalityLUTSequence or VOILUTSequence.

    Raises:
        ValueError: the table is cut off.
    """
    size, first, bits = (int(number) for number in item.LUTDescriptor)
    size = size & 0xFFFF or 65536
    data = item.LUTData
    entries: np.ndarray
    if not isinstance(data, bytes):
        entries = np.atleast_1d(np.array(data, np.int64)) & 0xFFFF
    elif len(data) >= 2 * size:
        entries = np.frombuffer(data, ">u2" if big_endian else "<u2", size)
    elif bits <= 8 and len(data) in (size, size + 1):
        entries = np.frombuffer(data, np.uint8)
    else:
        entries = np.empty(0, np.uint8)
    if len(entries) < size:
        raise ValueError("a lookup table is cut off")
    entries = entries[:size].astype(np.int64)
    return LookupTable(first, entries, _bits_shown(bits, int(entries.max())))


def _bits_shown(stated: int, highest: int) -> int:
    """The bits of a table's entries: those that its descriptor states, unless it cannot be right.

    Many files state 16 for tables that were made for 12 bits or fewer, and would be nearly black.
    Otherwise a table that does not reach white is one that is meant to be dark.
    """
    used = max(highest.bit_length(), 1)
    wrong = stated < used or stated > 16 or (stated == 16 and used <= 12)
    return used if wrong else stated


def _refuse_unfit(header: _Header, where: str) -> None:
    """Raise for what is no single radiograph for presentation, or contradicts itself."""
    export = "export it again"
    if header.missing:
        listed = ", ".join(header.missing)
        raise ImageError(f"{where}: a DICOM file without {listed}: no image, or cut off; {export}")
    if header.modality and header.modality not in MODALITIES:
        raise ImageError(
            f"{where}: modality {header.modality[:16]!r}, not a radiograph "
            f"({', '.join(MODALITIES)}); leave it out"
        )
    if header.photometric not in ("MONOCHROME1", "MONOCHROME2") or header.samples != 1:
        raise ImageError(
            f"{where}: photometric interpretation {header.photometric[:16]!r} with "
            f"{header.samples} samples per pixel; only MONOCHROME1 and MONOCHROME2 are "
            "radiographs; leave it out or export the radiograph itself"
        )
    if header.frames > 1:
        raise ImageError(
            f"{where}: {header.frames} frames; export the one frame that is meant as a file of "
            "its own"
        )
    if header.intent == "FOR PROCESSING":
        raise ImageError(
            f"{where}: raw detector values (FOR PROCESSING), which are not meant to be looked at; "
            "export the image FOR PRESENTATION of the same exposure"
        )
    if header.rows < 1 or header.columns < 1:
        raise ImageError(f"{where}: {header.columns}×{header.rows} pixels; {export}")
    if header.rows * header.columns > MAX_PIXELS:
        raise ImageError(
            f"{where}: an image of more than {MAX_PIXELS:,} pixels; reduce it first (its header "
            f"says {header.columns}×{header.rows})"
        )
    if header.bits_allocated not in (8, 16):
        raise ImageError(f"{where}: {header.bits_allocated} bits allocated; 8 or 16 are read")
    if not 1 <= header.bits_stored <= header.high_bit + 1 <= header.bits_allocated:
        raise ImageError(
            f"{where}: {header.bits_stored} bits stored up to bit {header.high_bit} in "
            f"{header.bits_allocated} bits allocated, which contradict each other; {export}"
        )
    if not (math.isfinite(header.slope) and math.isfinite(header.intercept)):
        raise ImageError(
            f"{where}: rescale slope {header.slope}, intercept {header.intercept}; {export}"
        )


def _blocks(words: np.ndarray) -> list[slice]:
    rows = max(1, _BLOCK // words.shape[1])
    return [slice(first, first + rows) for first in range(0, len(words), rows)]


def _histogram(words: np.ndarray) -> Int64[np.ndarray, "65536"]:
    counts = np.zeros(65536, np.int64)
    for block in _blocks(words):
        counts += np.bincount(words[block].ravel(), minlength=65536)
    return counts


def _looked_up(table: UInt8[np.ndarray, "65536"], words: np.ndarray) -> Grey:
    grey = np.empty(words.shape, np.uint8)
    for block in _blocks(words):
        grey[block] = table[words[block]]
    return grey


def _grey_of_words(
    header: _Header, coded_bits: int, used: Int64[np.ndarray, "used"]
) -> UInt8[np.ndarray, "65536"]:
    """The grey of every word; `used` are the words that occur in the image."""
    words = np.arange(65536)
    # a word that a codec delivered in fewer bits than the header says has its sign there
    bits = min(header.bits_stored, coded_bits)
    whole = coded_bits == header.bits_allocated
    low_bit = header.high_bit + 1 - header.bits_stored if whole else 0
    stored = words >> low_bit & (1 << bits) - 1
    if header.signed:
        stored -= (stored >> (bits - 1)) << bits
    padded = _padded(header, words, stored)
    units: Float64[np.ndarray, "65536"]
    if header.modality_table is not None:
        units = _entries(header.modality_table, stored).astype(np.float64)
    else:
        units = stored * header.slope + header.intercept
    shown_range = units[used[~padded[used]]]
    shown = _shown(header, units, shown_range)
    if header.photometric == "MONOCHROME1":
        shown = 1 - shown
    grey = np.round(shown * 255).astype(np.uint8)
    grey[padded] = 0
    return grey


def _padded(
    header: _Header, words: Int64[np.ndarray, "65536"], stored: Int64[np.ndarray, "65536"]
) -> Bool[np.ndarray, "65536"]:
    """Which words are padding; a padding value outside the stored range is meant as a word."""
    if header.padding is None:
        return np.zeros(len(words), bool)
    low, high = sorted(header.padding)
    least, most = int(stored.min()), int(stored.max())
    if least <= low and high <= most:
        return (low <= stored) & (stored <= high)
    return (low & 0xFFFF <= words) & (words <= high & 0xFFFF)


def _entries(table: LookupTable, values: np.ndarray) -> np.ndarray:
    first = table.first
    if first > 32767 and values.min() < 0:  # written as unsigned where it can only be signed
        first -= 65536
    index = np.round(values).astype(np.int64) - first
    return table.entries[np.clip(index, 0, len(table.entries) - 1)]


def _shown(
    header: _Header, units: Float64[np.ndarray, "65536"], used: Float64[np.ndarray, "used"]
) -> Float64[np.ndarray, "65536"]:
    """Units as brightness, 0 to 1; `used` are those of the image without its padding."""
    if header.voi_table is not None:
        return _entries(header.voi_table, units) / (2**header.voi_table.bits - 1)
    window = header.window
    if window is None:
        low = float(used.min()) if len(used) else 0.0
        span = float(used.max()) - low if len(used) else 0.0
        return np.clip((units - low) / (span or 1.0), 0, 1)
    match window.function:
        case "LINEAR_EXACT":
            return np.clip((units - window.centre) / window.width + 0.5, 0, 1)
        case "SIGMOID":
            steepness = -4 * (units - window.centre) / window.width
            return 1 / (1 + np.exp(np.clip(steepness, -700, 700)))
        case _:
            if window.width == 1:
                return np.where(units > window.centre - 0.5, 1.0, 0.0)
            scaled = (units - (window.centre - 0.5)) / (window.width - 1) + 0.5
            return np.clip(scaled, 0, 1)
