"""Trains and evaluates what is missing of a table; what is done stays as it is.

Trainings run in this process, one after the other: the loop answers SIGTERM and SIGINT by writing
its state, and the next call continues there.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from dwarf_cxr.config import differences, load_config
from dwarf_cxr.errors import ConfigError, DataError, TrainingError
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.files import read_json, recover_folder
from dwarf_cxr.progress import Report
from dwarf_cxr.reproduce.plan import PlannedRow, Training
from dwarf_cxr.training.loop import train


def run_missing(rows: Sequence[PlannedRow], *, draws: int, report: Report) -> None:
    """Train and evaluate every training of `rows` that is not done.

    Raises:
        ConfigError: a run folder holds another training; says in what it differs.
        TrainingError: interrupted, or diverged.
        DwarfError: as `training.loop.train` and `evaluate_run`.
    """
    # by seed first, so that an interrupted table has all of its rows early
    trainings = [
        each for seed in zip(*(row.trainings for row in rows), strict=True) for each in seed
    ]
    for training in trainings:
        refuse_other(training)
    for number, training in enumerate(trainings):
        name = training.folder.name
        if not is_finished(training):
            resume = (training.folder / "config.yaml").is_file()
            command = training.command + (" --resume" if resume else "")
            report(command, number, len(trainings))
            try:
                train(training.config, training.folder, resume=resume, report=_of(name, report))
            except TrainingError as fault:
                raise TrainingError(
                    f"{fault}. `dwarf reproduce` with the same words continues there"
                ) from None
        evaluate_if_missing(training, draws=draws, report=report)
        report(f"{name}: done", number + 1, len(trainings))


def evaluate_finished(rows: Sequence[PlannedRow], *, draws: int, report: Report) -> None:
    """Evaluate the finished trainings of `rows` that are not evaluated; train nothing."""
    for row in rows:
        for training in row.trainings:
            refuse_other(training)
            if is_finished(training):
                evaluate_if_missing(training, draws=draws, report=report)


def refuse_other(training: Training) -> None:
    """Stop where the run's folder holds a training that was configured otherwise.

    Raises:
        ConfigError: lists the differences.
    """
    file = training.folder / "config.yaml"
    if not file.is_file():
        return
    changed = differences(load_config(file), training.config)
    if changed:
        raise ConfigError(
            f"{training.folder}: the run there was configured otherwise ({'; '.join(changed)}); "
            "give the same --scale and --set as then, or choose another --out"
        )


def is_finished(training: Training) -> bool:
    """Whether the run has its last epoch and a model."""
    recover_folder(training.folder / "model")
    epochs = [int(float(row["epoch"])) for row in history(training.folder)]
    last = training.config.settings.training.epochs
    return bool(epochs) and epochs[-1] == last and (training.folder / "model").is_dir()


def is_evaluated(training: Training) -> bool:
    """Whether the run is finished and its evaluation there, on the data that it was trained on."""
    file = training.evaluation / "metrics.json"
    if not is_finished(training) or not file.is_file():
        return False
    try:
        found = read_json(file)["protocol"]["data"]["fingerprint"]
    except (KeyError, TypeError):
        return False
    return bool(found == training.config.data_fingerprint)


def evaluate_if_missing(training: Training, *, draws: int, report: Report) -> None:
    """Evaluate a finished run on the test split, unless it was."""
    if is_evaluated(training):
        return
    report(training.evaluate_command, 0, 1)
    evaluate_run(
        training.folder,
        Path(training.config.data),
        out=training.evaluation,
        draws=draws,
        report=_of(training.folder.name, report),
    )


def history(run: Path) -> list[dict[str, str]]:
    """The rows of a run's history.csv; none where it is not there yet.

    Raises:
        DataError: it is not a history.
    """
    file = run / "history.csv"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if rows and not {"epoch", "best", "seconds"} <= set(rows[0]):
        raise DataError(f"{file}: not the history of a training; restore it, or remove {run}")
    return rows


def _of(name: str, report: Report) -> Report:
    def named(line: str, done: int, total: int) -> None:
        report(f"{name}: {line}", done, total)

    return named
