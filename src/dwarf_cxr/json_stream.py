"""JSON objects with long lists, written and read entry by entry, so that memory stays flat."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import atomic_path

_CHUNK = 1 << 20
"""Letters that are read at once."""

_DECODER = json.JSONDecoder()
_END = re.compile(r"[\s,\]}]")


def write_json_object(path: Path, parts: Mapping[str, Any]) -> None:
    """Write `parts` as `dwarf_cxr.files.write_json` would, atomically.

    A value that is an iterator is written as a list, an entry at a time.
    """
    with (
        atomic_path(path) as temporary,
        # as in write_json: a letter that UTF-8 lacks becomes JSON's own escape of it
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        before = "{"
        for key, value in parts.items():
            stream.write(f"{before}\n {_written(key, 1)}: ")
            if isinstance(value, Iterator):
                _write_list(stream, value)
            else:
                stream.write(_written(value, 1))
            before = ","
        stream.write("\n}\n" if parts else "{}\n")


def _write_list(stream: TextIO, entries: Iterable[Any]) -> None:
    before = "["
    for entry in entries:
        stream.write(f"{before}\n  {_written(entry, 2)}")
        before = ","
    stream.write("[]" if before == "[" else "\n ]")


def _written(value: Any, depth: int) -> str:
    """`value` as it stands `depth` levels deep; JSON's texts hold no line ends of their own."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    return text.replace("\n", "\n" + " " * depth)


def read_json_object(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield key and value of a JSON object in the order of the file.

    A value that is a list is given as an iterator over its entries, to be used before the next key
    is asked for: only one entry is in memory at once. What comes before a fault is given before the
    fault is raised.

    Raises:
        DataError: the file is missing, is not JSON, or is no object; names the file and the fault.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            yield from _Reader(stream, path).items()
    except OSError as fault:
        raise DataError(f"{path}: cannot be read ({fault.strerror})") from None


class _Reader:
    """The text of a stream from `at` on, of which only the part being parsed is held."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream = stream
        self.path = path
        self.text = ""
        self.at = 0

    def items(self) -> Iterator[tuple[str, Any]]:
        """Key and value of the object that the text must be."""
        self.expect("{", "an object")
        more = not self.take("}")
        while more:
            key = self.value()
            if not isinstance(key, str):
                raise self.fault("a name in quotes expected")
            self.expect(":", "':'")
            if self.take("["):
                entries = self.entries()
                yield key, entries
                for _ in entries:  # those that were not asked for
                    pass
            else:
                yield key, self.value()
            more = self.take(",")
            if not more:
                self.expect("}", "',' or '}'")
        if self.upcoming():
            raise self.fault("nothing more expected")

    def entries(self) -> Iterator[Any]:
        """The entries of a list that has begun."""
        more = not self.take("]")
        while more:
            yield self.value()
            more = self.take(",")
            if not more:
                self.expect("]", "',' or ']'")

    def value(self) -> Any:
        """The value that comes next."""
        if self.upcoming() in "-0123456789":
            # a number has no end of its own
            while not _END.search(self.text, self.at) and self.read_on():
                pass
        while True:
            try:
                found, self.at = _DECODER.raw_decode(self.text, self.at)
                return found
            except json.JSONDecodeError as fault:
                if not self.read_on():
                    raise self.fault(fault.msg) from None
            except RecursionError:
                raise self.fault("nested too deeply") from None

    def take(self, letter: str) -> bool:
        """Whether `letter` comes next; it is then passed."""
        there = self.upcoming() == letter
        self.at += there
        return there

    def expect(self, letter: str, words: str) -> None:
        """Pass `letter`, which must come next."""
        if not self.take(letter):
            raise self.fault(f"{words} expected")

    def upcoming(self) -> str:
        """The next letter that is not blank; nothing at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.read_on():
                return ""

    def read_on(self) -> bool:
        """Read more text, if there is more; twice as much for an entry that does not end."""
        rest = self.text[self.at :]
        try:
            chunk = self.stream.read(max(_CHUNK, len(rest)))
        except UnicodeDecodeError as fault:
            raise self.fault(str(fault)) from None
        if chunk:
            self.text, self.at = rest + chunk, 0
        return bool(chunk)

    def fault(self, what: str) -> DataError:
        """The error to raise here."""
        near = self.text[self.at : self.at + 20]
        return DataError(
            f"{self.path}: not valid JSON ({what}, at {near!r}); restore or regenerate it"
        )
