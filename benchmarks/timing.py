"""Times of two ways of doing a thing, taken in turn, and a line that compares them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def in_turn(
    ways: Sequence[Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> list[float]:
    """Seconds of each way: of its rounds the one that took least.

    The ways take turns, so that a machine that is busy for a while slows all of them.

    Args:
        clock: by default the process's CPU time; `time.perf_counter` for work that several cores
            share.
    """
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for number, way in enumerate(ways):
            started = clock()
            way()
            best[number] = min(best[number], clock() - started)
    return best


@dataclass(frozen=True)
class Target:
    """What a ratio or a value should reach."""

    limit: float
    at_most: bool = False

    def words(self, value: float) -> str:
        """The target and whether it is met."""
        met = value <= self.limit if self.at_most else value >= self.limit
        return f"{'≤' if self.at_most else '≥'} {self.limit:g} | {'met' if met else 'NOT MET'}"


def line(
    what: str, ours: str, other: str, value: float, unit: str = "x", target: Target | None = None
) -> None:
    """A row of a table: what, ours, naive twin or peer, ratio, target, met or not."""
    verdict = "- | -" if target is None else target.words(value)
    print(f"| {what} | {ours} | {other} | {value:.4g}{unit} | {verdict} |", flush=True)


def heading(title: str) -> None:
    """The head of a table."""
    print(f"\n{title}\n")
    print("| what | ours | beside | ratio | target | met |\n|---|---|---|---|---|---|", flush=True)
