"""Faults 12 to 21: DICOM files."""

import resource
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from dwarf_cxr.data.dicom import MAX_INFLATED
from tests import dicom_files as dicom
from tests.faults.fault import Fault, need
from tests.faults.films import SIZE, prepare, refuse_prepared, write_films

FILE = "film2.dcm"
INDEX = 2
"""Of that film in the data."""
FILM = dicom.film(SIZE, SIZE, seed=4)
WINDOW = dicom.Window(2048, 4096)


def shown(place: Path, content: bytes) -> np.ndarray:
    """The prepared pixels of a DICOM file, widened."""
    root = write_films(place / "films")
    (root / FILE).write_bytes(content)
    _, data = prepare(root, place / "data")
    return data.pixels[INDEX].astype(int)


def refuse_dicom(place: Path, content: bytes, *, names: Sequence[str], remedy: str) -> str:
    """Have a DICOM file refused by its name."""
    return refuse_prepared(
        place,
        lambda root: (root / FILE).write_bytes(content),
        names=[FILE, *names],
        remedy=remedy,
    )


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The standard's LINEAR window (part 3, C.11.2.1.2), pixel by pixel, to 0 to 255."""
    grey = np.empty(values.shape)
    for place, value in np.ndenumerate(values):
        if value <= centre - 0.5 - (width - 1) / 2:
            grey[place] = 0
        elif value > centre - 0.5 + (width - 1) / 2:
            grey[place] = 255
        else:
            grey[place] = ((value - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.round(grey)


def monochrome1(place: Path) -> str:
    """A film in which low values are white."""
    window = dicom.Window(1500, 2000)
    content = dicom.dicom_bytes(FILM, photometric="MONOCHROME1", window=window)
    off = np.abs(shown(place, content) - (255 - linear(FILM, 1500, 2000))).max()
    need(off <= 1, f"off by {off} of 255")
    return f"255 − the standard's LINEAR window, at most {off:.0f} off"


def several_frames(place: Path) -> str:
    """Two films in one file."""
    content = dicom.dicom_bytes(np.stack([FILM, FILM[::-1]]))
    return refuse_dicom(place, content, names=["2 frames"], remedy="export the one frame")


def stored_beyond_allocated(place: Path) -> str:
    """A header that contradicts itself."""
    content = dicom.dicom_bytes(FILM, changes={"BitsStored": 18})
    return refuse_dicom(place, content, names=["18 bits stored"], remedy="export it again")


def junk_bits(place: Path) -> str:
    """Overlay bits above the stored ones."""
    rng = np.random.default_rng()
    junk = rng.integers(0, 16, FILM.shape).astype(np.uint16) << 12
    content = dicom.dicom_bytes(FILM | junk, window=WINDOW)
    need(junk.any() and content != dicom.dicom_bytes(FILM, window=WINDOW), "there is no junk")
    off = np.abs(shown(place, content) - linear(FILM, 2048, 4096)).max()
    need(off <= 1, f"off by {off} of 255")
    return f"the pixels of the film without them, at most {off:.0f} off"


def signed_and_rescaled(place: Path) -> str:
    """Negative values, a slope and an intercept."""
    stored = FILM.astype(np.int64) - 2048
    content = dicom.dicom_bytes(
        stored, signed=True, rescale=(0.5, 100.0), window=dicom.Window(100, 2048)
    )
    off = np.abs(shown(place, content) - linear(stored * 0.5 + 100, 100, 2048)).max()
    need(off <= 1, f"off by {off} of 255")
    return f"window of 0.5 · value + 100, at most {off:.0f} off"


def missing_elements(place: Path) -> str:
    """Files without an element that pixels cannot do without."""
    got = ""
    for number, keyword in enumerate(("Rows", "PixelData", "PhotometricInterpretation")):
        content = dicom.dicom_bytes(FILM, removed=[keyword])
        (place / str(number)).mkdir()
        got = refuse_dicom(place / str(number), content, names=[keyword], remedy="export it again")
    return got


def truncated_pixels(place: Path) -> str:
    """A file that was not transferred to its end, with its lengths mended."""
    pixels = FILM.tobytes()[: SIZE * SIZE]
    content = dicom.dicom_bytes(FILM, changes={"PixelData": pixels})
    return refuse_dicom(place, content, names=["truncated"], remedy="fetch it again")


def deflate_bomb(place: Path) -> str:
    """A small file that unpacks to more than any film."""
    content = dicom.dicom_bytes(FILM, transfer_syntax=dicom.DEFLATED)
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS))
    blocks = MAX_INFLATED // (1 << 24) + 2
    packed += b"".join(packer.compress(bytes(1 << 24)) for _ in range(blocks))
    bomb = content[:start] + packed + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = refuse_dicom(place, bomb, names=["unpacks to more than"], remedy="refused")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    need(grown < 3 * MAX_INFLATED / 2**20, f"the memory grew by {grown:.0f} MB")
    return got


def missing_codec(place: Path) -> str:
    """JPEG-LS pixels where its package is not installed."""
    content = dicom.dicom_bytes(FILM, transfer_syntax=dicom.JPEG_LS)
    with mock.patch.dict(sys.modules, {"jpeg_ls": None}):
        return refuse_dicom(
            place, content, names=["JPEG-LS"], remedy="install pyjpegls (pip install pyjpegls)"
        )


def not_dicom(place: Path) -> str:
    """A text named .dcm."""
    return refuse_dicom(
        place,
        b"patient;finding\n1;Mass\n" * 20,
        names=["not a PNG, JPEG or DICOM"],
        remedy="convert",
    )


FAULTS = (
    Fault(12, "MONOCHROME1", "inverted after the window", monochrome1),
    Fault(13, "multi-frame", "refused, says how many frames", several_frames),
    Fault(14, "BitsStored > BitsAllocated", "refused, names both", stored_beyond_allocated),
    Fault(15, "junk high bits", "masked", junk_bits),
    Fault(16, "signed pixels, rescale", "shown as the standard says", signed_and_rescaled),
    Fault(17, "no Rows / PixelData / Photometric…", "refused, names the element", missing_elements),
    Fault(18, "truncated pixels", "refused, names the file", truncated_pixels),
    Fault(19, "deflate bomb", "refused, memory bounded", deflate_bomb),
    Fault(20, "missing codec", "refused, names the package", missing_codec),
    Fault(21, "not a DICOM file", "refused, names the file", not_dicom),
)
