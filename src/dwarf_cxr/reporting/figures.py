"""The charts of a report: intervals per finding, ROC curves, training curves; SVG as bytes.

A run keeps its colour (Okabe and Ito's, which the colour-blind can tell apart), marker and line
style in all of them, so that none of the three is needed alone.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dwarf_cxr.evaluation.bootstrap import bounds
from dwarf_cxr.reporting.runs import EvaluatedRun, all_findings

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (9, 2)))
"""The three lists have lengths without a common divisor: 280 runs stay distinct."""

REFERENCE_COLOUR = "#666666"
INK, QUIET = "#1c1c1c", "#d9d9d9"
CURVE_STEPS = 400
"""ROC curves are drawn to this resolution, however many films there are."""
NAME_LENGTH = 28


class Style(NamedTuple):
    """How a run is drawn."""

    colour: str
    marker: str
    line: Any


def style_of(index: int) -> Style:
    """The style of the run with this place in the report."""
    return Style(
        COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], LINES[index % len(LINES)]
    )


def forest_plot(runs: Sequence[EvaluatedRun]) -> bytes:
    """AUC and Dice with intervals of every finding and run, the train prior's Dice beside it."""
    findings: list[str | None] = [None, *defined_findings(runs)]
    step = 1 / (len(runs) + 1.2)
    height = 0.9 + _legend_inches(runs, 10.5, 2) + len(findings) * max(0.3, 0.17 * (len(runs) + 1))
    with new_figure(10.5, height) as figure:
        auc, dice = figure.subplots(1, 2, sharey=True)
        for axes, metric, label in ((auc, "auc", "AUC"), (dice, "dice", "Dice")):
            for place, run in enumerate(runs):
                offset = (place - (len(runs) - 1) / 2) * step
                entries = [_entry(run.metrics, finding, metric) for finding in findings]
                _draw_intervals(axes, entries, offset, style_of(place))
            axes.set_xlabel(f"{label} with 95 % interval")
            axes.grid(axis="x", color=QUIET, linewidth=0.7)
            for line in range(1, len(findings)):
                axes.axhline(line - 0.5, color=QUIET, linewidth=0.7)
        auc.axvline(0.5, color=REFERENCE_COLOUR, linewidth=1, linestyle="dotted")
        auc.set_xlim(right=1.01)
        _draw_prior(dice, runs[0], findings, step * len(runs) / 2)
        # after all that is drawn, since a limit ends the axis's own scaling
        dice.set_xlim(left=-0.01)
        auc.set_yticks(
            range(len(findings)),
            [_short(finding or "all findings (macro)") for finding in findings],
        )
        auc.set_ylim(len(findings) - 0.5, -0.5)
        auc.get_yticklabels()[0].set_fontweight("bold")
        handles: list[Artist] = [
            Line2D([], [], color=s.colour, marker=s.marker, label=run.title)
            for run, s in _styled(runs)
        ]
        handles.append(
            Line2D(
                [],
                [],
                color=REFERENCE_COLOUR,
                marker="|",
                markersize=12,
                markeredgewidth=2,
                linestyle="none",
                label="train prior (never looks at the film)",
            )
        )
        handles.append(
            Line2D([], [], color=REFERENCE_COLOUR, linestyle="dotted", label="AUC of chance")
        )
        add_legend(figure, handles)
        return svg_bytes(figure)


def roc_curves(runs: Sequence[EvaluatedRun]) -> bytes | None:
    """ROC curves, a small chart for each finding; None when no finding has both kinds of film."""
    findings = [
        finding
        for finding in all_findings(runs)
        if any(_entry(run.metrics, finding, "auc").get("value") is not None for run in runs)
    ]
    if not findings:
        return None
    columns = min(4, len(findings))
    lines = -(-len(findings) // columns)
    with new_figure(
        2.6 * columns + 0.3, 3.15 * lines + 0.3 + _legend_inches(runs, 2.6 * columns, 0)
    ) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes, finding in zip(grid.flat, findings, strict=False):
            axes.plot([0, 1], [0, 1], color=REFERENCE_COLOUR, linewidth=0.8, linestyle="dotted")
            for run, s in _styled(runs):
                points = roc_points(*_labels_and_scores(run, finding))
                if points is not None:
                    drawn = _drawn_points(points)
                    axes.plot(*drawn.T, color=s.colour, linestyle=s.line, linewidth=1.5)
            axes.set_title(f"{_short(finding)}\n{_counts(runs, finding)}", fontsize=9)
            axes.set_aspect("equal")
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
        for axes in grid.flat[len(findings) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("true positive rate", fontsize=9)
        for place in range(len(findings)):
            if place + columns >= len(findings):
                # the lowest chart of its column, which may stand above an empty place
                grid.flat[place].set_xlabel("false positive rate", fontsize=9)
                grid.flat[place].tick_params(labelbottom=True)
        handles: list[Artist] = [
            Line2D([], [], color=s.colour, linestyle=s.line, label=run.title)
            for run, s in _styled(runs)
        ]
        add_legend(figure, handles)
        return svg_bytes(figure)


def training_curves(runs: Sequence[EvaluatedRun]) -> bytes | None:
    """Training loss and validation AUC and Dice by epoch; None without any history."""
    if all(run.history is None for run in runs):
        return None
    with new_figure(10.5, 2.9 + _legend_inches(runs, 10.5, 1)) as figure:
        panels = figure.subplots(1, 3)
        labels = {
            "loss": "training loss",
            "val_auc": "validation AUC",
            "val_dice": "validation Dice",
        }
        for axes, (name, label) in zip(panels, labels.items(), strict=True):
            for run, s in _styled(runs):
                if run.history is None:
                    continue
                epochs, values = run.history.epochs, run.history.curves[name]
                axes.plot(
                    epochs,
                    values,
                    color=s.colour,
                    linestyle=s.line,
                    marker=s.marker,
                    markersize=4,
                    linewidth=1.4,
                )
                kept = epochs == run.history.best_epoch
                axes.plot(
                    epochs[kept],
                    values[kept],
                    linestyle="none",
                    marker="o",
                    markersize=11,
                    markerfacecolor="none",
                    markeredgecolor=s.colour,
                )
            axes.set_title(label, fontsize=10)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(color=QUIET, linewidth=0.7)
        handles: list[Artist] = [
            Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.line, label=run.title)
            for run, s in _styled(runs)
            if run.history is not None
        ]
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=INK,
                label="epoch whose weights were kept",
            )
        )
        add_legend(figure, handles)
        return svg_bytes(figure)


def defined_findings(runs: Sequence[EvaluatedRun]) -> list[str]:
    """The findings with an AUC or a Dice in any run, in order."""
    return [
        finding
        for finding in all_findings(runs)
        if any(
            _entry(run.metrics, finding, metric).get("value") is not None
            for run in runs
            for metric in ("auc", "dice")
        )
    ]


def roc_points(
    labels: Float64[np.ndarray, "image"], scores: Float64[np.ndarray, "image"]
) -> Float64[np.ndarray, "point 2"] | None:
    """(false, true) positive rates from (0, 0) to (1, 1); equal scores make one slanted step.

    Films that were not assessed (label NaN) are left out; None without positives or negatives.
    """
    assessed = ~np.isnan(labels)
    labels, scores = labels[assessed], scores[assessed]
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_its_score = np.append(ranked[1:] != ranked[:-1], True)
    rates = np.stack(
        [
            np.cumsum(labels[order] == 0)[last_of_its_score] / negatives,
            np.cumsum(labels[order] == 1)[last_of_its_score] / positives,
        ],
        axis=1,
    )
    return np.concatenate([np.zeros((1, 2)), rates])


def _drawn_points(points: Float64[np.ndarray, "point 2"]) -> Float64[np.ndarray, "drawn 2"]:
    return np.unique(np.round(points * CURVE_STEPS), axis=0) / CURVE_STEPS


def _draw_intervals(
    axes: Axes, entries: Sequence[Mapping[str, Any]], offset: float, s: Style
) -> None:
    for place, entry in enumerate(entries):
        value, y = entry.get("value"), place + offset
        if value is None:
            continue
        ends = bounds(entry.get("low"), entry.get("high"))
        if ends is not None:
            axes.plot(ends, [y, y], color=s.colour, marker="|", markersize=5, linewidth=1.5)
        axes.plot([value], [y], color=s.colour, marker=s.marker, markersize=5, linestyle="none")


def _draw_prior(
    axes: Axes, run: EvaluatedRun, findings: Sequence[str | None], reach: float
) -> None:
    block = run.metrics["references"].get("train_prior", {"macro": {}})
    for place, finding in enumerate(findings):
        value = _entry(block, finding, "dice").get("value")
        if value is not None:
            axes.plot(
                [value, value],
                [place - reach, place + reach],
                color=REFERENCE_COLOUR,
                linewidth=2,
                zorder=1,
            )


def _entry(block: Mapping[str, Any], finding: str | None, metric: str) -> Mapping[str, Any]:
    of = block["macro"] if finding is None else block.get("findings", {}).get(finding, {})
    return of.get(metric) or {}


def _labels_and_scores(run: EvaluatedRun, finding: str) -> tuple[np.ndarray, np.ndarray]:
    if finding not in run.cases.findings:
        return np.empty(0), np.empty(0)
    column = run.cases.findings.index(finding)
    return run.cases.labels[:, column], run.cases.scores[:, column]


def _counts(runs: Sequence[EvaluatedRun], finding: str) -> str:
    for run in runs:
        labels, _ = _labels_and_scores(run, finding)
        if len(labels):
            return f"{(labels == 1).sum()} with, {(labels == 0).sum()} without"
    return ""


def _styled(runs: Sequence[EvaluatedRun]) -> list[tuple[EvaluatedRun, Style]]:
    return [(run, style_of(place)) for place, run in enumerate(runs)]


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def add_legend(figure: Figure, handles: list[Artist]) -> None:
    """A legend below all that is drawn, in as many columns as fit."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = _legend_columns(len(handles), longest, figure.get_figwidth())
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=3.2,
    )


def _legend_columns(entries: int, longest: int, width: float) -> int:
    """How many columns of so many letters fit into inches."""
    return max(1, min(entries, int(width * 12 / (longest + 9))))


def _legend_inches(runs: Sequence[EvaluatedRun], width: float, others: int) -> float:
    """Height of a legend of the runs and some other entries."""
    longest = max(36 if others else 0, *(len(run.title) for run in runs))
    entries = len(runs) + others
    return 0.25 + 0.19 * -(-entries // _legend_columns(entries, longest, width))


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in inches; names are plain text, and equal figures give equal files."""
    settings: dict[str, Any] = {
        "text.parse_math": False,
        "svg.hashsalt": "dwarf-cxr",
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#8a8a8a",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        yield figure


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, without a date."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
