"""Mean maps of every finding, runs side by side: Figure 3 of Sriker et al. for any method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_cxr.evaluation.mean_maps import FEWEST_FILMS, MeanMaps, read_mean_maps
from dwarf_cxr.reporting.examples import Panel
from dwarf_cxr.reporting.overlay import Picture, data_uri, enlarged, film_picture, tinted
from dwarf_cxr.reporting.runs import EvaluatedRun, all_findings
from dwarf_cxr.reporting.tables import method_and_seed

FILE = "mean-maps.npz"
SIDE = 300
"""Pixels of a picture's side."""
SMALLEST_RANGE = 0.01
"""Flatter maps are not spread further than this: noise would look like a place."""


@dataclass(frozen=True)
class MeanMapColumn:
    """A run with mean maps."""

    name: str
    note: str
    scale: tuple[str, str] | None
    """The values of the darkest and of the brightest colour, the lowest and the highest of all;
    None where no finding has enough films."""


@dataclass(frozen=True)
class MeanMapCell:
    """The mean map of a run for a finding, or why there is none."""

    panel: Panel | None
    reason: str = ""


@dataclass(frozen=True)
class MeanMapTable:
    """A row for each finding, a column for each run."""

    columns: tuple[MeanMapColumn, ...]
    rows: tuple[tuple[str, tuple[MeanMapCell, ...]], ...]
    missing: tuple[str, ...]
    """Runs whose evaluation has no mean maps."""


def mean_map_table(runs: Sequence[EvaluatedRun]) -> MeanMapTable | None:
    """The mean maps of the runs; None if no evaluation has any.

    Raises:
        DataError: a file of mean maps is damaged.
    """
    every = [(run, read_mean_maps(run.evaluation / FILE)) for run in runs]
    known = [(run, means, _range(means)) for run, means in every if means is not None]
    if not known:
        return None
    columns = tuple(
        MeanMapColumn(run.name, method_and_seed(run), _scale(ends)) for run, _, ends in known
    )
    rows = tuple(
        (finding, tuple(_cell(run, means, ends, finding) for run, means, ends in known))
        for finding in all_findings([run for run, _, _ in known])
    )
    return MeanMapTable(columns, rows, tuple(run.name for run, means in every if means is None))


def mean_map_picture(
    means: MeanMaps, finding: int, lowest: float, highest: float, side: int = SIDE
) -> Picture:
    """A mean map over the mean film, its colours spread from `lowest` to `highest`.

    Means are flatter than the maps of single films: in the colours of those they could not be read.
    """
    film = film_picture(means.films[finding], (side, side))
    spread = (means.maps[finding] - lowest) / max(highest - lowest, SMALLEST_RANGE)
    return tinted(film, enlarged(spread.astype(np.float32), film))


def _range(means: MeanMaps) -> tuple[float, float] | None:
    """One scale for all findings of a run, so that they can be compared."""
    values = means.maps[means.counts >= FEWEST_FILMS]
    return (float(values.min()), float(values.max())) if len(values) else None


def _scale(ends: tuple[float, float] | None) -> tuple[str, str] | None:
    return None if ends is None else (f"{ends[0]:.2f}", f"{ends[1]:.2f}")


def _cell(
    run: EvaluatedRun, means: MeanMaps, ends: tuple[float, float] | None, finding: str
) -> MeanMapCell:
    if finding not in means.findings:
        return MeanMapCell(None, "not evaluated")
    place = means.findings.index(finding)
    count = int(means.counts[place])
    films = f"{count} film{'' if count == 1 else 's'}"
    if count < FEWEST_FILMS or ends is None:
        return MeanMapCell(None, f"{films} with it alone, fewer than {FEWEST_FILMS}")
    map_ = means.maps[place]
    return MeanMapCell(
        Panel(
            run.name,
            (films, f"values {map_.min():.2f} to {map_.max():.2f}"),
            data_uri(mean_map_picture(means, place, *ends)),
            f"Mean map of {run.name} for {finding} over {films}",
        )
    )
