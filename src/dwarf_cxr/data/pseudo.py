"""A DATA folder written anew, with regions that teachers drew beside the clinicians'.

Images, labels, splits and pixels stay what they are; a pseudo region is an annotation of
regions.json whose `kind` is "pseudo", which counts only where it is asked for
(`PreparedData.with_regions`). It says who drew it (`annotator`) and how well that teacher draws
(`teacher_dice`).
"""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwarf_cxr.data.coco import shape_to_coco
from dwarf_cxr.data.records import Finding, Mask
from dwarf_cxr.data.store import (
    DATASET_FILE,
    IMAGES_FILE,
    REGIONS_FILE,
    PreparedData,
    pixels_file,
)
from dwarf_cxr.errors import DataError
from dwarf_cxr.files import read_json, sha256_of, sync_folder, write_bytes, write_json
from dwarf_cxr.json_stream import read_json_object, write_json_object


@dataclass(frozen=True, slots=True)
class PseudoRegion:
    """A region that a teacher drew."""

    index: int
    """Of its image in images.csv."""
    finding: Finding
    shape: Mapping[str, Any]
    """As COCO fields: run lengths as text take a fraction of what they do as numbers."""
    annotator: str
    teacher_dice: float | None
    """The Dice of the finding's teachers on validation; None where it could not be measured."""

    @classmethod
    def of(
        cls,
        index: int,
        finding: Finding,
        mask: Mask,
        *,
        annotator: str,
        teacher_dice: float | None,
    ) -> "PseudoRegion":
        """The region that `mask` is, in pixels of the original image."""
        return cls(index, finding, shape_to_coco(mask), annotator, teacher_dice)


def write_with_pseudo(
    data: PreparedData,
    folder: Path,
    regions: Sequence[PseudoRegion],
    *,
    note: str,
    record: Mapping[str, Any],
    beside: Sequence[str],
) -> None:
    """Write `data` to `folder` with `regions` added; dataset.json comes last.

    Args:
        folder: exists; whatever stays there of an earlier, interrupted call is replaced.
        note: for the notes of dataset.json.
        record: how the regions came about, for dataset.json's field `teachers`.
        beside: other files in `folder`, whose SHA-256 dataset.json is to hold.

    Raises:
        DataError: a region lies on an image that is not of the training split.
    """
    for region in regions:
        if data.splits[region.index] != "train":
            raise DataError(
                f"{data.image_ids[region.index]}: a pseudo region of {region.finding} on an image "
                f"of the split {data.splits[region.index]!r}; only training images may have one"
            )
    dataset = read_json(data.folder / DATASET_FILE)
    pixels = pixels_file(data.size)
    (folder / DATASET_FILE).unlink(missing_ok=True)
    write_bytes(folder / IMAGES_FILE, (data.folder / IMAGES_FILE).read_bytes())
    link_file(data.folder / pixels, folder / pixels)
    _write_regions(data.folder / REGIONS_FILE, folder / REGIONS_FILE, regions)
    hashes = {
        IMAGES_FILE: dataset["sha256"][IMAGES_FILE],
        REGIONS_FILE: sha256_of(folder / REGIONS_FILE),
        pixels: dataset["sha256"][pixels],
        **{name: sha256_of(folder / name) for name in beside},
    }
    _count(dataset, regions)
    dataset |= {
        "notes": [*dataset.get("notes", ()), note],
        "teachers": dict(record),
        "sha256": hashes,
    }
    sync_folder(folder)
    write_json(folder / DATASET_FILE, dataset)


def link_file(source: Path, target: Path) -> None:
    """`source`'s content under another name: a prepared file is replaced, never written to."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        with target.open("rb") as copied:
            os.fsync(copied.fileno())


def _write_regions(source: Path, target: Path, regions: Sequence[PseudoRegion]) -> None:
    image_ids = [image["id"] for image in entries(source, "images")]
    category = {one["name"]: one["id"] for one in entries(source, "categories")}
    last = max((annotation["id"] for annotation in entries(source, "annotations")), default=0)
    added = (
        {
            "id": number,
            "image_id": image_ids[region.index],
            "category_id": category[region.finding],
            **region.shape,
            "kind": "pseudo",
            "annotator": region.annotator,
            "teacher_dice": region.teacher_dice,
        }
        for number, region in enumerate(regions, start=last + 1)
    )
    parts: dict[str, Any] = {
        "info": dict(part_of(source, "info")),
        "images": entries(source, "images"),
        "annotations": itertools.chain(entries(source, "annotations"), added),
        "categories": list(entries(source, "categories")),
    }
    write_json_object(target, parts)


def entries(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The entries of a list of regions.json, one at a time."""
    for key, part in read_json_object(path):
        if key == name:
            yield from part


def part_of(path: Path, name: str) -> Any:
    """A part of regions.json that is no list; an empty object where it is not there."""
    return next((part for key, part in read_json_object(path) if key == name), {})


def _count(dataset: dict[str, Any], regions: Sequence[PseudoRegion]) -> None:
    """Say in dataset.json's counts, where there are any, how many training images have one."""
    with_region = Counter(region.finding for region in regions)
    counts = dataset.get("counts", {}).get("train", {}).get("findings", {})
    for finding, its in counts.items():
        its["images_with_pseudo_region"] = with_region[finding]
