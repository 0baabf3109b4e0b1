"""The tables of a reproduction, for the page, for Markdown and for TABLE.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dwarf_cxr.evaluation.bootstrap import bounds
from dwarf_cxr.evaluation.references import REFERENCES
from dwarf_cxr.reporting.intervals import (
    DASH,
    NO_INTERVAL_RULE,
    VERDICT_RULE,
    counted,
    signed_ends,
    verdict,
    why_no_interval,
)
from dwarf_cxr.reporting.metrics import BOX_METRICS, Metric
from dwarf_cxr.reporting.tables import REFERENCE_WORDS, Cell
from dwarf_cxr.reporting.tables import Row as Line
from dwarf_cxr.reproduce.metrics import METRICS
from dwarf_cxr.reproduce.recipes import Published, Recipe, published_for
from dwarf_cxr.reproduce.results import (
    ORACLES,
    VALIDATION,
    RowResult,
    box_difference,
    difference,
)
from dwarf_cxr.reproduce.statistics import Summary

CSV_COLUMNS = (
    "table",
    "data",
    "row",
    "findings",
    "protocol",
    "metric",
    "value",
    "low",
    "high",
    "sd",
    "seeds",
    "against",
    "paper",
    "paper_source",
)
HONEST, ORACLE, DIFFERENCE, VALIDATED, REFERENCE = (
    "test",
    "oracle",
    "difference",
    "validation",
    "reference",
)
"""`protocol` of TABLE.csv."""
VALIDATION_METRICS = tuple(
    Metric(key, label, "of the kept epoch")
    for key, label in zip(VALIDATION, ("Epoch", "AUC", "Dice", "Hit rate"), strict=True)
)
REFERENCE_METRICS = ("dice", "max_dice", "iou", "hit_rate", "t_iou", "ham_t_iou")
"""Those of them that are columns are shown of the references too."""

MAX_DICE_WORDS = "Max Dice takes the best threshold for every film, knowing the answer."


@dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    title: str
    note: str
    head: str
    """What stands over the names of the lines."""
    columns: tuple[Metric, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Record:
    """A line of TABLE.csv."""

    data: str
    row: str
    findings: int
    protocol: str
    metric: str
    summary: Summary
    against: str = ""
    paper: float | None = None
    paper_source: str = ""

    def fields(self, table: str) -> dict[str, Any]:
        """By column of CSV_COLUMNS."""
        one = self.summary
        return {
            "table": table,
            "data": self.data,
            "row": self.row,
            "findings": self.findings,
            "protocol": self.protocol,
            "metric": self.metric,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "sd": one.sd,
            "seeds": one.seeds,
            "against": self.against,
            "paper": self.paper,
            "paper_source": self.paper_source,
        }


@dataclass(frozen=True)
class Difference:
    """A row minus the row that it is compared with."""

    result: RowResult
    baseline: RowResult
    by_metric: Mapping[str, Summary]

    @property
    def title(self) -> str:
        """What minus what."""
        row, baseline = self.result.planned, self.baseline.planned
        if row.findings != baseline.findings:
            return f"{row.title} minus {baseline.title}"
        return f"{row.row.title} minus {baseline.title}"


def differences_of(results: Sequence[RowResult]) -> tuple[Difference, ...]:
    """Every row minus those that it is compared with, where both are evaluated."""
    named = {result.name: result for result in results}
    return tuple(
        Difference(
            result,
            named[other],
            {metric.key: difference(result, named[other], metric.key) for metric in result.columns}
            | {
                metric.key: box_difference(result, named[other], metric.key)
                for metric in BOX_METRICS
                if result.boxes and named[other].boxes
            },
        )
        for result in results
        for other in result.planned.against
        if other in named
    )


def records_of(results: Sequence[RowResult], differences: Sequence[Difference]) -> list[Record]:
    """All values of the rows on one data set."""
    records = []
    for result in results:
        row = result.planned
        published = published_for(row.row, row.data_name)
        place = (row.data_name, row.name, len(row.findings))
        for metric in result.columns:
            paper = None if published is None else getattr(published.one_model, metric.key, None)
            records.append(
                Record(
                    *place,
                    HONEST,
                    metric.key,
                    result.honest(metric.key),
                    paper=paper,
                    paper_source=_source(published) if paper is not None else "",
                )
            )
        for metric in ORACLES:
            paper = None if published is None else getattr(published.best, metric.key)
            records.append(
                Record(
                    *place,
                    ORACLE,
                    metric.key,
                    result.oracle[metric.key],
                    paper=paper,
                    paper_source=_source(published) if paper is not None else "",
                )
            )
        records += [Record(*place, VALIDATED, name, result.validation[name]) for name in VALIDATION]
        records += [
            Record(*place, f"{REFERENCE}:{name}", key, result.reference(name, key))
            for name in REFERENCES
            for key in _reference_keys(result)
        ]
        records += [
            Record(*place, HONEST, metric.key, result.box(metric.key))
            for metric in BOX_METRICS
            if result.boxes
        ]
    for one in differences:
        row = one.result.planned
        records += [
            Record(
                row.data_name,
                row.name,
                len(row.findings),
                DIFFERENCE,
                key,
                summary,
                against=one.baseline.name,
            )
            for key, summary in one.by_metric.items()
        ]
    return records


def tables_of(results: Sequence[RowResult], differences: Sequence[Difference]) -> list[Table]:
    """What the rows of one data set say."""
    tables = [_honest_table(results), _oracle_table(results)]
    if differences:
        tables.append(_difference_table(differences))
    tables += _box_tables(results, differences)
    return [*tables, _validation_table(results)]


def csv_text(recipe: Recipe, records: Sequence[Record]) -> str:
    """TABLE.csv."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.fields(recipe.name) for record in records)
    return stream.getvalue()


def markdown(table: Table) -> str:
    """The table as Markdown."""
    heads = [table.head, *(column.label for column in table.columns)]
    lines = [f"**{table.title}.** {table.note}", "", f"| {' | '.join(heads)} |"]
    lines.append("|" + "---|" * len(heads))
    for line in table.lines:
        name = line.name if line.kind == "run" else f"*{line.name}*"
        note = f" ({line.note})" if line.note else ""
        cells = [_plain(cell) for cell in line.cells]
        lines.append(f"| {name}{note} | {' | '.join([*cells, *line.cost])} |")
    return "\n".join(lines)


def shown(summary: Summary, *, of: int = 0, signed: bool = False) -> Cell:
    """A value with its standard deviation over seeds and its interval over patients.

    Args:
        of: for a macro mean, how many findings there are.
    """
    if summary.value is None:
        return Cell(DASH, title="undefined, or not evaluated, in one of the trainings")
    cell = shown_spread(summary, signed=signed)
    over = "" if summary.findings is None else counted(summary.findings, of)
    ends = bounds(summary.low, summary.high)
    if ends is None:
        title = f"{cell.title}; {why_no_interval(summary.low, summary.high)}"
        return Cell(cell.text, f"[{DASH}]", title=title, counted=over)
    written = signed_ends(*ends) if signed else (f"{ends[0]:.3f}", f"{ends[1]:.3f}")
    return Cell(cell.text, f"[{', '.join(written)}]", title=cell.title, counted=over)


def shown_spread(summary: Summary, *, signed: bool = False, digits: int = 3) -> Cell:
    """A value with its standard deviation over seeds alone."""
    if summary.value is None:
        return Cell(DASH, title="undefined, or not evaluated, in one of the trainings")
    text = f"{summary.value:{'+' if signed else ''}.{digits}f}"
    if summary.sd:  # a reference is the same for every seed
        text += f" ± {summary.sd:.{digits}f}"
    seeds = f", {summary.seeds} training{'' if summary.seeds == 1 else 's'}"
    return Cell(text, title=f"{summary.value!r}{seeds if summary.seeds else ''}")


def verdict_of(summary: Summary) -> str:
    """By the rule of all pages; all metrics of the tables are better when larger."""
    if summary.value is None:
        return "not clear"
    return verdict(summary.value, summary.low, summary.high)


def _honest_table(results: Sequence[RowResult]) -> Table:
    minutes = Metric("minutes", "Minutes", "mean time of a training on the machine that trained it")
    columns = results[0].columns
    oracle = any(column.key == "max_dice" for column in columns)
    lines = [
        Line(
            "run",
            result.planned.title,
            _one_model(result),
            (
                *(
                    shown(result.honest(metric.key), of=len(result.planned.findings))
                    for metric in result.columns
                ),
                Cell(f"{result.minutes:.1f}" if result.minutes else DASH),
            ),
        )
        for result in results
    ]
    return Table(
        "Test, with epoch and thresholds chosen on validation",
        "Macro averages over the findings of a row, or over the part of them that a cell names "
        "(“5 of 7”); mean of the trainings ± standard deviation over seeds "
        f"({_seed_words(results)}), in brackets the 95 % interval of that mean over patients. "
        f"{NO_INTERVAL_RULE} "
        + (f"{MAX_DICE_WORDS} " if oracle else "")
        + "Rows in italics are references, which do not look at the film or are not the method's "
        "own answer.",
        "Row",
        (*columns, minutes),
        (*lines, *_reference_lines(results)),
    )


def _reference_lines(results: Sequence[RowResult]) -> list[Line]:
    """Every reference once for the rows for which it is the same."""
    groups: dict[tuple[str, tuple[str, ...]], list[RowResult]] = {}
    for name in REFERENCES:
        for result in results:
            cells = _reference_cells(result, name)
            told = tuple(cell.text + cell.counted for cell in cells)
            groups.setdefault((name, told), []).append(result)
    order = {name: place for place, name in enumerate(REFERENCES)}
    lines = []
    for (name, _), members in sorted(groups.items(), key=lambda group: order[group[0][0]]):
        whose = "of all rows" if len(members) == len(results) else _listed(members)
        cells = (*_reference_cells(members[0], name), Cell(DASH))
        lines.append(Line("reference", REFERENCE_WORDS.get(name, name), whose, cells))
    return lines


def _reference_cells(result: RowResult, name: str) -> tuple[Cell, ...]:
    return tuple(
        shown(result.reference(name, metric.key), of=len(result.planned.findings))
        if metric.key in REFERENCE_METRICS
        else Cell(DASH)
        for metric in result.columns
    )


def _reference_keys(result: RowResult) -> list[str]:
    columns = {metric.key for metric in result.columns}
    return [key for key in REFERENCE_METRICS if key in columns]


def _oracle_table(results: Sequence[RowResult]) -> Table:
    lines = []
    for result in results:
        published = published_for(result.planned.row, result.planned.data_name)
        cells = []
        for metric in ORACLES:
            cell = shown_spread(result.oracle[metric.key])
            paper = None if published is None else getattr(published.best, metric.key)
            interval = "" if paper is None else f"[paper {paper:.3f}]"
            cells.append(Cell(cell.text, interval, title=cell.title))
        note = "" if published is None else _source(published)
        lines.append(Line("run", result.planned.title, note, tuple(cells)))
    return Table(
        "Oracle, as the paper's columns are made",
        "These numbers look at the test split and are no result: AUC and Dice are the best of the "
        "evaluated epochs, each by itself, Dice at map thresholds fitted on test and a 56×56 "
        "grid; F1 and MCC are those of the kept epoch at the score thresholds with the largest MCC "
        "on test. Mean ± standard deviation over seeds. In brackets what is published, on the "
        "data set named in the row: it compares only where data, findings and weights are alike.",
        "Row",
        ORACLES,
        tuple(lines),
    )


def _difference_table(differences: Sequence[Difference]) -> Table:
    columns = differences[0].result.columns
    return Table(
        "Differences, paired over the same patients",
        f"Of the values chosen on validation. {VERDICT_RULE} {NO_INTERVAL_RULE} "
        "Larger is better in all columns (Dice that is lost on other films came from the film). "
        "The intervals tell how the mean of these trainings differs on other patients; how "
        "much trainings differ by their seed is the standard deviation above. Of many intervals "
        "about one in twenty excludes 0 by chance alone.",
        "Difference",
        columns,
        _difference_lines(differences, columns),
    )


def _difference_lines(
    differences: Sequence[Difference], columns: Sequence[Metric]
) -> tuple[Line, ...]:
    lines = []
    for one in differences:
        cells = []
        for metric in columns:
            summary = one.by_metric[metric.key]
            cell = shown(summary, of=len(one.result.planned.findings), signed=True)
            said = verdict_of(summary) if summary.value is not None else ""
            cells.append(Cell(cell.text, cell.interval, said, cell.title, cell.counted))
        lines.append(Line("run", one.title, "", tuple(cells)))
    return tuple(lines)


def _box_tables(results: Sequence[RowResult], differences: Sequence[Difference]) -> list[Table]:
    """Of the rows that are detectors, if any."""
    detectors = [result for result in results if result.boxes]
    if not detectors:
        return []
    lines = [
        Line(
            "run",
            result.planned.title,
            "",
            tuple(
                shown(result.box(metric.key), of=len(result.planned.findings))
                for metric in BOX_METRICS
            ),
        )
        for result in detectors
    ]
    tables = [
        Table(
            "Boxes of the detectors, test",
            "Their own boxes against those around the regions, at an intersection over union of "
            ".25, .50 and .75; means and intervals as above. Recall and films hit grow with the "
            "number of boxes that a detector keeps; first hit, which asks for the best-scored box "
            "alone, does not, and average precision (AP) hardly does.",
            "Row",
            BOX_METRICS,
            tuple(lines),
        )
    ]
    compared = [one for one in differences if one.result.boxes and one.baseline.boxes]
    if compared:
        tables.append(
            Table(
                "Boxes: differences, paired over the same patients",
                "As the differences above.",
                "Difference",
                BOX_METRICS,
                _difference_lines(compared, BOX_METRICS),
            )
        )
    return tables


def _validation_table(results: Sequence[RowResult]) -> Table:
    lines = [
        Line(
            "run",
            result.planned.title,
            "",
            tuple(
                shown_spread(result.validation[name], digits=1 if name == "epoch" else 3)
                for name in VALIDATION
            ),
        )
        for result in results
    ]
    return Table(
        "Validation, by which epochs and thresholds were chosen",
        "Of the kept epoch; mean ± standard deviation over seeds. No result.",
        "Row",
        VALIDATION_METRICS,
        tuple(lines),
    )


def _one_model(result: RowResult) -> str:
    published = published_for(result.planned.row, result.planned.data_name)
    if published is None:
        return ""
    values = [
        f"{metric.label} {getattr(published.one_model, metric.key):.3f}"
        for metric in METRICS
        if getattr(published.one_model, metric.key, None) is not None
    ]
    return f"paper, one model: {', '.join(values)}" if values else ""


def _source(published: Published | None) -> str:
    if published is None:
        return ""
    note = f"; {published.note}" if published.note else ""
    return f"paper: {published.source}, {published.data}{note}"


def _seed_words(results: Sequence[RowResult]) -> str:
    counts = sorted({result.seeds for result in results})
    return " or ".join(map(str, counts)) + (" training" if counts == [1] else " trainings")


def _listed(members: Sequence[RowResult]) -> str:
    names = ", ".join(member.name for member in members)
    return f"of {names}"


def _plain(cell: Cell) -> str:
    over = f"({cell.counted})" if cell.counted else ""
    return " ".join(part for part in (cell.text, cell.interval, over, cell.verdict) if part)
