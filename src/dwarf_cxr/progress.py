"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[str, int, int], None]
"""Called with a line of text, the steps done and the steps planned."""

Count = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

PLAIN_SECONDS = 30
"""A log gets a step's line at most this often; epochs and estimates always."""

TICKS = (
    "training epoch",
    "scoring ",
    "predicting ",
    "drawing ",
    "preparing ",
    "teaching ",
    "suggesting ",
    "freezing ",
)
"""Words of lines that only say how far the work is, as the bar does."""


@contextmanager
def shown_progress() -> Iterator[Report]:
    """Yield the function that long work reports to."""
    if not sys.stderr.isatty():
        yield _PlainLines()
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def report(line: str, done: int, total: int) -> None:
            if _is_news(line):
                bar.console.print(line, highlight=False, markup=False)
            bar.update(task, completed=done, total=total, description=line.split(" validation")[0])

        yield report


@contextmanager
def shown_count(progress: Count | None, doing: str, done_so_far: str) -> Iterator[Count]:
    """Yield what a long row of alike steps reports to: `progress`, or what shows it where None.

    `doing` stands beside the bar, for example "Preparing images"; `done_so_far` is a log's line for
    every tenth, with the places `{done}` and `{total}`.
    """
    if progress is not None:
        yield progress
    elif sys.stderr.isatty():
        with Progress(console=Console(stderr=True)) as bars:
            task = bars.add_task(doing, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
    else:

        def line(done: int, total: int) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                said = done_so_far.format(done=done, total=total)
                print(said, file=sys.stderr, flush=True)

        yield line


class _PlainLines:
    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, line: str, done: int, total: int) -> None:
        now = time.monotonic()
        if _is_news(line) or now - self.last > PLAIN_SECONDS:
            self.last = now
            print(f"[{done}/{total}] {line}", file=sys.stderr, flush=True)


def _is_news(line: str) -> bool:
    return not any(tick in line for tick in TICKS)
