"""From a recipe to trainings: findings of this data, settings, folder and command of each."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwarf_cxr.config import RunConfig, with_overrides
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.methods import find_method
from dwarf_cxr.reproduce.recipes import Recipe, Row
from dwarf_cxr.reproduce.scales import Scale
from dwarf_cxr.reproduce.subsets import findings_with_regions, subset_findings
from dwarf_cxr.training.run import make_config


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
        words += ["--findings", ",".join(config.findings)]
        words += ["--epochs", str(config.settings.training.epochs), "--seed", str(config.seed)]
        for assignment in self.assignments:
            words += ["--set", assignment]
        return shlex.join(words)

    @property
    def evaluation(self) -> Path:
        """Where it is evaluated on the test split of its data."""
        return self.folder / "eval-test"

    @property
    def evaluate_command(self) -> str:
        """The command line that evaluates it."""
        words = ["dwarf", "evaluate", str(self.folder), "--data", self.config.data]
        return shlex.join(words)


@dataclass(frozen=True)
class PlannedRow:
    """A row on the data at hand."""

    row: Row
    name: str
    """As its run folders are called."""
    findings: tuple[str, ...]
    data: Path
    data_name: str
    trainings: tuple[Training, ...]
    """One for each seed."""
    against: str | None
    """The name of the planned row that it is compared with."""

    @property
    def title(self) -> str:
        """The row's title and its number of findings."""
        count = len(self.findings)
        return f"{self.row.title}, {count} finding{'' if count == 1 else 's'}"


def plan_rows(
    recipe: Recipe,
    data: Path,
    runs: Path,
    *,
    scale: Scale,
    seeds: Sequence[int],
    assignments: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> tuple[PlannedRow, ...]:
    """The recipe's rows on a data set.

    Rows whose findings come out as those of another row of the same name are left out: on a data
    set without the paper's 13, its versions with 7 and 13 findings are the same.

    Args:
        runs: the folder of run folders.
        assignments: `--set` of the user, for all rows; what a row is about stays as the row says.
        only: names of rows, as `PlannedRow.name` or `Row.name` has them.

    Raises:
        ConfigError: an unknown or contradictory setting, several devices, or no row of that name.
        DataError: `data` is no prepared data set, or has no regions to train on.
    """
    prepared = PreparedData.open(data)
    available = findings_with_regions(prepared)
    everything = subset_findings(available, 13)
    planned: dict[str, PlannedRow] = {}
    for row in recipe.rows:
        findings = subset_findings(available, row.subset)
        name = _run_name(row.name, findings, everything)
        # of rows that come out alike the last stays: its published numbers are of all findings
        planned.pop(name, None)
        planned[name] = PlannedRow(
            row=row,
            name=name,
            findings=findings,
            data=data,
            data_name=prepared.name,
            trainings=_trainings(row, name, findings, data, runs, seeds, scale, assignments),
            against=None if row.against is None else _run_name(row.against, findings, everything),
        )
    return _chosen(tuple(planned.values()), only, recipe.name)


def _chosen(
    rows: tuple[PlannedRow, ...], only: Sequence[str] | None, recipe: str
) -> tuple[PlannedRow, ...]:
    if only is None:
        return rows
    known = dict.fromkeys(name for row in rows for name in (row.name, row.row.name))
    unknown = [name for name in only if name not in known]
    if unknown or not only:
        raise ConfigError(
            f"--only: {recipe} has no row {', '.join(map(repr, unknown)) or 'of that name'}; its "
            f"rows are {', '.join(known)}"
        )
    return tuple(row for row in rows if row.name in only or row.row.name in only)


def _run_name(name: str, findings: Sequence[str], everything: Sequence[str]) -> str:
    return name if tuple(findings) == tuple(everything) else f"{name}-{len(findings)}"


def _trainings(
    row: Row,
    name: str,
    findings: tuple[str, ...],
    data: Path,
    runs: Path,
    seeds: Sequence[int],
    scale: Scale,
    assignments: Sequence[str],
) -> tuple[Training, ...]:
    shared = (*scale.changes_for(row.method, len(findings)), *assignments)
    # the user's own `--set epochs=…` is what a row's factor multiplies
    base = with_overrides(
        find_method(row.method).settings, None, [f"epochs={scale.epochs}", *shared]
    ).training
    if base.devices != 1:
        raise ConfigError(
            f"--set devices={base.devices}: reproduce trains on one device; train the rows with "
            "the commands that it prints, and call it again for the table"
        )
    every = (*shared, *row.changes)
    config = make_config(
        row.method, data, findings=findings, epochs=base.epochs * row.epochs, assignments=every
    )
    return tuple(
        Training(runs / f"{name}-{seed}", config.model_copy(update={"seed": seed}), every)
        for seed in seeds
    )
