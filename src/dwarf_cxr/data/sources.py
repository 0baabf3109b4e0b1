"""Opening a data set by the name of its format."""

import os
from pathlib import Path

from dwarf_cxr.data.records import SourceSet
from dwarf_cxr.errors import ConfigError


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
) -> SourceSet:
    """What the reader of format `name` finds under `root`.

    `films`, `seed` and `size` are for `synthetic`, which writes to OUT/films without a root.

    Raises:
        ConfigError: no root, or one that does not exist.
        DataError: the data set has faults.
    """
    if name == "synthetic":
        from dwarf_cxr.data.synthetic import FilmSettings, read_synthetic

        return read_synthetic(
            root or out / "films",
            films=films,
            seed=seed,
            settings=FilmSettings(size=size),
            workers=workers or os.cpu_count() or 1,
        )
    if root is None:
        raise ConfigError(f"data prepare {name}: give the data set's folder with --root")
    if not root.exists():
        raise ConfigError(f"--root {root}: no such folder")
    if name == "nih":
        from dwarf_cxr.data.nih import read_nih

        return read_nih(root)
    if name == "chestx-det":
        from dwarf_cxr.data.chest_det import read_chest_det

        return read_chest_det(root)
    if name == "coco":
        from dwarf_cxr.data.coco import read_coco

        return read_coco(root, assume_absent=assume_absent)
    if name == "csv":
        from dwarf_cxr.data.table import read_csv

        return read_csv(root)
    raise ConfigError(f"unknown source {name!r}; known: nih, chestx-det, coco, csv, synthetic")
