"""Mean maps of every finding, side by side: Figure 3 of Sriker et al. for any method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_cxr.evaluation.mean_maps import FEWEST_FILMS, MeanMaps, read_mean_maps
from dwarf_cxr.reporting.examples import Panel
from dwarf_cxr.reporting.overlay import Picture, data_uri, enlarged, film_picture, tinted
from dwarf_cxr.reporting.runs import EvaluatedRun

FILE = "mean-maps.npz"
SIDE = 300
"""Pixels of a picture's side."""
SMALLEST_RANGE = 0.01
"""Flatter maps are not spread further than this: noise would look like a place."""


@dataclass(frozen=True)
class RunMeanMaps:
    """The mean maps of one run."""

    title: str
    panels: tuple[Panel, ...]
    scale: tuple[str, str]
    """The values of the darkest and of the brightest colour, the lowest and the highest of all."""
    left_out: str
    """Findings without enough films, in words; empty if none."""


def mean_maps_of(runs: Sequence[EvaluatedRun]) -> list[RunMeanMaps]:
    """The mean maps of the runs whose evaluation has any.

    Raises:
        DataError: a file of mean maps is damaged.
    """
    read = [(run, read_mean_maps(run.evaluation / FILE)) for run in runs]
    return [_run_panels(run, means) for run, means in read if means is not None]


def mean_map_picture(
    means: MeanMaps, finding: int, lowest: float, highest: float, side: int = SIDE
) -> Picture:
    """A mean map over the mean film, its colours spread from `lowest` to `highest`.

    Means are flatter than the maps of single films: in the colours of those they could not be read.
    """
    film = film_picture(means.films[finding], (side, side))
    spread = (means.maps[finding] - lowest) / max(highest - lowest, SMALLEST_RANGE)
    return tinted(film, enlarged(spread.astype(np.float32), film))


def _run_panels(run: EvaluatedRun, means: MeanMaps) -> RunMeanMaps:
    shown = [place for place, count in enumerate(means.counts) if count >= FEWEST_FILMS]
    values = means.maps[shown]
    # one scale for all findings, so that they can be compared
    lowest, highest = (float(values.min()), float(values.max())) if shown else (0.0, 1.0)
    panels = [
        Panel(
            means.findings[place],
            (
                f"{means.counts[place]} films",
                f"values {means.maps[place].min():.2f} to {means.maps[place].max():.2f}",
            ),
            data_uri(mean_map_picture(means, place, lowest, highest)),
            f"Mean map of {run.name} for {means.findings[place]} over {means.counts[place]} films",
        )
        for place in shown
    ]
    few = [
        f"{finding} ({count})"
        for finding, count in zip(means.findings, means.counts, strict=True)
        if count < FEWEST_FILMS
    ]
    words = f"Fewer than {FEWEST_FILMS} such films: {', '.join(few)}." if few else ""
    return RunMeanMaps(run.title, tuple(panels), (f"{lowest:.2f}", f"{highest:.2f}"), words)
