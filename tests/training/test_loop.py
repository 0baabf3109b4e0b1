import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dwarf_cxr.config import RunConfig, load_config, save_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError, DataError, DwarfError, TrainingError
from dwarf_cxr.files import exclusive
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.vision_transformer import vit_from_folder
from dwarf_cxr.models.vlm import build_classifier
from dwarf_cxr.training import loop
from dwarf_cxr.training.loop import HISTORY_COLUMNS, train
from dwarf_cxr.training.optimisation import build_optimizer
from tests.tiny import FINDINGS, SIZE, run_config, write_bert, write_data, write_vit

BATCHES = 3
"""13 training films in batches of at most 5."""
STILL = ("rotate=0", "shift=0", "scale=0", "intensity=0", "dropout=0")
MINING = ("seg_weight=0.2", "mining_weight=0.7", "external_weight=0.5")
CONTRAST = ("seg_weight=0", "contrastive=true", "contrastive_weight=0.8")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_vit(folder / "vit")
    write_bert(folder / "bert")
    write_data(folder / "data", texts=True)
    return folder


def configure(place: Path, assignments: Sequence[str] = (), *, seed: int = 5) -> RunConfig:
    data = PreparedData.open(place / "data")
    return run_config(data, place / "vit", place / "bert", assignments, seed=seed)


def quiet(line: str, done: int, total: int) -> None:
    pass


def signal_at(step: int, number: int = signal.SIGTERM) -> Callable[[str, int, int], None]:
    """A report that sends this process a signal once `step` steps are done."""
    sent = []

    def report(line: str, done: int, total: int) -> None:
        if done == step and not sent:
            sent.append(done)
            os.kill(os.getpid(), number)

    return report


def history(out: Path) -> list[dict[str, str]]:
    with (out / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def without_seconds(out: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history(out)]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def last(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last" / "state.safetensors")


def assert_same_run(first: Path, second: Path) -> None:
    assert weights(first) == weights(second)
    assert (first / "last" / "state.safetensors").read_bytes() == (
        second / "last" / "state.safetensors"
    ).read_bytes()
    assert without_seconds(first) == without_seconds(second)
    card_1, card_2 = (
        json.loads((out / "model" / "config.json").read_text()) for out in (first, second)
    )
    assert card_1 == card_2


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """A training of four epochs, never interrupted."""
    train(configure(place), place / "whole", report=quiet)
    return place / "whole"


def test_a_run_holds_what_the_format_says(whole, place):
    assert load_config(whole / "config.yaml") == configure(place)
    model = load_model(whole)
    assert model.findings == FINDINGS
    assert model.card.method == "dwarf"
    assert model.card.data_fingerprint == PreparedData.open(place / "data").fingerprint
    assert model.card.train_prior.shape == (3, SIZE, SIZE)
    assert list((whole / "tensorboard").iterdir())
    assert not [path for path in whole.iterdir() if path.suffix in (".new", ".old", ".tmp")]


def test_history_has_a_row_per_epoch_with_the_columns_promised(whole):
    rows = history(whole)
    assert tuple(rows[0]) == HISTORY_COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["3", "6", "9", "12"]
    for row in rows:
        assert row["finding"] == ";".join(FINDINGS)
        assert float(row["loss"]) == pytest.approx(
            0.5 * float(row["dice_loss"]) + 0.5 * float(row["label_loss"])
        )
        assert 0 <= float(row["val_auc"]) <= 1
        assert 0 <= float(row["val_dice"]) <= 1
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    scores = [float(row["val_auc"]) + float(row["val_dice"]) for row in rows]
    best = [row["best"] == "1" for row in rows]
    assert best == [score > max(scores[:index], default=-1) for index, score in enumerate(scores)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(whole, place, tmp_path):
    train(configure(place), tmp_path / "again", report=quiet)
    assert_same_run(whole, tmp_path / "again")
    train(configure(place, ["epochs=1"], seed=6), tmp_path / "other", report=quiet)
    assert history(tmp_path / "other")[0]["loss"] != history(whole)[0]["loss"]


@pytest.mark.parametrize(
    "step",
    [
        1,
        2 * BATCHES - 1,
        2 * BATCHES,
    ],
)
def test_an_interrupted_training_ends_as_one_that_was_not(whole, place, tmp_path, step):
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match="--resume"):
        train(configure(place), out, report=signal_at(step))
    record = json.loads((out / "last" / "progress.json").read_text())
    assert record["progress"]["step"] == step
    train(configure(place), out, resume=True, report=quiet)
    assert_same_run(whole, out)


def test_interrupted_twice_by_both_signals(whole, place, tmp_path):
    out = tmp_path / "run"
    for step, number in ((4, signal.SIGINT), (10, signal.SIGTERM)):
        with pytest.raises(TrainingError, match=f"step {step} of 12"):
            train(configure(place), out, resume=step > 4, report=signal_at(step, number))
    train(configure(place), out, resume=True, report=quiet)
    assert_same_run(whole, out)


def test_interrupted_anywhere_and_any_number_of_times(whole, place, tmp_path):
    rng, out = np.random.default_rng(), tmp_path / "run"
    steps = sorted(rng.choice(np.arange(1, 4 * BATCHES), size=5, replace=False).tolist())
    for step in steps:
        with pytest.raises(TrainingError, match=f"step {step} of 12"):
            train(configure(place), out, resume=step > steps[0], report=signal_at(step))
    train(configure(place), out, resume=True, report=quiet)
    assert_same_run(whole, out)


def test_signal_handlers_are_given_back(place, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(TrainingError):
        train(configure(place), tmp_path / "run", report=signal_at(1))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_killed_training_goes_on_from_its_last_evaluation(whole, place, tmp_path):
    out = tmp_path / "run"

    def dies(line: str, done: int, total: int) -> None:
        if done == 2 * BATCHES + 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(configure(place), out, report=dies)
    train(configure(place), out, resume=True, report=quiet)
    assert_same_run(whole, out)


@pytest.mark.parametrize(
    "assignments",
    [
        ["schedule=cyclic"],
        ["schedule=interleaved", "head=prior", "evaluate_every=2"],
        [*MINING, "query_context=joint"],
        [*CONTRAST],
        ["image_encoder=efficientnet-lite0", "frozen_layers=5", "epochs=2", "batch_size=7"],
        ["image_encoder=efficientnet-lite0", "frozen_layers=0", "epochs=2", "batch_size=7"],
    ],
    ids=lambda value: ",".join(value),
)
def test_resuming_is_exact_for_other_settings_too(place, tmp_path, assignments):
    config = configure(place, assignments)
    train(config, tmp_path / "whole", report=quiet)
    with pytest.raises(TrainingError):
        train(config, tmp_path / "cut", report=signal_at(3 if "batch_size=7" in assignments else 4))
    train(config, tmp_path / "cut", resume=True, report=quiet)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_compile_compiles_the_image_encoder_and_the_decoder(place, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    train(configure(place), tmp_path / "plain", report=quiet)
    assert compiled == []
    train(configure(place, ["compile=true"]), tmp_path / "run", report=quiet)
    model = load_model(tmp_path / "run")
    assert [type(part) for part in compiled] == [type(model.image_encoder), type(model.decoder)]
    assert weights(tmp_path / "run") == weights(tmp_path / "plain")


def test_resuming_a_finished_training_changes_nothing(place, tmp_path):
    out = tmp_path / "run"
    config = configure(place, ["epochs=1"])
    train(config, out, report=quiet)
    before, rows = weights(out), history(out)
    train(config, out, resume=True, report=quiet)
    assert weights(out) == before
    assert history(out) == rows


def test_resuming_with_other_settings_lists_what_differs(whole, place):
    before = weights(whole)
    other = configure(place, ["epochs=9", "fp_weight=3"], seed=8)
    with pytest.raises(ConfigError) as caught:
        train(other, whole, resume=True, report=quiet)
    for part in (
        "settings.training.epochs: 4 -> 9",
        "settings.objective.fp_weight: 2.0 -> 3.0",
        "seed: 5 -> 8",
    ):
        assert part in str(caught.value)
    assert weights(whole) == before


def test_resuming_with_other_data_is_refused(whole, place, tmp_path):
    data = write_data(tmp_path / "data", seed=1)
    with pytest.raises(ConfigError, match=data.fingerprint):
        train(run_config(data, place / "vit", place / "bert"), whole, resume=True, report=quiet)


def test_data_that_changed_under_its_path_are_refused(place, tmp_path):
    data = write_data(tmp_path / "data")
    config = run_config(data, place / "vit", place / "bert")
    write_data(tmp_path / "data", seed=1)
    with pytest.raises(DataError, match=config.data_fingerprint[:12]):
        train(config, tmp_path / "run", report=quiet)


def test_a_run_is_not_overwritten(whole, place):
    before = weights(whole)
    with pytest.raises(ConfigError, match="--resume"):
        train(configure(place), whole, report=quiet)
    assert weights(whole) == before


def test_a_run_is_not_written_into_a_data_set(place):
    config = configure(place)
    with pytest.raises(ConfigError, match="a prepared data set lies there"):
        train(config, Path(config.data), report=quiet)
    assert not (Path(config.data) / "config.yaml").exists()


def test_there_must_be_something_to_resume(place, tmp_path):
    with pytest.raises(CheckpointError, match="without --resume"):
        train(configure(place), tmp_path / "run", resume=True, report=quiet)


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_died_before_its_first_state_can_be_started_again(
    whole, place, tmp_path, resume
):
    out = tmp_path / "run"

    def dies(line: str, done: int, total: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        train(configure(place), out, report=dies)
    train(configure(place), out, resume=resume, report=quiet)
    assert_same_run(whole, out)


def test_a_second_writer_is_refused(place, tmp_path):
    with (
        exclusive(tmp_path / "run"),
        pytest.raises(DwarfError, match="another process"),
    ):
        train(configure(place), tmp_path / "run", report=quiet)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_two_trainings_into_one_folder(place, tmp_path):
    refused = []

    def starts_another(line: str, done: int, total: int) -> None:
        if done == 1:
            with pytest.raises(DwarfError, match="another process"):
                train(configure(place), tmp_path / "run", resume=True, report=quiet)
            refused.append(done)

    train(configure(place, ["epochs=1"]), tmp_path / "run", report=starts_another)
    assert refused


# -- heads that rest ----------------------------------------------------------------------------


def head_keys(config: RunConfig) -> list[tuple[str, ...]]:
    """Per finding, how the names of its head's tensors in a state begin, optimiser's included."""
    model = build_classifier(config.settings.model, FINDINGS, SIZE, config.seed)
    optimizer = build_optimizer(model, config.settings.training)
    trained = [id(p) for group in optimizer.param_groups for p in group["params"]]
    return [
        (
            f"model/heads.{number}.",
            *(f"optimizer/{trained.index(id(p))}/" for p in head.parameters()),
        )
        for number, head in enumerate(model.heads)
    ]


def same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items()
    )


@pytest.mark.parametrize(("schedule", "head"), [("cyclic", "linear"), ("interleaved", "prior")])
def test_heads_not_trained_stay_bit_for_bit_with_their_optimiser_state(
    place, tmp_path, monkeypatch, schedule, head
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    out = tmp_path / "run"
    config = configure(
        place, [f"schedule={schedule}", f"head={head}", "weight_decay=0.5", "lr=0.01"]
    )
    keys = head_keys(config)
    snapshots: dict[int, list[dict[str, torch.Tensor]]] = {}

    def snap(line: str, done: int, total: int) -> None:
        if not (out / "last").exists():
            return
        # the state after the step before, or after this epoch's evaluation
        steps = json.loads((out / "last" / "progress.json").read_text())["progress"]["step"]
        state = last(out)
        snapshots.setdefault(
            steps, [{k: v for k, v in state.items() if k.startswith(mine)} for mine in keys]
        )

    train(config, out, report=snap)
    steps = 4 * BATCHES
    assert sorted(snapshots) == list(range(1, steps + 1))
    moved = set()
    for step in range(1, steps):
        active = step // BATCHES % 3 if schedule == "cyclic" else step % 3
        for finding in range(3):
            same = same_tensors(snapshots[step][finding], snapshots[step + 1][finding])
            if finding != active:
                assert same, f"head {finding} moved in step {step}, which trained {active}"
            elif not same:
                moved.add(finding)
    assert moved == {0, 1, 2}
    for tensors in snapshots[steps]:
        assert any(key.endswith("exp_avg") for key in tensors)


def test_cyclic_history_names_the_finding_of_the_epoch(place, tmp_path):
    train(configure(place, ["schedule=cyclic"]), tmp_path / "run", report=quiet)
    named = [row["finding"] for row in history(tmp_path / "run")]
    assert named == [*FINDINGS, FINDINGS[0]]


# -- losses that are no numbers -----------------------------------------------------------------


def poison(monkeypatch, steps_from: int, steps_to: int, value: float = math.nan) -> None:
    """Make the loss `value` in the calls `steps_from` to `steps_to` - 1, counted from 1."""
    calls = []
    combine = loop.combine

    def poisoned(*arguments):
        calls.append(1)
        loss = combine(*arguments)
        return loss * value if steps_from <= len(calls) < steps_to else loss

    monkeypatch.setattr(loop, "combine", poisoned)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped(place, tmp_path, monkeypatch, value):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    poison(monkeypatch, 2, 3, value)
    out = tmp_path / "run"
    states = []

    def snap(line: str, done: int, total: int) -> None:
        if (out / "last").exists():
            states.append((last(out), json.loads((out / "last" / "progress.json").read_text())))

    train(configure(place, ["epochs=1"]), out, report=snap)
    (first, _), (second, record) = states[:2]
    assert same_tensors(first, second)
    assert record["progress"]["bad_steps"] == 1
    assert record["progress"]["step"] == 2
    assert states[-1][1]["progress"]["bad_steps"] == 0
    assert not same_tensors(second, last(out))
    assert all(bool(torch.isfinite(value).all()) for value in last(out).values())
    assert math.isfinite(float(history(out)[0]["loss"]))


def test_bad_steps_in_a_row_stop_and_leave_the_earlier_model(place, tmp_path, monkeypatch):
    out = tmp_path / "run"
    config = configure(place, ["stop_after_bad_steps=3"])
    reference = tmp_path / "reference"
    with pytest.raises(TrainingError):
        train(config, reference, report=signal_at(BATCHES + 1))
    poison(monkeypatch, BATCHES + 1, 99)
    done_at_last = []
    with pytest.raises(TrainingError, match="3 steps in a row"):
        train(config, out, report=lambda line, done, total: done_at_last.append(done))
    assert done_at_last[-1] == BATCHES + 2
    assert weights(out) == weights(reference)
    assert without_seconds(out) == without_seconds(reference)
    assert load_model(out).card is not None


def test_bad_steps_not_in_a_row_do_not_stop(place, tmp_path, monkeypatch):
    calls = []
    combine = loop.combine

    def sometimes(*arguments):
        calls.append(1)
        return combine(*arguments) * (math.nan if len(calls) % 3 else 1.0)

    monkeypatch.setattr(loop, "combine", sometimes)
    train(configure(place, ["stop_after_bad_steps=3"]), tmp_path / "run", report=quiet)
    assert len(history(tmp_path / "run")) == 4


# -- the same result in other ways --------------------------------------------------------------


def largest_difference(first: Path, second: Path) -> float:
    """Over all weights but the keys' biases: a softmax does not see these, and AdamW walks them
    by the rounding errors of a gradient that is 0.
    """
    a, b = (load_file(out / "model" / "model.safetensors") for out in (first, second))
    assert a.keys() == b.keys()
    seen = [key for key in a if not key.endswith(("key.bias", "k_proj.bias"))]
    return max(float((a[key] - b[key]).abs().max()) for key in seen)


def assert_same_losses(first: Path, second: Path) -> None:
    rows = list(zip(history(first), history(second), strict=True))
    assert rows
    for one, other in rows:
        losses = [column for column in one if column.endswith("loss")]
        assert len(losses) >= 3
        for column in losses:
            assert float(one[column]) == pytest.approx(float(other[column]), abs=1e-5)


@pytest.mark.parametrize(
    "assignments", [["schedule=joint"], ["schedule=cyclic"], [*MINING]], ids=",".join
)
def test_micro_batches_add_up_to_the_batch(place, tmp_path, assignments):
    # batches of 5 and 4 in micro-batches of 1 and 2
    shared = [*STILL, *assignments, "lr=1e-3", "evaluate_every=4"]
    train(configure(place, shared), tmp_path / "one", report=quiet)
    train(configure(place, [*shared, "accumulate=3"]), tmp_path / "three", report=quiet)
    assert largest_difference(tmp_path / "one", tmp_path / "three") < 1e-5
    assert_same_losses(tmp_path / "one", tmp_path / "three")


TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dwarf_cxr.config import load_config
from dwarf_cxr.training.loop import train
for name in sys.argv[3:]:
    config = load_config(Path(sys.argv[2]) / f"{name}.yaml")
    train(config, Path(sys.argv[2]) / name, report=lambda line, done, total: None)
"""


def test_two_processes_train_as_one(place, tmp_path):
    shared = [*STILL, "lr=1e-3", "epochs=3", "weight_decay=0.3"]
    variants = {
        "joint": ["schedule=joint"],
        "cyclic": ["schedule=cyclic", "accumulate=2"],
        "mining": [*MINING, "accumulate=2"],
        "contrast": [*CONTRAST],
        "everything": [*CONTRAST, *MINING],
    }
    for name, assignments in variants.items():
        train(configure(place, [*shared, *assignments]), tmp_path / f"{name}-one", report=quiet)
        config = configure(place, [*shared, *assignments, "devices=2"])
        save_config(config, tmp_path / f"{name}.yaml")
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    subprocess.run(
        [sys.executable, str(script), str(Path.cwd()), str(tmp_path), *variants],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    for name in variants:
        one, two = tmp_path / f"{name}-one", tmp_path / name
        assert_same_losses(one, two)
        assert largest_difference(one, two) < 2e-5


def test_two_machines_train_as_one(place, tmp_path):
    """Two of torchrun's agents, as on two machines, with a process each."""
    shared = [*STILL, "lr=1e-3", "epochs=2", "schedule=cyclic"]
    train(configure(place, shared), tmp_path / "one", report=quiet)
    config = configure(place, [*shared, "nodes=2", "accelerator=cpu"])
    save_config(config, tmp_path / "two.yaml")
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2"),
                *(f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"),
                *(str(script), str(Path.cwd()), str(tmp_path), "two"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [agent.wait(timeout=120) for agent in agents] == [0, 0]
    assert_same_losses(tmp_path / "one", tmp_path / "two")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 2e-5


def test_no_step_runs_the_text_encoder(place, tmp_path, monkeypatch):
    """Prompts are encoded once, when the network is built; KAD encodes them in each step."""
    from transformers import BertModel

    calls, forward = [], BertModel.forward

    def counted(*arguments, **named):
        calls.append(1)
        return forward(*arguments, **named)

    monkeypatch.setattr(BertModel, "forward", counted)
    for name, epochs in (("short", 1), ("long", 4)):
        calls.clear()
        train(configure(place, [f"epochs={epochs}"]), tmp_path / name, report=quiet)
        assert len(calls) == 1


def test_a_batch_too_small_to_be_shared_is_refused(place, tmp_path):
    with pytest.raises(ConfigError, match="batch_size = 2"):
        train(configure(place, ["batch_size=2", "accumulate=3"]), tmp_path / "run", report=quiet)


# -- does it learn, and which epoch is kept ------------------------------------------------------


def test_it_overfits_a_handful_of_films(place, tmp_path):
    out = tmp_path / "run"
    rates = ["lr=3e-3", "encoder_lr=1e-3", "decay=constant", "frozen_layers=0"]
    train(configure(place, [*STILL, *rates, "epochs=24", "evaluate_every=6"]), out, report=quiet)
    rows = history(out)
    assert float(rows[-1]["label_loss"]) < 0.2 * float(rows[0]["label_loss"])
    assert float(rows[-1]["dice_loss"]) < 0.9 * float(rows[0]["dice_loss"])


def scored(monkeypatch, scores: Sequence[float | None]) -> None:
    """Let the evaluations give these AUCs in turn, and no Dice."""
    validate, left = loop.validate, list(scores)

    def instead(*arguments):
        return validate(*arguments)._replace(auc=left.pop(0), dice=None)

    monkeypatch.setattr(loop, "validate", instead)


def test_the_best_epoch_is_kept(place, tmp_path, monkeypatch):
    runs = {
        "second": [0.3, 0.7, 0.7, 0.6],
        "too": [0.3, 0.7, 0.1, 0.1],
        "last": [0.1, 0.2, 0.3, 0.4],
    }
    kept = {}
    for name, scores in runs.items():
        scored(monkeypatch, scores)
        train(configure(place), tmp_path / name, report=quiet)
        monkeypatch.undo()
        kept[name] = load_file(tmp_path / name / "model" / "model.safetensors")
    assert [row["best"] for row in history(tmp_path / "second")] == ["1", "1", "0", "0"]
    assert same_tensors(kept["second"], kept["too"])
    assert not same_tensors(kept["second"], kept["last"])
    final = {k.removeprefix("model/"): v for k, v in last(tmp_path / "last").items()}
    assert all(torch.equal(v, final[k]) for k, v in kept["last"].items() if k in final)


@pytest.mark.parametrize(
    ("scores", "epochs"), [([0.5, 0.4, 0.4, 0.9], 3), ([0.5, 0.4, 0.6, 0.5], 4), ([0.5] * 4, 3)]
)
def test_training_stops_when_it_no_longer_gains(place, tmp_path, monkeypatch, scores, epochs):
    scored(monkeypatch, scores)
    train(configure(place, ["patience=2"]), tmp_path / "run", report=quiet)
    assert len(history(tmp_path / "run")) == epochs


def test_resuming_a_training_that_stopped_early_changes_nothing(place, tmp_path, monkeypatch):
    scored(monkeypatch, [0.5, 0.4, 0.4, 0.9])
    config = configure(place, ["patience=2"])
    train(config, tmp_path / "run", report=quiet)
    before = history(tmp_path / "run")
    train(config, tmp_path / "run", resume=True, report=quiet)
    assert history(tmp_path / "run") == before


def test_without_a_score_the_last_epoch_is_kept(place, tmp_path, monkeypatch):
    scored(monkeypatch, [None, None, None, None])
    train(configure(place), tmp_path / "none", report=quiet)
    kept = load_file(tmp_path / "none" / "model" / "model.safetensors")
    trained = {
        key.removeprefix("model/"): value
        for key, value in last(tmp_path / "none").items()
        if key.startswith("model/")
    }
    assert all(torch.equal(kept[key], value) for key, value in trained.items())


def test_evaluations_come_every_so_many_epochs_and_at_the_end(place, tmp_path):
    out = tmp_path / "run"
    train(configure(place, ["epochs=5", "evaluate_every=2"]), out, report=quiet)
    assert [row["epoch"] for row in history(out)] == ["2", "4", "5"]


@pytest.mark.parametrize(
    ("assignments", "added"),
    [
        ([*MINING], ("mining_loss", "external_loss")),
        ([*CONTRAST, "watch_test=true"], ("contrastive_loss",)),
    ],
)
def test_history_shows_the_added_terms_where_they_are_used(place, tmp_path, assignments, added):
    config = configure(place, [*assignments, "epochs=2"])
    train(config, tmp_path / "run", report=quiet)
    oracle = loop.ORACLE_COLUMNS if "watch_test=true" in assignments else ()
    objective = config.settings.objective
    for row in history(tmp_path / "run"):
        assert tuple(row) == (*HISTORY_COLUMNS, *added, *oracle)
        total = objective.seg_weight * float(row["dice_loss"])
        total += (1 - objective.seg_weight) * float(row["label_loss"])
        for column in added:
            assert float(row[column]) > 0
            weight = getattr(objective, column.replace("_loss", "_weight"))
            total += weight * float(row[column])
        assert float(row["loss"]) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("assignments", "by_dice"),
    [(["seg_weight=0", "mining_weight=1"], False), (["seg_weight=0", "external_weight=1"], True)],
)
def test_regions_choose_the_epoch_only_where_they_teach(
    place, tmp_path, monkeypatch, assignments, by_dice
):
    validate, dices = loop.validate, [0.1, 0.5]

    def instead(*arguments):
        return validate(*arguments)._replace(auc=0.5, dice=dices.pop(0))

    monkeypatch.setattr(loop, "validate", instead)
    train(configure(place, [*assignments, "epochs=2"]), tmp_path / "run", report=quiet)
    best = [row["best"] == "1" for row in history(tmp_path / "run")]
    assert best == [True, by_dice]


def test_progress_names_every_term_by_what_it_is(place, tmp_path):
    lines: list[str] = []
    config = configure(place, ["seg_weight=0.25", "mining_weight=1", "epochs=1"])
    train(config, tmp_path / "run", report=lambda line, done, total: lines.append(line))
    steps = [line for line in lines if line.startswith("training epoch 1/1: ")]
    (row,) = history(tmp_path / "run")
    shown = (f"{name.replace('_', ' ')} {float(row[name]):.3f}" for name in TERMS)
    # at the epoch's end the line says what its history does
    assert steps[-1] == f"training epoch 1/1: {', '.join(shown)}"


TERMS = ("label_loss", "dice_loss", "mining_loss")


def test_labels_alone_leave_heads_and_dice_aside(place, tmp_path):
    out = tmp_path / "run"
    config = configure(place, ["seg_weight=0", "weight_decay=0.5", "epochs=2"])
    train(config, out, report=quiet)
    assert torch.equal(last(out)["model/heads.0.weight"], torch.eye(16))
    assert float(history(out)[0]["loss"]) == pytest.approx(float(history(out)[0]["label_loss"]))


def test_frozen_encoder_layers_do_not_move_and_the_others_do(whole, place):
    after = load_file(whole / "model" / "model.safetensors")
    for key, value in vit_from_folder(place / "vit", 1).state_dict().items():
        frozen = "embeddings" in key or ".layers.0." in key
        assert torch.equal(value, after[f"image_encoder.{key}"]) == frozen, key


def test_the_prior_head_starts_from_the_training_regions(place, tmp_path):
    out = tmp_path / "run"
    train(configure(place, ["head=prior", "epochs=1", "lr=1e-9"]), out, report=quiet)
    data = PreparedData.open(place / "data")
    for number, finding in enumerate(FINDINGS):
        shares = [
            data.coverage(int(index), finding, 4)
            for index in data.indices("train")
            if data.labels[index, number] == 1 and data.regions(index, finding)
        ]
        mean = torch.from_numpy(sum(shares) / len(shares)).flatten().clamp(0.01, 0.99)
        found = last(out)[f"model/heads.{number}.prior_logit"].sigmoid()
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-4)


def test_data_without_validation_images_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr(
        PreparedData, "indices", lambda self, split: torch.arange(3 * (split == "train")).numpy()
    )
    with pytest.raises(DataError, match="val split"):
        train(configure(place), tmp_path / "run", report=quiet)
    assert not (tmp_path / "run").exists()


def test_a_test_split_that_is_not_there_cannot_be_watched(place, tmp_path, monkeypatch):
    indices = PreparedData.indices
    monkeypatch.setattr(
        PreparedData, "indices", lambda self, split: indices(self, split)[: 9 * (split != "test")]
    )
    with pytest.raises(DataError, match="watch_test = true, but no image is in the test split"):
        train(configure(place, ["watch_test=true"]), tmp_path / "run", report=quiet)
    assert not (tmp_path / "run").exists()


def test_progress_counts_every_step(place, tmp_path):
    told = []
    train(
        configure(place, ["epochs=2"]),
        tmp_path / "run",
        report=lambda line, done, total: told.append((line, done, total)),
    )
    assert sorted({done for _, done, _ in told}) == list(range(1, 2 * BATCHES + 1))
    assert {total for _, _, total in told} == {2 * BATCHES}
    assert sum("validation: auc" in line for line, _, _ in told) == 2
    assert any("estimated training time" in line for line, _, _ in told)


def test_watching_the_test_split_changes_nothing_but_the_history(place, tmp_path):
    few = ["epochs=2"]
    train(configure(place, few), tmp_path / "blind", report=quiet)
    train(configure(place, [*few, "watch_test=true"]), tmp_path / "watched", report=quiet)
    assert weights(tmp_path / "blind") == weights(tmp_path / "watched")
    blind, watched = history(tmp_path / "blind"), history(tmp_path / "watched")
    assert set(watched[0]) - set(blind[0]) == set(loop.ORACLE_COLUMNS)
    assert all(0 <= float(row["oracle_test_dice"]) <= 1 for row in watched)
    assert [row["val_auc"] for row in blind] == [row["val_auc"] for row in watched]
