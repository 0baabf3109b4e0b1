"""Files that are either whole or absent: atomic writes, hashes and the lock of a folder."""

import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dwarf_cxr.errors import DataError, DwarfError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How a system says that the disk, the user's share of it or a file is full."""


@contextmanager
def atomic_path(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`.

    Whatever happens in the block, `path` is afterwards either as it was or the whole new file;
    a `private` one is readable and writable by its owner only.

    Raises:
        DwarfError: there is no room for it; names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if not private:
            # mkstemp makes files private; a result is as readable as any other file of the user.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as fault:
        if fault.errno not in NO_ROOM:
            raise
        raise DwarfError(
            f"{path}: cannot be written ({fault.strerror}), what was there is as it was; "
            "free some space and give the command again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes `folder`'s place as a whole.

    A crash between the two renames leaves the earlier content as `folder.old`, where
    `recover_folder` finds it.
    """
    folder = Path(folder)
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    recover_folder(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_folder(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def whole_folder(folder: Path) -> Path:
    """Where `folder`'s content is to be read: beside it while a writer is between its renames.

    Nothing is moved, so that a reader cannot disturb a writer.
    """
    old = folder.with_name(folder.name + ".old")
    return old if old.exists() and not folder.exists() else folder


def recover_folder(folder: Path) -> None:
    """Undo an `atomic_folder` that was killed between its two renames."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8 with LF line ends.

    Raises:
        DataError: it holds what UTF-8 cannot, such as the name of a file in another encoding.
    """
    try:
        write_bytes(path, content.encode("utf-8"))
    except UnicodeEncodeError as fault:
        raise _not_utf8(path, fault) from None


def write_json(path: Path, content: Any) -> None:
    """Write `content` as strict JSON (no NaN), indented, atomically.

    What UTF-8 cannot hold, such as the name of a file in another encoding, is written as JSON's
    own escape, which reads back as it was.
    """
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows`, one after the other, as CSV with the given columns, atomically.

    None becomes an empty field.

    Raises:
        DataError: a field holds what UTF-8 cannot.
    """
    with atomic_path(path) as temporary:
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(columns), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        except UnicodeEncodeError as fault:
            raise _not_utf8(path, fault) from None


def _not_utf8(path: Path, fault: UnicodeEncodeError) -> DataError:
    around = fault.object[max(0, fault.start - 40) : fault.end + 40].strip()
    return DataError(
        f"{path}: {around!r} cannot be written as UTF-8 (the name of a file in another encoding?); "
        f"rename it"
    )


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: the file is missing or is not JSON; names the file and the place.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise DataError(f"{path}: not valid JSON ({fault}); restore or regenerate it") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder`'s lock; a second writer is refused at once.

    A folder that was made for the lock and holds nothing else does not outlive work that fails.

    Raises:
        DwarfError: another process holds the lock.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DwarfError(
                f"{folder}: another process is writing here; wait for it or choose another folder"
            ) from None
        try:
            yield
        except BaseException:
            if made and folder.is_dir() and [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
            raise
