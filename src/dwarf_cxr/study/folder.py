"""The STUDY folder.

study.json   what readers compare: films, findings, maps by random names
key.json     whose map is whose; only making the study, inviting readers and the report read it,
             never the server
films/ maps/ regions/   the frozen pictures
study.db     readers, their lists and every answer
secret       what signs the private links
links.json   readers whose link was withdrawn (`web/links.py`)
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import atomic_path, read_json
from dwarf_cxr.study.design import Comparison

FORMAT = "blind-study-1"
STUDY_FILE, KEY_FILE, DATABASE = "study.json", "key.json", "study.db"
FILMS, MAPS, REGIONS = "films", "maps", "regions"
NO_TIME = 0
"""The time of every picture: when each was written could tell whose it is."""


@dataclass(frozen=True)
class Film:
    """A frozen film, without anything of whom it shows."""

    film_id: str
    width: int
    height: int


@dataclass(frozen=True)
class RunKey:
    """A compared run."""

    name: str
    """What reports call it; of different runs different."""
    method: str
    folder: str
    model_sha256: str
    trained_on: str | None = None
    """Name of the data it was trained, or but calibrated, on; None if on none, or not told."""
    trained_fingerprint: str | None = None


@dataclass(frozen=True)
class Key:
    """Whose map is whose, and which film is which."""

    runs: tuple[RunKey, ...]
    run_of_map: Mapping[str, str]
    """Name of the run of each map."""
    image_of_film: Mapping[str, str]
    """Image id, in the data, of each film."""
    patient_of_film: Mapping[str, int] = field(default_factory=dict)
    """A number, which is no identifier, for the patient of each film; empty in older keys."""
    order_seed: int | None = None
    """What readers' orders and sides are drawn from; in older keys None, and the study's seed."""

    def trained_elsewhere(self, study: "Study") -> list[str]:
        """A sentence on every run that was trained on other data than the films are of."""
        return [
            f"{run.name} was trained or calibrated on other data ({run.trained_on}, fingerprint "
            f"{run.trained_fingerprint[:12]}…) than the films are of ({study.data_name}, "
            f"{study.data_fingerprint[:12]}…): readers compare the data as well as the methods"
            for run in self.runs
            if run.trained_fingerprint not in (None, study.data_fingerprint)
        ]


@dataclass(frozen=True)
class Study:
    """What study.json holds, and where."""

    folder: Path
    seed: int
    repeats: int
    shows_regions: bool
    stretched: bool
    data_name: str
    data_fingerprint: str
    created: str
    films: tuple[Film, ...]
    comparisons: tuple[Comparison, ...]
    small_films: int = 0
    """Films shown as DATA has them, small, since their original is gone or has changed."""

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Read a STUDY folder, without its key.

        Raises:
            DataError: no study there, or a damaged one.
        """
        folder = Path(folder)
        if not (folder / STUDY_FILE).is_file():
            raise DataError(f"{folder}: no study there; make one with `dwarf study create`")
        content = read_json(folder / STUDY_FILE)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f"{folder / STUDY_FILE}: not of the format {FORMAT}")
        try:
            return cls(
                folder=folder,
                seed=int(content["seed"]),
                repeats=int(content["repeats"]),
                shows_regions=bool(content["shows_regions"]),
                stretched=bool(content["stretched"]),
                data_name=str(content["data_name"]),
                data_fingerprint=str(content["data_fingerprint"]),
                created=str(content["created"]),
                films=tuple(Film(**film) for film in content["films"]),
                comparisons=tuple(
                    Comparison(
                        one["comparison_id"], one["film"], one["finding"], tuple(one["maps"])
                    )
                    for one in content["comparisons"]
                ),
                small_films=int(content.get("small_films", 0)),
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise DataError(
                f"{folder / STUDY_FILE}: a part is missing or wrong ({fault!r}); restore it"
            ) from None

    @cached_property
    def by_id(self) -> dict[str, Comparison]:
        """The comparisons by their id."""
        return {one.comparison_id: one for one in self.comparisons}

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings, in the order asked for."""
        return tuple(dict.fromkeys(one.finding for one in self.comparisons))

    @property
    def database(self) -> Path:
        """Where readers and answers are."""
        return self.folder / DATABASE

    def film_path(self, one: Comparison) -> Path:
        """The film of a comparison."""
        return self.folder / FILMS / f"{one.film}.png"

    def map_path(self, name: str) -> Path:
        """A map."""
        return self.folder / MAPS / f"{name}.png"

    def region_path(self, one: Comparison) -> Path:
        """The outline of the true region, where regions are shown."""
        return self.folder / REGIONS / f"{one.comparison_id}.png"

    def write(self) -> None:
        """Write study.json."""
        content: dict[str, Any] = {"format": FORMAT}
        for part in dataclasses.fields(self):
            if part.name != "folder":
                value = getattr(self, part.name)
                many = isinstance(value, tuple)
                content[part.name] = [dataclasses.asdict(one) for one in value] if many else value
        write_private(self.folder / STUDY_FILE, _json(content))


def write_key(folder: Path, key: Key) -> None:
    """Write key.json, for its owner's eyes alone."""
    write_private(folder / KEY_FILE, _json(dataclasses.asdict(key)))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read."""
    with atomic_path(path, private=True) as temporary:
        temporary.write_bytes(content)


def write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write pictures into a folder of their own so that nothing but their content tells them apart.

    One after the other by their random names, so that neither the order in which they were made nor
    that of their places on the disk says whose they are, all of one time, for their owner alone.
    """
    folder.mkdir(mode=0o700)
    for name in sorted(pictures):
        write_private(folder / f"{name}.png", pictures[name])
    for name in sorted(pictures):
        os.utime(folder / f"{name}.png", (NO_TIME, NO_TIME))
    os.utime(folder, (NO_TIME, NO_TIME))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(
        "utf-8", errors="backslashreplace"
    )


def read_key(folder: Path) -> Key:
    """Read key.json.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / KEY_FILE
    content = read_json(path)
    try:
        return Key(
            runs=tuple(RunKey(**run) for run in content["runs"]),
            run_of_map=dict(content["run_of_map"]),
            image_of_film=dict(content["image_of_film"]),
            patient_of_film=dict(content.get("patient_of_film", {})),
            order_seed=content.get("order_seed"),
        )
    except (KeyError, TypeError) as fault:
        raise DataError(f"{path}: a part is missing or wrong ({fault!r}); restore it") from None
