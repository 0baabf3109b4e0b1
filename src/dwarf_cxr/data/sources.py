"""Opening a data set by the name of its format."""

from pathlib import Path
from typing import Literal

from dwarf_cxr.data.records import SourceSet
from dwarf_cxr.errors import ConfigError

_FOLDERS = ("nih", "chestx-det", "openi", "covid", "coco", "csv")
"""Formats whose tables lie in the data set's own folder."""


def read_source(
    name: str,
    root: Path | None,
    *,
    out: Path,
    size: int = 224,
    films: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    assume_absent: bool = False,
    skip_missing: bool = False,
    official_splits: bool = False,
    lateral: bool = False,
    unknown_views: bool = False,
) -> SourceSet:
    """What the reader of format `name` finds under `root`.

    `films`, `seed` and `size` are for `synthetic`, which writes its films to ROOT/films, or to
    OUT/films. `skip_missing` leaves out images that the tables of a public set list but that are
    not there. `official_splits` takes the splits of the official lists of `nih`. `lateral` and
    `unknown_views` also take the films of `openi` and `covid` that are not known to be frontal.

    Raises:
        ConfigError: no root, one that does not exist, or one that is `out` itself; an option that
            the format does not have.
        DataError: the data set has faults.
    """
    if name == "synthetic":
        from dwarf_cxr.data.synthetic import FilmSettings, read_synthetic

        return read_synthetic(
            root or out,
            films=films,
            seed=seed,
            settings=FilmSettings(size=size),
            workers=workers,
        )
    if root is None:
        raise ConfigError(f"data prepare {name}: give the data set's folder with --root")
    if not root.exists():
        raise ConfigError(f"--root {root}: no such folder")
    if name in _FOLDERS and out.resolve() == (root.parent if root.is_file() else root).resolve():
        raise ConfigError(
            f"--out {out}: the data set itself lies there, and its tables would be written over; "
            "choose another folder"
        )
    if official_splits and name != "nih":
        raise ConfigError(f"data prepare {name}: --official-splits is for nih; leave it out")
    missing: Literal["error", "skip"] = "skip" if skip_missing else "error"
    if name == "nih":
        from dwarf_cxr.data.nih import read_nih

        return read_nih(root, missing=missing, official_splits=official_splits)
    if name == "chestx-det":
        from dwarf_cxr.data.chest_det import read_chest_det

        return read_chest_det(root, missing=missing)
    if name == "openi":
        from dwarf_cxr.data.openi import read_openi

        return read_openi(root, missing=missing, lateral=lateral, unknown_views=unknown_views)
    if name == "covid":
        from dwarf_cxr.data.covid import read_covid

        return read_covid(root, missing=missing, lateral=lateral, unknown_views=unknown_views)
    if name == "coco":
        from dwarf_cxr.data.coco import read_coco

        return read_coco(_coco_file(root), assume_absent=assume_absent)
    if name == "csv":
        from dwarf_cxr.data.table import read_csv

        return read_csv(root)
    raise ConfigError(f"unknown source {name!r}; known: {', '.join(_FOLDERS)}, synthetic")


def _coco_file(root: Path) -> Path:
    if root.is_file():
        return root
    files = sorted(root.glob("*.json"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ConfigError(
            f"--root {root}: expected one COCO file (*.json) there, found {found}; "
            "give the file itself with --root"
        )
    return files[0]
