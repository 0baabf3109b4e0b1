"""A prepared data set: what the files of a DATA folder hold, read once and never changed."""

import dataclasses
import hashlib
import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from dwarf_cxr.config import RegionSource
from dwarf_cxr.data.coco import shapes_from_coco
from dwarf_cxr.data.geometry import coverage
from dwarf_cxr.data.records import Region, RegionKind, Shape
from dwarf_cxr.data.rows import iterate_rows
from dwarf_cxr.data.splits import file_hash
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json, sha256_of
from dwarf_cxr.findings import select
from dwarf_cxr.json_stream import read_json_object

FORMAT = "dwarf-data-1"
DATASET_FILE = "dataset.json"
IMAGES_FILE = "images.csv"
REGIONS_FILE = "regions.json"
DRAFT_FOLDER = ".draft"
"""Where `dwarf data prepare` keeps what it has decoded until all is."""

IMAGE_COLUMNS = ("image_id", "patient_id", "split", "source", "sha256", "width", "height")
"""The columns of images.csv before `text`, if any, and the findings."""

LABELS: Mapping[str, float] = {"1": 1.0, "0": 0.0, "": float("nan")}
"""What a label is written as: present, absent, never assessed."""


def pixels_file(size: int) -> str:
    """Name of the file of pixels of size×size images."""
    return f"pixels-{size}.u8"


@dataclass(frozen=True, eq=False)
class PreparedData:
    """One DATA folder; all sequences are in the order of images.csv.

    `sources` are the original files, `widths` and `heights` theirs; `labels` are 1, 0 or NaN
    (never assessed); `fingerprint` hashes all that a result can depend on, and so not where the
    original files lie.
    """

    folder: Path
    name: str
    size: int
    findings: tuple[str, ...]
    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    sources: tuple[str, ...]
    splits: tuple[str, ...]
    widths: Int64[np.ndarray, "image"]
    heights: Int64[np.ndarray, "image"]
    labels: Float32[np.ndarray, "image finding"]
    texts: tuple[str | None, ...]
    pixels: UInt8[np.ndarray, "image size size"]
    fingerprint: str
    notes: tuple[str, ...]
    """What the user should know: clipped regions, blank films, how the splits were made, …"""
    regions_by_image: Mapping[int, tuple[Region, ...]]
    """All regions, in pixels of the original image, of each image that has any, by its index; which
    of them count is for `regions` to say."""
    patients_of: str
    """Within what the patient ids are known: the set, or the one it shares its patients with."""
    harmonised: Mapping[str, tuple[str, ...]] | None
    """The set's own names and what a label map made of them at preparing; empty where findings
    bear the set's own names, None where an older version did not write it down."""
    file_hashes: Int64[np.ndarray, "image"]
    """The first 64 bits of each original file's SHA-256; 0 where images.csv has none."""
    region_source: RegionSource = "expert"
    """Whose regions `regions`, `has_region` and `coverage` tell: the experts', unless other ones
    were asked for by `with_regions`."""

    @classmethod
    def open(cls, folder: Path) -> "PreparedData":
        """Open a folder that `dwarf data prepare` wrote.

        The tables are checked against their SHA-256, the pixels against their size (`dwarf data
        check` compares those too).

        Raises:
            DataError: a file is missing, half-written, changed since, or of another format.
        """
        folder = Path(folder)
        remedy = "prepare the data again with `dwarf data prepare`"
        if not (folder / DATASET_FILE).is_file():
            state = "was not prepared to the end" if _has_leftovers(folder) else "is not there"
            raise DataError(f"{folder / DATASET_FILE} is missing: the data {state}; {remedy}")
        dataset = read_json(folder / DATASET_FILE)
        if not isinstance(dataset, dict) or dataset.get("format") != FORMAT:
            raise DataError(f"{folder / DATASET_FILE}: not of the format {FORMAT}; {remedy}")
        try:
            size, findings = int(dataset["size"]), tuple(map(str, dataset["findings"]))
            name = str(dataset["name"])
            patients_of = str(dataset.get("patients_of", name))
            harmonised = dataset.get("harmonised")
            if harmonised is not None:
                harmonised = {name: tuple(shown) for name, shown in dict(harmonised).items()}
            hashes = dict(dataset["sha256"])
            pixels_hash = hashes[pixels_file(size)]
            notes = tuple(map(str, dataset.get("notes", ())))
        except (KeyError, TypeError, ValueError) as fault:
            raise DataError(
                f"{folder / DATASET_FILE}: the field {fault} is missing or wrong; {remedy}"
            ) from None
        for file in (IMAGES_FILE, REGIONS_FILE):
            if not (folder / file).is_file():
                raise DataError(f"{folder / file}: missing; {remedy}")
            if sha256_of(folder / file) != hashes.get(file):
                raise DataError(
                    f"{folder / file}: changed since it was prepared (its SHA-256 is not that in "
                    f"{DATASET_FILE}); {remedy}"
                )
        fingerprint = _Fingerprint()
        fingerprint.add(findings)
        images = _read_images(folder / IMAGES_FILE, findings, fingerprint)
        regions = _read_regions(folder / REGIONS_FILE, len(images.ids), fingerprint)
        fingerprint.add(pixels_hash)
        return cls(
            folder=folder,
            name=name,
            size=size,
            findings=findings,
            image_ids=tuple(images.ids),
            patient_ids=tuple(images.patients),
            sources=tuple(images.sources),
            splits=tuple(images.splits),
            widths=np.array(images.widths, dtype=np.int64),
            heights=np.array(images.heights, dtype=np.int64),
            labels=np.array(images.labels).reshape(-1, len(findings)),
            texts=tuple(images.texts),
            pixels=_open_pixels(folder / pixels_file(size), len(images.ids), size, remedy),
            fingerprint=fingerprint.hexdigest(),
            notes=notes,
            regions_by_image=regions,
            patients_of=patients_of,
            harmonised=harmonised,
            file_hashes=np.array(images.hashes, dtype=np.int64),
        )

    def restrict(self, findings: Sequence[str]) -> "PreparedData":
        """The same images with a subset of the findings, in the order given.

        Raises:
            ConfigError: a finding is unknown or given twice.
        """
        wanted = select(findings, self.findings, where=str(self.folder))
        columns = [self.findings.index(finding) for finding in wanted]
        return dataclasses.replace(self, findings=wanted, labels=self.labels[:, columns])

    def with_regions(self, source: RegionSource) -> "PreparedData":
        """The same images with other regions in force: "expert", "pseudo" or "both".

        "both" takes the teachers' only for a finding that no expert marked in the image.
        """
        return dataclasses.replace(self, region_source=source)

    def indices(self, split: str) -> Int64[np.ndarray, "chosen"]:
        """Indices of the images of a split, in order; empty when there are none."""
        return np.flatnonzero(np.array(self.splits, dtype=object) == split).astype(np.int64)

    def regions(self, index: int | np.integer, finding: str) -> tuple[Region, ...]:
        """The regions in force of a finding in an image, in pixels of the original image."""
        drawn = self.regions_by_image.get(int(index), ())
        its = tuple(region for region in drawn if region.finding == finding)
        if self.region_source == "both":
            return tuple(one for one in its if one.kind == "expert") or its
        return tuple(one for one in its if one.kind == self.region_source)

    def has_region(self) -> Bool[np.ndarray, "image finding"]:
        """Whether each finding has a region in force in each image."""
        has = np.zeros((len(self.image_ids), len(self.findings)), dtype=bool)
        column = {finding: number for number, finding in enumerate(self.findings)}
        for index, regions in self.regions_by_image.items():
            for region in regions:
                counts = self.region_source in ("both", region.kind)
                if counts and region.finding in column:
                    has[index, column[region.finding]] = True
        return has

    def coverage(
        self, index: int | np.integer, finding: str, size: int
    ) -> Float32[np.ndarray, "{size} {size}"]:
        """The share of each cell of a size×size grid that the union of the regions in force covers.

        Zeros where there is none.
        """
        frame = (int(self.widths[index]), int(self.heights[index]))
        return coverage(self.regions(index, finding), frame, size)


class _Fingerprint:
    """The SHA-256 of contents added one after the other, each as a line of JSON."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, content: Any) -> None:
        self._digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _has_leftovers(folder: Path) -> bool:
    begun = (folder / IMAGES_FILE).exists() or (folder / DRAFT_FOLDER).exists()
    return begun or any(folder.glob("*pixels-*.u8"))


def _open_pixels(
    path: Path, images: int, size: int, remedy: str
) -> UInt8[np.ndarray, "{images} {size} {size}"]:
    if not path.is_file():
        raise DataError(f"{path}: missing; {remedy}")
    expected, found = images * size * size, path.stat().st_size
    if found != expected:
        raise DataError(
            f"{path}: holds {found} bytes where {images} images of {size}×{size} need {expected}; "
            f"{remedy}"
        )
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(images, size, size))


@dataclass(frozen=True, slots=True)
class _Images:
    """The columns of images.csv."""

    ids: list[str]
    patients: list[str]
    splits: list[str]
    sources: list[str]
    texts: list[str | None]
    widths: array
    heights: array
    labels: array
    """Row by row."""
    hashes: array


def _read_images(path: Path, findings: Sequence[str], fingerprint: _Fingerprint) -> _Images:
    """images.csv, a row at a time; every row is added to `fingerprint`, but for its source."""
    images = _Images([], [], [], [], [], array("q"), array("q"), array("f"), array("q"))
    columns, rows = iterate_rows(path, required=(*IMAGE_COLUMNS, *findings))
    place = {name: number for number, name in enumerate(columns)}
    source = place["source"]
    labels = [place[finding] for finding in findings]
    known: dict[str, str] = {}
    for line, cells in rows:
        images.ids.append(cells[place["image_id"]])
        # patients and splits come again and again: one text of each is enough
        for name, column in (("patient_id", images.patients), ("split", images.splits)):
            cell = cells[place[name]]
            column.append(known.setdefault(cell, cell))
        images.sources.append(cells[source])
        try:
            images.hashes.append(file_hash(cells[place["sha256"]]))
        except ValueError:
            raise DataError(
                f"{path}, line {line}: {cells[place['sha256']]!r} is no SHA-256; "
                "prepare the data again with `dwarf data prepare`"
            ) from None
        images.texts.append((cells[place["text"]] or None) if "text" in place else None)
        for name, side in (("width", images.widths), ("height", images.heights)):
            if not cells[place[name]].isdecimal():
                raise DataError(
                    f"{path}, line {line}, column {name!r}: {cells[place[name]]!r} is no number "
                    f"of pixels"
                )
            side.append(int(cells[place[name]]))
        for finding, number in zip(findings, labels, strict=True):
            written = cells[number]
            if written not in LABELS:
                raise DataError(
                    f"{path}, line {line}, column {finding!r}: label {written!r}; "
                    f"write 1, 0 or nothing"
                )
            images.labels.append(LABELS[written])
        fingerprint.add([*cells[:source], *cells[source + 1 :]])
    return images


def _read_regions(
    path: Path, images: int, fingerprint: _Fingerprint
) -> dict[int, tuple[Region, ...]]:
    """Regions by index of the image, an annotation at a time; all are added to `fingerprint`.

    The images stand in the order of images.csv.
    """
    names: dict[Any, str] = {}
    index_of: dict[Any, int] = {}
    drawn: dict[int, list[tuple[Any, Shape, str, RegionKind]]] = {}
    try:
        for key, part in read_json_object(path):
            if key == "images":
                index_of = {image["id"]: index for index, image in enumerate(part)}
            elif key == "categories":
                names = {category["id"]: category["name"] for category in part}
            elif key == "annotations":
                for entry in part:
                    fingerprint.add(entry)
                    shapes = shapes_from_coco(entry, f"{path}, annotation {entry['id']}")
                    annotator, kind = sys.intern(entry["annotator"]), entry["kind"]
                    if kind not in get_args(RegionKind):
                        # neither kind: it would never count, and nobody would know
                        raise DataError(
                            f"{path}, annotation {entry['id']}: kind {kind!r}; write 'expert' or "
                            "'pseudo'"
                        )
                    drawn.setdefault(index_of[entry["image_id"]], []).extend(
                        (entry["category_id"], shape, annotator, kind) for shape in shapes
                    )
        if len(index_of) == images:
            # categories come last in the file, and so names are known only now
            return {
                index: tuple(
                    Region(names[category], shape, annotator, kind)
                    for category, shape, annotator, kind in its
                )
                for index, its in drawn.items()
            }
    except (KeyError, TypeError) as fault:
        raise DataError(
            f"{path}: the field {fault} is missing or wrong; "
            f"prepare the data again with `dwarf data prepare`"
        ) from None
    raise DataError(
        f"{path}: {len(index_of)} images where {IMAGES_FILE} lists {images}; "
        f"prepare the data again with `dwarf data prepare`"
    )
