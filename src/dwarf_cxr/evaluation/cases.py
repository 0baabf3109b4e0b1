"""The table of cases: what one run said of every image and finding, and its metrics."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.bootstrap import (
    Estimate,
    interval,
    patient_codes,
    patient_weights,
    weighted_means,
)
from dwarf_cxr.evaluation.maps import (
    IOR_THRESHOLDS,
    IOU_THRESHOLDS,
    MapScores,
    reached_share,
)
from dwarf_cxr.evaluation.pair_scores import Table, Tables
from dwarf_cxr.evaluation.scores import (
    Weights,
    area_under_curve,
    average_precision,
    decisions,
    rank_sums,
)
from dwarf_cxr.files import write_csv

DECISION_METRICS = ("f1", "mcc", "accuracy")
"""Those of `DecisionScores`; they need a score threshold."""
SCORE_METRICS = ("auc", "ap", *DECISION_METRICS)
MAP_COLUMNS = {
    "soft_dice": "soft_dice",
    "dice": "dice",
    "max_dice": "max_dice",
    "iou": "iou",
    "hit_rate": "hit",
    "energy_inside": "energy_inside",
    "fp_area": "fp_area",
    "t_iou": "t_iou",
    "t_ior": "t_ior",
    "ham_t_iou": "ham_t_iou",
    "ham_t_ior": "ham_t_ior",
}
"""Metric to the column of `Cases.maps` that it is the mean of."""
REACHED_COLUMNS = {
    "t_iou": ("iou", IOU_THRESHOLDS),
    "t_ior": ("ior", IOR_THRESHOLDS),
    "ham_t_iou": ("ham_iou", IOU_THRESHOLDS),
    "ham_t_ior": ("ham_ior", IOR_THRESHOLDS),
}
"""Columns that cases.csv does not hold: the share of the thresholds that another reaches."""
SHUFFLED_COLUMNS = {"shuffled_dice": "dice", "shuffled_hit": "hit"}
"""Column of cases.csv to the score that it is, of maps of other images with the finding."""
DICE_LOST = "dice_lost_shuffled"
"""Mean of dice - shuffled_dice: 0 where the same map serves for any film."""
METRICS = (*SCORE_METRICS, *MAP_COLUMNS, DICE_LOST)

ONE_FILM = "only one image with the finding has a region"
"""Why nothing can be shuffled."""

COLUMNS = (
    "image_id",
    "patient_id",
    "finding",
    "label",
    "score",
    "n_regions",
    "dice",
    "max_dice",
    "iou",
    "hit",
    "energy_inside",
    "soft_dice",
    "fp_area",
    "present",
    *SHUFFLED_COLUMNS,
    "ior",
    "ham_iou",
    "ham_ior",
)
LATER_COLUMNS = ("ior", "ham_iou", "ham_ior")
"""Missing in tables of earlier versions, which are read as if nothing was scored there."""
_SCORED = (*MapScores._fields, "fp_area")
WRITTEN_TOGETHER = 4096
"""Images whose scores are in memory together when cases.csv is written."""


@dataclass(frozen=True)
class Cases:
    """All tables are (image, finding); NaN means not assessed, or not scored."""

    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    findings: tuple[str, ...]
    labels: Table
    scores: Table
    present: Table
    """Score at or above the finding's threshold: 1 or 0; NaN without a threshold."""
    n_regions: Table
    maps: Mapping[str, Table]
    """By column: the fields of `MapScores` on images with regions, fp_area on images without the
    finding; of a method's own maps also the `SHUFFLED_COLUMNS`."""
    why_unscored: str = "no map of it was scored"
    """The reason where a finding has regions but no map was scored on them."""

    def per_finding(self, metric: str, weights: Weights) -> Float64[np.ndarray, "draw finding"]:
        """The metric of every finding, for each draw; NaN where undefined."""
        patients = patient_codes(self.patient_ids)
        columns = []
        of_maps = None if metric in SCORE_METRICS else self._map_values(metric)
        for finding in range(len(self.findings)):
            labels, scores = self.labels[:, finding], self.scores[:, finding]
            if of_maps is not None:
                columns.append(weighted_means(of_maps[:, finding], patients, weights))
            elif metric in DECISION_METRICS:
                present = self.present[:, finding]
                if np.isnan(present).all():
                    columns.append(np.full(len(weights), np.nan))
                else:
                    scored = decisions(labels, present, patients, weights)
                    columns.append(scored._asdict()[metric])
            else:
                sums = rank_sums(labels, scores, patients, weights)
                ranked = area_under_curve if metric == "auc" else average_precision
                columns.append(ranked(sums))
        return np.stack(columns, axis=1)

    def counted(self, metric: str, finding: int) -> int:
        """How many images the metric of a finding is computed on."""
        values = self.labels if metric in SCORE_METRICS else self._map_values(metric)
        return int((~np.isnan(values[:, finding])).sum())

    def reason(self, metric: str, finding: int) -> str:
        """Why the metric of a finding is undefined."""
        labels = self.labels[:, finding]
        positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
        if metric == "fp_area":
            return "no image without the finding" if not negatives else "no map threshold"
        if metric == "accuracy":
            return "no score threshold" if positives + negatives else "no image was assessed"
        if not positives:
            return "no image with the finding"
        if metric in SCORE_METRICS:
            return "no image without the finding" if not negatives else "no score threshold"
        if not (self.n_regions[labels == 1, finding] > 0).any():
            return "no image with the finding has a region"
        if np.isnan(self.maps["max_dice"][:, finding]).all():
            return self.why_unscored
        if metric == DICE_LOST and not np.isnan(self.maps["dice"][:, finding]).all():
            return ONE_FILM
        return "the maps are all zero" if metric == "energy_inside" else "no map threshold"

    def _map_values(self, metric: str) -> Table:
        """Of every image, what the metric of maps is the mean of."""
        if metric == DICE_LOST:
            return self.maps["dice"] - self.maps["shuffled_dice"]
        return self.maps[MAP_COLUMNS.get(metric, metric)]


def summarise(
    cases: Cases, metrics: tuple[str, ...], *, draws: int, seed: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, Estimate]]:
    """Estimates by finding and metric, and macro means over the findings that are defined."""
    patients = len(set(cases.patient_ids))
    points = {metric: cases.per_finding(metric, np.ones((1, patients)))[0] for metric in metrics}
    drawn: dict[str, list[np.ndarray]] = {metric: [] for metric in metrics}
    for weights in patient_weights(patients, draws, seed):
        for metric in metrics:
            drawn[metric].append(cases.per_finding(metric, weights))
    findings: dict[str, dict[str, Estimate]] = {name: {} for name in cases.findings}
    macro: dict[str, Estimate] = {}
    for metric in metrics:
        samples = np.concatenate(drawn[metric]) if drawn[metric] else np.empty((0, len(findings)))
        for index, name in enumerate(cases.findings):
            findings[name][metric] = interval(
                float(points[metric][index]),
                samples[:, index],
                cases.counted(metric, index),
                cases.reason(metric, index),
            )
        defined = ~np.isnan(points[metric])
        macro[metric] = interval(
            float(points[metric][defined].mean()) if defined.any() else np.nan,
            mean_over_findings(samples, defined),
            int(defined.sum()),
            "undefined for every finding",
        )
    return findings, macro


def mean_over_findings(
    samples: Float64[np.ndarray, "draw finding"], defined: np.ndarray
) -> Float64[np.ndarray, "draw"]:
    """Macro mean of each draw over `defined` findings, of those that the draw can score."""
    chosen = samples[:, defined]
    scored = ~np.isnan(chosen)
    counts = scored.sum(axis=1)
    means = np.full(len(chosen), np.nan)
    return np.divide(np.where(scored, chosen, 0).sum(axis=1), counts, out=means, where=counts > 0)


def write_cases(cases: Cases, path: Path) -> None:
    """Write one row per image and finding; what is NaN becomes an empty field."""
    write_csv(path, COLUMNS, _rows(cases))


def read_cases(path: Path) -> Cases:
    """Read cases.csv.

    Raises:
        DataError: the file is missing or not text, a value is not a number, or rows of an image or
            finding are missing or doubled.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dwarf evaluate` first") from None
    except (UnicodeDecodeError, csv.Error) as fault:
        raise DataError(f"{path}: not a CSV in UTF-8 ({fault}); evaluate the run again") from None
    required = [column for column in COLUMNS if column not in LATER_COLUMNS]
    if not rows or not set(required) <= set(rows[0]):
        raise DataError(f"{path}: needs the columns {', '.join(required)}; evaluate the run again")
    patients = {row["image_id"]: row["patient_id"] for row in rows}
    images, findings = tuple(patients), tuple(dict.fromkeys(row["finding"] for row in rows))
    pairs = {(row["image_id"], row["finding"]) for row in rows}
    if not len(rows) == len(pairs) == len(images) * len(findings):
        raise DataError(
            f"{path}: {len(rows)} rows, {len(pairs)} of them distinct, for {len(images)} images "
            f"and {len(findings)} findings; evaluate the run again"
        )
    image_index = {name: index for index, name in enumerate(images)}
    finding_index = {name: index for index, name in enumerate(findings)}
    numeric = COLUMNS[3:]
    tables = {column: np.full((len(images), len(findings)), np.nan) for column in numeric}
    for row in rows:
        place = image_index[row["image_id"]], finding_index[row["finding"]]
        for column in numeric:
            if row.get(column, "") != "":
                tables[column][place] = _number(path, row, column)
    for column, (source, thresholds) in REACHED_COLUMNS.items():
        tables[column] = reached_share(tables[source], thresholds)
    maps = {column: tables[column] for column in (*_SCORED, *SHUFFLED_COLUMNS)}
    return Cases(
        images,
        tuple(patients.values()),
        findings,
        tables["label"],
        tables["score"],
        tables["present"],
        tables["n_regions"],
        maps,
    )


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise DataError(
            f"{path}: image {row['image_id']}, {row['finding']}: {column} is {row[column]!r}, not "
            "a number; evaluate the run again"
        ) from None


def _rows(cases: Cases) -> Iterator[dict[str, Any]]:
    for image, (image_id, patient_id) in enumerate(
        zip(cases.image_ids, cases.patient_ids, strict=True)
    ):
        if image % WRITTEN_TOGETHER == 0:
            maps = _of_images(cases.maps, slice(image, image + WRITTEN_TOGETHER))
        for finding, name in enumerate(cases.findings):
            numbers = {
                "label": cases.labels[image, finding],
                "score": cases.scores[image, finding],
                "n_regions": cases.n_regions[image, finding],
                "present": cases.present[image, finding],
                **{
                    column: table[image % WRITTEN_TOGETHER, finding]
                    for column, table in maps.items()
                    if column not in REACHED_COLUMNS
                },
            }
            yield {
                "image_id": image_id,
                "patient_id": patient_id,
                "finding": name,
                **{column: _written(column, value) for column, value in numbers.items()},
            }


def _of_images(maps: Mapping[str, Table], images: slice) -> dict[str, Table]:
    if isinstance(maps, Tables):
        return maps.of(images)
    return {column: table[images] for column, table in maps.items()}


def _written(column: str, value: float) -> str:
    if np.isnan(value):
        return ""
    return str(int(value)) if column in ("label", "n_regions", "present") else repr(float(value))
