"""The tables of a report and the plain words that go with them, from metrics.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwarf_cxr.evaluation.bootstrap import Estimate, bounds
from dwarf_cxr.evaluation.maps import IOR_THRESHOLDS, IOU_THRESHOLDS
from dwarf_cxr.evaluation.paired import compare_runs
from dwarf_cxr.reporting.intervals import DASH, counted, signed_ends, verdict, why_no_interval
from dwarf_cxr.reporting.metrics import (
    METHOD_METRICS,
    ORACLE_F1_METRICS,
    ORACLE_METRICS,
    PAIRED_METRICS,
    SUMMARY_METRICS,
    Metric,
)
from dwarf_cxr.reporting.runs import EvaluatedRun, all_findings

ENOUGH_SEEDS = 3
"""Fewer trainings of a method support no claim about the method."""


LOCALISATION_POLICIES = {
    "validation": "map threshold from validation",
    "ham": "HAM's fixed threshold",
}

REGION_WORDS = {
    "expert": "regions",
    "pseudo": "teachers' regions",
    "both": "clinicians' or teachers' regions",
}
NO_BREAK = "\N{NO-BREAK SPACE}"
REFERENCE_WORDS = {
    "all_ones": "whole film",
    "train_prior": "train prior",
    "best_grid": "best on the grid",
    "shuffled": "own maps, shuffled",
}


@dataclass(frozen=True)
class Cell:
    """A number as it is shown."""

    text: str
    interval: str = ""
    verdict: str = ""
    title: str = ""
    """The full value, or why there is none."""
    counted: str = ""
    """How many findings a macro mean is over, where these are not all: "5 of 7"."""


@dataclass(frozen=True)
class Row:
    """A line of a table; `kind` is run, reference or part."""

    kind: str
    name: str
    note: str
    cells: tuple[Cell, ...]
    cost: tuple[str, ...] = ()
    """Time and epochs of the training."""


def summary_rows(
    runs: Sequence[EvaluatedRun], metrics: Sequence[Metric] = SUMMARY_METRICS
) -> list[Row]:
    """Macro metrics: every run, then what they must be compared with.

    A reference is one row for all runs for which it is the same. What is not over all findings of
    the runs says so in its cell.
    """
    rows, of = [], len(all_findings(runs))
    for run in runs:
        cells = cells_of(run.metrics["macro"], metrics, of)
        rows.append(Row("run", run.name, method_and_seed(run), cells, _cost(run)))
    for run in runs:
        for part, block in run.metrics.get("parts", {}).items():
            cells = cells_of(block["macro"], metrics, of)
            rows.append(Row("part", f"{part} alone", f"part of {run.name}", cells))
    for reference in runs[0].metrics["references"]:
        groups: list[tuple[Mapping[str, Any], list[str]]] = []
        for run in runs:
            block = run.metrics["references"].get(reference, {"macro": {}})
            group = next((names for one, names in groups if _equal(one, block)), None)
            if group is None:
                groups.append((block, [run.name]))
            else:
                group.append(run.name)
        for block, names in groups:
            name = REFERENCE_WORDS.get(reference, reference)
            whose = "all runs" if len(names) == len(runs) > 1 else ", ".join(names)
            cells = cells_of(block["macro"], metrics, of)
            rows.append(Row("reference", name, f"reference of {whose}", cells))
    return rows


def prior_sentences(runs: Sequence[EvaluatedRun]) -> list[str]:
    """For each run, whether its Dice beats the train prior, and what is left of it shuffled."""
    return [_prior_sentence(run) for run in runs]


def _prior_sentence(run: EvaluatedRun) -> str:
    own = run.metrics["macro"].get("dice", {})
    references = run.metrics["references"]
    prior = references.get("train_prior", {}).get("macro", {}).get("dice", {})
    if own.get("value") is None or prior.get("value") is None:
        missing = own.get("reason") or prior.get("reason") or "not evaluated"
        return (
            f"{run.title}: its Dice cannot be compared with the train prior's ({missing}), so "
            "nothing is shown about where it looks."
        )
    numbers = f"Dice {_plain(own)} against {_plain(prior)}"
    if own["value"] <= prior["value"]:
        said = (
            f"{run.title} does not beat the train prior, a fixed map per finding that never looks "
            f"at the film: {numbers}."
        )
    elif (ends := _ends(own)) is None or (fixed := _ends(prior)) is None:
        said = (
            f"{run.title} is above the train prior, but one of the two has no interval: {numbers}. "
            "It is not shown to beat a fixed map that never looks at the film."
        )
    elif ends[0] <= fixed[1]:
        said = (
            f"{run.title} is above the train prior, but the intervals overlap: {numbers}. "
            "It is not shown to beat a fixed map that never looks at the film."
        )
    else:
        said = f"{run.title} beats the train prior: {numbers}, intervals apart."
    moved = references.get("shuffled", {}).get("macro", {}).get("dice", {})
    if moved.get("value") is not None:
        said += (
            f" Put on other films with the same finding, its own maps still reach {_plain(moved)}."
        )
    return said


def paired_macro_rows(
    runs: Sequence[EvaluatedRun],
    differences: Sequence["Paired"],
    metrics: Sequence[Metric] = PAIRED_METRICS,
) -> list[Row]:
    """Macro differences of every other run to the first."""
    of = len(all_findings(runs))
    return [
        Row("run", run.name, method_and_seed(run), cells)
        for run, paired in zip(runs[1:], differences, strict=True)
        for cells in [tuple(_difference(paired.macro[m.key], m, of) for m in metrics)]
    ]


@dataclass(frozen=True)
class Paired:
    """What `compare_runs` says of a run and the baseline."""

    findings: Mapping[str, Mapping[str, Estimate]]
    macro: Mapping[str, Estimate]


def pair_with_first(runs: Sequence[EvaluatedRun], draws: int) -> list[Paired]:
    """Differences of every other run to the first, over the same patients.

    Raises:
        DataError: different films, patients or labels, or no finding in common.
    """
    baseline = runs[0].evaluation / "cases.csv"
    return [
        Paired(*compare_runs(baseline, run.evaluation / "cases.csv", draws=draws))
        for run in runs[1:]
    ]


def paired_finding_rows(paired: Paired, metrics: Sequence[Metric]) -> list[Row]:
    """Differences of one run to the baseline for every finding."""
    return [
        Row("run", name, "", tuple(_difference(estimates[m.key], m) for m in metrics))
        for name, estimates in paired.findings.items()
    ]


@dataclass(frozen=True)
class SeedGroup:
    """Trainings that differ in nothing but their seed."""

    method: str
    runs: tuple[str, ...]
    seeds: int
    cells: tuple[Cell, ...]


def seed_groups(runs: Sequence[EvaluatedRun]) -> list[SeedGroup]:
    """Mean and standard deviation over seeds, for what was trained with two or more."""
    groups: dict[str, list[EvaluatedRun]] = {}
    for run in runs:
        if run.seed is not None and run.config is not None:
            # whatever fixes the result besides the seed
            same = run.config.model_copy(update={"seed": 0, "versions": {}, "data": ""})
            groups.setdefault(same.model_dump_json(), []).append(run)
    found, of = [], len(all_findings(runs))
    for members in groups.values():
        seeds = {run.seed for run in members}
        if len(seeds) < 2:
            continue
        cells = tuple(_over_seeds(members, metric.key, of) for metric in SUMMARY_METRICS)
        names = tuple(run.name for run in members)
        found.append(SeedGroup(members[0].method, names, len(seeds), cells))
    return found


def has_enough_seeds(runs: Sequence[EvaluatedRun]) -> bool:
    """Whether every run is one of at least three trainings that differ in their seed alone."""
    enough = [group for group in seed_groups(runs) if group.seeds >= ENOUGH_SEEDS]
    return {run.name for run in runs} <= {name for group in enough for name in group.runs}


@dataclass(frozen=True)
class MethodRow:
    """A run: what it was given, its size, what it reaches and what it costs."""

    name: str
    note: str
    supervision: str
    parameters: Cell
    cells: tuple[Cell, ...]
    training: Cell
    """Milliseconds for a film in an epoch."""
    inference: Cell
    """Milliseconds for a film."""


def method_rows(runs: Sequence[EvaluatedRun]) -> list[MethodRow]:
    """All runs; a dash where an evaluation is from before its cost was written down."""
    of = len(all_findings(runs))
    return [
        MethodRow(
            run.name,
            method_and_seed(run),
            supervision_words(run.metrics.get("supervision")),
            _parameters(run),
            cells_of(run.metrics["macro"], METHOD_METRICS, of),
            _training_cost(run),
            _inference_cost(run),
        )
        for run in runs
    ]


def supervision_words(block: Mapping[str, Any] | None) -> str:
    """The block `supervision` of metrics.json in words; a dash without one."""
    if block is None:
        return "—"
    if "reason" in block:
        return f"— ({block['reason']})"
    given = [
        f"{words} {_percent(block[key])}"
        for key, words in (
            ("labels", "labels"),
            ("absent_labels", "absent labels"),
            ("regions", REGION_WORDS[block["regions_of"]]),
        )
        if block[key]
    ]
    if block["text"]:
        given.append(f"text of {block['text']} film{'' if block['text'] == 1 else 's'}")
    return ", ".join(given) or "none of these data"


def _parameters(run: EvaluatedRun) -> Cell:
    counts = run.metrics.get("cost", {}).get("parameters")
    if counts is None:
        return Cell("—", title="not recorded: evaluate the run again")
    total, trained = counts["total"], counts["trained"]
    return Cell(_millions(total), f"{_millions(trained)} trained", title=f"{total}, {trained}")


def _training_cost(run: EvaluatedRun) -> Cell:
    """Validation included, as history.csv counts; films of an epoch, or else of full batches."""
    history, films = run.history, (run.metrics.get("supervision") or {}).get("films")
    if history is None:
        return Cell("—", title="not trained here, or its history is missing")
    if films:
        seen = float(history.epochs[-1]) * films
    elif history.steps and run.config is not None:
        seen = history.steps * run.config.settings.training.batch_size
    else:
        return Cell("—", title="how many films were trained on is not known")
    title = f"{history.seconds} s for {seen:.0f} films, validation included"
    return Cell(_milliseconds(history.seconds / seen), title=title)


def _inference_cost(run: EvaluatedRun) -> Cell:
    cost = run.metrics.get("cost")
    if cost is None:
        return Cell("—", title="not recorded: evaluate the run again")
    return Cell(
        _milliseconds(cost["inference_seconds_per_image"]),
        title=f"{cost['images']} films on {device_words(cost)}",
    )


def device_words(cost: Mapping[str, Any]) -> str:
    """What the predictions of a block `cost` were timed on."""
    threads = cost["threads"]
    return f"{cost['device']}, {threads} CPU thread{'' if threads == 1 else 's'}"


def _percent(share: float) -> str:
    percent = 100 * share
    # nearly all is not all, and nearly nothing not nothing
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{min(max(percent, 0.1), 99.9):.1f}{NO_BREAK}%"
    return f"{percent:.0f}{NO_BREAK}%"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 10_000 else str(count)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def finding_rows(run: EvaluatedRun) -> list[Row]:
    """Every finding's metrics of one run."""
    return [
        Row("run", name, "", cells_of(run.metrics["findings"][name], SUMMARY_METRICS))
        for name in run.metrics["findings_order"]
    ]


def oracle_rows(runs: Sequence[EvaluatedRun]) -> list[Row]:
    """Macro metrics at thresholds chosen on the evaluated films: by MCC, then by F1."""
    of = len(all_findings(runs))
    return [
        Row(
            "run",
            run.name,
            method_and_seed(run),
            cells_of(by_mcc["macro"], ORACLE_METRICS, of)
            + cells_of(by_mcc["max_f1"]["macro"], ORACLE_F1_METRICS, of),
        )
        for run in runs
        for by_mcc in [run.metrics["oracle"]]
    ]


@dataclass(frozen=True)
class LocalisationTable:
    """T(IoU) and T(IoR) at every threshold, of one policy."""

    title: str
    first: str
    """What a row is."""
    rows: tuple[Row, ...]


def localisation_tables(runs: Sequence[EvaluatedRun]) -> list[LocalisationTable]:
    """By policy the macro shares of all runs, then by run and policy those of every finding.

    Empty if all runs were evaluated before there were such shares.
    """
    known, of = [run for run in runs if "localisation" in run.metrics], len(all_findings(runs))
    macro = [
        LocalisationTable(
            f"Macro, {words}",
            "Run",
            tuple(
                Row("run", run.name, method_and_seed(run), _shares(run, policy, None, of))
                for run in known
            ),
        )
        for policy, words in LOCALISATION_POLICIES.items()
    ]
    by_finding = [
        LocalisationTable(
            f"{run.title}, {words}",
            "Finding",
            tuple(
                Row("run", name, "", _shares(run, policy, name))
                for name in run.metrics["findings_order"]
            ),
        )
        for run in known
        for policy, words in LOCALISATION_POLICIES.items()
    ]
    return macro + by_finding if known else []


def _shares(
    run: EvaluatedRun, policy: str, finding: str | None, of: int | None = None
) -> tuple[Cell, ...]:
    """The shares of one finding, or macro, of IoU and their mean, then of IoR."""
    means = run.metrics["macro"] if finding is None else run.metrics["findings"][finding]
    cells: list[Cell] = []
    for measure, thresholds in (("iou", IOU_THRESHOLDS), ("ior", IOR_THRESHOLDS)):
        block = run.metrics["localisation"][policy][measure]
        shares = block["macro"] if finding is None else block["findings"][finding]
        cells += [shown_estimate(shares.get(str(one)), of) for one in thresholds]
        mean = f"ham_t_{measure}" if policy == "ham" else f"t_{measure}"
        cells.append(shown_estimate(means.get(mean), of))
    return tuple(cells)


def shown_estimate(entry: Mapping[str, Any] | None, of: int | None = None) -> Cell:
    """A metric of metrics.json as it is shown.

    Args:
        of: for a macro mean, how many findings there are; its `n` then counts findings.
    """
    if not entry or entry.get("value") is None:
        return Cell(DASH, title=str((entry or {}).get("reason", "not evaluated")))
    value, low, high = entry["value"], entry.get("low"), entry.get("high")
    title, over = f"{value!r}, n = {entry.get('n')}", _counted(entry.get("n"), of)
    ends = bounds(low, high)
    if ends is None:
        title = f"{title}; {why_no_interval(low, high)}"
        return Cell(_minus(f"{value:.3f}"), DASH, title=title, counted=over)
    # a dash beside a minus sign would be misread
    between = " to " if ends[0] < 0 else "–"
    interval = _minus(f"{ends[0]:.3f}{between}{ends[1]:.3f}")
    return Cell(_minus(f"{value:.3f}"), interval, title=title, counted=over)


def cells_of(
    block: Mapping[str, Any], metrics: Sequence[Metric], of: int | None = None
) -> tuple[Cell, ...]:
    """The metrics of a block of metrics.json; `of` as in `shown_estimate`."""
    return tuple(shown_estimate(block.get(metric.key), of) for metric in metrics)


def _difference(estimate: Estimate, metric: Metric, of: int | None = None) -> Cell:
    if estimate.value is None:
        return Cell(DASH, title=estimate.reason or "undefined")
    low, high = estimate.low, estimate.high
    said = verdict(estimate.value, low, high, lower_is_better=metric.lower_is_better)
    title, over = f"{estimate.value!r}, n = {estimate.n}", _counted(estimate.n, of)
    ends = bounds(low, high)
    if ends is None:
        title = f"{title}; {why_no_interval(low, high)}"
        return Cell(_signed(estimate.value), DASH, said, title, over)
    return Cell(_signed(estimate.value), _minus(", ".join(signed_ends(*ends))), said, title, over)


def _counted(findings: int | None, of: int | None) -> str:
    return "" if findings is None or of is None else counted(findings, of)


def _ends(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    return bounds(entry.get("low"), entry.get("high"))


def _over_seeds(runs: Sequence[EvaluatedRun], key: str, of: int) -> Cell:
    entries = [run.metrics["macro"].get(key, {}) for run in runs]
    values = [entry.get("value") for entry in entries]
    if any(value is None for value in values):
        return Cell(DASH, title="undefined in one of the runs")
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    fewest = min(entry.get("n", of) for entry in entries)
    return Cell(
        f"{mean:.3f} ± {spread:.3f}", title=f"{mean!r} ± {spread!r}", counted=counted(fewest, of)
    )


def method_and_seed(run: EvaluatedRun) -> str:
    """Of a run, as it stands below its name."""
    return run.method if run.seed is None else f"{run.method}, seed {run.seed}"


def _cost(run: EvaluatedRun) -> tuple[str, ...]:
    if run.history is None:
        return ("—",)
    minutes, seconds = divmod(round(run.history.seconds), 60)
    time = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    epochs = int(run.history.epochs[-1])
    return time, f"{epochs} epoch{'' if epochs == 1 else 's'}"


def _plain(entry: Mapping[str, Any]) -> str:
    cell = shown_estimate(entry)
    return f"{cell.text} ({'no interval' if cell.interval == DASH else cell.interval})"


def _signed(value: float) -> str:
    return _minus(f"{value:+.3f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _equal(one: Any, other: Any) -> bool:
    """The same but for the last digits, which depend on how many threads summed."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)
