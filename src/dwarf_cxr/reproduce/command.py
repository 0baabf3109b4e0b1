"""`dwarf reproduce`: train what is missing, evaluate it, write TABLE.csv and TABLE.html."""

from collections.abc import Sequence
from pathlib import Path

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import write_text
from dwarf_cxr.progress import Report
from dwarf_cxr.reproduce.figures import epoch_curves
from dwarf_cxr.reproduce.page import Block, Chart, render_page
from dwarf_cxr.reproduce.plan import PlannedRow, plan_rows
from dwarf_cxr.reproduce.recipes import FIGURE_3, Recipe, find_recipe
from dwarf_cxr.reproduce.results import RowResult, read_results
from dwarf_cxr.reproduce.running import evaluate_finished, run_missing
from dwarf_cxr.reproduce.scales import find_scale
from dwarf_cxr.reproduce.tables import (
    Record,
    csv_text,
    differences_of,
    markdown,
    records_of,
    tables_of,
)
from dwarf_cxr.reproduce.verdict import cautions, verdict_sentences


def reproduce(
    table: str,
    data: Sequence[Path],
    out: Path,
    *,
    scale: str = "starter",
    seeds: Sequence[int] | None = None,
    assignments: Sequence[str] = (),
    only: Sequence[str] | None = None,
    print_only: bool = False,
    command: str,
    report: Report,
) -> str:
    """Reproduce a table of the paper on `data` in `out`, continuing what is there.

    Args:
        seeds: by default those of the scale.
        assignments: `--set` of the user.
        only: names of rows; the others are left out.
        print_only: train nothing, and show what is trained.
        command: the words of the whole command, for the page.

    Returns:
        The tables and the verdict as Markdown, with the paths of TABLE.csv and TABLE.html.

    Raises:
        ConfigError: contradictory words, or a run folder holds another training.
        DataError: no regions to train on, or nothing is trained yet with `print_only`.
        TrainingError: interrupted; the same command continues.
    """
    recipe, size = find_recipe(table), find_scale(scale)
    chosen = tuple(size.seeds if seeds is None else seeds)
    _refuse_repeated("--seeds", chosen)
    _refuse_repeated("--data", [folder.resolve() for folder in data])
    planned: list[tuple[PlannedRow, ...]] = [
        plan_rows(
            recipe,
            folder,
            runs,
            scale=size,
            seeds=chosen,
            assignments=assignments,
            only=only,
        )
        for folder, runs in zip(data, runs_folders(data, out), strict=True)
    ]
    for rows in planned:
        run = evaluate_finished if print_only else run_missing
        run(rows, draws=size.draws, report=report)
    blocks: list[Block] = []
    records: list[Record] = []
    results: list[RowResult] = []
    for rows in planned:
        done = read_results(rows, draws=size.draws)
        results += done
        if done:
            block, more = _block(recipe, done)
            blocks.append(block)
            records += more
    if not results:
        raise ConfigError(
            f"{out}: no row of {recipe.name} is trained to its end; leave out --print-only to train"
        )
    every = tuple(row for rows in planned for row in rows)
    warnings = cautions(every, results, size.name)
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


def runs_folders(data: Sequence[Path], out: Path) -> list[Path]:
    """Where the runs of each data set go: OUT/runs, and for further sets OUT/runs/NAME.

    Raises:
        ConfigError: two folders have the same name.
    """
    names = [folder.resolve().name for folder in data]
    _refuse_repeated("names of --data folders", names[1:])
    return [out / "runs", *(out / "runs" / name for name in names[1:])]


def _refuse_repeated(what: str, values: Sequence[object]) -> None:
    if len(set(values)) != len(values):
        raise ConfigError(f"{what}: {', '.join(map(str, values))}; give each once")
    if what == "--seeds" and not values:
        raise ConfigError("--seeds: none is given; for example --seeds 0,1,2")


def _block(recipe: Recipe, results: Sequence[RowResult]) -> tuple[Block, list[Record]]:
    differences = differences_of(results)
    figures = (_curves(results),) if recipe is FIGURE_3 else ()
    block = Block(
        title=f"{results[0].planned.data_name}",
        sentences=tuple(verdict_sentences(results, differences)),
        tables=tuple(tables_of(recipe, results, differences)),
        figures=figures,
    )
    return block, records_of(results, differences)


def _curves(results: Sequence[RowResult]) -> Chart:
    return Chart(
        "Over the epochs",
        "Means over seeds. Full: validation, by which the kept epoch and its thresholds are "
        "chosen. Dashed: the test split with map thresholds fitted on itself, an oracle that is "
        "only watched.",
        epoch_curves(results),
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
