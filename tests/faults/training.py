"""Faults 32 to 41: training, checkpoints, caches."""

import errno
import json
import math
import pickle
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from dwarf_cxr.config import load_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.files import sha256_of
from dwarf_cxr.objectives.combined import combine
from dwarf_cxr.training import loop
from tests.faults.fault import Fault, contents, done, dwarf, need, refused, shortened
from tests.faults.films import FILMS, SIZE, noise, png, prepare, write_films
from tests.faults.kills import kill_often
from tests.faults.runs import (
    BATCHES,
    command,
    fill_the_disk,
    finish,
    need_same_result,
    read_checkpoints,
    start,
    train_tiny,
    wait_for,
    write_tiny,
)
from tests.tiny import FINDINGS, Trap, write_data

KILLS = 6
"""Here; `make kills` does 200."""


def not_finite(place: Path) -> str:
    """A loss that is NaN once, a gradient that is infinite once, and a loss that stays NaN."""
    write_tiny(place)
    before: list[dict[str, str]] = []

    def once(calls: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * {5: math.nan, 8: math.inf}.get(calls, 1.0)

    def for_good(calls: int, loss: torch.Tensor) -> torch.Tensor:
        if calls <= BATCHES:
            return loss
        before.append(contents(place / "stopped" / "model") | contents(place / "stopped" / "last"))
        return loss * math.nan

    with spoiled(once):
        train_tiny(place)
    state = load_file(place / "run" / "last" / "state.safetensors")
    need(all(bool(value.isfinite().all()) for value in state.values()), "weights are not finite")
    words = command(place, "--set", "stop_after_bad_steps=3", out="stopped")
    with spoiled(for_good):
        got = refused(*words, names=["3 steps in a row"], remedy="lower lr", untouched=None)
    after = contents(place / "stopped" / "model") | contents(place / "stopped" / "last")
    need(len(before) == 3 and before[0] == after, "the good checkpoint was overwritten")
    need(read_checkpoints(place / "stopped"), "no checkpoint is left")
    return f"two single steps skipped; then: {got}"


def spoiled(how: Callable[[int, torch.Tensor], torch.Tensor]) -> mock._patch:
    """Let the loss of the n-th step be `how(n, loss)`."""
    calls = 0

    def instead(*arguments):
        nonlocal calls
        calls += 1
        return how(calls, combine(*arguments))

    return mock.patch.object(loop, "combine", instead)


def killed(place: Path) -> str:
    """SIGKILL at random moments, half of them in the middle of a save."""
    found = kill_often(place, KILLS, seed=random.randrange(1 << 30))
    need(found.unreadable == 0, f"{found.unreadable} of {found.kills} checkpoints unreadable")
    return found.line()


def disk_full(place: Path) -> str:
    """Writes that fail in the middle, as the system has it and as a device says it."""
    write_tiny(place)
    whole = train_tiny(place, out="whole")
    said = place / "said.txt"
    # past the first epoch's evaluation
    words, at = command(place), random.randrange(150, 400)
    status = finish(start(words, said, at_operation=at, then=fill_the_disk))
    text = said.read_text()
    need(status == 1 and "File too large" in text, f"exit {status}: {shortened(text)}")
    need("Traceback" not in text, text)
    need(read_checkpoints(place / "run"), "no checkpoint is left")
    with no_space_left(after=random.randrange(1, 5)):
        got = refused(
            *command(place, "--resume"),
            names=["No space left on device", "run"],
            remedy="free some space",
            untouched=None,
        )
    need(read_checkpoints(place / "run"), "no checkpoint is left")
    done(*command(place, "--resume"))
    need_same_result(place / "run", whole)
    return got


def no_space_left(after: int) -> mock._patch:
    """Let the `after`-th file and all later ones be written by half."""
    calls, write = 0, Path.write_bytes

    def instead(self: Path, content: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls < after:
            return write(self, content)
        write(self, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    return mock.patch.object(Path, "write_bytes", instead)


def terminated(place: Path) -> str:
    """SIGTERM to the process of a training."""
    write_tiny(place)
    whole = train_tiny(place, out="whole", epochs=12)
    said = place / "said.txt"
    process = start(command(place, epochs=12), said)
    wait_for(place / "run" / "history.csv", process)
    process.terminate()
    status, text = finish(process), said.read_text()
    need(status == 1, f"exit {status}: {text}")
    step = read_checkpoints(place / "run").step
    need(f"interrupted at step {step} of 36" in text, text)
    need("continue with the same command and --resume" in text, text)
    done(*command(place, "--resume", epochs=12))
    need_same_result(place / "run", whole)
    return f"checkpoint at step {step} of 36; resumed to the same bytes as an unbroken run"


def changed(place: Path) -> str:
    """Settings and data that are not those of the run."""
    write_tiny(place)
    run = train_tiny(place, epochs=1)
    other = ("--resume", "--set", "fp_weight=3", "--seed", "8")
    got = refused(
        *command(place, *other, epochs=1),
        names=["settings.objective.fp_weight: 2.0 -> 3.0", "seed: 0 -> 8"],
        remedy="cannot resume",
        untouched=run,
    )
    before = load_config(run / "config.yaml").data_fingerprint
    shutil.rmtree(place / "data")
    after = write_data(place / "data", seed=1).fingerprint
    refused(
        *command(place, "--resume", epochs=1),
        names=["data_fingerprint", before, after],
        remedy="cannot resume",
        untouched=run,
    )
    return got


def pickled(place: Path) -> str:
    """Pickles that would run a program, as a foreign checkpoint and as weights of a model."""
    mark = place / "mark"
    foreign = place / "kad.pt"
    torch.save({"model": Trap(mark)}, foreign)
    got = refused(
        *("weights", "import", "kad", foreign, "--out", place / "imported"),
        names=["kad.pt"],
        remedy="--trust",
        untouched=place / "imported",
    )
    write_tiny(place)
    run = train_tiny(place, epochs=1)
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(pickle.dumps({"weight": Trap(mark)}))
    sign(run / "model")
    refuse_model(place, names=["model.safetensors"], remedy="copy the folder again")
    need(not mark.exists(), "the pickle ran")
    return got


def sign(model: Path) -> None:
    """Make the recorded SHA-256 that of the weights, as somebody who means harm would."""
    file = model / "config.json"
    config = json.loads(file.read_text())
    config["sha256"] = sha256_of(model / "model.safetensors")
    file.write_text(json.dumps(config))


def refuse_model(place: Path, *, names: list[str], remedy: str) -> str:
    """Ask the run for a prediction, which must be refused, with no folder written."""
    film = next((place / "data-films").iterdir())
    words = ("predict", place / "run", film, "--out", place / "predicted")
    return refused(*words, names=names, remedy=remedy, untouched=place / "predicted")


def flipped_bit(place: Path) -> str:
    """One bit of a model's weights, and one of a training's state."""
    write_tiny(place)
    run = train_tiny(place, epochs=2)
    flip(run / "model" / "model.safetensors")
    got = refuse_model(
        place, names=["model.safetensors", "SHA-256"], remedy="copy the model folder again"
    )
    flip(run / "last" / "state.safetensors")
    refused(
        *command(place, "--resume", epochs=2),
        names=["state.safetensors", "SHA-256"],
        remedy="restore it",
        untouched=run,
    )
    return got


def flip(file: Path) -> None:
    """Flip a random bit of the second half of a file."""
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content) // 2, len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def wrong_weights(place: Path) -> str:
    """Weights of another model: a head too few, a tensor too many, another shape."""
    write_tiny(place)
    run = train_tiny(place, epochs=1)
    weights = run / "model" / "model.safetensors"
    tensors = load_file(weights)
    head = f"heads.{len(FINDINGS) - 1}.weight"
    shape = tuple(tensors["heads.0.weight"].shape)
    del tensors[head]
    tensors["heads.0.weight"] = torch.zeros(3, 5)
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, weights)
    sign(run / "model")
    return refuse_model(
        place,
        names=[
            f"missing {head}",
            "unexpected extra",
            f"heads.0.weight is (3, 5), expected {shape}",
        ],
        remedy="weights do not fit",
    )


def half_written_cache(place: Path) -> str:
    """A preparation that is killed, a cached film that is damaged, and one whose file changed."""
    root, out = write_films(place / "films"), place / "data"
    for number in range(60):
        (root / f"more{number}.png").write_bytes(png(noise(100 + number)))
    with (root / "images.csv").open("a") as table:
        table.writelines(f"more{n},patient-{n},more{n}.png,train,1,0\n" for n in range(60))
    words = ["data", "prepare", "csv", "--root", root, "--out", out, "--size", SIZE]
    process = start(list(map(str, words)), place / "said.txt")
    wait_for(out / ".draft" / "films.jsonl", process)
    process.kill()
    need(finish(process) == -signal.SIGKILL, "it had ended already")
    unfinished = dwarf("data", "check", out)
    need(unfinished.status == 1 and "not to the end" in unfinished.text, unfinished.text)
    draft = out / ".draft" / f"pixels-{SIZE}.u8"
    if draft.exists() and draft.stat().st_size:
        flip(draft)
    (root / FILMS[0]).write_bytes(png(noise(77)))
    prepare(root, out)
    prepare(root, place / "fresh")
    names = ("images.csv", "regions.json", f"pixels-{SIZE}.u8")
    same = all((out / name).read_bytes() == (place / "fresh" / name).read_bytes() for name in names)
    need(same, "differs from data that were prepared in one go")
    need(not (out / ".draft").exists(), "the draft is still there")
    need(PreparedData.open(out).fingerprint, "no fingerprint")
    return "killed, damaged and outdated drafts: rebuilt, same bytes as prepared in one go"


def two_writers(place: Path) -> str:
    """A second training into the folder of one that runs."""
    write_tiny(place)
    whole = train_tiny(place, out="whole", epochs=14)
    process = start(command(place, epochs=14), place / "said.txt")
    wait_for(place / "run" / "last", process)
    outcome = dwarf(*command(place, "--resume", epochs=14))
    need(process.is_alive(), "the first training had ended already")
    need(outcome.status == 1, f"exit {outcome.status}: {shortened(outcome.text)}")
    need("another process is writing here" in outcome.error, outcome.error)
    need("wait for it or choose another folder" in outcome.error, outcome.error)
    need(finish(process) == 0, "the first training failed")
    need_same_result(place / "run", whole)
    return f"{shortened(outcome.error)}; the first one ends undisturbed"


FAULTS = (
    Fault(32, "NaN loss, infinite gradient", "skipped; stop after k; checkpoint kept", not_finite),
    Fault(33, "kill -9 during a save", "readable, resumes to the same bytes", killed),
    Fault(34, "disk full", "refused, old checkpoint intact", disk_full),
    Fault(35, "SIGTERM", "checkpoint, then an exact resume", terminated),
    Fault(36, "resume with other settings, data", "refused, differences listed", changed),
    Fault(37, "malicious pickle", "blocked, never run", pickled),
    Fault(38, "bit-flipped checkpoint", "refused by its SHA-256", flipped_bit),
    Fault(39, "wrong findings, shapes, keys", "refused, all listed", wrong_weights),
    Fault(40, "stale or half-written cache", "rebuilt", half_written_cache),
    Fault(41, "two writers on one run", "second refused, first undisturbed", two_writers),
)
