"""What a fault is, and what every fault must end in: one clear error, and nothing half-written."""

import contextlib
import hashlib
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from dwarf_cxr.cli import main

SHOWN = 110
"""Letters of an outcome in the table."""


class NotMetError(Exception):
    """A fault ended otherwise than it must; says how."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to survive."""

    number: int
    """In the list of 49."""
    name: str
    expected: str
    provoke: Callable[[Path], str]
    """Brings it about in an empty folder; returns what happened, raises where it must not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a `dwarf` command ended."""

    status: int
    text: str
    """All that it printed."""

    @property
    def error(self) -> str:
        """Its message, from `error:` on; empty without one."""
        _, mark, message = self.text.partition("error: ")
        return (mark + message).strip()


def dwarf(*words: str | Path | int) -> Outcome:
    """Run the command as its entry point does, in this process: imports cost seconds."""
    said = io.StringIO()
    status: int | str | None = 0
    with (
        mock.patch.object(sys, "argv", ["dwarf", *map(str, words)]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
        except Exception:
            raise NotMetError(f"a traceback: {traceback.format_exc(limit=-1)}") from None
    return Outcome(int(status or 0), said.getvalue())


def need(condition: object, otherwise: str) -> None:
    """Raise `NotMetError` unless the condition holds."""
    if not condition:
        raise NotMetError(otherwise)


def done(*words: str | Path | int) -> str:
    """Run a command that must succeed; returns what it printed."""
    outcome = dwarf(*words)
    need(outcome.status == 0, f"exit {outcome.status}: {shortened(outcome.text)}")
    return outcome.text


def refused(
    *words: str | Path | int, names: Sequence[str], remedy: str, untouched: Path | None
) -> str:
    """Run a command that must fail with one error.

    Args:
        names: what the message must name: file, row, field, value.
        remedy: words of the remedy, which it must hold too.
        untouched: the file or folder that must hold the same bytes afterwards, or must still not
            be there.
    """
    before = contents(untouched)
    outcome = dwarf(*words)
    need(outcome.status == 1, f"exit {outcome.status}: {shortened(outcome.text)}")
    need(outcome.error, f"no error message: {shortened(outcome.text)}")
    for part in (*names, remedy):
        need(part in outcome.error, f"does not say {part!r}: {outcome.error}")
    need(contents(untouched) == before, f"{untouched} was changed")
    return shortened(line_with(outcome.error, names[0]))


def contents(place: Path | None) -> dict[str, str]:
    """The SHA-256 of every file under a folder but its lock, or of a file."""
    if place is None or not place.exists():
        return {}
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.name != ".lock"
    }


def line_with(text: str, part: str) -> str:
    """The last line that holds `part`, where a message lists several faults."""
    return next((line for line in reversed(text.splitlines()) if part in line), text)


def shortened(text: str) -> str:
    """A text on one line without its folders, cut to `SHOWN` letters."""
    words = [word.rsplit("/", 1)[-1] if word.startswith("/") else word for word in text.split()]
    line = " ".join(words)
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
