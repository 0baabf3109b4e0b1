"""What the evaluated runs of a table say: honest values, paper-style oracles, references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.boxes import METRICS as BOX_KEYS
from dwarf_cxr.evaluation.boxes import box_samples
from dwarf_cxr.evaluation.cases import Cases, read_cases
from dwarf_cxr.evaluation.detections import BOXES_FILE, read_box_cases
from dwarf_cxr.files import read_json
from dwarf_cxr.reporting.metrics import BOX_METRICS, Metric
from dwarf_cxr.reproduce.metrics import METRICS
from dwarf_cxr.reproduce.plan import PlannedRow
from dwarf_cxr.reproduce.statistics import (
    BOOTSTRAP_SEED,
    SeedMean,
    Summary,
    paired_difference,
    refuse_other_films,
    seed_mean,
    spread,
)
from dwarf_cxr.reproduce.trainings import Training, history, is_evaluated

ORACLES = (
    Metric("auc", "AUC", "best of the evaluated epochs on test"),
    Metric("f1", "F1", "the kept epoch, at the thresholds with the largest MCC on test"),
    Metric("mcc", "MCC", "the kept epoch, at the thresholds with the largest MCC on test"),
    Metric("dice", "Dice", "best of the evaluated epochs on test, map thresholds fitted on test"),
)
"""As the paper's columns are made: each number chosen by itself on the test split."""
VALIDATION = ("epoch", "val_auc", "val_dice", "val_hit_rate")
CURVES = ("val_auc", "val_dice", "oracle_test_auc", "oracle_test_dice")


@dataclass(frozen=True)
class RowResult:
    """A row whose trainings, or some of them, are evaluated."""

    planned: PlannedRow
    trainings: tuple[Training, ...]
    """Those that are evaluated."""
    cases: tuple[Cases, ...]
    metrics: tuple[Mapping[str, Any], ...]
    """metrics.json of each."""
    means: Mapping[str, SeedMean]
    oracle: Mapping[str, Summary]
    validation: Mapping[str, Summary]
    minutes: float
    """Mean time of a training."""
    columns: tuple[Metric, ...] = METRICS
    """What the tables show of it; all of them are in `means`."""
    boxes: Mapping[str, SeedMean] = field(default_factory=dict)
    """By the keys of BOX_METRICS, where the trainings are of a detector."""

    @property
    def name(self) -> str:
        """The planned row's name."""
        return self.planned.name

    @property
    def seeds(self) -> int:
        """How many trainings are evaluated."""
        return len(self.trainings)

    def honest(self, metric: str) -> Summary:
        """Test value at the epoch and thresholds that validation chose."""
        return self.means[metric].summary()

    def box(self, metric: str) -> Summary:
        """The same of the detector's own boxes."""
        return self.boxes[metric].summary()

    def reference(self, name: str, metric: str) -> Summary:
        """A reference's value: the mean over trainings; the interval is the first training's."""
        blocks = [one["references"].get(name, {}).get("macro", {}) for one in self.metrics]
        entries = [block.get(metric) or {} for block in blocks]
        mean = spread([entry.get("value") for entry in entries])
        if mean.value is None:
            return mean
        first = entries[0]
        moved = mean.value - first["value"]
        low, high = first.get("low"), first.get("high")
        fewest = min((int(entry["n"]) for entry in entries if "n" in entry), default=None)
        if low is None or high is None:
            return replace(mean, findings=fewest)
        return Summary(mean.value, low + moved, high + moved, mean.sd, mean.seeds, fewest)


def read_results(
    rows: Sequence[PlannedRow], *, draws: int, columns: tuple[Metric, ...] = METRICS
) -> tuple[RowResult, ...]:
    """The rows of which at least one training is evaluated."""
    results = []
    for row in rows:
        done = tuple(training for training in row.trainings if is_evaluated(training))
        if done:
            results.append(_read_result(row, done, draws, columns))
    return tuple(results)


def difference(result: RowResult, baseline: RowResult, metric: str) -> Summary:
    """`result` minus `baseline`, in the same draws of patients.

    Raises:
        DataError: they were evaluated on different films.
    """
    refuse_other_films(baseline.cases[0], result.cases[0])
    return paired_difference(baseline.means[metric], result.means[metric])


def curves(training: Training) -> dict[str, Float64[np.ndarray, "row"]]:
    """`epoch` and the columns CURVES of a run's history.csv; NaN where undefined or not watched."""
    rows = history(training.folder)
    return {
        name: np.array([float(row.get(name) or "nan") for row in rows])
        for name in ("epoch", *CURVES)
    }


def box_difference(result: RowResult, baseline: RowResult, metric: str) -> Summary:
    """The same of the boxes of two detectors."""
    return paired_difference(baseline.boxes[metric], result.boxes[metric])


def _read_result(
    row: PlannedRow, done: tuple[Training, ...], draws: int, columns: tuple[Metric, ...]
) -> RowResult:
    cases = tuple(read_cases(training.evaluation / "cases.csv") for training in done)
    kept = [_kept_epoch(training) for training in done]
    drawn = [curves(training) for training in done]
    seconds = [float(rows[-1]["seconds"]) for each in done if (rows := history(each.folder))]
    metrics = tuple(read_json(training.evaluation / "metrics.json") for training in done)
    # a zero-shot model has no epochs to choose from
    only_auc = [one["macro"]["auc"].get("value") for one in metrics]
    best_auc = [
        only if training.zero_shot else _largest(curve["oracle_test_auc"])
        for training, curve, only in zip(done, drawn, only_auc, strict=True)
    ]
    return RowResult(
        planned=row,
        trainings=done,
        cases=cases,
        metrics=metrics,
        means={one.key: seed_mean(cases, one.key, draws=draws) for one in columns},
        oracle={
            "auc": spread(best_auc),
            "f1": spread([_oracle(one, "f1") for one in metrics]),
            "mcc": spread([_oracle(one, "mcc") for one in metrics]),
            "dice": spread([_largest(curve["oracle_test_dice"]) for curve in drawn]),
        },
        validation={
            name: spread([float(epoch[name]) if epoch.get(name) else None for epoch in kept])
            for name in VALIDATION
        },
        minutes=float(np.mean(seconds)) / 60 if seconds else 0.0,
        columns=columns,
        boxes=_box_means(row, done, draws),
    )


def _box_means(row: PlannedRow, done: tuple[Training, ...], draws: int) -> dict[str, SeedMean]:
    """The trainings' boxes in the same draws of patients as all else."""
    files = [training.evaluation / BOXES_FILE for training in done]
    if not all(file.is_file() for file in files):
        return {}
    data = PreparedData.open(row.data)
    patients = [data.patient_ids[index] for index in data.indices("test")]
    points, samples = zip(
        *(
            box_samples(
                read_box_cases(file, data, "test", row.findings),
                patients,
                draws=draws,
                seed=BOOTSTRAP_SEED,
            )
            for file in files
        ),
        strict=True,
    )
    together = np.mean(samples, axis=0)
    places = {metric.key: BOX_KEYS.index(metric.key) for metric in BOX_METRICS}
    return {
        key: SeedMean(
            row.findings, np.stack([each[:, place] for each in points]), together[:, :, place]
        )
        for key, place in places.items()
    }


def _kept_epoch(training: Training) -> dict[str, str]:
    rows = history(training.folder)
    best = [row for row in rows if row["best"] == "1"]
    # without any validation score the last epoch is kept; a zero-shot run has none
    return (best or rows or [{}])[-1]


def _largest(values: Float64[np.ndarray, "row"]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmax(values))


def _oracle(metrics: Mapping[str, Any], key: str) -> float | None:
    entry = metrics.get("oracle", {}).get("macro", {}).get(key, {})
    value = entry.get("value")
    return None if value is None else float(value)
