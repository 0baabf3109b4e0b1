"""Reading CSV tables of unknown origin: byte order marks, line ends, encodings, ragged rows."""

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwarf_cxr.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line number in the file (the header is line 1) and its fields by column."""

    line: int
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file: its columns in order and its rows; surrounding blanks of fields are removed."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path, required: Sequence[str] = ()) -> Table:
    """Parse a UTF-8 CSV file, with or without byte order mark, with any line ends; `.gz` too.

    Empty lines and empty columns at the right are dropped.

    Raises:
        DataError: the file is missing, empty, damaged, not UTF-8 or ragged, names a column twice,
            or lacks a `required` column; names the file and the line.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as fault:
        raise DataError(f"{path}: cannot be read ({fault.strerror})") from None
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as fault:
            raise DataError(f"{path}: damaged archive ({fault}); fetch it again") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{content[fault.start]:02x} is not UTF-8; "
            f"save the table as CSV UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: holds NUL characters; save the table as CSV UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((start, [cell.strip() for cell in cells]))
            start = reader.line_num + 1
    except csv.Error as fault:
        raise DataError(f"{path}, line {start}: not valid CSV ({fault})") from None
    if not lines:
        raise DataError(f"{path}: empty table; its first line must name the columns")
    header = _without_empty_tail(lines[0][1])
    doubled = doubles(header)
    if doubled:
        raise DataError(f"{path}: column named twice: {', '.join(map(repr, doubled))}")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, header))}"
        )
    rows = []
    for line, cells in lines[1:]:
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise DataError(
                f"{path}, line {line}: {len(cells)} fields where the header has {len(header)}; "
                f"quote fields that hold commas"
            )
        rows.append(Row(line, dict(zip(header, cells, strict=False))))
    return Table(path, tuple(header), tuple(rows))


def only_file(root: Path, name: str) -> Path | None:
    """The one file called `name` anywhere under `root`; None when there is none.

    Raises:
        DataError: there are several.
    """
    found = sorted(root.rglob(name))
    if len(found) > 1:
        raise DataError(f"{root}: several files {name}: {listed(list(map(str, found)))}; keep one")
    return found[0] if found else None


def _without_empty_tail(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def listed(items: Sequence[str], most: int = 10) -> str:
    """The first items, comma-separated, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def doubles(items: Sequence[str]) -> list[str]:
    """The items that occur more than once, each once, in order of their first occurrence."""
    return [item for item, count in Counter(items).items() if count > 1]
