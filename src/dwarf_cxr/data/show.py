"""A contact sheet: films with the regions drawn on them, to see at a glance what the data says."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patches import Polygon as PolygonPatch
from matplotlib.patheffects import Normal, Stroke

from dwarf_cxr.data.geometry import decode_mask
from dwarf_cxr.data.records import Box, Mask, Region
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import write_bytes

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
"""Okabe and Ito's colours, which the colour-blind can tell apart; without black, lost on film."""

LineStyle = Literal["solid"] | tuple[float, Sequence[float]]

LINE_STYLES: tuple[LineStyle, ...] = ("solid", (0, (4, 1.5)))
"""A second round of the colours is dashed: fourteen findings stay distinct."""

HALO = [Stroke(linewidth=3.2, foreground="#000000"), Normal()]
"""A dark rim, so that every colour stands out from bright bone and mediastinum as well."""

BACKGROUND, FOREGROUND, QUIET = "#111111", "#f2f2f2", "#b0b0b0"
COLUMNS = 6


def contact_sheet(data: PreparedData, out: Path, *, images: int = 24) -> None:
    """Write a PNG with up to `images` films, their labels and, in colour, their regions.

    Films with regions come first, in turn one of every finding, so that each is shown.

    Raises:
        DataError: `images` is not positive, or the data set has no image.
    """
    if images < 1 or not data.image_ids:
        raise DataError(f"{data.folder}: no film to show ({images} wanted); ask for at least one")
    # names are plain text: a dollar sign in one starts no formula
    with matplotlib.rc_context({"text.parse_math": False}):
        content = _sheet(data, _choose(data, images))
    write_bytes(out, content)


def _sheet(data: PreparedData, chosen: Int64[np.ndarray, "chosen"]) -> bytes:
    columns = min(COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    shown = [finding for finding in data.findings if any(data.regions(i, finding) for i in chosen)]
    legend_columns = max(1, min(len(shown), columns))
    legend_inches = 0.3 + 0.2 * -(-max(len(shown), 1) // legend_columns)
    width, height = 2.3 * columns, 2.8 * lines + legend_inches + 0.5
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND, dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    figure.subplots_adjust(
        left=0.01,
        right=0.99,
        top=1 - 0.5 / height,
        bottom=(legend_inches + 0.4) / height,
        wspace=0.05,
        hspace=0.24,
    )
    for axis, index in zip(axes, chosen, strict=False):
        _draw_film(axis, data, int(index), shown)
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    figure.suptitle(
        f"{data.name}: {len(chosen)} of {len(data.image_ids)} films",
        color=FOREGROUND,
        fontsize=12,
        y=1 - 0.18 / height,
    )
    if shown:
        figure.legend(
            handles=[_legend_line(shown, finding) for finding in shown],
            loc="lower center",
            bbox_to_anchor=(0.5, 0.1 / height),
            ncols=legend_columns,
            frameon=False,
            labelcolor=FOREGROUND,
            fontsize=9,
        )
    content = io.BytesIO()
    figure.savefig(content, format="png", facecolor=BACKGROUND)
    return content.getvalue()


def _choose(data: PreparedData, images: int) -> Int64[np.ndarray, "chosen"]:
    """Indices of films: one with a region of each finding in turn, then any others."""
    has_region = data.has_region()
    waiting = [list(np.flatnonzero(column)) for column in has_region.T]
    chosen: dict[int, None] = {}
    while len(chosen) < images and any(waiting):
        for queue in waiting:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < images:
                chosen[int(queue.pop(0))] = None
    others = (index for index in range(len(data.image_ids)) if index not in chosen)
    for index in others:
        if len(chosen) >= images:
            break
        chosen[index] = None
    return np.array(list(chosen), dtype=np.int64)


def _draw_film(axis: Axes, data: PreparedData, index: int, shown: Sequence[str]) -> None:
    """One film in its true proportions, with its regions and its positive labels."""
    width, height = int(data.widths[index]), int(data.heights[index])
    axis.imshow(data.pixels[index], cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    for finding in shown:
        for region in data.regions(index, finding):
            _draw_region(axis, region, *_style(shown, finding))
    axis.set_title(
        f"{_shortened(data.image_ids[index], 24)} · {data.splits[index]}",
        color=QUIET,
        fontsize=7,
        pad=3,
    )
    axis.set_xlabel(_wrapped(caption(data, index), 34, 2), color=FOREGROUND, fontsize=7, labelpad=3)


def caption(data: PreparedData, index: int) -> str:
    """The positive findings of an image or, where there is none, how many were looked for at all.

    Only an image on which every finding was assessed is said to have no finding.
    """
    labels = data.labels[index]
    present = [name for name, label in zip(data.findings, labels, strict=True) if label == 1]
    assessed = int((~np.isnan(labels)).sum())
    if present:
        return ", ".join(present)
    if assessed == len(labels):
        return "no finding"
    return f"none present ({assessed} of {len(labels)} assessed)" if assessed else "not assessed"


def _draw_region(axis: Axes, region: Region, colour: str, style: LineStyle) -> None:
    shape = region.shape
    if isinstance(shape, Mask):
        # a rim of nothing closes the outline where the mask reaches the film's edge
        contour = axis.contour(
            np.arange(-1, shape.width + 1) + 0.5,
            np.arange(-1, shape.height + 1) + 0.5,
            np.pad(decode_mask(shape), 1).astype(float),
            levels=[0.5],
            colors=[colour],
            linestyles=[style],
            linewidths=[1.5],
        )
        contour.set_path_effects(HALO)
        return
    if isinstance(shape, Box):
        corners = (shape.x1, shape.y1), shape.x2 - shape.x1, shape.y2 - shape.y1
        outline: Patch = Rectangle(*corners)
    else:
        outline = PolygonPatch(shape.points, closed=True)
    outline.set_path_effects(HALO)
    outline.set(fill=False, edgecolor=colour, linestyle=style, linewidth=1.5)
    axis.add_patch(outline)


def _style(findings: Sequence[str], finding: str) -> tuple[str, LineStyle]:
    position = findings.index(finding)
    turn = position // len(OKABE_ITO) % len(LINE_STYLES)
    return OKABE_ITO[position % len(OKABE_ITO)], LINE_STYLES[turn]


def _legend_line(findings: Sequence[str], finding: str) -> Line2D:
    colour, style = _style(findings, finding)
    return Line2D([], [], color=colour, linestyle=style, linewidth=2, label=finding)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[-most + 1 :]}"


def _wrapped(names: str, width: int, most: int) -> str:
    """`names` in at most so many lines of about `width` characters, broken after commas."""
    lines = [""]
    for name in names.split(", "):
        longer = f"{lines[-1]}, {name}" if lines[-1] else name
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(name)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1].rstrip(',')}, …"]
    return "\n".join(lines)
