"""Charts of a reproduction, as SVG."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dwarf_cxr.reporting.figures import (
    INK,
    QUIET,
    REFERENCE_COLOUR,
    add_legend,
    new_figure,
    style_of,
    svg_bytes,
)
from dwarf_cxr.reproduce.results import RowResult, curves

EPOCH_PANELS = (
    ("AUC", "val_auc", "oracle_test_auc"),
    ("Dice", "val_dice", "oracle_test_dice"),
)


def epoch_curves(results: Sequence[RowResult]) -> bytes:
    """AUC and Dice by epoch, mean over seeds: validation, and dashed what the test split says."""
    with new_figure(10.5, 3.9 + 0.2 * len(results)) as figure:
        panels = figure.subplots(1, len(EPOCH_PANELS))
        for axes, (label, validation, test) in zip(panels, EPOCH_PANELS, strict=True):
            for place, result in enumerate(results):
                style = style_of(place)
                drawn = [curves(training) for training in result.trainings]
                for column, line, filled in ((validation, "solid", True), (test, "dashed", False)):
                    axes.plot(
                        drawn[0]["epoch"],
                        np.mean([curve[column] for curve in drawn], axis=0),
                        color=style.colour,
                        linestyle=line,
                        marker=style.marker,
                        markersize=4,
                        markerfacecolor=style.colour if filled else "white",
                        linewidth=1.4,
                    )
            axes.set_title(label, fontsize=10)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(color=QUIET, linewidth=0.7)
        handles: list[Artist] = [
            Line2D(
                [],
                [],
                color=style_of(place).colour,
                marker=style_of(place).marker,
                label=f"{result.planned.title} ({result.seeds} seeds)",
            )
            for place, result in enumerate(results)
        ]
        handles += [
            Line2D([], [], color=INK, label="validation, by which the epoch is chosen"),
            Line2D(
                [],
                [],
                color=INK,
                linestyle="dashed",
                label="test (oracle: only watched, nothing is chosen by it)",
            ),
        ]
        add_legend(figure, handles)
        return svg_bytes(figure)


def few_shot_curves(results: Sequence[RowResult], most: int) -> bytes:
    """AUC and Dice against annotated cases per finding, with intervals over patients.

    Args:
        most: annotated cases that rows without a limit have.
    """
    with new_figure(10.5, 4.3) as figure:
        panels = figure.subplots(1, 2)
        methods = list(dict.fromkeys(result.planned.row.method for result in results))
        for axes, (metric, label) in zip(panels, (("auc", "AUC"), ("dice", "Dice")), strict=True):
            for place, method in enumerate(methods):
                style = style_of(place)
                points = sorted(
                    (
                        (_cases_of(result, most), result.honest(metric))
                        for result in results
                        if result.planned.row.method == method
                    ),
                    key=lambda point: point[0],
                )
                shown = [(cases, one) for cases, one in points if one.value is not None]
                axes.plot(
                    [cases for cases, _ in shown],
                    [one.value or 0.0 for _, one in shown],
                    color=style.colour,
                    marker=style.marker,
                    markersize=5,
                    linewidth=1.5,
                )
                bounded = [
                    (cases, one.low, one.high)
                    for cases, one in shown
                    if one.low is not None and one.high is not None
                ]
                axes.fill_between(
                    [cases for cases, _, _ in bounded],
                    [low for _, low, _ in bounded],
                    [high for _, _, high in bounded],
                    color=style.colour,
                    alpha=0.13,
                    linewidth=0,
                )
            if metric == "dice":
                _draw_priors(axes, results, most)
            axes.set_xscale("log", base=2)
            ticks = sorted({_cases_of(result, most) for result in results})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xlabel("annotated training films per finding (the last: all)")
            axes.set_title(label, fontsize=10)
            axes.grid(color=QUIET, linewidth=0.7)
        handles: list[Artist] = [
            Line2D([], [], color=style_of(place).colour, marker=style_of(place).marker, label=name)
            for place, name in enumerate(methods)
        ]
        handles.append(
            Line2D(
                [],
                [],
                color=REFERENCE_COLOUR,
                linestyle="dotted",
                label="train prior of those cases (never looks at the film)",
            )
        )
        add_legend(figure, handles)
        return svg_bytes(figure)


def _draw_priors(axes: Axes, results: Sequence[RowResult], most: int) -> None:
    priors: dict[int, list[float]] = {}
    for result in results:
        value = result.reference("train_prior", "dice").value
        if value is not None:
            priors.setdefault(_cases_of(result, most), []).append(value)
    cases = sorted(priors)
    axes.plot(
        cases,
        [float(np.mean(priors[each])) for each in cases],
        color=REFERENCE_COLOUR,
        linestyle="dotted",
        linewidth=1.5,
    )


def _cases_of(result: RowResult, most: int) -> int:
    cases = result.trainings[0].config.settings.objective.region_cases
    return most if cases is None else cases
