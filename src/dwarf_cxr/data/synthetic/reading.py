"""The generator as a data set: films written as PNG files, with labels, masks and reports.

Contents: as many frontal films as wished, two of three in pairs of one patient; 13 findings, every
one assessed on every film; an exact mask for every present finding; a report of a sentence per
finding. No splits: they are made by patient when the data set is prepared.
"""

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dwarf_cxr.data.records import Mask, Radiograph, Region, SourceSet
from dwarf_cxr.data.synthetic.films import FilmSettings, draw_film
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import write_bytes
from dwarf_cxr.findings import CHESTX_DET_13
from dwarf_cxr.progress import Count, shown_count

ANNOTATOR = "generator"
FEW_FILMS = 200
"""Up to here one process is done before others have started."""


def read_synthetic(
    root: Path,
    *,
    films: int,
    seed: int,
    settings: FilmSettings,
    workers: int | None = None,
    progress: Count | None = None,
) -> SourceSet:
    """Draw films 0 to `films` - 1 of `seed` into `root`/films and describe them.

    A film that is already there with the same bytes is left alone; any other is replaced, whole.
    `workers` processes draw (default: one per usable processor; the result does not depend on
    it). `progress(done, films)`, called after each film, replaces the progress shown on standard
    error.

    Raises:
        ConfigError: films or workers is less than 1, or the seed is negative.
    """
    if films < 1:
        raise ConfigError(f"films: {films}; at least 1 is needed")
    if seed < 0:
        raise ConfigError(f"seed: {seed}; choose 0 or more")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: {workers}; at least 1 is needed")
    folder = Path(root) / "films"
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(write_film, folder, seed=seed, settings=settings)
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if films > FEW_FILMS else 1
    workers = min(workers, films)
    with shown_count(progress, "Drawing films", "drew {done} of {total} films") as count:
        if workers == 1:
            radiographs = _collect(map(write, range(films)), films, count)
        else:
            # Started afresh, not forked: a fork would inherit the locks of the parent's threads.
            context = multiprocessing.get_context("spawn")
            share = max(1, min(32, films // (4 * workers)))
            with ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
                drawn = pool.map(write, range(films), chunksize=share)
                radiographs = _collect(drawn, films, count)
    notes = [f"drawn with seed {seed} at {settings.size} px"]
    if settings.portable_correlation is not None:
        finding, probability = settings.portable_correlation
        notes.append(
            f"the PORTABLE marker is a shortcut: on {probability:.0%} of the films with {finding} "
            f"and on {1 - probability:.0%} of those without"
        )
    return SourceSet(
        name="synthetic",
        findings=CHESTX_DET_13,
        radiographs=radiographs,
        source="dwarf-cxr film generator",
        licence="CC0-1.0",
        citation="Schematic radiographs drawn by dwarf-cxr; no patient is shown.",
        notes=tuple(notes),
        patients_of=f"synthetic, seed {seed}",
    )


def _collect(drawn: Iterable[Radiograph], films: int, progress: Count) -> tuple[Radiograph, ...]:
    radiographs = []
    for radiograph in drawn:
        radiographs.append(radiograph)
        progress(len(radiographs), films)
    return tuple(radiographs)


def _one_thread() -> None:
    # One process per processor already; OpenCV's own threads would only get in the way.
    cv2.setNumThreads(1)


def write_film(folder: Path, index: int, *, seed: int, settings: FilmSettings) -> Radiograph:
    """Draw one film, write `folder`/NNNNNN.png and describe it."""
    film = draw_film(seed, index, settings)
    name = f"{index:06d}"
    path = folder / f"{name}.png"
    _, encoded = cv2.imencode(".png", film.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    content = encoded.tobytes()
    if not (path.is_file() and path.read_bytes() == content):
        write_bytes(path, content)
    height, width = film.pixels.shape
    return Radiograph(
        image_id=name,
        patient_id=f"{film.patient:06d}",
        path=path,
        labels={finding: finding in film.masks for finding in CHESTX_DET_13},
        regions=tuple(
            Region(finding, Mask(height, width, run_lengths(mask)), ANNOTATOR)
            for finding, mask in film.masks.items()
        ),
        text=film.text,
    )


def run_lengths(mask: np.ndarray) -> tuple[int, ...]:
    """COCO run lengths of a bool mask (h, w): down the columns, starting with zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    return tuple(np.diff(starts, prepend=0, append=mask.size).tolist())
