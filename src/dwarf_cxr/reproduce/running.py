"""Trains and evaluates what is missing of a table; what is done stays as it is.

Trainings run in this process, one after the other: the loop answers SIGTERM and SIGINT by writing
its state, and the next call continues there.
"""

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

from dwarf_cxr.config import ReportAttentionSettings, differences, load_config
from dwarf_cxr.errors import ConfigError, TrainingError
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.progress import Report
from dwarf_cxr.reproduce.plan import PlannedRow
from dwarf_cxr.reproduce.trainings import Training, is_evaluated, is_finished
from dwarf_cxr.training.loop import train
from dwarf_cxr.training.report_attention import train_report_attention
from dwarf_cxr.training.zero_shot import write_zero_shot_run


def run_missing(rows: Sequence[PlannedRow], *, draws: int, report: Report) -> None:
    """Train and evaluate every training of `rows` that is not done.

    Raises:
        ConfigError: a run folder holds another training; says in what it differs.
        TrainingError: interrupted, or diverged.
        DwarfError: as `training.loop.train` and `evaluate_run`.
    """
    # by seed first, so that an interrupted table has all of its rows early
    by_seed = itertools.zip_longest(*(row.trainings for row in rows))
    trainings = [each for seed in by_seed for each in seed if each is not None]
    for training in trainings:
        refuse_other(training)
    for number, training in enumerate(trainings):
        name = training.folder.name
        if not is_finished(training):
            begun = (training.folder / "config.yaml").is_file()
            resume = begun and not training.zero_shot
            command = training.command + (" --resume" if resume else "")
            report(command, number, len(trainings))
            try:
                _train(training, resume, _of(name, report))
            except TrainingError as fault:
                raise TrainingError(
                    f"{fault}. `dwarf reproduce` with the same words continues there"
                ) from None
        evaluate_if_missing(training, draws=draws, report=report)
        report(f"{name}: done", number + 1, len(trainings))


def _train(training: Training, resume: bool, report: Report) -> None:
    config, out = training.config, training.folder
    if training.zero_shot:
        write_zero_shot_run(config, out, report=report)
    elif isinstance(config.settings.model, ReportAttentionSettings):
        train_report_attention(config, out, resume=resume, report=report)
    else:
        train(config, out, resume=resume, report=report)


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


def evaluate_if_missing(training: Training, *, draws: int, report: Report) -> None:
    """Evaluate a finished run on the test split, unless it was."""
    if is_evaluated(training):
        return
    evaluate_on(training, Path(training.config.data), training.evaluation, draws, report)


def evaluate_on(training: Training, data: Path, out: Path, draws: int, report: Report) -> None:
    """Evaluate a run on the test split of `data` into `out`."""
    words = ["dwarf", "evaluate", str(training.folder), "--data", str(data), "--out", str(out)]
    report(shlex.join(words), 0, 1)
    evaluate_run(
        training.folder, data, out=out, draws=draws, report=_of(training.folder.name, report)
    )


def _of(name: str, report: Report) -> Report:
    def named(line: str, done: int, total: int) -> None:
        report(f"{name}: {line}", done, total)

    return named
