"""Turning a data set into a DATA folder: decoded and resized once, checked, written whole.

Memory grows with the rows, little, and not with the pixels: a few images are decoded at a time and
tables are written row by row. Besides its record, some 150 bytes are kept of an image while they
are decoded, 430 while they are compared, and 700 at the end, when the data are opened.
"""

import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dwarf_cxr.data.coco import AnnotatedImage, coco_parts
from dwarf_cxr.data.draft import Draft, Film, open_draft, stamp_of
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
from dwarf_cxr.files import exclusive, sha256_of, sync_folder, write_csv, write_json
from dwarf_cxr.findings import select
from dwarf_cxr.json_stream import write_json_object
from dwarf_cxr.parallel import in_order, usable_cores
from dwarf_cxr.progress import Count, shown_count

LARGEST_SIZE = 8192
"""Of a side of the prepared images, in pixels; far beyond any encoder's."""

WORTH_KEEPING = 60
"""Seconds of decoding after which the images decoded so far are kept when there are faults."""

AHEAD = 4
"""Images per worker that are decoded before they are asked for."""

_MOST_FAULTS_SHOWN = 50
_LONGEST_FIELD = 100_000
"""Letters of a text that a CSV reader still takes."""
_PROPORTION_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class _Checked:
    """What came of the regions and the images' contents."""

    regions: Mapping[int, tuple[Region, ...]]
    """Of each image that has any, by its index, in pixels of its file."""
    faults: Sequence[str]
    warnings: Sequence[str]


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
    progress: Count | None = None,
) -> PreparedData:
    """Decode, resize, split and write `source` to the folder `out`, and open it.

    `findings` restricts and orders the findings; `seed` makes the splits where neither `source`
    nor `splits_csv` gives them. Regions outside their image are clipped and noted; with `strict`
    they are faults, as are blank images and images that occur twice. `progress` replaces the
    progress shown on standard error. The data in `out` are replaced only when everything was
    found in order, and dataset.json is written last, so that an interrupted call is never taken
    for a whole one. What an interrupted call decoded is kept (`dwarf_cxr.data.draft`), and so it
    is where decoding took long before faults were found: the next call continues there.

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
        _write_data(
            out,
            source,
            chosen,
            splits,
            split_notes,
            size,
            workers,
            strict=strict,
            progress=progress,
        )
    return PreparedData.open(out)


def _write_data(
    out: Path,
    source: SourceSet,
    findings: Sequence[str],
    splits: Sequence[str],
    split_notes: Sequence[str],
    size: int,
    workers: int | None,
    *,
    strict: bool,
    progress: Count | None,
) -> None:
    """Write the files of the DATA folder `out`, whose lock is held."""
    started = time.monotonic()
    radiographs = source.radiographs
    paths = (one.path for one in radiographs)
    # The old data stay in force until all is decoded, checked and written beside them.
    with open_draft(out, paths, len(radiographs), size, _say) as draft:
        image_faults, pixels_sha256 = _decode_all(radiographs, draft, workers, progress)
        checked = _check(radiographs, draft.films, splits, findings)
        faults = [*checked.faults, *(checked.warnings if strict else ())]
        if image_faults or faults:
            long = draft.already > 0 or time.monotonic() - started > WORTH_KEEPING
            if not long:
                draft.discard()
            kind = DataError if faults else ImageError
            kept = draft.folder if long else None
            raise _all_faults(source.name, [*image_faults, *faults], kind, kept)
        images, regions = draft.folder / IMAGES_FILE, draft.folder / REGIONS_FILE
        _write_images(images, radiographs, draft.films, splits, findings)
        annotated = (radiographs, draft.films, splits, checked.regions)
        write_json_object(
            regions, coco_parts(lambda: _annotated(*annotated), findings, source.name)
        )
        draft.sync()
        hashes = {
            IMAGES_FILE: sha256_of(images),
            REGIONS_FILE: sha256_of(regions),
            pixels_file(size): pixels_sha256,
        }
        # From here to the last line the folder has no dataset.json, so it is nobody's.
        (out / DATASET_FILE).unlink(missing_ok=True)
        for stale in out.glob("pixels-*.u8"):
            stale.unlink()
        for name in hashes:
            os.replace(draft.folder / name, out / name)
        sync_folder(out)
        write_json(
            out / DATASET_FILE,
            {
                "name": source.name,
                "patients_of": source.patients_of or source.name,
                "format": FORMAT,
                "findings": list(findings),
                "harmonised": {name: list(shown) for name, shown in source.harmonised.items()},
                "source": source.source,
                "licence": source.licence,
                "citation": source.citation,
                "size": size,
                "counts": _counts(radiographs, splits, checked.regions, findings),
                "notes": [*source.notes, *split_notes, *checked.warnings],
                "sha256": hashes,
            },
        )
        draft.discard()


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


def _all_faults(
    name: str, faults: Sequence[str], kind: type[DwarfError], kept: Path | None = None
) -> DwarfError:
    shown = [f"  {fault}" for fault in faults[:_MOST_FAULTS_SHOWN]]
    if len(faults) > len(shown):
        shown.append(f"  … and {len(faults) - len(shown)} more")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    if kept is None:
        return kind("\n".join([f"{name}: {count}; nothing was written", *shown]))
    shown.append(
        f"  images that are in order stay decoded in {kept}: mend, and give the command again"
    )
    return kind("\n".join([f"{name}: {count}; no data were prepared", *shown]))


def _remove_leftovers(out: Path) -> None:
    """Drop the temporary files of an earlier call that was killed."""
    for name in (IMAGES_FILE, REGIONS_FILE, DATASET_FILE, "pixels-*.u8"):
        for leftover in out.glob(f".{name}.*"):
            leftover.unlink()


def _say(what: str) -> None:
    """Tell the person at the terminal."""
    print(what, file=sys.stderr, flush=True)


def _decode_all(
    radiographs: Sequence[Radiograph], draft: Draft, workers: int | None, progress: Count | None
) -> tuple[list[str], str]:
    """Decode what the draft lacks, in threads; the images' faults and the SHA-256 of all pixels.

    Decoding frees the interpreter, so that threads decode in parallel.
    """
    workers = workers or usable_cores()
    outcomes = in_order(
        lambda index: _decode(radiographs[index], index, draft),
        range(len(radiographs)),
        workers=workers,
        ahead=AHEAD * workers,
    )
    if progress is None and draft.already:
        _say(f"continuing: {draft.already:,} of {len(radiographs):,} images were decoded before")
    faults, pixels_sha256 = [], sha256()
    with (
        closing(outcomes),  # no thread may write when the draft is closed
        shown_count(progress, "Preparing images", "prepared {done} of {total} images") as count,
    ):
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, str):
                faults.append(outcome)
            else:
                pixels, film = outcome
                if film is not None:
                    draft.record(index, film)
                pixels_sha256.update(pixels.tobytes())
            count(index + 1, len(radiographs))
    return faults, pixels_sha256.hexdigest()


def _decode(
    one: Radiograph, index: int, draft: Draft
) -> tuple[UInt8[np.ndarray, "size size"], Film | None] | str:
    """An image's pixels, written to the draft, and its film if the draft lacks it; or its fault."""
    # taken before the file is read: what changes meanwhile is decoded again by a later call
    stamp = stamp_of(one.path)
    kept = draft.decoded_before(index, stamp)
    if kept is not None:
        return kept, None
    try:
        content = read_content(one.path, one.shown)
        grey = decode_grey(content, one.shown)
    except ImageError as fault:
        return str(fault)
    pixels = resize(grey, draft.size)
    height, width = grey.shape
    return pixels, Film(
        *stamp,
        sha256=sha256(content).hexdigest(),
        width=width,
        height=height,
        blank=is_constant(grey),
        checksum=draft.write(index, pixels),
    )


def _check(
    radiographs: Sequence[Radiograph],
    films: np.ndarray,
    splits: Sequence[str],
    findings: Sequence[str],
) -> _Checked:
    """The regions of every decoded image in its own pixels; blank and repeated images."""
    warnings = [
        f"{radiographs[index].shown}: every pixel is the same; drop it if it is a failed export"
        for index in np.flatnonzero(films["decoded"] & films["blank"]).tolist()
    ]
    faults, repeated = _repeated_images(radiographs, films, splits)
    warnings += repeated
    warnings += _stretched(radiographs, films)
    regions = {}
    for index, one in enumerate(radiographs):
        if one.regions and films["decoded"][index]:
            placed, bad, clipped = _placed(one, _frame(films[index]), findings)
            faults += bad
            warnings += clipped
            if placed:
                regions[index] = placed
    return _Checked(regions, faults, warnings)


def _repeated_images(
    radiographs: Sequence[Radiograph], films: np.ndarray, splits: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Identical files: a fault when they are in two splits, else a warning."""
    faults, warnings = [], []
    decoded = np.flatnonzero(films["decoded"])
    _, first, kind = np.unique(films["sha256"][decoded], return_index=True, return_inverse=True)
    originals = decoded[first[kind]]
    repeated = originals != decoded
    for index, other in zip(decoded[repeated], originals[repeated], strict=True):
        pair = f"{radiographs[index].shown}: the same file as {radiographs[other].shown}"
        if splits[other] == splits[index]:
            warnings.append(f"{pair}; drop one of them")
        else:
            faults.append(
                f"{pair}, but they are in the splits {splits[index]} and {splits[other]}; "
                f"put them into one or drop one"
            )
    return faults, warnings


def _stretched(radiographs: Sequence[Radiograph], films: np.ndarray) -> list[str]:
    """A warning when regions are given for frames of other proportions than their files."""
    named = []
    for one, film in zip(radiographs, films, strict=True):
        if film["decoded"] and one.regions and one.region_frame is not None:
            frame = _frame(film)
            if not _alike(one.region_frame, frame):
                named.append(
                    f"{one.image_id!r} ({one.region_frame[0]}×{one.region_frame[1]}, file "
                    f"{frame[0]}×{frame[1]})"
                )
    if not named:
        return []
    return [
        f"{len(named)} images have regions for other proportions than their files (squeezed, "
        f"turned or cropped?), which were stretched: {listed(named)}"
    ]


def _frame(film: np.void) -> Frame:
    return int(film["width"]), int(film["height"])


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
        # the record's own where nothing changed, so that it is in memory once
        same = scaled is shape
        placed.append(region if same else dataclasses.replace(region, shape=scaled))
    return tuple(placed), faults, warnings


def _alike(one: Frame, two: Frame) -> bool:
    """Whether two frames have the same proportions, but for rounding."""
    return abs(one[0] * two[1] / (one[1] * two[0]) - 1) <= _PROPORTION_TOLERANCE


def _write_images(
    path: Path,
    radiographs: Sequence[Radiograph],
    films: np.ndarray,
    splits: Sequence[str],
    findings: Sequence[str],
) -> None:
    text = ("text",) if any(one.text for one in radiographs) else ()

    def rows() -> Iterator[dict[str, Any]]:
        for one, film, split in zip(radiographs, films, splits, strict=True):
            row: dict[str, Any] = {
                "image_id": one.image_id,
                "patient_id": one.patient_id,
                "split": split,
                "source": _original(one),
                "sha256": film["sha256"].decode(),
                "width": film["width"],
                "height": film["height"],
            }
            if text:
                row["text"] = one.text
            for finding in findings:
                row[finding] = int(one.labels[finding]) if finding in one.labels else None
            yield row

    write_csv(path, (*IMAGE_COLUMNS, *text, *findings), rows())


def _annotated(
    radiographs: Sequence[Radiograph],
    films: np.ndarray,
    splits: Sequence[str],
    regions: Mapping[int, tuple[Region, ...]],
) -> Iterator[AnnotatedImage]:
    for index, one in enumerate(radiographs):
        width, height = _frame(films[index])
        yield AnnotatedImage(
            image_id=one.image_id,
            file_name=_original(one),
            width=width,
            height=height,
            patient_id=one.patient_id,
            split=splits[index],
            regions=regions.get(index, ()),
        )


def _original(one: Radiograph) -> str:
    """The file as tables name it."""
    return one.alias or str(one.path.absolute())


def _counts(
    radiographs: Sequence[Radiograph],
    splits: Sequence[str],
    regions: Mapping[int, tuple[Region, ...]],
    findings: Sequence[str],
) -> dict[str, Any]:
    """Images, patients and, per finding, labels and regions of every split."""
    images = Counter(splits)
    patients: dict[str, set[str]] = {split: set() for split in SPLITS}
    labelled: Counter[tuple[str, str, bool]] = Counter()
    with_region: Counter[tuple[str, str]] = Counter()
    for index, (one, split) in enumerate(zip(radiographs, splits, strict=True)):
        patients[split].add(one.patient_id)
        labelled.update((split, finding, bool(label)) for finding, label in one.labels.items())
        drawn = {one.finding for one in regions.get(index, ()) if one.kind == "expert"}
        with_region.update((split, finding) for finding in drawn)
    return {
        split: {
            "images": images[split],
            "patients": len(patients[split]),
            "findings": {
                finding: {
                    "present": (present := labelled[split, finding, True]),
                    "absent": (absent := labelled[split, finding, False]),
                    "not_assessed": images[split] - present - absent,
                    "images_with_region": with_region[split, finding],
                }
                for finding in findings
            },
        }
        for split in SPLITS
    }
