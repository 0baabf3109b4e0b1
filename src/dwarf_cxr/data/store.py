"""A prepared data set: what the files of a DATA folder hold, read once and never changed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from dwarf_cxr.data.coco import shapes_from_coco
from dwarf_cxr.data.geometry import coverage
from dwarf_cxr.data.records import Region
from dwarf_cxr.data.rows import Table, read_table
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json, sha256_of
from dwarf_cxr.findings import select

FORMAT = "dwarf-data-1"
DATASET_FILE = "dataset.json"
IMAGES_FILE = "images.csv"
REGIONS_FILE = "regions.json"

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
    """Regions, in pixels of the original image, of each image that has any, by its index."""

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
            name, hashes = str(dataset["name"]), dict(dataset["sha256"])
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
        table = read_table(folder / IMAGES_FILE, required=(*IMAGE_COLUMNS, *findings))
        records = [row.fields for row in table.rows]
        document = read_json(folder / REGIONS_FILE)
        pixels = _open_pixels(folder / pixels_file(size), len(records), size, remedy)
        return cls(
            folder=folder,
            name=name,
            size=size,
            findings=findings,
            image_ids=tuple(record["image_id"] for record in records),
            patient_ids=tuple(record["patient_id"] for record in records),
            sources=tuple(record["source"] for record in records),
            splits=tuple(record["split"] for record in records),
            widths=np.array([record["width"] for record in records], dtype=np.int64),
            heights=np.array([record["height"] for record in records], dtype=np.int64),
            labels=_labels(table, findings),
            texts=tuple(record.get("text") or None for record in records),
            pixels=pixels,
            fingerprint=_fingerprint(records, document["annotations"], pixels_hash),
            notes=notes,
            regions_by_image=_regions(document, folder / REGIONS_FILE, len(records)),
        )

    def restrict(self, findings: Sequence[str]) -> "PreparedData":
        """The same images with a subset of the findings, in the order given.

        Raises:
            ConfigError: a finding is unknown or given twice.
        """
        wanted = select(findings, self.findings, where=str(self.folder))
        columns = [self.findings.index(finding) for finding in wanted]
        return dataclasses.replace(self, findings=wanted, labels=self.labels[:, columns])

    def indices(self, split: str) -> Int64[np.ndarray, "chosen"]:
        """Indices of the images of a split, in order; empty when there are none."""
        return np.flatnonzero(np.array(self.splits, dtype=object) == split).astype(np.int64)

    def regions(self, index: int | np.integer, finding: str) -> tuple[Region, ...]:
        """The regions of a finding in an image, in pixels of the original image."""
        drawn = self.regions_by_image.get(int(index), ())
        return tuple(region for region in drawn if region.finding == finding)

    def has_region(self) -> Bool[np.ndarray, "image finding"]:
        """Whether each finding has a region in each image."""
        has = np.zeros((len(self.image_ids), len(self.findings)), dtype=bool)
        column = {finding: number for number, finding in enumerate(self.findings)}
        for index, regions in self.regions_by_image.items():
            for region in regions:
                if region.finding in column:
                    has[index, column[region.finding]] = True
        return has

    def coverage(
        self, index: int | np.integer, finding: str, size: int
    ) -> Float32[np.ndarray, "{size} {size}"]:
        """The share of each cell of a size×size grid that the union of the regions covers."""
        frame = (int(self.widths[index]), int(self.heights[index]))
        return coverage(self.regions(index, finding), frame, size)


def _fingerprint(
    records: Sequence[Mapping[str, str]], annotations: Sequence[Any], pixels_sha256: str
) -> str:
    rows = [[value for key, value in record.items() if key != "source"] for record in records]
    content = json.dumps([rows, annotations, pixels_sha256], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _has_leftovers(folder: Path) -> bool:
    return (folder / IMAGES_FILE).exists() or any(folder.glob("*pixels-*.u8"))


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


def _labels(table: Table, findings: Sequence[str]) -> Float32[np.ndarray, "image finding"]:
    labels = np.empty((len(table.rows), len(findings)), dtype=np.float32)
    for index, row in enumerate(table.rows):
        for column, finding in enumerate(findings):
            written = row.fields[finding]
            if written not in LABELS:
                raise DataError(
                    f"{table.path}, line {row.line}, column {finding!r}: label {written!r}; "
                    f"write 1, 0 or nothing"
                )
            labels[index, column] = LABELS[written]
    return labels


def _regions(document: Any, path: Path, images: int) -> dict[int, tuple[Region, ...]]:
    """Regions by index of the image; the images stand in the order of images.csv."""
    names = {category["id"]: category["name"] for category in document["categories"]}
    if len(document["images"]) != images:
        raise DataError(
            f"{path}: {len(document['images'])} images where {IMAGES_FILE} lists {images}; "
            f"prepare the data again with `dwarf data prepare`"
        )
    index_of = {image["id"]: index for index, image in enumerate(document["images"])}
    found: dict[int, list[Region]] = {}
    for annotation in document["annotations"]:
        where = f"{path}, annotation {annotation['id']}"
        found.setdefault(index_of[annotation["image_id"]], []).extend(
            Region(
                names[annotation["category_id"]],
                shape,
                annotation["annotator"],
                annotation["kind"],
            )
            for shape in shapes_from_coco(annotation, where)
        )
    return {index: tuple(regions) for index, regions in found.items()}
