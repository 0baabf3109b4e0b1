"""Train, validation and test: given or made, never with one patient in two of them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from dwarf_cxr.data.images import image_stem
from dwarf_cxr.data.records import Radiograph
from dwarf_cxr.data.rows import listed, read_table
from dwarf_cxr.errors import DataError

SPLITS = ("train", "val", "test")

NAMES: Mapping[str, str] = {
    **{name: name for name in SPLITS},
    "valid": "val",
    "validation": "val",
}
"""Accepted names of splits."""

FRACTIONS = (0.7, 0.1, 0.2)
"""Shares of the patients for train, val and test where the data set does not say."""

VAL_FRACTION = 0.1
"""Share of the training patients that validates where a data set says only train and test."""


def read_splits(path: Path) -> dict[str, str]:
    """Splits by image id from a CSV with the columns `image_id` (or `Image Index`) and `split`.

    Ids are taken without image suffix.

    Raises:
        DataError: a column is missing, a split is unknown, an id stands twice; names the line.
    """
    table = read_table(path, required=("split",))
    column = next((name for name in ("image_id", "Image Index") if name in table.columns), None)
    if column is None:
        raise DataError(
            f"{path}: no column 'image_id' or 'Image Index'; its columns are "
            f"{', '.join(table.columns)}"
        )
    splits: dict[str, str] = {}
    faults = []
    for row in table.rows:
        where, image_id = f"{path}, line {row.line}", image_stem(row.fields[column])
        split = NAMES.get(row.fields["split"].lower())
        if split is None:
            faults.append(
                f"{where}: unknown split {row.fields['split']!r}; write train, val or test"
            )
        elif image_id in splits:
            faults.append(f"{where}: image {image_id!r} is listed twice; drop one of the rows")
        else:
            splits[image_id] = split
    if faults:
        raise DataError("\n".join(faults))
    return splits


def assign_splits(
    radiographs: Sequence[Radiograph],
    findings: Sequence[str],
    *,
    given: Mapping[str, str] | None = None,
    seed: int = 0,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The split of every radiograph, and notes on how it came about.

    `given` (by image id) goes before what the radiographs say themselves. Where neither says
    anything, splits are made by `FRACTIONS`; where they name no validation images, validation is
    carved out of train; where they name no training images, the data serve for evaluation only.
    Made splits keep patients together and the findings in proportion.

    Raises:
        DataError: some images have a split and some not, a split is unknown, or a patient is in two
            splits.
    """
    notes = []
    if given is not None:
        wanted = {image_stem(image_id): split for image_id, split in given.items()}
        known: list[str | None] = [wanted.get(image_stem(one.image_id)) for one in radiographs]
        unused = len(wanted.keys() - {image_stem(one.image_id) for one in radiographs})
        if unused:
            notes.append(f"{unused} images of the given splits are not in the data set")
    else:
        known = [one.split for one in radiographs]
    without = [one.image_id for one, split in zip(radiographs, known, strict=True) if split is None]
    if len(without) == len(radiographs) and given is None:
        return _stratify(radiographs, findings, FRACTIONS, seed), (
            f"splits made by patient with seed {seed}, "
            f"{'/'.join(f'{share:g}' for share in FRACTIONS)} train/val/test",
        )
    if without:
        raise DataError(
            f"{len(without)} of {len(radiographs)} images have no split: {listed(without)}; "
            f"give every image one"
        )
    unknown = sorted({split for split in known if split is not None and split not in NAMES})
    if unknown:
        raise DataError(f"unknown split {listed(unknown)}; write train, val or test")
    splits = [NAMES[split] for split in known if split is not None]
    refuse_shared_patients([one.patient_id for one in radiographs], splits)
    training = [index for index, split in enumerate(splits) if split == "train"]
    if not training:
        notes.append("no image is in the split 'train': the data serve for evaluation only")
    elif "val" not in splits:
        members = [radiographs[index] for index in training]
        carved = _stratify(members, findings, (1 - VAL_FRACTION, VAL_FRACTION, 0.0), seed)
        for index, split in zip(training, carved, strict=True):
            splits[index] = split
        notes.append(
            f"no validation split given: {splits.count('val')} of {len(training)} training images "
            f"were taken, by patient, with seed {seed}"
        )
    return tuple(splits), tuple(notes)


def patients_in_two_splits(
    patient_ids: Sequence[str], splits: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The splits of every patient who is in more than one."""
    first: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for patient_id, split in zip(patient_ids, splits, strict=True):
        other = first.setdefault(patient_id, split)
        if other != split:
            several.setdefault(patient_id, {other}).add(split)
    return {patient: tuple(sorted(several[patient])) for patient in first if patient in several}


def refuse_shared_patients(patient_ids: Sequence[str], splits: Sequence[str]) -> None:
    """Stop when a patient is in two splits.

    Raises:
        DataError: lists the patients and their splits.
    """
    shared = patients_in_two_splits(patient_ids, splits)
    if shared:
        named = [f"{patient} ({' and '.join(where)})" for patient, where in shared.items()]
        raise DataError(
            f"{len(shared)} patients are in two splits: {listed(named)}; put all images of a "
            f"patient into one"
        )


def patient_hashes(patients_of: str, patient_ids: Sequence[str]) -> Int64[np.ndarray, "patient"]:
    """Sorted hashes of patients, each once, whose ids are known within `patients_of`.

    They tell whether a model has seen a patient without naming one.
    """
    digests = {hashlib.sha256(f"{patients_of}\n{one}".encode()).digest()[:8] for one in patient_ids}
    return np.sort(np.frombuffer(b"".join(sorted(digests)), dtype=">i8").astype(np.int64))


def file_hash(sha256: str) -> int:
    """The first 64 bits, signed, of a SHA-256 written in hex; 0 for none.

    Raises:
        ValueError: it is not written in hex.
    """
    return int.from_bytes(bytes.fromhex(sha256)[:8], "big", signed=True)


def splits_sha256(image_ids: Sequence[str], splits: Sequence[str]) -> str:
    """SHA-256, in hex, of who is in which split; the order of the images does not matter."""
    lines = sorted(f"{image}\t{split}\n" for image, split in zip(image_ids, splits, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def _stratify(
    radiographs: Sequence[Radiograph],
    findings: Sequence[str],
    fractions: tuple[float, float, float],
    seed: int,
) -> tuple[str, ...]:
    """Splits by patient that keep each finding, and each finding's regions, in proportion."""
    # Sorted, so that the order in which a reader met the images does not matter.
    ordered = sorted({one.patient_id for one in radiographs})
    patients = {patient_id: index for index, patient_id in enumerate(ordered)}
    counts = np.zeros((len(patients), 2 * len(findings)), dtype=np.int64)
    images = np.zeros(len(patients), dtype=np.int64)
    for one in radiographs:
        patient = patients[one.patient_id]
        images[patient] += 1
        boxed = {region.finding for region in one.regions}
        for column, finding in enumerate(findings):
            counts[patient, column] += one.labels.get(finding) is True
            counts[patient, len(findings) + column] += finding in boxed
    chosen = iterative_stratification(counts, images, fractions, np.random.default_rng(seed))
    # A handful of patients can leave a wanted split empty: it then gets one of the fullest.
    for part, share in enumerate(fractions):
        sizes = np.bincount(chosen, minlength=len(fractions))
        if share > 0 and sizes[part] == 0 and sizes.max() > 1:
            chosen[np.flatnonzero(chosen == sizes.argmax())[-1]] = part
    return tuple(SPLITS[chosen[patients[one.patient_id]]] for one in radiographs)


def iterative_stratification(
    counts: Int64[np.ndarray, "group property"],
    weights: Int64[np.ndarray, "group"],
    fractions: Sequence[float],
    rng: np.random.Generator,
) -> Int64[np.ndarray, "group"]:
    """The part that each group goes to, so that every property is shared out by `fractions`.

    The rarest property among the groups left is shared out first, each group to the part that
    still wants most of it (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011; here for groups of
    several images). `weights` are the groups' numbers of images.
    """
    share = np.array(fractions, dtype=np.float64)
    wanted = share[:, None] * counts.sum(axis=0)
    wanted_images = share * weights.sum()
    chosen = np.full(len(counts), -1, dtype=np.int64)
    order = rng.permutation(len(counts))
    while (chosen < 0).any():
        free = order[chosen[order] < 0]
        holders = (counts[free] > 0).sum(axis=0)
        if holders.any():
            rarest = int(np.argmin(np.where(holders > 0, holders, len(counts) + 1)))
            members = free[counts[free, rarest] > 0]
            members = members[np.argsort(-counts[members, rarest], kind="stable")]
        else:
            rarest, members = -1, free[np.argsort(-weights[free], kind="stable")]
        for group in members:
            first = wanted_images if rarest < 0 else wanted[:, rarest]
            ranked = np.lexsort((wanted_images, first))
            part = int(next(index for index in reversed(ranked) if share[index] > 0))
            chosen[group] = part
            wanted[part] -= counts[group]
            wanted_images[part] -= weights[group]
    return chosen
