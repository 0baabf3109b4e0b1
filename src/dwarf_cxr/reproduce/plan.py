"""From a recipe to trainings: findings of this data, settings, folder and command of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dwarf_cxr.config import MODEL_KINDS, MethodSettings, has_setting, with_overrides
from dwarf_cxr.data.store import DATASET_FILE, PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.methods import find_method
from dwarf_cxr.reproduce.recipes import Recipe, Row
from dwarf_cxr.reproduce.scales import Scale
from dwarf_cxr.reproduce.subsets import annotated_cases, findings_with_regions, subset_findings
from dwarf_cxr.reproduce.trainings import Training, is_finished
from dwarf_cxr.training.run import make_config


@dataclass(frozen=True)
class DataPlace:
    """A data set of the command, and where what is made of it lies."""

    data: Path
    runs: Path
    """The folder of run folders."""
    pseudo: Path
    """The data again, with the regions that teachers draw, once they have."""


@dataclass(frozen=True)
class Choices:
    """What the user chose for all rows."""

    scale: Scale
    seeds: tuple[int, ...]
    assignments: tuple[str, ...] = ()
    """`--set`, for all rows whose network has the setting, or with the kind of network in front
    (`ham.width=64`) for those of that kind; what a row is about stays as the row says."""
    init: Path | None = None
    """The model that vision-language trainings start from and that zero-shot rows ask."""
    reports: tuple[Path, ...] = ()
    """Prepared data whose films and texts train `report-attention`."""
    corpus: Path | None = None
    """A file of further reports for its word vectors."""
    only: tuple[str, ...] | None = None
    """Names of rows, as `PlannedRow.name` or `Row.name` has them."""


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
    against: tuple[str, ...]
    """The names of the planned rows that it is compared with."""

    @property
    def title(self) -> str:
        """The row's title and its number of findings."""
        count = len(self.findings)
        return f"{self.row.title}, {count} finding{'' if count == 1 else 's'}"


def plan_rows(recipe: Recipe, place: DataPlace, choices: Choices) -> tuple[PlannedRow, ...]:
    """The recipe's rows on a data set.

    Left out are rows that come out as another one of the same name (on a data set without the
    paper's 13 findings, its versions with 7 and 13 are the same), rows of more annotated cases than
    there are, zero-shot rows without an initial model, rows on teachers' regions as long as there
    are none, and rows that start from another row's trainings as far as these are not finished, or
    without reports.

    Raises:
        ConfigError: an unknown or contradictory setting, several devices, or no row of that name.
        DataError: no prepared data set, or one without regions to train on, validation or test
            images.
    """
    prepared = PreparedData.open(place.data)
    available = findings_with_regions(prepared)
    for split in ("val", "test"):
        if not len(prepared.indices(split)):
            raise DataError(
                f"{place.data}: no image is in the {split} split; a table needs one to choose by "
                "and one to judge by: prepare the data with both"
            )
    everything = subset_findings(available, 13)
    _refuse_unaddressed(recipe, choices.assignments)
    every = [find_method(row.method).settings for row in recipe.rows]
    planned: dict[str, PlannedRow] = {}
    for row in recipe.rows:
        data = place.pseudo if row.with_pseudo else place.data
        unasked = find_method(row.method).zero_shot and choices.init is None
        if unasked or not (data / DATASET_FILE).is_file():
            continue
        findings = subset_findings(available, row.subset)
        name = _run_name(row.name, findings, everything)
        assignments = tuple(
            _addressed(choices.assignments, find_method(row.method).settings, every)
        )
        ready = replace(choices, assignments=assignments)
        if row.start is None:
            trainings = _trainings(row, name, findings, data, place.runs, ready)
        else:
            starts = planned[_run_name(row.start, findings, everything)].trainings
            trainings = _started(row, name, findings, data, place.runs, ready, starts)
        if not trainings:
            continue
        cases = trainings[0].config.settings.objective.region_cases
        if cases is not None and cases >= annotated_cases(prepared, findings):
            continue
        # of rows that come out alike the last stays: its published numbers are of all findings
        planned.pop(name, None)
        planned[name] = PlannedRow(
            row=row,
            name=name,
            findings=findings,
            data=data,
            data_name=prepared.name,
            trainings=trainings,
            against=tuple(_run_name(one, findings, everything) for one in row.against),
        )
    return _chosen(tuple(planned.values()), choices.only, recipe)


def _chosen(
    rows: tuple[PlannedRow, ...], only: Sequence[str] | None, recipe: Recipe
) -> tuple[PlannedRow, ...]:
    if only is None:
        return rows
    # a row that is left out here, as those on teachers' regions before there are any, is no error
    known = dict.fromkeys([*(row.name for row in rows), *(row.name for row in recipe.rows)])
    unknown = [name for name in only if name not in known]
    if unknown or not only:
        raise ConfigError(
            f"--only: {recipe.name} has no row {', '.join(map(repr, unknown)) or 'of that name'}; "
            f"its rows are {', '.join(known)}"
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
    choices: Choices,
) -> tuple[Training, ...]:
    method = find_method(row.method)
    if method.zero_shot:
        # nothing is drawn at random: one of the seeds stands for all
        seed = choices.seeds[0]
        config = make_config(row.method, data, findings=findings, seed=seed, init=choices.init)
        return (Training(runs / f"{name}-{seed}", config, ()),)
    scale = choices.scale
    init = choices.init if method.settings.model.kind == "vision-language" else None
    own = scale.changes_for(row.method, len(findings), initial=init is not None)
    shared = (*own, *choices.assignments)
    # the user's own `--set epochs=…` is what a row's factor multiplies
    epochs = f"epochs={scale.epochs_for(row.method)}"
    base = with_overrides(method.settings, None, [epochs, *shared]).training
    if base.devices * base.nodes != 1:
        raise ConfigError(
            f"--set devices={base.devices}, nodes={base.nodes}: reproduce trains on one device; "
            "train the rows with the commands that it prints, and call it again for the table"
        )
    every = (*shared, *row.changes)
    config = make_config(
        row.method,
        data,
        findings=findings,
        epochs=base.epochs * row.epochs,
        init=init,
        assignments=every,
    )
    return tuple(
        Training(runs / f"{name}-{seed}", config.model_copy(update={"seed": seed}), every)
        for seed in choices.seeds
    )


def _started(
    row: Row,
    name: str,
    findings: tuple[str, ...],
    data: Path,
    runs: Path,
    choices: Choices,
    starts: Sequence[Training],
) -> tuple[Training, ...]:
    """A training from each finished one of `starts`, with its seed."""
    if not choices.reports:
        return ()
    method, scale = find_method(row.method), choices.scale
    own = scale.changes_for(row.method, len(findings))
    every = (*own, *choices.assignments, *row.changes)
    epochs = f"epochs={scale.epochs_for(row.method)}"
    planned = with_overrides(method.settings, None, [epochs, *every]).training.epochs * row.epochs
    return tuple(
        Training(
            runs / f"{name}-{start.config.seed}",
            make_config(
                row.method,
                data,
                findings=findings,
                epochs=planned,
                seed=start.config.seed,
                init=start.folder,
                reports=choices.reports,
                corpus=choices.corpus,
                assignments=every,
            ),
            every,
        )
        for start in starts
        # an unfinished model may still be replaced by a better epoch's
        if is_finished(start)
    )


def _addressed(
    assignments: Sequence[str], settings: MethodSettings, every: Sequence[MethodSettings]
) -> Iterator[str]:
    """The assignments that are for a row of these settings, among rows of `every` settings."""
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        kind, _, name = key.partition(".")
        if kind in MODEL_KINDS:
            if kind == settings.model.kind:
                yield f"{name}{separator}{value}"
        elif has_setting(settings, key) or not any(has_setting(one, key) for one in every):
            yield assignment


def _refuse_unaddressed(recipe: Recipe, assignments: Sequence[str]) -> None:
    kinds = dict.fromkeys(find_method(row.method).settings.model.kind for row in recipe.rows)
    for assignment in assignments:
        kind = assignment.partition("=")[0].partition(".")[0]
        if kind in MODEL_KINDS and kind not in kinds:
            raise ConfigError(
                f"--set {assignment}: {recipe.name} has no {kind} network; its networks are "
                f"{', '.join(kinds)}"
            )
