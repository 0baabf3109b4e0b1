"""Turning a data set into a DATA folder: decoded and resized once, checked, written whole."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dwarf_cxr.data.coco import AnnotatedImage, to_coco
from dwarf_cxr.data.geometry import Frame, clip, covers_anything, fault_of, is_inside, scale
from dwarf_cxr.data.images import decode_grey, is_constant, read_content, resize
from dwarf_cxr.data.records import Mask, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import listed
from dwarf_cxr.data.splits import SPLITS, assign_splits, read_splits
from dwarf_cxr.data.store import (
    DATASET_FILE,
    FORMAT,
    IMAGE_COLUMNS,
    IMAGES_FILE,
    REGIONS_FILE,
    PreparedData,
    pixels_file,
)
from dwarf_cxr.errors import ConfigError, DataError, DwarfError, ImageError
from dwarf_cxr.files import atomic_path, exclusive, sha256_of, write_csv, write_json
from dwarf_cxr.findings import select

Progress = Callable[[int, int], None]
"""Called with how many images are done and how many there are."""

LARGEST_SIZE = 8192
"""Of a side of the prepared images, in pixels; far beyond any encoder's."""

_MOST_FAULTS_SHOWN = 50
_LONGEST_FIELD = 100_000
"""Letters of a text that a CSV reader still takes."""
_PROPORTION_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class _Film:
    """One decoded image: SHA-256 of its file, its own size, whether it is blank, its fault."""

    sha256: str = ""
    frame: Frame = (0, 0)
    constant: bool = False
    fault: str | None = None


def prepare(
    source: SourceSet,
    out: Path,
    *,
    size: int = 224,
    workers: int | None = None,
    splits_csv: Path | None = None,
    seed: int = 0,
    findings: Sequence[str] | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> PreparedData:
    """Decode, resize, split and write `source` to the folder `out`, and open it.

    `findings` restricts and orders the findings; `seed` makes the splits where neither `source`
    nor `splits_csv` gives them. Regions outside their image are clipped and noted; with `strict`
    they are faults, as are blank images and images that occur twice. `progress` replaces the
    progress shown on standard error. `out` is touched only when everything was found in order,
    and dataset.json is written last, so that an interrupted call is never taken for a whole one.

    Raises:
        DataError: the source has faults; all of them are listed and nothing is written.
        ImageError: the same, when all faults are of image files.
        ConfigError: `size`, `workers` or `seed` is out of range, or a finding is unknown.
    """
    out = Path(out)
    if not 1 <= size <= LARGEST_SIZE:
        raise ConfigError(f"size {size}: choose a side of 1 to {LARGEST_SIZE} pixels")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers {workers}: at least 1 is needed")
    if seed < 0:
        raise ConfigError(f"seed {seed}: choose 0 or more")
    chosen = source.findings
    if findings is not None:
        chosen = select(findings, source.findings, where=source.name)
    faults = _source_faults(source)
    if faults:
        raise _all_faults(source.name, faults, DataError)
    radiographs = source.radiographs
    given = None if splits_csv is None else read_splits(splits_csv)
    splits, split_notes = assign_splits(radiographs, chosen, given=given, seed=seed)

    with exclusive(out):
        _remove_leftovers(out)
        # Pixels stay in a temporary file, and the old data in force, until all is checked.
        with atomic_path(out / pixels_file(size)) as draft:
            films = _decode_all(radiographs, draft, size, workers, progress)
            regions, warnings = _checked(source.name, radiographs, films, splits, chosen, strict)
            # From here to the last line the folder has no dataset.json, so it is nobody's.
            (out / DATASET_FILE).unlink(missing_ok=True)
            for stale in out.glob("pixels-*.u8"):
                stale.unlink()
        _write_tables(out, source.name, radiographs, films, splits, regions, chosen)
        files = (IMAGES_FILE, REGIONS_FILE, pixels_file(size))
        write_json(
            out / DATASET_FILE,
            {
                "name": source.name,
                "format": FORMAT,
                "findings": list(chosen),
                "source": source.source,
                "licence": source.licence,
                "citation": source.citation,
                "size": size,
                "counts": _counts(radiographs, splits, regions, chosen),
                "notes": [*source.notes, *split_notes, *warnings],
                "sha256": {name: sha256_of(out / name) for name in files},
            },
        )
    return PreparedData.open(out)


def _source_faults(source: SourceSet) -> list[str]:
    """What is wrong with the records themselves, before any image is opened."""
    faults = []
    if not source.radiographs:
        faults.append("there is no radiograph; check the folder and the tables")
    if not source.findings:
        faults.append("there is no finding; name at least one")
    reserved = sorted({*IMAGE_COLUMNS, "text"} & set(source.findings))
    if reserved:
        faults.append(f"finding named as a column of {IMAGES_FILE}: {listed(reserved)}; rename it")
    for finding in source.findings:
        if fault := _field_fault(finding):
            faults.append(f"finding {finding!r} {fault}")
    seen: dict[str, str] = {}
    for one in source.radiographs:
        where = f"image {one.image_id!r} ({one.shown!r})"
        fields = {"image id": one.image_id, "patient id": one.patient_id, "path": one.shown}
        # tables are read without the blanks at a field's rims: those would change an id
        stripped = {"text": (one.text or "").strip()}
        for name, value in (fields | stripped).items():
            if fault := _field_fault(value):
                faults.append(f"{where}: its {name} {fault}")
        if not one.image_id or not one.patient_id:
            faults.append(f"{where}: no image id or no patient id; fill it in")
        if one.image_id in seen:
            faults.append(f"{where}: the same id as {seen[one.image_id]}; ids must differ")
        seen.setdefault(one.image_id, one.shown)
        named = {*one.labels, *(region.finding for region in one.regions)}
        unknown = sorted(named - set(source.findings))
        if unknown:
            faults.append(f"{where}: unknown finding {listed(unknown)}; add it to the findings")
    return faults


def _field_fault(value: str) -> str | None:
    """Why `value` would not come back from a CSV file as it is, or None when it would."""
    if value != value.strip():
        return "begins or ends with a blank; remove it"
    if "\0" in value:
        return "holds a NUL character; remove it"
    if len(value) > _LONGEST_FIELD:
        return f"has {len(value):,} letters; {_LONGEST_FIELD:,} at most can be stored"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "cannot be written as UTF-8; correct it"
    return None


def _all_faults(name: str, faults: Sequence[str], kind: type[DwarfError]) -> DwarfError:
    shown = [f"  {fault}" for fault in faults[:_MOST_FAULTS_SHOWN]]
    if len(faults) > len(shown):
        shown.append(f"  … and {len(faults) - len(shown)} more")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return kind("\n".join([f"{name}: {count}; nothing was written", *shown]))


def _remove_leftovers(out: Path) -> None:
    """Drop the temporary files of an earlier call that was killed."""
    for name in (IMAGES_FILE, REGIONS_FILE, DATASET_FILE, "pixels-*.u8"):
        for leftover in out.glob(f".{name}.*"):
            leftover.unlink()


def _decode_all(
    radiographs: Sequence[Radiograph],
    target: Path,
    size: int,
    workers: int | None,
    progress: Progress | None,
) -> list[_Film]:
    """Decode every image into the file `target`, in threads (decoding frees the interpreter)."""
    if hasattr(os, "posix_fallocate"):
        # on a full disk a mapped file without its blocks would end the process, not raise
        with target.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, len(radiographs) * size * size)
    mode: Literal["r+", "w+"] = "r+" if target.stat().st_size else "w+"
    pixels = np.memmap(target, np.uint8, mode, shape=(len(radiographs), size, size))

    def decode(index: int) -> _Film:
        one = radiographs[index]
        try:
            content = read_content(one.path, one.shown)
            grey = decode_grey(content, one.shown)
        except ImageError as fault:
            return _Film(fault=str(fault))
        pixels[index] = resize(grey, size)
        height, width = grey.shape
        return _Film(sha256(content).hexdigest(), (width, height), is_constant(grey))

    films = []
    pool = ThreadPoolExecutor(workers or _usable_cores())
    try:
        with _shown(progress) as show:
            for film in pool.map(decode, range(len(radiographs))):
                films.append(film)
                show(len(films), len(radiographs))
    finally:
        pool.shutdown(cancel_futures=True)
    pixels.flush()
    return films


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _shown(progress: Progress | None) -> Iterator[Progress]:
    """The caller's progress, a bar on a terminal, or a line for every tenth in a log."""
    if progress is not None:
        yield progress
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress as Bars

        with Bars(console=Console(stderr=True)) as bars:
            task = bars.add_task("Preparing images", total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
    else:

        def line(done: int, total: int) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                print(f"prepared {done} of {total} images", file=sys.stderr, flush=True)

        yield line


def _checked(
    name: str,
    radiographs: Sequence[Radiograph],
    films: Sequence[_Film],
    splits: Sequence[str],
    findings: Sequence[str],
    strict: bool,
) -> tuple[list[tuple[Region, ...]], list[str]]:
    """The regions of every image in its own pixels, and warnings; stops at faults, all listed."""
    image_faults = [film.fault for film in films if film.fault is not None]
    warnings = [
        f"{one.shown}: every pixel is the same; drop it if it is a failed export"
        for one, film in zip(radiographs, films, strict=True)
        if film.constant
    ]
    faults, repeated = _repeated_images(radiographs, films, splits)
    warnings += repeated
    warnings += _stretched(radiographs, films)
    regions = []
    for one, film in zip(radiographs, films, strict=True):
        placed: tuple[Region, ...] = ()
        if film.fault is None:
            placed, bad, clipped = _placed(one, film.frame, findings)
            faults += bad
            warnings += clipped
        regions.append(placed)
    if strict:
        faults += warnings
    if faults or image_faults:
        kind = DataError if faults else ImageError
        raise _all_faults(name, [*image_faults, *faults], kind)
    return regions, warnings


def _repeated_images(
    radiographs: Sequence[Radiograph], films: Sequence[_Film], splits: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Identical files: a fault when they are in two splits, else a warning."""
    faults, warnings = [], []
    first: dict[str, int] = {}
    for index, film in enumerate(films):
        if film.fault is not None:
            continue
        other = first.setdefault(film.sha256, index)
        if other == index:
            continue
        pair = f"{radiographs[index].shown}: the same file as {radiographs[other].shown}"
        if splits[other] == splits[index]:
            warnings.append(f"{pair}; drop one of them")
        else:
            faults.append(
                f"{pair}, but they are in the splits {splits[index]} and {splits[other]}; "
                f"put them into one or drop one"
            )
    return faults, warnings


def _stretched(radiographs: Sequence[Radiograph], films: Sequence[_Film]) -> list[str]:
    """A warning when regions are given for frames of other proportions than their files."""
    named = [
        f"{one.image_id!r} ({one.region_frame[0]}×{one.region_frame[1]}, file "
        f"{film.frame[0]}×{film.frame[1]})"
        for one, film in zip(radiographs, films, strict=True)
        if film.fault is None and one.regions and one.region_frame is not None
        if not _alike(one.region_frame, film.frame)
    ]
    if not named:
        return []
    return [
        f"{len(named)} images have regions for other proportions than their files (squeezed, "
        f"turned or cropped?), which were stretched: {listed(named)}"
    ]


def _placed(
    one: Radiograph, frame: Frame, findings: Sequence[str]
) -> tuple[tuple[Region, ...], list[str], list[str]]:
    """Regions of the chosen findings in pixels of the image; faults; warnings."""
    placed, faults, warnings = [], [], []
    for number, region in enumerate(one.regions, start=1):
        if region.finding not in findings:
            continue
        where = f"image {one.image_id!r}, region {number} ({region.finding})"
        shape = region.shape
        if fault := fault_of(shape):
            faults.append(f"{where}: {fault}; correct or drop it")
            continue
        given = one.region_frame or frame
        if isinstance(shape, Mask) and (shape.width, shape.height) != given:
            faults.append(
                f"{where}: mask of {shape.width}×{shape.height} on an image of "
                f"{given[0]}×{given[1]}; give the mask in the image's size"
            )
            continue
        inside = clip(shape, given)
        if inside is None:
            faults.append(f"{where}: lies wholly outside the {given[0]}×{given[1]} image")
            continue
        if not is_inside(shape, given):
            warnings.append(f"{where}: reached out of the {given[0]}×{given[1]} image; clipped")
        scaled = scale(inside, given, frame)
        if not covers_anything(scaled, frame):
            warnings.append(f"{where}: smaller than a pixel of the image; dropped")
            continue
        placed.append(Region(region.finding, scaled, region.annotator, region.kind))
    return tuple(placed), faults, warnings


def _alike(one: Frame, two: Frame) -> bool:
    """Whether two frames have the same proportions, but for rounding."""
    return abs(one[0] * two[1] / (one[1] * two[0]) - 1) <= _PROPORTION_TOLERANCE


def _write_tables(
    out: Path,
    name: str,
    radiographs: Sequence[Radiograph],
    films: Sequence[_Film],
    splits: Sequence[str],
    regions: Sequence[tuple[Region, ...]],
    findings: Sequence[str],
) -> None:
    has_text = any(one.text for one in radiographs)
    rows = []
    images = []
    for one, film, split, drawn in zip(radiographs, films, splits, regions, strict=True):
        width, height = film.frame
        original = one.alias or str(one.path.absolute())
        row: dict[str, Any] = {
            "image_id": one.image_id,
            "patient_id": one.patient_id,
            "split": split,
            "source": original,
            "sha256": film.sha256,
            "width": width,
            "height": height,
        }
        if has_text:
            row["text"] = one.text
        for finding in findings:
            row[finding] = int(one.labels[finding]) if finding in one.labels else None
        rows.append(row)
        images.append(
            AnnotatedImage(one.image_id, original, width, height, one.patient_id, split, drawn)
        )
    text_column = ("text",) if has_text else ()
    write_csv(out / IMAGES_FILE, (*IMAGE_COLUMNS, *text_column, *findings), rows)
    write_json(out / REGIONS_FILE, to_coco(images, findings, name))


def _counts(
    radiographs: Sequence[Radiograph],
    splits: Sequence[str],
    regions: Sequence[tuple[Region, ...]],
    findings: Sequence[str],
) -> dict[str, Any]:
    """Images, patients and, per finding, labels and regions of every split."""
    counts: dict[str, Any] = {}
    for split in SPLITS:
        members = [index for index, its in enumerate(splits) if its == split]
        ones = [radiographs[index] for index in members]
        counts[split] = {
            "images": len(ones),
            "patients": len({one.patient_id for one in ones}),
            "findings": {
                finding: {
                    "present": sum(one.labels.get(finding) is True for one in ones),
                    "absent": sum(one.labels.get(finding) is False for one in ones),
                    "not_assessed": sum(finding not in one.labels for one in ones),
                    "images_with_region": sum(
                        any(region.finding == finding for region in regions[index])
                        for index in members
                    ),
                }
                for finding in findings
            },
        }
    return counts
