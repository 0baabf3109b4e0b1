"""What some models say besides scores and maps: boxes of their own, and attributes of reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dwarf_cxr.evaluation.boxes import THRESHOLDS
from dwarf_cxr.reporting.intervals import DASH
from dwarf_cxr.reporting.metrics import ATTRIBUTE_METRICS, BOX_METRICS
from dwarf_cxr.reporting.runs import EvaluatedRun, all_findings
from dwarf_cxr.reporting.tables import Row, cells_of, method_and_seed, shown_estimate

BOX_GROUPS = tuple(
    (metric.label.rsplit(" ", 1)[0], metric.note) for metric in BOX_METRICS[:: len(THRESHOLDS)]
)
"""Label and note over the columns of each measure, one column for every IoU."""


@dataclass(frozen=True)
class BoxTable:
    """The measures of boxes, in the order of BOX_METRICS."""

    title: str
    first: str
    """What a row is."""
    rows: tuple[Row, ...]


def box_tables(runs: Sequence[EvaluatedRun]) -> list[BoxTable]:
    """Macro of all detectors, then every finding of each; empty without a detector."""
    of = len(all_findings(runs))
    detectors = [run for run in runs if "boxes" in run.metrics]
    if not detectors:
        return []
    macro = tuple(
        Row(
            "run",
            run.name,
            method_and_seed(run),
            cells_of(run.metrics["boxes"]["macro"], BOX_METRICS, of),
        )
        for run in detectors
    )
    by_finding = [
        BoxTable(
            run.title,
            "Finding",
            tuple(
                Row("run", name, _true_boxes(run, name), cells_of(entries, BOX_METRICS))
                for name, entries in run.metrics["boxes"]["findings"].items()
            ),
        )
        for run in detectors
    ]
    return [BoxTable("Macro", "Run", macro), *by_finding]


def _true_boxes(run: EvaluatedRun, finding: str) -> str:
    entry = run.metrics["boxes"]["findings"][finding].get("recall_25") or {}
    count = entry.get("n")
    return "" if count is None else f"{count} true box{'' if count == 1 else 'es'}"


@dataclass(frozen=True)
class AttributeTable:
    """How well runs tell what reports say: a line for each attribute, the mean first."""

    runs: tuple[str, ...]
    films: tuple[int, ...]
    """Of each run, the films with a report."""
    rows: tuple[Row, ...]
    undefined: tuple[str, ...]
    """Attributes that no run could be judged by, left out of the rows."""
    reason: str
    """Why."""


def attribute_table(runs: Sequence[EvaluatedRun]) -> AttributeTable | None:
    """Of the runs that tell attributes, on films with reports; None if none does."""
    readers = [run for run in runs if "attributes" in run.metrics]
    if not readers:
        return None
    blocks = [run.metrics["attributes"] for run in readers]
    names = list(dict.fromkeys(name for block in blocks for name in block["attributes"]))
    of = len(names)
    macro = [cell for block in blocks for cell in cells_of(block["macro"], ATTRIBUTE_METRICS, of)]
    rows = [Row("run", "Mean of the attributes", "", tuple(macro))]
    undefined, reasons = [], []
    for name in names:
        entries = [
            block["attributes"].get(name, {}).get(metric.key)
            for block in blocks
            for metric in ATTRIBUTE_METRICS
        ]
        cells = tuple(shown_estimate(entry) for entry in entries)
        if all(cell.text == DASH for cell in cells):
            undefined.append(name)
            reasons += [cell.title for cell in cells]
        else:
            rows.append(Row("run", name, _films_with(blocks, name), cells))
    return AttributeTable(
        tuple(run.title for run in readers),
        tuple(int(block["films"]) for block in blocks),
        tuple(rows),
        tuple(undefined),
        # the reasons are those of findings
        "; ".join(dict.fromkeys(reasons)).replace("the finding", "it"),
    )


def _films_with(blocks: Sequence[Mapping[str, Any]], name: str) -> str:
    """How many films have an attribute, where the evaluation says it."""
    counts = dict.fromkeys(
        f"{block['present'][name]} of {block['films']} films"
        for block in blocks
        if name in block.get("present", {})
    )
    return ", ".join(counts)
