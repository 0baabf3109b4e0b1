"""Opening a data set by the name of its format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dwarf_cxr.data.records import SourceSet
from dwarf_cxr.errors import ConfigError

_FOLDERS = (
    "nih",
    "chestx-det",
    "vindr",
    "rsna",
    "chexlocalize",
    "chexpert-boxes",
    "coco",
    "csv",
    "dicom",
)
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
    lateral: bool = False,
    uncertain: Literal["ignore", "absent", "present"] = "ignore",
    findings: Sequence[str] | None = None,
    labels: Path | None = None,
    link_table: Path | None = None,
) -> SourceSet:
    """What the reader of format `name` finds under `root`.

    `films`, `seed` and `size` are for `synthetic`, which writes its films to ROOT/films, or to
    OUT/films. `skip_missing` leaves out images that the tables of a public set list but that are
    not there. `lateral` keeps the lateral views of `chexlocalize` and `chexpert-boxes`, `uncertain`
    says what an uncertain label of the latter becomes. `labels`, `link_table` and, where there are no labels, `findings` are for
    `dicom`.

    Raises:
        ConfigError: no root, one that does not exist, or one that is `out` itself.
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
    missing: Literal["error", "skip"] = "skip" if skip_missing else "error"
    if name == "nih":
        from dwarf_cxr.data.nih import read_nih

        return read_nih(root, missing=missing)
    if name == "chestx-det":
        from dwarf_cxr.data.chest_det import read_chest_det

        return read_chest_det(root, missing=missing)
    if name == "chexlocalize":
        from dwarf_cxr.data.chexlocalize import read_chexlocalize

        return read_chexlocalize(root, missing=missing, lateral=lateral)
    if name == "chexpert-boxes":
        from dwarf_cxr.data.chexpert_boxes import read_chexpert_boxes

        return read_chexpert_boxes(
            root,
            missing=missing,
            lateral=lateral,
            uncertain=uncertain,
            assume_absent=assume_absent,
        )
    if name == "vindr":
        from dwarf_cxr.data.vindr import read_vindr

        return read_vindr(root, missing=missing)
    if name == "rsna":
        from dwarf_cxr.data.rsna import read_rsna

        return read_rsna(root, missing=missing)
    if name == "coco":
        from dwarf_cxr.data.coco import read_coco

        return read_coco(_coco_file(root), assume_absent=assume_absent)
    if name == "csv":
        from dwarf_cxr.data.table import read_csv

        return read_csv(root)
    if name == "dicom":
        from dwarf_cxr.data.dicom_folder import read_dicom
        from dwarf_cxr.data.identity import default_link_table

        links = (link_table or default_link_table()).absolute()
        if links.resolve().is_relative_to(out.resolve()):
            raise ConfigError(
                f"--link-table {links}: it says who the patients are and must not lie in the data "
                "made from their films; choose a place of your own"
            )
        return read_dicom(root, links=links, labels=labels, findings=findings)
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
