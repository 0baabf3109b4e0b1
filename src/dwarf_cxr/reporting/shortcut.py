"""The paper's Figure 2: does a run's map follow the film, or is it the same on every film?

A head that starts at random can learn the place where a finding usually lies and show that place
whatever the film. Beside the maps of several films stand the numbers that tell the two apart: what
Dice is lost when maps are put on other films, and how alike the maps are among themselves.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, Int64
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation.cases import DICE_LOST, Cases
from dwarf_cxr.files import write_bytes
from dwarf_cxr.findings import select
from dwarf_cxr.reporting.examples import Seen, ask, evaluated_data, film_and_truth
from dwarf_cxr.reporting.overlay import (
    THRESHOLD,
    TRUTH,
    Colour,
    Picture,
    map_on_film,
    outlined,
    scale_picture,
)
from dwarf_cxr.reporting.runs import EvaluatedRun, read_runs
from dwarf_cxr.reporting.tables import shown_estimate

INK, QUIET = "#1c1c1c", "#555555"
SIDE, WORDS, UNDER, GAP = 1.75, 2.5, 0.2, 0.06
"""Inches: a film's side, the column of words before the films, a line below each, between them."""
TOP, BOTTOM, MARGIN, NARROWEST = 0.6, 0.95, 0.12, 7.6
LINE_LETTERS = 26
"""Of a run's name, as many as fit in the column of words."""
DOTS_PER_INCH = 200


LineStyle = Literal["solid", "dashed"]


class _Film(NamedTuple):
    """A chosen film and its true region."""

    image_id: str
    picture: Picture
    truth: np.ndarray


def shortcut_figure(
    runs: Sequence[tuple[str, Path]],
    data: Path,
    out: Path,
    *,
    finding: str | None = None,
    films: int = 5,
    split: str = "test",
) -> Path:
    """Write a PNG: a row of maps for every run, on films with one finding, and what they are worth.

    The films do not depend on the runs: of those with a region of the finding, ordered by where on
    the film the region lies, from left to right, evenly spaced ones are shown. The maps are made
    anew by each run's model.

    Args:
        runs: what a run is called in the figure, and its folder, with its evaluation on `split`.
        data: the data that they were evaluated on.
        finding: by default the one that all runs evaluated with the most films that have a region.

    Returns:
        `out`.

    Raises:
        ConfigError: fewer than one film is asked for, or a finding that not all runs evaluated.
        DataError: no film of the split has a region of the finding, or `data` is other data.
        DwarfError: a run is missing, given twice, not evaluated on the split, or has no model.
    """
    if films < 1:
        raise ConfigError(f"{films} films: ask for at least one")
    evaluated = read_runs([folder for _, folder in runs], split)
    cases = evaluated[0].cases
    shared = [
        name for name in cases.findings if all(name in run.cases.findings for run in evaluated)
    ]
    if finding is None:
        if not shared:
            raise ConfigError("the runs have no finding in common; compare others")
        finding = most_drawn(cases, shared)
    else:
        select([finding], shared, where="the figure of shortcuts")
    prepared = evaluated_data(evaluated[0], data)
    drawn = drawn_films(cases, finding)
    if not len(drawn):
        raise DataError(f"no film of split {split!r} has {finding} with a region: nothing to show")
    image_ids = [cases.image_ids[row] for row in drawn]
    places = [prepared.image_ids.index(name) for name in image_ids]
    shown = [
        _Film(prepared.image_ids[index], *film_and_truth(prepared, index, finding))
        for index in spread(prepared, places, finding, films)
    ]
    answers = [ask(run, prepared, image_ids) for run in evaluated]
    with matplotlib.rc_context({"text.parse_math": False}):
        content = _draw([label for label, _ in runs], answers, shown, finding, split)
    write_bytes(out, content)
    return out


def most_drawn(cases: Cases, findings: Sequence[str]) -> str:
    """The finding with the most films that have it and a region of it; of equals the first."""
    return max(findings, key=lambda name: len(drawn_films(cases, name)))


def drawn_films(cases: Cases, finding: str) -> Int64[np.ndarray, "film"]:
    """Rows of the films that have the finding and a region of it."""
    column = cases.findings.index(finding)
    return np.flatnonzero((cases.labels[:, column] == 1) & (cases.n_regions[:, column] > 0))


def spread(data: PreparedData, indices: Sequence[int], finding: str, films: int) -> list[int]:
    """Evenly spaced `indices`, ordered by how far to the right the finding's region lies.

    The first and the last are among them if there are two or more; one alone is the middle one.
    """
    ordered = sorted(indices, key=lambda index: _across(data, index, finding))
    last = len(ordered) - 1
    ranks = [last // 2] if films == 1 else np.linspace(0, last, min(films, len(ordered)))
    return [ordered[int(rank)] for rank in ranks]


def mean_pairwise_correlation(maps: Float[np.ndarray, "film h w"]) -> float | None:
    """Mean Pearson correlation of every two films' maps: 1 where all have one shape.

    Maps that are the same everywhere have no shape and are left out; None with fewer than two
    others.
    """
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    shaped = np.ptp(flat, axis=1) > 0
    directions = centred[shaped] / lengths[shaped, None]
    count = len(directions)
    if count < 2:
        return None
    # the squared length of the sum holds every pair twice, and every map with itself
    total = float(np.square(directions.sum(axis=0)).sum())
    return (total - count) / (count * (count - 1))


def _across(data: PreparedData, index: int, finding: str) -> float:
    """Centre of the region from left (0) to right (1)."""
    columns = data.coverage(index, finding, data.size).sum(axis=0, dtype=np.float64)
    return float((columns @ (np.arange(data.size) + 0.5)) / columns.sum() / data.size)


class _Page:
    """The sheet that is drawn on, in inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def write(
        self,
        x: float,
        y: float,
        words: str,
        size: float,
        *,
        bold: bool = False,
        colour: str = INK,
        centred: bool = False,
    ) -> None:
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            words,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            color=colour,
            verticalalignment="top",
            horizontalalignment="center" if centred else "left",
        )

    def show(self, x: float, y: float, wide: float, high: float, picture: Picture) -> None:
        axes = self.figure.add_axes(
            (
                x / self.width,
                1 - (y + high) / self.height,
                wide / self.width,
                high / self.height,
            )
        )
        axes.set_axis_off()
        axes.imshow(picture)

    def stroke(self, x: float, y: float, wide: float, colour: str, style: LineStyle) -> None:
        line = Line2D(
            [x / self.width, (x + wide) / self.width],
            [1 - y / self.height] * 2,
            color=colour,
            linestyle=style,
            linewidth=2,
            path_effects=[Stroke(linewidth=4.5, foreground="black"), Normal()],
        )
        self.figure.add_artist(line)

    def png(self) -> bytes:
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        return stream.getvalue()


def _draw(
    labels: Sequence[str], answers: Sequence[Seen], films: Sequence[_Film], finding: str, split: str
) -> bytes:
    row_height = SIDE + UNDER + GAP
    page = _Page(
        max(NARROWEST, WORDS + (SIDE + GAP) * len(films) + MARGIN),
        TOP + row_height * (len(answers) + 1) + BOTTOM,
    )
    page.write(MARGIN, MARGIN, f"Do the maps of {finding} follow the film?", 13.0, bold=True)

    def row(
        line: int, name: str, words: str, pictures: Sequence[Picture], under: Sequence[str]
    ) -> None:
        y = TOP + row_height * line
        named = textwrap.wrap(name, LINE_LETTERS) or [name]
        page.write(MARGIN, y, "\n".join(named), 10.0, bold=True)
        page.write(MARGIN, y + 0.17 * len(named) + 0.08, words, 8.5)
        for place, (picture, said) in enumerate(zip(pictures, under, strict=True)):
            x = WORDS + (SIDE + GAP) * place
            page.show(x, y, SIDE, SIDE, picture)
            page.write(x + SIDE / 2, y + SIDE + 0.03, said, 7.5, colour=QUIET, centred=True)

    row(
        0,
        "Film and true region",
        "",
        [outlined(film.picture, film.truth, TRUTH) for film in films],
        [textwrap.shorten(film.image_id, 28, placeholder="…") for film in films],
    )
    for line, (label, seen) in enumerate(zip(labels, answers, strict=True), start=1):
        column = seen.judge.findings.index(finding)
        maps = [seen.outputs.maps[seen.rows[film.image_id], column] for film in films]
        pictures = [
            map_on_film(
                film.picture, map_, film.truth, seen.marked(film.image_id, finding, film.picture)
            )
            for film, map_ in zip(films, maps, strict=True)
        ]
        under = [_dice_words(seen.run, film.image_id, finding) for film in films]
        row(line, label, _worth(seen, finding), pictures, under)
    _legend(page, len(answers[0].rows), finding, split)
    return page.png()


def _worth(seen: Seen, finding: str) -> str:
    """What a run's maps of the finding are worth, in lines."""
    entries = seen.run.metrics["findings"][finding]
    column = seen.judge.findings.index(finding)
    alike = mean_pairwise_correlation(seen.outputs.maps[:, column])
    return "\n".join(
        [
            *_numbers("Dice", entries["dice"]),
            *_numbers("Dice lost when shuffled", entries[DICE_LOST]),
            "mean correlation of the maps",
            "   undefined" if alike is None else f"   {alike:.2f}".replace("-", "−"),
        ]
    )


def _numbers(name: str, entry: Mapping[str, Any]) -> list[str]:
    cell = shown_estimate(entry)
    if entry["value"] is None:
        return [name, *(f"   {line}" for line in textwrap.wrap(cell.title, LINE_LETTERS + 6))]
    return [name, f"   {cell.text} ({cell.interval})"]


def _dice_words(run: EvaluatedRun, image_id: str, finding: str) -> str:
    place = run.case(image_id, finding)
    dice = np.nan if place is None else run.cases.maps["dice"][place]
    return "Dice undefined" if np.isnan(dice) else f"Dice {dice:.2f}"


def _legend(page: _Page, films: int, finding: str, split: str) -> None:
    y = page.height - BOTTOM + 0.1
    page.write(MARGIN, y, "map  0", 8.5)
    page.show(MARGIN + 0.5, y + 0.02, 1.2, 0.12, scale_picture(240, 24))
    page.write(MARGIN + 1.78, y, "1", 8.5)
    lines: tuple[tuple[float, str, Colour, LineStyle], ...] = (
        (2.5, "true region", TRUTH, "solid"),
        (4.1, "map at its threshold from validation", THRESHOLD, "dashed"),
    )
    for x, words, colour, style in lines:
        page.stroke(x, y + 0.07, 0.42, "#{:02x}{:02x}{:02x}".format(*colour), style)
        page.write(x + 0.5, y, words, 8.5)
    notes = (
        f"Numbers are over all {films} films of the {split} split that have {finding} and a region "
        "of it, with 95 % intervals. Films shown: of these, from left to right by where the region "
        "lies, evenly spaced ones, whatever the maps. Dice lost 0 and correlation 1: "
        "the same map for every film."
    )
    letters = int((page.width - 2 * MARGIN) * 15)
    page.write(MARGIN, y + 0.25, "\n".join(textwrap.wrap(notes, letters)), 8.0, colour=QUIET)
