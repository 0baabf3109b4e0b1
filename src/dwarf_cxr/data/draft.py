"""The draft of a DATA folder: what is decoded so far, so that a later call need not do it again.

    OUT/.draft/
      pixels-SIZE.u8   a place for every image, filled when it is decoded
      films.jsonl      first what the draft is of, then a line per decoded image

A call that is killed at any moment leaves both behind. An image counts as decoded when its line is
whole, its file has the same length and time as then, and its pixels have the checksum of the line.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import PIL
from jaxtyping import UInt8

import dwarf_cxr
from dwarf_cxr.data.store import DATASET_FILE, DRAFT_FOLDER, pixels_file

JOURNAL = "films.jsonl"

FILMS = np.dtype(
    [
        ("decoded", "?"),
        ("bytes", "i8"),
        ("modified", "i8"),
        ("sha256", "S64"),
        ("width", "i4"),
        ("height", "i4"),
        ("blank", "?"),
        ("checksum", "u4"),
    ]
)
"""What is known of an image once it is decoded; see `Film`."""


class Film(NamedTuple):
    """One decoded image."""

    bytes: int
    """Length of its file."""
    modified: int
    """When its file was last changed, in nanoseconds."""
    sha256: str
    """Of its file, in hex."""
    width: int
    height: int
    blank: bool
    """Whether every pixel is the same."""
    checksum: int
    """CRC-32 of its prepared pixels."""


class Draft:
    """An open draft; `films` has a row of `FILMS` per image, and rows can be written by threads."""

    def __init__(
        self, folder: Path, size: int, films: np.ndarray, pixels: int, journal: BinaryIO
    ) -> None:
        self.folder = folder
        self.size = size
        self.films = films
        self.already = int(films["decoded"].sum())
        """How many images earlier calls have decoded."""
        self._pixels = pixels
        self._journal = journal

    def decoded_before(
        self, index: int, length: int, modified: int
    ) -> UInt8[np.ndarray, "{self.size} {self.size}"] | None:
        """The pixels that an earlier call decoded from an image's file, None where it must be done.

        `length` (in bytes) and `modified` (nanoseconds) are the file's now; they, and the pixels'
        checksum, must be what they were.
        """
        film = self.films[index]
        if not film["decoded"]:
            return None
        if (film["bytes"], film["modified"]) == (length, modified):
            square = self.size * self.size
            content = os.pread(self._pixels, square, index * square)
            if len(content) == square and zlib.crc32(content) == film["checksum"]:
                return np.frombuffer(content, dtype=np.uint8).reshape(self.size, self.size)
        film["decoded"] = False
        return None

    def write(self, index: int, pixels: UInt8[np.ndarray, "{self.size} {self.size}"]) -> int:
        """Put the pixels of an image in their place; returns their checksum."""
        content = memoryview(pixels.tobytes())
        place, written = index * len(content), 0
        while written < len(content):
            written += os.pwrite(self._pixels, content[written:], place + written)
        return zlib.crc32(content)

    def record(self, index: int, film: Film) -> None:
        """Note that an image is decoded and its pixels are written."""
        self._journal.write(json.dumps({"image": index} | film._asdict()).encode() + b"\n")
        self._journal.flush()  # to the system, where it survives the end of this process
        self.films[index] = (True, *film)

    def sync(self) -> None:
        """Make the pixels survive a power cut."""
        os.fsync(self._pixels)

    def discard(self) -> None:
        """Remove the draft's files."""
        shutil.rmtree(self.folder)


@contextmanager
def open_draft(out: Path, paths: Iterable[Path], images: int, size: int) -> Iterator[Draft]:
    """The draft in `out` of the `images` images `paths` at size×size pixels: continued, or begun.

    A draft of other images, of another size, or by other versions of what decodes is dropped. The
    caller holds the lock of `out`.

    Raises:
        OSError: the disk cannot hold the pixels; the draft is removed.
    """
    folder = out / DRAFT_FOLDER
    title = _title(paths, images, size)
    films = _continue(out, title, images, size)
    if films is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / JOURNAL).write_bytes(title)
        films = np.zeros(images, dtype=FILMS)
    place, length = folder / pixels_file(size), images * size * size
    pixels = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _reserve(pixels, length)
        except OSError as fault:
            shutil.rmtree(folder)
            words = f"{fault.strerror}: {length:,} bytes are needed there"
            raise OSError(fault.errno, words, str(place)) from None
        with (folder / JOURNAL).open("ab") as journal:
            yield Draft(folder, size, films, pixels, journal)
    finally:
        os.close(pixels)


def _title(paths: Iterable[Path], images: int, size: int) -> bytes:
    """The first line of the journal: all that the pixels depend on but the files themselves."""
    names = hashlib.sha256()
    for path in paths:
        names.update(os.fsencode(path.absolute()) + b"\0")
    title = {
        "draft": 1,
        "size": size,
        "images": images,
        "paths": names.hexdigest(),
        "dwarf-cxr": dwarf_cxr.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
        "pydicom": version("pydicom"),
    }
    return json.dumps(title).encode() + b"\n"


def _continue(out: Path, title: bytes, images: int, size: int) -> np.ndarray | None:
    """The films of a draft with that title, None when there is none."""
    folder, name = out / DRAFT_FOLDER, pixels_file(size)
    try:
        with (folder / JOURNAL).open("r+b") as journal:
            if journal.readline() != title:
                return None
            films = _read_films(journal, images)
    except FileNotFoundError:
        return None
    if not (folder / name).exists() and not (out / DATASET_FILE).exists():
        # an earlier call ended after it had moved the pixels and before it could say so
        with contextlib.suppress(FileNotFoundError):
            os.replace(out / name, folder / name)
    whole = images * size * size
    return films if _length(folder / name) == whole else None


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _read_films(journal: BinaryIO, images: int) -> np.ndarray:
    """The films of the journal's whole lines; a line that was cut short ends it."""
    films = np.zeros(images, dtype=FILMS)
    whole = journal.tell()
    for line in journal:
        try:
            entry: dict[str, Any] = json.loads(line)
            index = entry.pop("image")
            if not line.endswith(b"\n") or not 0 <= index < images:
                break
            films[index] = (True, *Film(**entry))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            break
        whole += len(line)
    # what is added must not follow half a line
    journal.truncate(whole)
    return films


def _reserve(file: int, length: int) -> None:
    """Give `file` its whole length: a disk that is too full says so before anything is decoded."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, length)
            return
        except OSError as fault:
            if fault.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(file, length)
