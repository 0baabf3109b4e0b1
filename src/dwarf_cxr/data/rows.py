"""Reading CSV tables of unknown origin: byte order marks, line ends, encodings, ragged rows."""

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
    columns, rows = iterate_rows(path, required)
    return Table(
        Path(path),
        columns,
        tuple(Row(line, dict(zip(columns, cells, strict=True))) for line, cells in rows),
    )


def iterate_rows(
    path: Path, required: Sequence[str] = ()
) -> tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """The columns of a table, and its rows one by one: line number and fields.

    As `read_table`, but that only the row at hand is in memory; a fault of a row is raised when its
    turn comes.
    """
    path = Path(path)
    lines = _filled_lines(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: empty table; its first line must name the columns")
    header = _without_empty_tail(first[1])
    doubled = doubles(header)
    if doubled:
        raise DataError(f"{path}: column named twice: {', '.join(map(repr, doubled))}")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, header))}"
        )

    def rows() -> Iterator[tuple[int, list[str]]]:
        for line, cells in lines:
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise DataError(
                    f"{path}, line {line}: {len(cells)} fields where the header has {len(header)}; "
                    f"quote fields that hold commas"
                )
            yield line, cells[: len(header)]

    return tuple(header), rows()


def _filled_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields, without blanks around them, of every line that is not empty."""
    try:
        with _open(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            reader = csv.reader(_without_nul(text, path), strict=True)
            start = 1
            try:
                for cells in reader:
                    cells = [cell.strip() for cell in cells]
                    if any(cells):
                        yield start, cells
                    start = reader.line_num + 1
            except csv.Error as fault:
                raise DataError(f"{path}, line {start}: not valid CSV ({fault})") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise DataError(f"{path}: damaged archive ({fault}); fetch it again") from None
    except OSError as fault:
        raise DataError(f"{path}: cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError:
        raise _not_utf8(path) from None


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The bytes of a table, unpacked."""
    return gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb")


def _without_nul(lines: Iterable[str], path: Path) -> Iterator[str]:
    for line in lines:
        if "\0" in line:
            raise DataError(f"{path}: holds NUL characters; save the table as CSV UTF-8")
        yield line


def _not_utf8(path: Path) -> DataError:
    """The line and the byte, which the decoder of a stream does not know."""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as fault:
                return DataError(
                    f"{path}, line {number}: byte 0x{line[fault.start]:02x} is not UTF-8; "
                    f"save the table as CSV UTF-8"
                )
    return DataError(f"{path}: not UTF-8; save the table as CSV UTF-8")


def only_file(root: Path, *names: str) -> Path | None:
    """The file with the first of `names` that is under `root`, the least deep; None without one.

    Raises:
        DataError: there are several of that name, equally deep.
    """
    for name in names:
        # all of CheXpert has a quarter of a million folders: they are not walked without need
        for pattern in (name, f"*/{name}", f"*/*/{name}", f"**/{name}"):
            found = _least_deep(list(root.glob(pattern)))
            if len(found) > 1:
                raise DataError(
                    f"{root}: several files {name}: {listed(list(map(str, found)))}; keep one of "
                    f"them, or give a folder with one as --root"
                )
            if found:
                return found[0]
    return None


def _least_deep(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` with the fewest folders above them, sorted."""
    least = min((len(path.parts) for path in paths), default=0)
    return sorted(path for path in paths if len(path.parts) == least)


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
