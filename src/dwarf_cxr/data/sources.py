"""Opening a data set by the name of its format."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dwarf_cxr.data.chexpert_boxes import UncertainPolicy
from dwarf_cxr.data.records import SourceSet
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.progress import Count


@dataclass(frozen=True)
class ReadOptions:
    """What can be asked of a reader beside the folder; `TAKEN` says which format has which."""

    skip_missing: bool = False
    """Leave out images that the tables of a public set list but that are not there."""
    official_splits: bool = False
    """Split by the set's own lists."""
    lung_opacity: bool = False
    """Also the finding of RSNA's radiologists on NIH's images."""
    lateral: bool = False
    """Keep lateral views."""
    unknown_views: bool = False
    """Keep films of which no table tells whether they are frontal."""
    uncertain: UncertainPolicy = "ignore"
    """What an uncertain label becomes; ignored is never assessed."""
    assume_absent: bool = False
    """What nobody drew or mentioned is absent, where it else was never assessed."""
    labels: Path | None = None
    """A CSV with labels."""
    name: str | None = None
    """What a set of one's own is called, and within what its patients are known."""
    link_table: Path | None = None
    """Where pseudonyms are kept with who is behind them; None: in the user's own data folder."""


TAKEN: Mapping[str, tuple[str, ...]] = {
    "nih": ("skip_missing", "official_splits", "lung_opacity"),
    "chestx-det": ("skip_missing",),
    "vindr": ("skip_missing",),
    "rsna": ("skip_missing",),
    "chexlocalize": ("skip_missing", "lateral"),
    "chexpert-boxes": ("skip_missing", "lateral", "uncertain", "assume_absent"),
    "openi": ("skip_missing", "lateral", "unknown_views"),
    "covid": ("skip_missing", "lateral", "unknown_views"),
    "coco": ("assume_absent", "name"),
    "csv": ("name",),
    "dicom": ("labels", "link_table", "name"),
    "synthetic": (),
}
"""The formats, each with the options that it has."""


def read_source(
    name: str,
    root: Path | None,
    *,
    out: Path,
    options: ReadOptions | None = None,
    findings: tuple[str, ...] | None = None,
    size: int = 224,
    films: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: Count | None = None,
) -> SourceSet:
    """What the reader of format `name` finds under `root`.

    `films`, `seed`, `size`, `workers` and `progress` are for `synthetic`, which writes its films to
    ROOT/films, or to OUT/films; `findings` are for `dicom` without labels.

    Raises:
        ConfigError: no root, one that does not exist, or one that is `out` itself; an option that
            the format does not have.
        DataError: the data set has faults.
    """
    options = options or ReadOptions()
    if name not in TAKEN:
        raise ConfigError(f"unknown source {name!r}; known: {', '.join(TAKEN)}")
    _refuse_others(name, options)
    if options.name is not None and not options.name.strip():
        raise ConfigError("--name: is empty; give the data set a name, or leave it out")
    if name == "synthetic":
        from dwarf_cxr.data.synthetic import FilmSettings, read_synthetic

        return read_synthetic(
            root or out,
            films=films,
            seed=seed,
            settings=FilmSettings(size=size),
            workers=workers,
            progress=progress,
        )
    if root is None:
        raise ConfigError(f"data prepare {name}: give the data set's folder with --root")
    if not root.exists():
        raise ConfigError(f"--root {root}: no such folder")
    if out.resolve() == (root.parent if root.is_file() else root).resolve():
        raise ConfigError(
            f"--out {out}: the data set itself lies there, and its tables would be written over; "
            "choose another folder"
        )
    return _read(name, root, out, options, findings)


def _refuse_others(name: str, options: ReadOptions) -> None:
    for field in dataclasses.fields(options):
        given = getattr(options, field.name) != field.default
        if given and field.name not in TAKEN[name]:
            takers = [one for one, taken in TAKEN.items() if field.name in taken]
            raise ConfigError(
                f"data prepare {name}: --{field.name.replace('_', '-')} is for "
                f"{', '.join(takers)}; leave it out"
            )


def _read(
    name: str,
    root: Path,
    out: Path,
    options: ReadOptions,
    findings: tuple[str, ...] | None,
) -> SourceSet:
    """The formats' readers are imported where they are called: few are ever needed together."""
    missing: Literal["error", "skip"] = "skip" if options.skip_missing else "error"
    if name == "nih":
        from dwarf_cxr.data.nih import read_nih

        return read_nih(
            root,
            missing=missing,
            official_splits=options.official_splits,
            lung_opacity=options.lung_opacity,
        )
    if name == "chestx-det":
        from dwarf_cxr.data.chest_det import read_chest_det

        return read_chest_det(root, missing=missing)
    if name == "vindr":
        from dwarf_cxr.data.vindr import read_vindr

        return read_vindr(root, missing=missing)
    if name == "rsna":
        from dwarf_cxr.data.rsna import read_rsna

        return read_rsna(root, missing=missing)
    if name == "chexlocalize":
        from dwarf_cxr.data.chexlocalize import read_chexlocalize

        return read_chexlocalize(root, missing=missing, lateral=options.lateral)
    if name == "chexpert-boxes":
        from dwarf_cxr.data.chexpert_boxes import read_chexpert_boxes

        return read_chexpert_boxes(
            root,
            missing=missing,
            lateral=options.lateral,
            uncertain=options.uncertain,
            assume_absent=options.assume_absent,
        )
    if name == "openi":
        from dwarf_cxr.data.openi import read_openi

        return read_openi(
            root, missing=missing, lateral=options.lateral, unknown_views=options.unknown_views
        )
    if name == "covid":
        from dwarf_cxr.data.covid import read_covid

        return read_covid(
            root, missing=missing, lateral=options.lateral, unknown_views=options.unknown_views
        )
    if name == "coco":
        from dwarf_cxr.data.coco import read_coco

        return read_coco(_coco_file(root), assume_absent=options.assume_absent, name=options.name)
    if name == "csv":
        from dwarf_cxr.data.table import read_csv

        return read_csv(root, name=options.name)
    from dwarf_cxr.data.dicom_folder import read_dicom
    from dwarf_cxr.data.identity import default_link_table

    links = (options.link_table or default_link_table()).absolute()
    if links.resolve().is_relative_to(out.resolve()):
        raise ConfigError(
            f"--link-table {links}: it says who the patients are and must not lie in the data "
            "made from their films; choose a place of your own"
        )
    return read_dicom(
        root, links=links, labels=options.labels, findings=findings, name=options.name
    )


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
