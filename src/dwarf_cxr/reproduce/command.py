"""`dwarf reproduce`: train what is missing, evaluate it, write TABLE.csv and TABLE.html."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dwarf_cxr.data.store import DATASET_FILE, PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.files import write_text
from dwarf_cxr.progress import Report
from dwarf_cxr.reproduce.figures import epoch_curves, few_shot_curves
from dwarf_cxr.reproduce.page import Block, Chart, render_page
from dwarf_cxr.reproduce.plan import Choices, DataPlace, PlannedRow, plan_rows
from dwarf_cxr.reproduce.recipes import (
    FEW_SHOT,
    FIGURE_3,
    RELATED,
    TABLE_1,
    TABLE_4,
    TEACHERS,
    TRANSFER,
    Recipe,
    find_recipe,
)
from dwarf_cxr.reproduce.results import RowResult, read_results
from dwarf_cxr.reproduce.running import evaluate_finished, run_missing
from dwarf_cxr.reproduce.scales import find_scale
from dwarf_cxr.reproduce.subsets import annotated_cases
from dwarf_cxr.reproduce.tables import (
    Record,
    csv_text,
    differences_of,
    markdown,
    records_of,
    tables_of,
)
from dwarf_cxr.reproduce.teaching import teach_if_missing, teacher_table
from dwarf_cxr.reproduce.transfer import evaluate_elsewhere, training_places, transfer_tables
from dwarf_cxr.reproduce.verdict import cautions, verdict_sentences
from dwarf_cxr.training.report_attention import read_corpus


def reproduce(
    table: str,
    data: Sequence[Path],
    out: Path,
    *,
    scale: str = "starter",
    seeds: Sequence[int] | None = None,
    assignments: Sequence[str] = (),
    init: Path | None = None,
    reports: Sequence[Path] = (),
    corpus: Path | None = None,
    only: Sequence[str] | None = None,
    print_only: bool = False,
    command: str,
    report: Report,
) -> str:
    """Reproduce a table of the paper on `data` in `out`, continuing what is there.

    Args:
        seeds: by default those of the scale.
        assignments: `--set` of the user.
        init: a run or model folder that vision-language trainings start from and that zero-shot
            rows ask.
        reports: prepared data whose films and texts train `report-attention`.
        corpus: a file of further reports for its word vectors.
        only: names of rows; the others are left out.
        print_only: train nothing, and show what is trained.
        command: the words of the whole command, for the page.

    Returns:
        The tables and the verdict as Markdown, with the paths of TABLE.csv and TABLE.html.

    Raises:
        ConfigError: contradictory words, a run folder holds another training, or nothing is trained
            yet with `print_only`.
        DataError: no regions to train on.
        TrainingError: interrupted; the same command continues.
    """
    recipe, size = find_recipe(table), find_scale(scale)
    choices = Choices(
        scale=size,
        seeds=tuple(size.seeds if seeds is None else seeds),
        assignments=tuple(assignments),
        init=init,
        reports=tuple(reports),
        corpus=corpus,
        only=None if only is None else tuple(only),
    )
    _refuse_repeated("--seeds", choices.seeds)
    places = places_of(data, out)
    trained_on = training_places(places) if recipe is TRANSFER else places
    for place in trained_on:
        plan_rows(recipe, place, choices)  # what is wrong with words or data comes before any work
    _refuse_unfit_reports(recipe, places, choices)
    warnings = []
    if any(row.with_pseudo for row in recipe.rows):
        warnings += _teach(trained_on, choices, print_only, report)
    if recipe is TABLE_1 and init is None:
        warnings.append(
            "The zero-shot rows are left out: give the weights that they ask with --init FOLDER, a "
            "model that `dwarf weights import` wrote."
        )
    run = evaluate_finished if print_only else run_missing
    planned = []
    for place in trained_on:
        rows = plan_rows(recipe, place, choices)
        run(rows, draws=size.draws, report=report)
        if any(row.start for row in recipe.rows):
            # now there is what they start from
            rows = plan_rows(recipe, place, choices)
            run(rows, draws=size.draws, report=report)
        if recipe is TRANSFER:
            evaluate_elsewhere(rows, places, draws=size.draws, report=report)
        planned.append(rows)
    waiting = _not_started(recipe, planned, choices)
    warnings += waiting
    results = [read_results(rows, draws=size.draws, columns=recipe.columns) for rows in planned]
    if not any(results):
        if only is not None and all(row.start for row in recipe.rows if row.name in only):
            raise ConfigError(f"--only {','.join(only)}: nothing to show. {' '.join(waiting)}")
        raise ConfigError(
            f"{out}: no row of {recipe.name} is trained to its end; leave out --print-only to train"
        )
    blocks: list[Block] = []
    records: list[Record] = []
    for place, done in zip(trained_on, results, strict=True):
        if done:
            block, more = _block(recipe, place, done)
            blocks.append(block)
            records += more
    if recipe is TRANSFER:
        matrices, more, sentences = transfer_tables(planned, places, draws=size.draws)
        blocks.insert(0, Block("Transfer", tuple(sentences), tuple(matrices)))
        records += more
    every = tuple(row for rows in planned for row in rows)
    warnings += cautions(every, [result for done in results for result in done], size.name)
    csv_file, page = out / f"{recipe.name}.csv", out / f"{recipe.name}.html"
    write_text(csv_file, csv_text(recipe, records))
    write_text(
        page,
        render_page(
            recipe,
            size,
            every,
            blocks,
            cautions=warnings,
            command=command,
            csv_name=csv_file.name,
        ),
    )
    return _markdown(recipe, blocks, warnings, command) + f"\n\n{csv_file}\n{page}"


def places_of(data: Sequence[Path], out: Path) -> list[DataPlace]:
    """Runs of the first data set go to OUT/runs, those of a further one to OUT/runs/ITS-NAME.

    Raises:
        ConfigError: a folder is given twice, or two have the same name.
    """
    _refuse_repeated("--data", [folder.resolve() for folder in data])
    names = [folder.resolve().name for folder in data]
    _refuse_repeated("the names of the --data folders", names)
    first, *others = zip(data, names, strict=True)
    return [
        DataPlace(first[0], out / "runs", out / "pseudo"),
        *(DataPlace(one, out / "runs" / name, out / f"pseudo-{name}") for one, name in others),
    ]


def _teach(
    places: Sequence[DataPlace], choices: Choices, print_only: bool, report: Report
) -> list[str]:
    for place in places:
        if not print_only:
            teach_if_missing(place, choices.scale.teachers, report)
    untaught = [
        str(place.pseudo) for place in places if not (place.pseudo / DATASET_FILE).is_file()
    ]
    if not untaught:
        return []
    return [f"No teachers yet ({', '.join(untaught)}): rows on their regions are left out."]


def _refuse_unfit_reports(recipe: Recipe, places: Sequence[DataPlace], choices: Choices) -> None:
    """Before hours of training."""
    if not any(row.start for row in recipe.rows):
        if choices.reports or choices.corpus is not None:
            raise ConfigError(
                f"--reports and --corpus train report-attention, and {recipe.name} has no such "
                f"row; {RELATED.name} has"
            )
        return
    read_corpus(choices.corpus)
    for folder in choices.reports:
        reported = PreparedData.open(folder)
        for place in places:
            size = PreparedData.open(place.data).size
            if reported.size != size:
                raise DataError(
                    f"--reports {folder}: images of {reported.size} px, {place.data} has {size}; "
                    f"prepare the reports with --size {size}"
                )


def _not_started(
    recipe: Recipe, planned: Sequence[Sequence[PlannedRow]], choices: Choices
) -> list[str]:
    """What is said of the rows that start from others' trainings and could not."""
    found = []
    for row in recipe.rows:
        if row.start is None or (choices.only is not None and row.name not in choices.only):
            continue
        if not choices.reports:
            found.append(
                f"{row.name} is left out: give films with reports, prepared data with texts, with "
                "--reports DATA."
            )
        elif any(
            len(next((one.trainings for one in rows if one.row is row), ())) < len(choices.seeds)
            for rows in planned
        ):
            found.append(
                f"{row.name} waits for finished trainings of {row.start}: give the same command "
                f"without --only, or with {row.start} in it too."
            )
    return found


def _refuse_repeated(what: str, values: Sequence[object]) -> None:
    if not values:
        raise ConfigError(f"{what}: none is given")
    if len(set(values)) != len(values):
        raise ConfigError(f"{what}: {', '.join(map(str, values))}; give each once")


def _block(
    recipe: Recipe, place: DataPlace, results: Sequence[RowResult]
) -> tuple[Block, list[Record]]:
    differences = differences_of(results)
    tables, records = tables_of(results, differences), records_of(results, differences)
    if recipe is TEACHERS and (place.pseudo / DATASET_FILE).is_file():
        quality, more = teacher_table(place, results[0].planned.data_name)
        tables.insert(0, quality)
        records = [*more, *records]
    block = Block(
        title=results[0].planned.data_name,
        sentences=tuple(verdict_sentences(results, differences)),
        tables=tuple(tables),
        figures=tuple(_charts(recipe, place, results)),
    )
    return block, records


def _charts(recipe: Recipe, place: DataPlace, results: Sequence[RowResult]) -> list[Chart]:
    if recipe is FIGURE_3:
        return [
            Chart(
                "Over the epochs",
                "Means over seeds. Full: validation, by which the kept epoch and its thresholds "
                "are chosen. Dashed: the test split with map thresholds fitted on itself, an "
                "oracle that is only watched.",
                epoch_curves(results),
            )
        ]
    if recipe is TABLE_4 and results[0].honest("dice").value is not None:
        return [_shortcut_chart(place, results)]
    if recipe is FEW_SHOT:
        most = annotated_cases(PreparedData.open(place.data), results[0].planned.findings)
        return [
            Chart(
                "Against annotated cases per finding",
                "Means over seeds, shaded their 95 % intervals over patients; test split, epoch "
                "and thresholds from validation. Labels of all training films are used everywhere.",
                few_shot_curves(results, most),
            )
        ]
    return []


def _shortcut_chart(place: DataPlace, results: Sequence[RowResult]) -> Chart:
    """The paper's Figure 2, of each row's first training."""
    from dwarf_cxr.reporting.shortcut import shortcut_figure

    runs = [(result.planned.row.title, result.trainings[0].folder) for result in results]
    with tempfile.TemporaryDirectory() as folder:
        picture = shortcut_figure(runs, place.data, Path(folder) / "shortcut.png").read_bytes()
    return Chart(
        "Figure 2: does a map follow the film?",
        "The first training of each row on the same films. A row of alike maps shows where the "
        "finding usually lies; “Dice lost” is what its maps lose on other films.",
        picture,
        "image/png",
    )


def _markdown(
    recipe: Recipe, blocks: Sequence[Block], warnings: Sequence[str], command: str
) -> str:
    parts = [f"## {recipe.title}", recipe.question, f"```\n{command}\n```"]
    parts += [f"Caution: {warning}" for warning in warnings]
    for block in blocks:
        parts.append(f"### {block.title}")
        parts += [markdown(table) for table in block.tables]
        parts.append("\n".join(f"- {sentence}" for sentence in block.sentences))
    parts += [f"Note: {remark}" for remark in recipe.cautions]
    return "\n\n".join(part for part in parts if part)
