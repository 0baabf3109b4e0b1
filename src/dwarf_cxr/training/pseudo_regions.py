"""From a DATA folder to one with pseudo regions: teachers, how good they are, and what they draw.

The quality of a finding's teachers is their Dice on the validation split, which none of them saw
(the paper's table of teachers). Pseudo regions are drawn on training images that have the finding,
and on no others.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, Int64

from dwarf_cxr.data.geometry import area, encode_mask
from dwarf_cxr.data.pseudo import PseudoRegion, write_with_pseudo
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation.bootstrap import (
    Estimate,
    bounds,
    interval,
    patient_codes,
    patient_weights,
    weighted_means,
)
from dwarf_cxr.evaluation.cases import mean_over_findings
from dwarf_cxr.evaluation.maps import reaches, score_map, upsample
from dwarf_cxr.files import exclusive, sync_folder, write_csv
from dwarf_cxr.findings import select
from dwarf_cxr.progress import Report
from dwarf_cxr.training.teachers import (
    ASKED_TOGETHER,
    Teachers,
    TeacherSettings,
    cross_fit,
    marked_images,
    present_images,
    probabilities,
    small_images,
    why_untaught,
)

THRESHOLD = 0.5
"""Probability from which on a pixel is the finding's."""
DRAWS, BOOTSTRAP_SEED = 1000, 0
TABLE_FILE = "teachers.csv"
NETS_FOLDER = "teachers"
COLUMNS = (
    "finding",
    "val_dice",
    "val_dice_low",
    "val_dice_high",
    "val_images",
    "out_of_fold_dice",
    "train_images_with_region",
    "train_images_present",
    "pseudo_regions",
    "reason",
)


@dataclass(frozen=True)
class Quality:
    """How well the teachers of one finding draw, and how much they drew."""

    finding: str
    validation: Estimate
    """Mean over validation images with a region of the mean Dice of the nets."""
    out_of_fold: float | None
    """Mean Dice on training images with a region, each by the net that has not seen it."""
    marked: int
    """Training images with a region."""
    present: int
    """Training images with the finding: those that a teacher was asked about."""
    drawn: int
    """Those where it drew something."""
    untaught: str | None = None
    """Why there is no teacher; all else is then empty."""


def teach(
    folder: Path,
    out: Path,
    *,
    findings: Sequence[str] | None = None,
    settings: TeacherSettings,
    report: Report,
) -> list[str]:
    """Train teachers on the DATA `folder` and write it to `out` with the regions they draw.

    `out` appears when all is done. Until then the nets lie in OUT.unfinished, and the same command
    continues there after an interruption.

    Returns:
        The table of the teachers' quality, as lines.

    Raises:
        ConfigError: `out` exists, a finding is unknown, or the images are smaller than the nets'.
        DataError: no finding has enough regions, or the data have pseudo regions already.
    """
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder")
    data = PreparedData.open(folder)
    names = select(
        data.findings if findings is None else findings, data.findings, where=str(folder)
    )
    if settings.size > data.size:
        raise ConfigError(
            f"size {settings.size}: the images of {folder} are prepared at {data.size} px; choose "
            f"--size {data.size} at most, or prepare them larger"
        )
    if data.with_regions("pseudo").has_region().any():
        raise DataError(
            f"{folder}: has pseudo regions already; give the data set that it was made of"
        )
    untaught = {name: why_untaught(data, name, settings.folds) for name in names}
    if all(untaught.values()):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in untaught.items())
        raise DataError(f"{folder}: regions are too few for {settings.folds} folds ({reasons})")
    work = out.with_name(out.name + ".unfinished")
    with exclusive(work):
        lines = _teach(data, work, untaught, settings, report)
        (work / ".lock").unlink()
        os.rename(work, out)
    sync_folder(out.parent)
    return lines


def _teach(
    data: PreparedData,
    work: Path,
    untaught: dict[str, str | None],
    settings: TeacherSettings,
    report: Report,
) -> list[str]:
    steps = settings.folds * settings.epochs
    total = steps * sum(reason is None for reason in untaught.values())
    files = net_files(data.findings, settings.folds)
    dice = np.full((len(data.indices("val")), len(untaught)), np.nan)
    qualities: list[Quality] = []
    regions: list[PseudoRegion] = []
    done = 0
    for column, (finding, reason) in enumerate(untaught.items()):
        if reason is not None:
            report(f"{finding}: no teacher: {reason}", done, total)
            qualities.append(Quality(finding, Estimate(None), None, 0, 0, 0, reason))
            continue

        def tick(fold: int, epoch: int, finding: str = finding, before: int = done) -> None:
            line = f"teaching {finding}, net {fold + 1} of {settings.folds}, epoch {epoch}"
            report(line, before + fold * settings.epochs + epoch, total)

        kept = [work / file for file in files[finding]]
        teachers = cross_fit(data, finding, settings, files=kept, tick=tick)
        done += steps
        dice[:, column] = validation_dice(teachers, data)
        marked = marked_images(data, finding, "train")
        held_out = teachers.out_of_fold(data, marked)
        mean = None if np.isnan(dice[:, column]).all() else float(np.nanmean(dice[:, column]))
        drawn = draw_regions(teachers, data, mean)
        regions += drawn
        quality = Quality(
            finding,
            Estimate(mean),
            float(dice_of(held_out, data, finding, marked).mean()),
            len(marked),
            len(present_images(data, finding, "train")),
            len(drawn),
        )
        qualities.append(quality)
        report(f"{finding}: Dice {_number(mean)}, {len(drawn)} pseudo regions", done, total)

    estimates, macro = summarise(dice, data)
    qualities = [
        replace(quality, validation=estimate)
        for quality, estimate in zip(qualities, estimates, strict=True)
    ]
    write_csv(work / TABLE_FILE, COLUMNS, map(_row, qualities))
    taught = [quality.finding for quality in qualities if quality.untaught is None]
    nets = [file for finding in taught for file in files[finding]]
    for stale in (work / NETS_FOLDER).iterdir():
        if f"{NETS_FOLDER}/{stale.name}" not in nets:
            stale.unlink()  # of an interrupted call that was given other findings or folds
    write_with_pseudo(
        data,
        work,
        regions,
        note=f"{len(regions)} pseudo regions of {', '.join(taught)} on training images, drawn by "
        f"`dwarf teachers`: U-Nets, {settings.folds} folds of patients; they count only where "
        "they are asked for",
        record={
            "of": data.fingerprint,
            "findings": taught,
            "folds": settings.folds,
            "epochs": settings.epochs,
            "size": settings.size,
            "seed": settings.seed,
            "threshold": THRESHOLD,
        },
        beside=[TABLE_FILE, *nets],
    )
    return table(qualities, macro)


def validation_dice(teachers: Teachers, data: PreparedData) -> Float64[np.ndarray, "image"]:
    """Of each validation image the mean Dice of the nets; NaN where no expert marked the finding.

    None of the nets has seen any of them.
    """
    indices, marked = data.indices("val"), marked_images(data, teachers.finding, "val")
    dice = np.full(len(indices), np.nan)
    if len(marked):
        images = small_images(data, marked, teachers.size)
        per_net = [
            dice_of(probabilities(net, images), data, teachers.finding, marked)
            for net in teachers.nets
        ]
        dice[np.isin(indices, marked)] = np.mean(per_net, axis=0)
    return dice


def dice_of(
    drawn: np.ndarray, data: PreparedData, finding: str, indices: Int64[np.ndarray, "image"]
) -> Float64[np.ndarray, "image"]:
    """Dice at .5 of probabilities (image, size, size) with the regions, on the prepared image."""
    scores = [
        score_map(
            upsample(one, data.size), data.coverage(index, finding, data.size), THRESHOLD
        ).dice
        for one, index in zip(drawn, indices, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def draw_regions(
    teachers: Teachers, data: PreparedData, teacher_dice: float | None
) -> list[PseudoRegion]:
    """What the teachers draw on the training images with the finding, each out of its fold.

    The probability is brought to the original image's pixels, bilinearly, and cut at .5. Where
    nothing is left there is no region, and so no Dice later.
    """
    finding = teachers.finding
    asked = present_images(data, finding, "train")
    regions = []
    for start in range(0, len(asked), ASKED_TOGETHER):
        indices = asked[start : start + ASKED_TOGETHER]
        for index, drawn in zip(indices, teachers.out_of_fold(data, indices), strict=True):
            frame = (int(data.widths[index]), int(data.heights[index]))
            pixels = cv2.resize(drawn, frame, interpolation=cv2.INTER_LINEAR)
            mask = encode_mask(reaches(pixels, THRESHOLD))
            if area(mask) == 0:
                continue
            fold = teachers.fold_of[data.patient_ids[index]]
            annotator = f"teacher of {finding}, fold {fold}"
            regions.append(
                PseudoRegion.of(
                    int(index), finding, mask, annotator=annotator, teacher_dice=teacher_dice
                )
            )
    return regions


def summarise(
    dice: Float64[np.ndarray, "image finding"], data: PreparedData
) -> tuple[list[Estimate], Estimate]:
    """Means over validation images, and over findings, with intervals over patients."""
    codes = patient_codes(tuple(data.patient_ids[index] for index in data.indices("val")))
    patients = int(codes.max()) + 1 if len(codes) else 0
    samples = np.full((0, dice.shape[1]), np.nan)
    if patients:
        samples = np.concatenate(
            [
                np.stack([weighted_means(column, codes, weights) for column in dice.T], axis=1)
                for weights in patient_weights(patients, DRAWS, BOOTSTRAP_SEED)
            ]
        )
    counts = (~np.isnan(dice)).sum(axis=0)
    points = np.divide(
        np.nansum(dice, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0
    )
    reason = "no validation image with the finding has a region"
    findings = [
        interval(float(point), samples[:, column], int(counts[column]), reason)
        for column, point in enumerate(points)
    ]
    defined = ~np.isnan(points)
    macro = interval(
        float(points[defined].mean()) if defined.any() else np.nan,
        mean_over_findings(samples, defined),
        int(defined.sum()),
        reason,
    )
    return findings, macro


def net_files(findings: Sequence[str], folds: int) -> dict[str, list[str]]:
    """The files of each finding's nets, within the folder; no two alike, also in small letters."""
    files: dict[str, list[str]] = {}
    taken: set[str] = set()
    for finding in findings:
        plain = re.sub(r"[^\w]+", "-", finding).strip("-") or "finding"
        stem, number = plain, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{plain}_{number}"
        taken.add(stem.lower())
        files[finding] = [f"{NETS_FOLDER}/{stem}-{fold}.safetensors" for fold in range(folds)]
    return files


def table(qualities: Sequence[Quality], macro: Estimate) -> list[str]:
    """The qualities as aligned lines, with the mean over findings and the findings left out."""
    rows = [("finding", "val Dice (95 % interval)", "films", "out of fold", "films", "pseudo")]
    rows += [
        (
            quality.finding,
            _with_interval(quality.validation),
            str(quality.validation.n),
            _number(quality.out_of_fold),
            str(quality.marked),
            f"{quality.drawn}/{quality.present}",
        )
        for quality in qualities
        if quality.untaught is None
    ]
    scored = f"mean of {macro.n}"
    rows.append((scored, _with_interval(macro), "", "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return lines + [
        f"{one.finding}: no teacher: {one.untaught}" for one in qualities if one.untaught
    ]


def _row(quality: Quality) -> dict[str, object]:
    estimate = quality.validation
    taught = quality.untaught is None
    return {
        "finding": quality.finding,
        "val_dice": estimate.value,
        "val_dice_low": estimate.low,
        "val_dice_high": estimate.high,
        "val_images": estimate.n if taught else None,
        "out_of_fold_dice": quality.out_of_fold,
        "train_images_with_region": quality.marked if taught else None,
        "train_images_present": quality.present if taught else None,
        "pseudo_regions": quality.drawn if taught else None,
        "reason": quality.untaught or estimate.reason,
    }


def _with_interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return _number(None)
    ends = bounds(estimate.low, estimate.high)
    between = "no interval" if ends is None else f"{_number(ends[0])} to {_number(ends[1])}"
    return f"{_number(estimate.value)} ({between})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
