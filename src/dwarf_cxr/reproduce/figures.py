"""Charts of a reproduction, as SVG."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dwarf_cxr.reporting.figures import (
    INK,
    QUIET,
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
