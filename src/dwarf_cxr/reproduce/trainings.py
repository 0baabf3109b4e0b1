"""One run of a row: its configuration and command, and how far it is."""

import csv
import shlex
from dataclasses import dataclass
from pathlib import Path

from dwarf_cxr.config import RunConfig
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json, recover_folder
from dwarf_cxr.methods import find_method


@dataclass(frozen=True)
class Training:
    """One run of a row: what it is, where it lies, and how a user would start it."""

    folder: Path
    config: RunConfig
    assignments: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line that does the same."""
        config = self.config
        words = ["dwarf", "train", config.method, "--data", config.data, "--out", str(self.folder)]
        words += ["--findings", ",".join(config.findings), "--seed", str(config.seed)]
        if not self.zero_shot:
            words += ["--epochs", str(config.settings.training.epochs)]
        if config.init is not None:
            words += ["--init", config.init]
        for folder in config.reports:
            words += ["--reports", folder]
        if config.corpus is not None:
            words += ["--corpus", config.corpus]
        for assignment in self.assignments:
            words += ["--set", assignment]
        return shlex.join(words)

    @property
    def zero_shot(self) -> bool:
        """Whether nothing is trained: a model is asked, and calibrated on the data."""
        return find_method(self.config.method).zero_shot

    @property
    def evaluation(self) -> Path:
        """Where it is evaluated on the test split of its data."""
        return self.folder / "eval-test"

    @property
    def evaluate_command(self) -> str:
        """The command line that evaluates it."""
        words = ["dwarf", "evaluate", str(self.folder), "--data", self.config.data]
        return shlex.join(words)


def is_finished(training: Training) -> bool:
    """Whether the run has its last epoch and a model."""
    recover_folder(training.folder / "model")
    if training.zero_shot:
        return (training.folder / "model").is_dir()
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
