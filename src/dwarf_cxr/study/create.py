"""`dwarf study create`: asking the models once and freezing what readers will see.

The seed stands in study.json and fixes which films are shown. Whatever could tell whose map is
whose, names, their order in a pair, readers' orders and sides, is drawn from the system instead.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dwarf_cxr.data.geometry import rasterise, scale
from dwarf_cxr.data.originals import original_film
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation.evaluate import refuse_seen_patients
from dwarf_cxr.evaluation.zero_shot import words_for
from dwarf_cxr.files import atomic_folder, sha256_of
from dwarf_cxr.findings import select
from dwarf_cxr.models.checkpoint import load_model, model_folder
from dwarf_cxr.models.outputs import StatedClassifier, ZeroShotClassifier, method_of
from dwarf_cxr.progress import Report
from dwarf_cxr.study.design import Comparison, choose_films, pairs_of
from dwarf_cxr.study.folder import (
    FILMS,
    MAPS,
    REGIONS,
    Film,
    Key,
    RunKey,
    Study,
    write_key,
    write_pictures,
)
from dwarf_cxr.study.pictures import (
    FILM_SIDE,
    MAP_SIDE,
    film_frame,
    film_png,
    map_png,
    outline_png,
    stretched,
)


@dataclass(frozen=True)
class StudySettings:
    """How a study is made."""

    per_finding: int
    """Films for each finding."""
    seed: int = 0
    """Fixes the films."""
    repeats: int = 0
    """Comparisons that every reader sees twice."""
    show_regions: bool = False
    """Whether readers see the true region."""
    stretch: bool = False
    """Whether each map's colours run from its least to its greatest value, not from 0 to 1."""
    split: str = "test"


def create_study(
    runs: Sequence[Path],
    data: Path,
    findings: Sequence[str] | None,
    out: Path,
    settings: StudySettings,
    progress: Report | None = None,
) -> Study:
    """Choose films, ask every run's model, and write the STUDY folder, whole or not at all.

    Every two runs are compared on every chosen film.

    Args:
        findings: by default those that the data and all models know.

    Raises:
        ConfigError: fewer than two runs, one twice, an unknown finding, or too many repeats.
        DataError: too few films, or `out` is there already: its answers would be lost.
        CheckpointError: a model is missing or wants films of another size.
    """
    if out.exists():
        raise DataError(f"{out}: exists; a study is never overwritten, give another folder")
    if settings.split == "train":
        raise ConfigError("--split train: models have learned from these films; take val or test")
    if len(runs) < 2 or len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError("--run: give at least two different runs")
    prepared = PreparedData.open(data)
    models = [_model(run, prepared, settings.split) for run in runs]
    shared = [name for name in prepared.findings if all(name in model.findings for model in models)]
    wanted = select(shared if findings is None else findings, shared, where="--findings")
    generator = np.random.default_rng(settings.seed)
    chosen = choose_films(
        prepared,
        wanted,
        settings.per_finding,
        generator,
        split=settings.split,
        with_regions=settings.show_regions,
    )
    indices = sorted({index for its in chosen.values() for index in its})
    names = _run_names(runs)
    film_ids = {index: _random_name() for index in indices}
    cases = [(finding, index) for finding in wanted for index in chosen[finding]]
    most = len(cases) * len(pairs_of(names)) // 2
    if not 0 <= settings.repeats <= most:
        raise ConfigError(
            f"--repeats {settings.repeats}: of {len(cases) * len(pairs_of(names))} comparisons at "
            f"most {most} can be shown twice"
        )
    steps = len(runs) + len(indices)
    tell = progress or (lambda line, done, total: None)
    with atomic_folder(out) as fresh:
        fresh.chmod(0o700)
        maps: dict[str, bytes] = {}
        run_of_map: dict[str, str] = {}
        map_of: dict[tuple[str, int, str], str] = {}
        for number, (name, model) in enumerate(zip(names, models, strict=True)):
            tell(f"asking run {number + 1} of {len(runs)}", number, steps)
            outputs = model.predict(prepared.pixels[np.array(indices)], wanted)
            for finding, index in cases:
                map_ = outputs.maps[indices.index(index), wanted.index(finding)]
                map_id = _random_name()
                maps[map_id] = _map_picture(map_, prepared, index, stretch=settings.stretch)
                run_of_map[map_id] = name
                map_of[name, index, finding] = map_id
        write_pictures(fresh / MAPS, maps)
        films: list[Film] = []
        pictures: dict[str, bytes] = {}
        small_films = 0
        for done, index in enumerate(indices):
            tell(f"freezing film {done + 1} of {len(indices)}", len(runs) + done, steps)
            frame = film_frame(
                int(prepared.widths[index]),
                int(prepared.heights[index]),
                min(FILM_SIDE, max(int(prepared.widths[index]), int(prepared.heights[index]))),
            )
            original = original_film(prepared, index)
            small_films += original is None
            shown = prepared.pixels[index] if original is None else original
            pictures[film_ids[index]] = film_png(shown, frame)
            films.append(Film(film_ids[index], *frame))
        write_pictures(fresh / FILMS, pictures)
        comparisons = _comparisons(cases, names, map_of, film_ids)
        if settings.show_regions:
            frames = {film.film_id: (film.width, film.height) for film in films}
            index_of = {film_id: index for index, film_id in film_ids.items()}
            outlines = {
                one.comparison_id: _outline(
                    prepared, index_of[one.film], one.finding, frames[one.film]
                )
                for one in comparisons
            }
            write_pictures(fresh / REGIONS, outlines)
        tell("everything is frozen", steps, steps)
        study = Study(
            folder=fresh,
            seed=settings.seed,
            repeats=settings.repeats,
            shows_regions=settings.show_regions,
            stretched=settings.stretch,
            data_name=prepared.name,
            data_fingerprint=prepared.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            films=tuple(films),
            comparisons=tuple(comparisons),
            small_films=small_films,
        )
        study.write()
        keys = tuple(_run_key(*one) for one in zip(names, runs, models, strict=True))
        images = {film_ids[index]: prepared.image_ids[index] for index in indices}
        numbers = {
            patient: number
            for number, patient in enumerate(
                dict.fromkeys(prepared.patient_ids[index] for index in indices), start=1
            )
        }
        patients = {film_ids[index]: numbers[prepared.patient_ids[index]] for index in indices}
        write_key(fresh, Key(keys, run_of_map, images, patients, secrets.randbits(64)))
    return Study.open(out)


def _model(run: Path, data: PreparedData, split: str) -> StatedClassifier:
    """The run's model; one that can be asked anything is asked the data's findings."""
    model = load_model(run)
    if model.card is not None:
        refuse_seen_patients(model.card, data, split)
    elif isinstance(model, ZeroShotClassifier):
        return model.asking(words_for(model, data, None, descriptions=False))
    if model.image_size != data.size:
        raise ConfigError(
            f"{run}: wants films of {model.image_size} px, {data.folder} has {data.size} px; "
            f"prepare the data with --size {model.image_size}"
        )
    return model


def _run_names(runs: Sequence[Path]) -> list[str]:
    """The folders' names; with as many parents as tell them apart."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


def _run_key(name: str, run: Path, model: StatedClassifier) -> RunKey:
    card = model.card
    return RunKey(
        name=name,
        method=method_of(model),
        folder=str(run),
        model_sha256=sha256_of(model_folder(run) / "model.safetensors"),
        trained_on=None if card is None else card.data_name,
        trained_fingerprint=None if card is None else card.data_fingerprint,
    )


def _random_name() -> str:
    return secrets.token_hex(8)


def _map_picture(
    map_: Float32[np.ndarray, "h w"], data: PreparedData, index: int, *, stretch: bool
) -> bytes:
    frame = film_frame(int(data.widths[index]), int(data.heights[index]), MAP_SIDE)
    return map_png(stretched(map_) if stretch else map_, frame)


def _outline(data: PreparedData, index: int, finding: str, frame: tuple[int, int]) -> bytes:
    original = (int(data.widths[index]), int(data.heights[index]))
    shapes = [scale(region.shape, original, frame) for region in data.regions(index, finding)]
    return outline_png(rasterise(shapes, frame))


def _comparisons(
    cases: Sequence[tuple[str, int]],
    names: Sequence[str],
    map_of: dict[tuple[str, int, str], str],
    film_ids: dict[int, str],
) -> list[Comparison]:
    """Every two runs on every case; the order of a pair's maps is random."""
    comparisons = []
    for finding, index in cases:
        for pair in pairs_of(names):
            maps = [map_of[name, index, finding] for name in pair]
            first = secrets.randbelow(2)
            comparisons.append(
                Comparison(_random_name(), film_ids[index], finding, (maps[first], maps[1 - first]))
            )
    return comparisons
