"""Tiny trainings through the command, in this process or in one that can be killed."""

import atexit
import contextlib
import csv
import functools
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
import yaml

from dwarf_cxr.config import load_config, prompted
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.vlm import build_classifier
from dwarf_cxr.training import loop
from dwarf_cxr.training.optimisation import build_optimizer
from dwarf_cxr.training.state import Progress, load_state
from tests.faults.fault import done, need
from tests.tiny import settings, write_bert, write_data, write_vit

BATCHES = 3
"""Steps of an epoch of the tiny data."""
EPOCHS = 4

PRELOADED = [
    "tests.faults.runs",
    "dwarf_cxr.training.run",
    "dwarf_cxr.data.prepare",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.vit.modeling_vit",
    "transformers.modeling_layers",
]
"""Imported by the server before it forks."""


@functools.cache
def encoders() -> Path:
    """A folder with random encoders, `vit` and `bert`, and `tiny.yaml`, settings that use them."""
    folder = Path(tempfile.mkdtemp(prefix="dwarf-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):  # transformers shows a bar
        chosen = settings(write_vit(folder / "vit"), write_bert(folder / "bert"))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    return folder


def write_tiny(place: Path) -> PreparedData:
    """Prepared data of 25 films in `place`/data."""
    return write_data(place / "data")


def command(place: Path, *more: str | Path, out: str = "run", epochs: int = EPOCHS) -> list[str]:
    """The command that trains on `place`/data into `place`/run."""
    words = ["train", "dwarf", "--data", place / "data", "--out", place / out]
    words += ["--config", encoders() / "tiny.yaml", "--epochs", epochs, *more]
    return list(map(str, words))


def train_tiny(place: Path, *more: str | Path, out: str = "run", epochs: int = EPOCHS) -> Path:
    """Train to the end."""
    done(*command(place, *more, out=out, epochs=epochs))
    return place / out


def result_of(run: Path) -> dict[str, object]:
    """All that a training fixes: weights, state, card, and history but for the seconds."""
    with (run / "history.csv").open(newline="") as stream:
        history = [row | {"seconds": ""} for row in csv.DictReader(stream)]
    return {
        "weights": (run / "model" / "model.safetensors").read_bytes(),
        "state": (run / "last" / "state.safetensors").read_bytes(),
        "card": json.loads((run / "model" / "config.json").read_text()),
        "history": history,
    }


def need_same_result(run: Path, other: Path) -> None:
    """Raise where two trainings did not end in the same bytes."""
    one, two = result_of(run), result_of(other)
    differing = [name for name in one if one[name] != two[name]]
    need(not differing, f"differs from the training that was never interrupted: {differing}")


def read_checkpoints(run: Path) -> Progress | None:
    """Read model and state as a resume does; where it stands, None before the first state.

    Raises:
        DwarfError: one of them is not readable.
    """
    if (run / "model").exists() or (run / "model.old").exists():
        load_model(run)
    if not (run / "last").exists() and not (run / "last.old").exists():
        return None
    # read a copy: looking must not mend what a killed writer left
    with tempfile.TemporaryDirectory() as folder:
        for name in ("last", "last.old"):
            if (run / name).exists():
                shutil.copytree(run / name, Path(folder) / name)
        config = load_config(run / "config.yaml")
        size = PreparedData.open(Path(config.data)).size
        model = build_classifier(prompted(config.settings), config.findings, size, config.seed)
        optimizer = build_optimizer(model, config.settings.training)
        return load_state(Path(folder) / "last", model, optimizer)


def half_written(run: Path) -> set[tuple[str, int]]:
    """What interrupted saves left: names and times."""
    return {
        (str(path), path.stat().st_mtime_ns)
        for path in run.rglob("*")
        if path.suffix in (".new", ".old") or path.name.startswith((".history", ".config"))
    }


# -- processes of their own ------------------------------------------------------------------------


def start(
    words: list[str],
    said: Path,
    *,
    at_operation: int | None = None,
    then: Callable[[], None] | None = None,
) -> ForkServerProcess:
    """Start a `dwarf` command in a process of its own; what it prints goes to the file `said`.

    The process is forked from a server that has imported everything and run nothing, so that it
    starts at once. A state is saved after every step.

    Args:
        at_operation: with `then`, the number of the file operation in the run folder (files
            opened, renamed, removed; folders made) at which `then` is called first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(words, said, at_operation, then))
    process.start()
    return process


def _run(
    words: list[str], said: Path, at_operation: int | None, then: Callable[[], None] | None
) -> None:
    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = -1  # a state after every step
    stream = said.open("w", buffering=1)
    sys.stdout = sys.stderr = stream
    if at_operation is not None and then is not None:
        _call_at(at_operation, then, Path(words[words.index("--out") + 1]))
    sys.argv = ["dwarf", *words]
    from dwarf_cxr.cli import main

    main()


def _call_at(number: int, then: Callable[[], None], folder: Path) -> None:
    """Have `then` called at the `number`-th file operation below `folder`."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        if any(str(argument).startswith(str(folder)) for argument in arguments):
            seen += 1
            if seen == number:
                then()

    sys.addaudithook(hook)


def kill_self() -> None:
    """End this process as a power cut would, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    """Let no file of this process grow beyond 9,000 bytes: writes fail as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))


def finish(process: ForkServerProcess, seconds: float = 120) -> int:
    """Wait for the end of a process; its exit status, or minus the number of its signal."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
    need(process.exitcode is not None, f"did not end in {seconds} s")
    return int(process.exitcode or 0)


def wait_for(path: Path, process: ForkServerProcess, seconds: float = 60) -> None:
    """Wait until a running process has made a file."""
    end = time.monotonic() + seconds
    while not path.exists():
        need(process.is_alive() and time.monotonic() < end, f"{path.name} was never written")
        time.sleep(0.002)
