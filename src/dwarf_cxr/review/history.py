"""Undo and redo over a history that is only ever added to.

Undoing does not take a step away: it is a further step, whose outcome is what was before the step
it undoes. So the history stays whole, and an undo can be redone until something else is changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Action = Literal["edit", "undo", "redo", "import"]


@dataclass(frozen=True, slots=True)
class Reach:
    """Which steps can be undone and redone, the next one last."""

    undoable: tuple[int, ...]
    redoable: tuple[int, ...]


def reach(steps: Iterable[tuple[int, Action]]) -> Reach:
    """What can be undone and redone after `steps`, numbered, in their order.

    An undo without a step to undo, or a redo without one to redo, cannot stand in a history that
    was written through this; it is passed over.
    """
    done: list[int] = []
    undone: list[int] = []
    for number, action in steps:
        if action == "undo":
            if done:
                undone.append(done.pop())
        elif action == "redo":
            if undone:
                done.append(undone.pop())
        else:
            done.append(number)
            undone.clear()
    return Reach(tuple(done), tuple(undone))
