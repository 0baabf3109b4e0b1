"""Who is who in a data set made from clinical files: a table that stays with its owner.

Patients and images get pseudonyms, keyed hashes (HMAC-SHA256) of the ids in the files. The key, a
random salt, and the way back stand in one CSV file, the link table, which only its owner can read
and which must not travel with the data. Without the salt an id cannot be found by trying all ids;
with the same table the same patient gets the same pseudonym again.
"""

import csv
import fcntl
import hmac
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import atomic_path

COLUMNS = ("kind", "pseudonym", "original", "file")
_DIGITS = 16
"""Hexadecimal digits of a pseudonym: a million images share none but once in 40 million tables."""

Kind = Literal["patient", "image", "file"]
_LETTERS: dict[Kind, str] = {"patient": "P", "image": "I", "file": "F"}


@dataclass(frozen=True)
class LinkTable:
    """A salt, and for each pseudonym given what it stands for and, of files, where they lie."""

    path: Path
    salt: bytes
    rows: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(kind, pseudonym) → (original, file)."""

    @property
    def patients_of(self) -> str:
        """What tells this table's patients from those of others: a keyed hash, not the key."""
        return f"link table {hmac.digest(self.salt, b'patients of', 'sha256').hex()[:_DIGITS]}"

    def pseudonym(self, kind: Kind, original: str, file: str = "") -> str:
        """The pseudonym of `original`, entered in the table."""
        digest = hmac.digest(self.salt, f"{kind}\0{original}".encode("utf-8", "replace"), "sha256")
        name = _LETTERS[kind] + digest.hex()[:_DIGITS]
        self.rows[kind, name] = (original, file)
        return name

    def note_file(self, file: str, remark: str) -> str:
        """Enter a file that did not become an image, and why; its pseudonym."""
        name = self.pseudonym("file", file)
        self.rows["file", name] = (remark, file)
        return name


def default_link_table() -> Path:
    """Where the user's link table lies unless another one is named: with their own data."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "dwarf-cxr" / "links.csv"


@contextmanager
def link_table(path: Path) -> Iterator[LinkTable]:
    """Open the table at `path`, or a new one; what was entered is saved at the end.

    It is saved when the block fails as well: an error may name a pseudonym. Others who open it
    wait.

    Raises:
        DataError: the file is no link table.
    """
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700)
    lock_path = path.with_name(f".{path.name}.lock")
    with os.fdopen(os.open(lock_path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = _read(path) if path.exists() else LinkTable(path, secrets.token_bytes(32))
        try:
            yield table
        finally:
            _write(table)


def _read(path: Path) -> LinkTable:
    remedy = "restore it, or name a new file with --link-table (pseudonyms will then be others)"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, salt, *rows = csv.reader(stream, strict=True)
        if tuple(header) != COLUMNS or salt[0] != "salt" or any(len(row) != 4 for row in rows):
            raise ValueError
        key = bytes.fromhex(salt[2])
        if len(key) < 16:
            raise ValueError
    except (OSError, ValueError, IndexError, csv.Error):
        # what stands in the file is nobody else's business, an error's neither
        raise DataError(f"{path}: not a link table, or not readable; {remedy}") from None
    return LinkTable(path, key, {(row[0], row[1]): (row[2], row[3]) for row in rows})


def _write(table: LinkTable) -> None:
    text = io.StringIO()
    # unquoted, a carriage return in an id would end its line for whoever reads the table
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    writer.writerow(("salt", "", table.salt.hex(), ""))
    writer.writerows((*key, *value) for key, value in sorted(table.rows.items()))
    with atomic_path(table.path, private=True) as temporary:
        # file names need not be UTF-8
        temporary.write_bytes(text.getvalue().encode("utf-8", "backslashreplace"))
