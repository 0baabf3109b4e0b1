"""SIGKILL at random moments of trainings; `python -m tests.faults.kills 200` counts what is left.

Half of the kills come after a random time, half at a random file operation in the run folder, most
of which belong to a save. After every kill model and state are read; the training then goes on from
there, and once it ends its result must be, byte for byte, that of one that was never killed.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dwarf_cxr.errors import DwarfError
from tests.faults.fault import need
from tests.faults.runs import (
    command,
    finish,
    half_written,
    kill_self,
    need_same_result,
    read_checkpoints,
    start,
    train_tiny,
    write_tiny,
)

OPERATIONS = 150
"""File operations after which such a kill comes at the latest; a save has about a dozen."""
SECONDS = 1.5


@dataclass
class Found:
    """What so many kills left."""

    kills: int = 0
    in_a_save: int = 0
    """Kills that left a half-written save."""
    unreadable: int = 0
    lost: int = 0
    """Kills after which the training stood earlier than before the process started."""
    finished: int = 0
    """Trainings that went on to their end, with the result of an unbroken one."""

    def line(self) -> str:
        """In words."""
        return (
            f"{self.kills} kills, {self.in_a_save} in a save: {self.unreadable} checkpoints "
            f"unreadable, {self.lost} set back; {self.finished} resumed to the unbroken bytes"
        )


def kill_often(
    place: Path, kills: int, *, seed: int, tell: Callable[[str], None] = lambda line: None
) -> Found:
    """Kill trainings in the folder `place` that often, and let each go on to its end."""
    rng, found = random.Random(seed), Found()
    write_tiny(place)
    whole = train_tiny(place, out="whole")
    run = place / "run"
    while True:
        stood, left = step_of(run), half_written(run)
        words = command(place, *(["--resume"] if (run / "config.yaml").exists() else []))
        status = train_and_kill(words, place / "said.txt", rng, sharp=found.kills < kills)
        if status == 0:
            need_same_result(run, whole)
            found.finished += 1
            shutil.rmtree(run)
            if found.kills >= kills:
                return found
            continue
        need(status == -9, f"exit {status}: {(place / 'said.txt').read_text()}")
        found.kills += 1
        found.in_a_save += bool(half_written(run) - left)
        try:
            found.lost += step_of(run) < stood
        except DwarfError as fault:
            found.unreadable += 1
            tell(f"unreadable: {fault}")
            shutil.rmtree(run)
        if found.kills % 20 == 0:
            tell(found.line())


def step_of(run: Path) -> int:
    """The step at which a resume would go on.

    Raises:
        DwarfError: model or state cannot be read.
    """
    progress = read_checkpoints(run)
    return 0 if progress is None else progress.step


def train_and_kill(words: list[str], said: Path, rng: random.Random, *, sharp: bool) -> int:
    """Start a training and, if `sharp`, kill it at a random moment; its exit status."""
    if not sharp:
        return finish(start(words, said))
    if rng.random() < 0.5:
        at = rng.randrange(1, OPERATIONS)
        return finish(start(words, said, at_operation=at, then=kill_self))
    process = start(words, said)
    time.sleep(rng.uniform(0, SECONDS))
    process.kill()
    return finish(process)


def main(kills: int) -> int:
    """Print what `kills` kills left; 1 if a checkpoint is not readable or a step was lost."""
    with tempfile.TemporaryDirectory() as folder:
        found = kill_often(
            Path(folder), kills, seed=int(time.time()), tell=lambda line: print(line, flush=True)
        )
    print(found.line())
    need(found.kills >= kills, "fewer kills than asked for")
    return int(found.unreadable > 0 or found.lost > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
