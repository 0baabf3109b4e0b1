"""Trained on one data set, judged on the others: matrices of AUC and Dice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dwarf_cxr.data.harmonise import agree
from dwarf_cxr.data.label_map import load_label_map
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation.cases import read_cases
from dwarf_cxr.files import read_json
from dwarf_cxr.progress import Report
from dwarf_cxr.reporting.intervals import NO_INTERVAL_RULE
from dwarf_cxr.reporting.metrics import Metric
from dwarf_cxr.reporting.tables import Cell
from dwarf_cxr.reporting.tables import Row as Line
from dwarf_cxr.reproduce.plan import DataPlace, PlannedRow
from dwarf_cxr.reproduce.running import evaluate_on
from dwarf_cxr.reproduce.statistics import SeedMean, Summary, paired_difference, seed_mean
from dwarf_cxr.reproduce.subsets import findings_with_regions
from dwarf_cxr.reproduce.tables import Record, Table, shown, verdict_of
from dwarf_cxr.reproduce.trainings import Training, is_finished

JUDGED = (Metric("auc", "AUC", ""), Metric("dice", "Dice", "at the map threshold from validation"))


def training_places(places: Sequence[DataPlace]) -> list[DataPlace]:
    """The data sets that can be trained on; the others are judged on alone.

    Raises:
        ConfigError: fewer than two data sets.
        DataError: none can be trained on, one has no test images, or two share no finding, or share
            patients or files.
    """
    if len(places) < 2:
        raise ConfigError("transfer needs two data sets at least: give --data once for each")
    prepared = {place.data: PreparedData.open(place.data) for place in places}
    for folder, data in prepared.items():
        if not len(data.indices("test")):
            raise DataError(f"{folder}: no image is in the test split, on which transfer judges")
    found = []
    for place in places:
        try:
            findings = findings_with_regions(prepared[place.data])
        except DataError:
            continue
        found.append(place)
        for other in places:
            _refuse_nothing_shared(prepared[place.data], findings, prepared[other.data])
            if other is not place:
                _refuse_same_patients(prepared[place.data], prepared[other.data])
    if not found:
        raise DataError(
            f"{', '.join(str(place.data) for place in places)}: no training image of any of them "
            "has a region; one must have regions to train on"
        )
    return found


def evaluation_on(training: Training, place: DataPlace) -> Path:
    """Where a run's evaluation on a data set lies."""
    if Path(training.config.data) == place.data:
        return training.evaluation
    return training.folder / f"eval-test-on-{place.data.resolve().name}"


def evaluate_elsewhere(
    rows: Sequence[PlannedRow], places: Sequence[DataPlace], *, draws: int, report: Report
) -> None:
    """Evaluate the finished runs of `rows` on every data set that they are not evaluated on.

    Raises:
        DataError: patients or films of a test split were trained on.
    """
    for place in places:
        fingerprint = PreparedData.open(place.data).fingerprint
        for row in rows:
            for training in row.trainings:
                out = evaluation_on(training, place)
                if is_finished(training) and not _is_there(out, fingerprint):
                    evaluate_on(training, place.data, out, draws, report)


def transfer_tables(
    planned: Sequence[Sequence[PlannedRow]], places: Sequence[DataPlace], *, draws: int
) -> tuple[list[Table], list[Record], list[str]]:
    """A matrix for every row of the recipe and metric, a line for each data set trained on."""
    names = [PreparedData.open(place.data).name for place in places]
    columns = tuple(Metric(name, f"on {name}", "test split") for name in names)
    means = {
        (row.data, row.row.name, place.data, metric.key): _seed_mean(row, place, metric.key, draws)
        for rows in planned
        for row in rows
        for place in places
        for metric in JUDGED
    }
    tables, records, sentences = [], [], []
    for number in range(len(planned[0])):
        for metric in JUDGED:
            lines = []
            for rows in planned:
                row = rows[number]
                cells = []
                for place, name in zip(places, names, strict=True):
                    mean = means[row.data, row.row.name, place.data, metric.key]
                    summary = Summary(None) if mean is None else mean.summary()
                    count = 0 if mean is None else len(mean.findings)
                    cells.append(_cell(summary, count, place.data == row.data))
                    protocol = "test" if place.data == row.data else f"test on {name}"
                    records.append(
                        Record(row.data_name, row.name, count, protocol, metric.key, summary)
                    )
                lines.append(Line("run", f"trained on {row.data_name}", "", tuple(cells)))
            tables.append(
                Table(
                    f"{planned[0][number].row.title}: {metric.label}",
                    "Macro averages over the findings that both data sets have, mean of the "
                    "trainings ± standard deviation over seeds, in brackets the 95 % interval over "
                    f"patients. {NO_INTERVAL_RULE} In-domain: judged on the test split of the data "
                    "trained on.",
                    "Training",
                    columns,
                    tuple(lines),
                )
            )
    for rows in planned:
        for row in rows:
            for other in row.row.against:
                sentences += _sentences(row, other, places, names, means)
    return tables, records, sentences


def _sentences(
    row: PlannedRow,
    other: str,
    places: Sequence[DataPlace],
    names: Sequence[str],
    means: dict[tuple[Path, str, Path, str], SeedMean | None],
) -> list[str]:
    sentences = []
    for place, name in zip(places, names, strict=True):
        parts = []
        for metric in JUDGED:
            own = means[row.data, row.row.name, place.data, metric.key]
            baseline = means.get((row.data, other, place.data, metric.key))
            if own is None or baseline is None:
                continue
            summary = paired_difference(baseline, own)
            cell = shown(summary, signed=True)
            parts.append(f"{metric.label} {cell.text} {cell.interval}, {verdict_of(summary)}")
        if parts:
            sentences.append(
                f"Trained on {row.data_name}, judged on {name}: {row.row.name} minus {other}: "
                f"{'; '.join(parts)}."
            )
    return sentences


def _cell(summary: Summary, findings: int, in_domain: bool) -> Cell:
    cell = shown(summary, of=findings)
    words = f"{cell.counted or findings} finding{'' if findings == 1 else 's'}"
    return Cell(
        cell.text, cell.interval, "in-domain" if in_domain else "", cell.title, counted=words
    )


def _seed_mean(row: PlannedRow, place: DataPlace, metric: str, draws: int) -> SeedMean | None:
    files = [evaluation_on(training, place) / "cases.csv" for training in row.trainings]
    tables = [read_cases(file) for file in files if file.is_file()]
    return seed_mean(tables, metric, draws=draws) if tables else None


def _is_there(evaluation: Path, fingerprint: str) -> bool:
    file = evaluation / "metrics.json"
    if not file.is_file():
        return False
    return bool(read_json(file)["protocol"]["data"]["fingerprint"] == fingerprint)


def _refuse_same_patients(trained: PreparedData, judged: PreparedData) -> None:
    """As the evaluation will, but before hours of training."""
    seen, test = np.isin(trained.splits, ("train", "val")), judged.indices("test")
    files = set(trained.file_hashes[seen].tolist()) & set(judged.file_hashes[test].tolist()) - {0}
    patients: set[str] = set()
    if trained.patients_of == judged.patients_of:
        known = {trained.patient_ids[index] for index in np.flatnonzero(seen)}
        patients = known & {judged.patient_ids[index] for index in test}
    if files or patients:
        raise DataError(
            f"{judged.folder}: {len(files)} image files and {len(patients)} patients of its test "
            f"split are in the training or validation split of {trained.folder}; give data sets of "
            "different people, or prepare them under the same --splits (sets of your own that are "
            "different people with the same ids: under different names, with --name)"
        )


def _refuse_nothing_shared(
    trained: PreparedData, findings: Sequence[str], judged: PreparedData
) -> None:
    """As the evaluation will, but before hours of training."""
    agree(
        findings,
        trained.name,
        judged.findings,
        judged.name,
        load_label_map(),
        model_harmonised=trained.harmonised,
        data_harmonised=judged.harmonised,
    )
