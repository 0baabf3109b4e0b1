"""The draft of a DATA folder: what is decoded so far, so that a later call need not do it again.

    OUT/.draft/
      pixels-SIZE.u8   a place for every image, filled when it is decoded
      films.jsonl      first what the draft is of, then a line per decoded image

A call that is killed at any moment leaves both behind. An image counts as decoded when its line is
whole, its file is still the same (path, length, times, inode), and its pixels have the checksum of
the line. Images that come, go or change places leave the others decoded: a list that differs from
the draft's has the draft copied into its order.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import PIL
from jaxtyping import Int64, UInt8, UInt64

import dwarf_cxr
from dwarf_cxr.data.images import DECODING
from dwarf_cxr.data.store import DATASET_FILE, DRAFT_FOLDER, pixels_file
from dwarf_cxr.files import atomic_folder, recover_folder

JOURNAL = "films.jsonl"

CODECS = ("pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg")
"""Packages that decode DICOM files, as far as they are installed."""

FILMS = np.dtype(
    [
        ("decoded", "?"),
        ("key", "u8"),
        ("bytes", "i8"),
        ("modified", "i8"),
        ("changed", "i8"),
        ("inode", "u8"),
        ("sha256", "S64"),
        ("width", "i4"),
        ("height", "i4"),
        ("blank", "?"),
        ("checksum", "u4"),
    ]
)
"""A row per image: whether it is decoded, what its path makes (`_keys`), and its `Film`."""


class Stamp(NamedTuple):
    """What tells that a file is still the same."""

    bytes: int
    """Its length."""
    modified: int
    """When its content was last changed, in nanoseconds; programs can set it back."""
    changed: int
    """When anything of it was last changed, in nanoseconds; the system alone sets it."""
    inode: int


NO_FILE = Stamp(-1, -1, -1, 0)


class Film(NamedTuple):
    """One decoded image."""

    bytes: int
    """This and the next three are the `Stamp` of its file."""
    modified: int
    changed: int
    inode: int
    sha256: str
    """Of its file, in hex."""
    width: int
    height: int
    blank: bool
    """Whether every pixel is the same."""
    checksum: int
    """CRC-32 of its prepared pixels."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now; `NO_FILE` where it cannot be told."""
    try:
        status = path.stat()
    except OSError:
        return NO_FILE
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


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
        self.unwanted = False
        self._pixels = pixels
        self._journal = journal

    def decoded_before(
        self, index: int, stamp: Stamp
    ) -> UInt8[np.ndarray, "{self.size} {self.size}"] | None:
        """The pixels that an earlier call decoded from an image's file, None where it must be done.

        `stamp` is the file's now; it, and the pixels' checksum, must be what they were.
        """
        film = self.films[index]
        if not film["decoded"]:
            return None
        if tuple(film[list(Stamp._fields)]) == stamp:
            content = _read(self._pixels, self.size * self.size, index)
            if zlib.crc32(content) == film["checksum"]:
                return np.frombuffer(content, dtype=np.uint8).reshape(self.size, self.size)
        film["decoded"] = False
        return None

    def write(self, index: int, pixels: UInt8[np.ndarray, "{self.size} {self.size}"]) -> int:
        """Put the pixels of an image in their place; returns their checksum."""
        content = pixels.tobytes()
        _write(self._pixels, content, index)
        return zlib.crc32(content)

    def record(self, index: int, film: Film) -> None:
        """Note that an image is decoded and its pixels are written."""
        key = self.films[index]["key"]
        self._journal.write(_line(index, int(key), film))
        self._journal.flush()  # to the system, where it survives the end of this process
        self.films[index] = (True, key, *film)

    def sync(self) -> None:
        """Make the pixels survive a power cut."""
        os.fsync(self._pixels)

    def discard(self) -> None:
        """Have the draft's files removed once they are closed."""
        self.unwanted = True


@contextmanager
def open_draft(
    out: Path, paths: Iterable[Path], images: int, size: int, say: Callable[[str], None]
) -> Iterator[Draft]:
    """The draft in `out` of the `images` images `paths` at size×size pixels: continued, or begun.

    What cannot be used of an earlier draft is dropped: images that are not among `paths`, and all
    of them when they are of another size or were decoded by other versions. `say` is told of that,
    and of a discarded draft that cannot be removed. The caller holds the lock of `out`.

    Raises:
        OSError: the disk cannot hold the pixels; an earlier draft stays as it is.
    """
    folder = out / DRAFT_FOLDER
    recover_folder(folder)
    shutil.rmtree(folder.with_name(f"{DRAFT_FOLDER}.new"), ignore_errors=True)
    keys = _keys(paths, images)
    films = _continue(out, keys, size, say)
    begun = films is None
    if films is None:
        shutil.rmtree(folder, ignore_errors=True)
        films = _films(keys)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOURNAL).write_bytes(_title(images, size))
    try:
        pixels = _open_pixels(folder / pixels_file(size), images, size)
    except OSError:
        if begun:
            _remove(folder, say)
        raise
    try:
        with (folder / JOURNAL).open("ab") as journal:
            draft = Draft(folder, size, films, pixels, journal)
            yield draft
    finally:
        os.close(pixels)
        # not earlier: some file systems keep a folder whose files are open
        if draft.unwanted:
            _remove(folder, say)


def _keys(paths: Iterable[Path], images: int) -> UInt64[np.ndarray, " images"]:
    """A number that stands for each path.

    That two paths get the same is next to impossible, and harmless: their stamps differ.
    """

    def key(path: Path) -> int:
        name = os.fsencode(path.absolute())
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")

    return np.fromiter(map(key, paths), dtype=np.uint64, count=images)


def _films(keys: UInt64[np.ndarray, " images"]) -> np.ndarray:
    """Rows of images of which none is decoded."""
    films = np.zeros(len(keys), dtype=FILMS)
    films["key"] = keys
    return films


def _title(images: int, size: int) -> bytes:
    """The first line of the journal: all that the pixels depend on but the files themselves."""
    title = {
        "draft": 2,
        "images": images,
        "size": size,
        "decoding": DECODING,
        "dwarf-cxr": dwarf_cxr.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        **{codec: _version(codec) for codec in CODECS},
    }
    return json.dumps(title).encode() + b"\n"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _line(index: int, key: int, film: Film) -> bytes:
    """The line of the journal that says an image is decoded."""
    return json.dumps({"image": index, "key": key} | film._asdict()).encode() + b"\n"


def _continue(
    out: Path, keys: UInt64[np.ndarray, " images"], size: int, say: Callable[[str], None]
) -> np.ndarray | None:
    """The films of the draft in `out`, brought into the order of `keys`; None when there is none.

    `say` is told how many decoded images are of no use.
    """
    folder = out / DRAFT_FOLDER
    decoded = _decoded_lines(folder / JOURNAL)
    if not decoded:
        return None
    earlier = _earlier(out, size)
    if earlier is None:
        why = "they are of another --size, or other versions decoded them, or they are damaged"
        say(_dropped(decoded, why))
        return None
    places = np.flatnonzero(earlier["decoded"])
    if len(earlier) == len(keys) and np.array_equal(earlier["key"][places], keys[places]):
        earlier["key"] = keys
        return earlier
    films, origins = _in_order(earlier, keys)
    lost = len(places) - len(np.unique(origins))
    if lost:
        say(_dropped(lost, "they are not among the images now"))
    if not len(origins):
        return None
    _copy(folder, films, origins, size)
    return films


def _dropped(count: int, why: str) -> str:
    return f"{count:,} images that an earlier call decoded are dropped: {why}"


def _decoded_lines(journal: Path) -> int:
    try:
        with journal.open("rb") as lines:
            return max(0, sum(1 for _ in lines) - 1)
    except FileNotFoundError:
        return 0


def _earlier(out: Path, size: int) -> np.ndarray | None:
    """The films of the draft in `out` as it is; None when it is of something else, or not whole."""
    folder, name = out / DRAFT_FOLDER, pixels_file(size)
    with (folder / JOURNAL).open("r+b") as journal:
        title = journal.readline()
        try:
            images = int(json.loads(title)["images"])
        except (ValueError, TypeError, KeyError):
            return None
        if title != _title(images, size):
            return None
        films = _read_films(journal, images)
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
            index, key = entry.pop("image"), entry.pop("key")
            if not line.endswith(b"\n") or not 0 <= index < images:
                break
            films[index] = (True, key, *Film(**entry))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            break
        whole += len(line)
    # what is added must not follow half a line
    journal.truncate(whole)
    return films


def _in_order(
    earlier: np.ndarray, keys: UInt64[np.ndarray, " images"]
) -> tuple[np.ndarray, Int64[np.ndarray, " kept"]]:
    """The films of the images `keys`; of those that are decoded, in order, their earlier places."""
    films = _films(keys)
    places = np.flatnonzero(earlier["decoded"])
    places = places[np.argsort(earlier["key"][places], kind="stable")]
    known = earlier["key"][places]
    at = np.searchsorted(known, keys)
    kept = at < len(known)
    kept[kept] = known[at[kept]] == keys[kept]
    origins = places[at[kept]]
    films[kept] = earlier[origins]
    return films, origins


def _copy(folder: Path, films: np.ndarray, origins: Int64[np.ndarray, " kept"], size: int) -> None:
    """Replace the draft by one in another order, as a whole: a kill leaves one of the two.

    Raises:
        OSError: the disk does not hold both of them.
    """
    name = pixels_file(size)
    kept = np.flatnonzero(films["decoded"]).tolist()
    with (
        atomic_folder(folder) as fresh,
        (folder / name).open("rb") as source,
        (fresh / JOURNAL).open("wb") as journal,
    ):
        target = _open_pixels(fresh / name, len(films), size)
        try:
            journal.write(_title(len(films), size))
            for index, origin in zip(kept, origins.tolist(), strict=True):
                # what did not reach the disk whole is found by its checksum later
                _write(target, _read(source.fileno(), size * size, origin), index)
                journal.write(_line(index, int(films[index]["key"]), _film(films[index])))
            os.fsync(target)
        finally:
            os.close(target)
        journal.flush()
        os.fsync(journal.fileno())


def _film(row: np.void) -> Film:
    known = {name: row[name].item() for name in Film._fields}
    return Film(**known | {"sha256": known["sha256"].decode()})


def _read(file: int, square: int, index: int) -> bytes:
    """The pixels in the place of an image; fewer where the file ends."""
    return os.pread(file, square, index * square)


def _write(file: int, content: bytes, index: int) -> None:
    """Put the pixels of an image in their place."""
    view, place, written = memoryview(content), index * len(content), 0
    while written < len(view):
        written += os.pwrite(file, view[written:], place + written)


def _open_pixels(path: Path, images: int, size: int) -> int:
    """The file of the pixels in its whole length.

    Raises:
        OSError: the disk cannot hold it.
    """
    length = images * size * size
    pixels = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _reserve(pixels, length)
    except OSError as fault:
        os.close(pixels)
        words = f"{fault.strerror}: {length:,} bytes are needed there"
        raise OSError(fault.errno, words, str(path)) from None
    return pixels


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


def _remove(folder: Path, say: Callable[[str], None]) -> None:
    """Remove a draft that is closed; one that stays is in nobody's way."""
    try:
        shutil.rmtree(folder)
    except OSError as fault:
        say(f"{folder}: cannot be removed ({fault.strerror}); remove it by hand")
