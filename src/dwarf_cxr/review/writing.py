"""A DATA folder written anew from a review: labels and regions as the readers left them."""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwarf_cxr.data.coco import shape_to_coco
from dwarf_cxr.data.pseudo import entries, link_file, part_of
from dwarf_cxr.data.records import Finding
from dwarf_cxr.data.store import DATASET_FILE, IMAGES_FILE, REGIONS_FILE, pixels_file
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import (
    atomic_folder,
    read_json,
    recover_folder,
    sha256_of,
    write_bytes,
    write_json,
)
from dwarf_cxr.json_stream import write_json_object
from dwarf_cxr.review.agreement import Decision, decide
from dwarf_cxr.review.annotation import (
    FILE,
    RUN,
    Assessment,
    MarkedRegion,
    Verdict,
    shape_to_json,
)
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.words import count

LABEL: Mapping[Verdict | None, str] = {"present": "1", "absent": "0", "unsure": "", None: ""}
TRAIN = "train"
"""The split whose regions train; by those of the others models are chosen and scored."""
Case = tuple[int, Finding]
"""A film's index and a finding."""


def disputed_words(regions: int) -> str:
    """That regions in dispute are not among those that stand."""
    return (
        f"{count(regions, 'region')} left out: readers call the finding present but do not agree "
        "where it is, and nobody decided"
    )


@dataclass(frozen=True)
class Written:
    """What a new DATA folder owes to the review."""

    films: int
    """With a finding that was assessed."""
    present: int
    absent: int
    unsure: int
    undecided: int
    """Findings of films on which readers disagree and nobody decided: never assessed."""
    regions: int
    changed_labels: int
    open_regions: int = 0
    """Of findings that all call present without agreeing where: left out."""
    own_outlines: int = 0
    """Left out of films that are scored: of findings marked with the model's own outline."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was marked and not written, and why, in sentences."""
        told = []
        if self.open_regions:
            told.append(disputed_words(self.open_regions))
        if self.own_outlines:
            told.append(
                f"{count(self.own_outlines, 'region')} of val and test films left out: marked with "
                "outlines of the model taken unchanged, by which its maps would be scored against "
                "themselves"
            )
        return tuple(told)


def decisions(review: Review, ledger: Ledger, reader: str | None = None) -> dict[Case, Decision]:
    """What stands for every finding of a film that was assessed.

    Args:
        reader: whose word alone counts; without it readers who agree, or else the adjudicator.

    Raises:
        ConfigError: the reader has said nothing.
    """
    third = review.settings.adjudicator
    known = ledger.readers()
    if reader is not None and reader not in known:
        raise ConfigError(
            f"--reader {reader}: has said nothing in {review.folder}; "
            + (f"those who did: {', '.join(known)}" if known else "nobody has yet")
        )
    readers = [reader] if reader is not None else [name for name in known if name != third]
    decided = {}
    for case, said in ledger.said().items():
        frame = review.frame(case[0])
        decision = decide(said, readers, None if reader is not None else third, frame)
        if decision is not None:
            decided[case] = decision
    return decided


def write(review: Review, ledger: Ledger, out: Path, *, reader: str | None = None) -> Written:
    """Write the review's data to `out` with labels and regions as `decisions` has them.

    Present is 1, absent 0, unsure or undecided empty. A finding of a film that was assessed has
    the readers' regions in place of those it had; a reader who called it present and marked or
    refused none leaves them as they were. All else, and films nobody saw, stays what it is; pixels
    are shared. The folder is there as a whole or not at all.

    Raises:
        ConfigError: `out` exists, or nothing was assessed.
    """
    out = Path(out)
    recover_folder(out)
    if out.exists():
        raise ConfigError(f"{out}: exists; remove it or choose another folder")
    if review.data.folder.resolve() in out.resolve().parents:
        raise ConfigError(f"{out}: lies in {review.data.folder}, which stays as it is")
    decided = decisions(review, ledger, reader)
    if not decided:
        raise ConfigError(f"{review.folder}: nothing has been assessed yet")
    data = review.data
    said = ledger.said()
    circular = {
        (film, finding)
        for (film, finding), decision in decided.items()
        if data.splits[film] != TRAIN and _has_own_outline(decision, said[film, finding])
    }
    regions = {
        case: () if case in circular else _regions_of(decision)
        for case, decision in decided.items()
    }
    kept = circular | {case for case, decision in decided.items() if _keeps_old(decision)}
    pixels = pixels_file(data.size)
    dataset = read_json(data.folder / DATASET_FILE)
    with atomic_folder(out) as folder:
        changed = _write_images(data.folder / IMAGES_FILE, folder / IMAGES_FILE, decided)
        link_file(data.folder / pixels, folder / pixels)
        _write_regions(data.folder / REGIONS_FILE, folder / REGIONS_FILE, decided, regions, kept)
        verdicts = Counter(decision.verdict for decision in decided.values())
        written = Written(
            films=len({film for film, _ in decided}),
            present=verdicts["present"],
            absent=verdicts["absent"],
            unsure=verdicts["unsure"],
            undecided=verdicts[None],
            regions=sum(len(its) for its in regions.values()),
            changed_labels=changed,
            open_regions=sum(len(decision.disputed) for decision in decided.values()),
            own_outlines=sum(len(decided[case].regions) for case in circular),
        )
        dataset["sha256"] = {
            **dataset["sha256"],
            IMAGES_FILE: sha256_of(folder / IMAGES_FILE),
            REGIONS_FILE: sha256_of(folder / REGIONS_FILE),
        }
        dataset["sha256"] = {
            name: dataset["sha256"][name] for name in (IMAGES_FILE, REGIONS_FILE, pixels)
        }
        dataset["notes"] = [*dataset.get("notes", ()), _note(written, reader)]
        dataset["review"] = {
            "data_fingerprint": data.fingerprint,
            "reader": reader,
            "readers": sorted({name for one in decided.values() for name in one.readers}),
            "adjudicator": review.settings.adjudicator,
            "run": None if review.suggestions is None else review.suggestions.about.sha256,
            **vars(written),
        }
        _count(dataset, folder)
        write_json(folder / DATASET_FILE, dataset)
    return written


def _regions_of(decision: Decision) -> tuple[tuple[str, MarkedRegion], ...]:
    """Regions that are written: an unsure finding has none, since its label is empty."""
    return decision.regions if decision.verdict == "present" else ()


def _keeps_old(decision: Decision) -> bool:
    """Whether the regions of before stand: called present, and no word on where it is."""
    nothing_said = not (decision.regions or decision.rejected or decision.disputed)
    return decision.verdict == "present" and nothing_said


def _has_own_outline(decision: Decision, said: Mapping[str, Assessment]) -> bool:
    """Whether a region is an outline of the model, taken unchanged, also by way of a reader.

    All regions of the finding in that film then go: the others alone would say that there is
    nothing where the model was right.
    """
    if decision.verdict != "present":
        return False
    own = [
        shape_to_json(region.shape)
        for assessment in said.values()
        for region in assessment.counting
        if _is_own(region)
    ]
    return any(
        _is_own(region) or (region.origin == "accepted" and shape_to_json(region.shape) in own)
        for _, region in decision.regions
    )


def _is_own(region: MarkedRegion) -> bool:
    by = "" if region.suggested is None else region.suggested.by
    return region.origin == "accepted" and by.startswith((RUN, FILE))


def _note(written: Written, reader: str | None) -> str:
    whose = "by all readers" if reader is None else f"by {reader}"
    return (
        f"reviewed {whose}: {count(written.films, 'film')}, {count(written.present, 'finding')} "
        f"present, {written.absent} absent, {written.unsure} unsure, {written.undecided} undecided "
        f"(unsure and undecided count as never assessed); {count(written.regions, 'region')}, "
        f"{count(written.changed_labels, 'label')} changed"
        + "".join(f"; {sentence}" for sentence in written.left_out)
    )


def _write_images(source: Path, target: Path, decided: Mapping[Case, Decision]) -> int:
    """images.csv with the decided labels; how many of them changed."""
    changed = 0
    by_film: dict[int, dict[str, str]] = {}
    for (film, finding), decision in decided.items():
        by_film.setdefault(film, {})[finding] = LABEL[decision.verdict]
    out = io.StringIO(newline="")
    with source.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        writer = csv.writer(out, lineterminator="\n")
        columns = next(reader)
        writer.writerow(columns)
        place = {name: number for number, name in enumerate(columns)}
        for film, cells in enumerate(reader):
            for finding, label in by_film.get(film, {}).items():
                changed += cells[place[finding]] != label
                cells[place[finding]] = label
            writer.writerow(cells)
    write_bytes(target, out.getvalue().encode("utf-8"))
    return changed


def _write_regions(
    source: Path,
    target: Path,
    decided: Mapping[Case, Decision],
    regions: Mapping[Case, Sequence[tuple[str, MarkedRegion]]],
    keeping_old: Collection[Case],
) -> None:
    image_ids = [image["id"] for image in entries(source, "images")]
    film_of = {image_id: film for film, image_id in enumerate(image_ids)}
    categories = list(entries(source, "categories"))
    finding_of = {one["id"]: one["name"] for one in categories}
    category_of = {one["name"]: one["id"] for one in categories}

    def kept() -> Iterator[dict[str, Any]]:
        for entry in entries(source, "annotations"):
            case = film_of[entry["image_id"]], finding_of[entry["category_id"]]
            if case not in decided or case in keeping_old:
                yield entry

    last = max((entry["id"] for entry in entries(source, "annotations")), default=0)
    numbers = itertools.count(last + 1)
    added = (
        {
            "id": next(numbers),
            "image_id": image_ids[film],
            "category_id": category_of[finding],
            **shape_to_coco(region.shape),
            "kind": "expert",
            "annotator": annotator,
            "origin": region.origin,
        }
        for (film, finding), its in regions.items()
        for annotator, region in its
    )
    parts: dict[str, Any] = {
        "info": dict(part_of(source, "info")),
        "images": entries(source, "images"),
        "annotations": itertools.chain(kept(), added),
        "categories": categories,
    }
    write_json_object(target, parts)


def _count(dataset: dict[str, Any], folder: Path) -> None:
    """The counts of dataset.json, where there are any, as the new files have them."""
    with_region = Counter[tuple[str, str, str]]()
    images = {one["id"]: one["split"] for one in entries(folder / REGIONS_FILE, "images")}
    names = {one["id"]: one["name"] for one in entries(folder / REGIONS_FILE, "categories")}
    seen = {
        (one["image_id"], names[one["category_id"]], one["kind"])
        for one in entries(folder / REGIONS_FILE, "annotations")
    }
    for image, finding, kind in seen:
        with_region[images[image], finding, kind] += 1
    with (folder / IMAGES_FILE).open(encoding="utf-8", newline="") as stream:
        labels = Counter(
            (row["split"], finding, row[finding])
            for row in csv.DictReader(stream)
            for finding in dataset["findings"]
        )
    for split, counts in dataset.get("counts", {}).items():
        for finding, its in counts.get("findings", {}).items():
            its["present"] = labels[split, finding, "1"]
            its["absent"] = labels[split, finding, "0"]
            its["not_assessed"] = labels[split, finding, ""]
            its["images_with_region"] = with_region[split, finding, "expert"]
            if "images_with_pseudo_region" in its:
                its["images_with_pseudo_region"] = with_region[split, finding, "pseudo"]
