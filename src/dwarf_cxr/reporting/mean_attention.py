"""Mean maps of every finding, side by side: Figure 3 of Sriker et al. for any method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_cxr.evaluation.mean_maps import FEWEST_FILMS, MeanMaps, read_mean_maps
from dwarf_cxr.reporting.examples import Panel
from dwarf_cxr.reporting.overlay import Picture, blend, data_uri, enlarged, film_picture
from dwarf_cxr.reporting.runs import EvaluatedRun

FILE = "mean-maps.npz"
SIDE = 300
"""Pixels of a picture's side."""


@dataclass(frozen=True)
class RunMeanMaps:
    """The mean maps of one run."""

    title: str
    panels: tuple[Panel, ...]
    left_out: str
    """Findings without enough films, in words; empty if none."""


def mean_maps_of(runs: Sequence[EvaluatedRun]) -> list[RunMeanMaps]:
    """The mean maps of the runs whose evaluation has any.

    Raises:
        DataError: a file of mean maps is damaged.
    """
    read = [(run, read_mean_maps(run.evaluation / FILE)) for run in runs]
    return [_run_panels(run, means) for run, means in read if means is not None]


def mean_map_picture(means: MeanMaps, finding: int, side: int = SIDE) -> Picture:
    """The mean map over the mean film, in the colours of all maps: equal values look alike."""
    film = film_picture(means.films[finding], (side, side))
    return blend(film, enlarged(means.maps[finding], film))


def _run_panels(run: EvaluatedRun, means: MeanMaps) -> RunMeanMaps:
    panels, few = [], []
    for place, finding in enumerate(means.findings):
        count = int(means.counts[place])
        if count < FEWEST_FILMS:
            few.append(f"{finding} ({count})")
            continue
        lowest, highest = np.min(means.maps[place]), np.max(means.maps[place])
        panels.append(
            Panel(
                finding,
                (f"{count} films", f"values {lowest:.2f} to {highest:.2f}"),
                data_uri(mean_map_picture(means, place)),
                f"Mean map of {run.name} for {finding} over {count} films",
            )
        )
    words = f"Fewer than {FEWEST_FILMS} such films: {', '.join(few)}." if few else ""
    return RunMeanMaps(run.title, tuple(panels), words)
