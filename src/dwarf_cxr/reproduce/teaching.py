"""The data again with teachers' regions, and how well the teachers draw."""

import csv
import shlex

from dwarf_cxr.data.store import DATASET_FILE, PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import read_json
from dwarf_cxr.progress import Report
from dwarf_cxr.reporting.intervals import NO_INTERVAL_RULE
from dwarf_cxr.reporting.metrics import Metric
from dwarf_cxr.reporting.tables import Cell
from dwarf_cxr.reporting.tables import Row as Line
from dwarf_cxr.reproduce.plan import DataPlace
from dwarf_cxr.reproduce.recipes import TEACHER_DICE
from dwarf_cxr.reproduce.statistics import Summary
from dwarf_cxr.reproduce.subsets import findings_with_regions
from dwarf_cxr.reproduce.tables import Record, Table, shown, shown_spread
from dwarf_cxr.training.pseudo_regions import TABLE_FILE, teach
from dwarf_cxr.training.teachers import TeacherSettings

COLUMNS = (
    Metric("val_dice", "Dice", "of the nets on validation films, which none of them has seen"),
    Metric("films", "Films", "validation films with a region"),
    Metric("out_of_fold", "Dice out of fold", "on training films, by the net that has not seen it"),
    Metric("pseudo", "Pseudo regions", "of training films with the finding"),
    Metric("paper", "Paper", "slides, on ChestX-Det; on which films is not said"),
)


def teach_if_missing(place: DataPlace, settings: TeacherSettings, report: Report) -> None:
    """Write `place.pseudo` unless it is there.

    Raises:
        ConfigError: it was made of other data, or by other settings.
        DataError: no finding has enough regions.
    """
    data = PreparedData.open(place.data)
    if (place.pseudo / DATASET_FILE).is_file():
        _refuse_other(place, data, settings)
        return
    findings = findings_with_regions(data)
    report(_command(place, findings, settings), 0, 1)
    teach(place.data, place.pseudo, findings=findings, settings=settings, report=report)


def teacher_table(place: DataPlace, data_name: str) -> tuple[Table, list[Record]]:
    """The teachers' quality by finding, beside the slides'."""
    with (place.pseudo / TABLE_FILE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines, records = [], []
    for row in rows:
        quality = Summary(
            _number(row["val_dice"]), _number(row["val_dice_low"]), _number(row["val_dice_high"])
        )
        paper = TEACHER_DICE.get(row["finding"])
        records.append(
            Record(
                data_name,
                row["finding"],
                1,
                "teacher",
                "dice",
                quality,
                paper=paper,
                paper_source="" if paper is None else "slides, teachers, ChestX-Det",
            )
        )
        out_of_fold = _number(row["out_of_fold_dice"])
        cells = (
            shown(quality),
            Cell(row["val_images"] or "—"),
            shown_spread(Summary(out_of_fold)),
            Cell(f"{row['pseudo_regions'] or 0} of {row['train_images_present'] or 0}"),
            shown_spread(Summary(paper)),
        )
        lines.append(Line("run", row["finding"], row["reason"], cells))
    table = Table(
        "Teachers, by finding",
        "Dice of segmentation networks, one set of them for each finding, at probability .5; in "
        f"brackets the 95 % interval over patients. {NO_INTERVAL_RULE} The slides' "
        "networks were trained and judged on other films: their numbers tell which findings are "
        "hard, no more.",
        "Finding",
        COLUMNS,
        tuple(lines),
    )
    return table, records


def _refuse_other(place: DataPlace, data: PreparedData, settings: TeacherSettings) -> None:
    made = read_json(place.pseudo / DATASET_FILE).get("teachers", {})
    wanted = {
        "of": data.fingerprint,
        "folds": settings.folds,
        "epochs": settings.epochs,
        "size": settings.size,
        "seed": settings.seed,
    }
    changed = [
        f"{name}: {made.get(name)!r} -> {value!r}"
        for name, value in wanted.items()
        if made.get(name) != value
    ]
    if changed:
        raise ConfigError(
            f"{place.pseudo}: the teachers' regions there were made otherwise "
            f"({'; '.join(changed)}); give the same --scale and --data as then, or choose another "
            "--out"
        )


def _command(place: DataPlace, findings: tuple[str, ...], settings: TeacherSettings) -> str:
    words = ["dwarf", "teachers", "--data", str(place.data), "--out", str(place.pseudo)]
    words += ["--findings", ",".join(findings), "--folds", str(settings.folds)]
    words += ["--epochs", str(settings.epochs), "--size", str(settings.size)]
    return shlex.join([*words, "--seed", str(settings.seed)])


def _number(written: str) -> float | None:
    return float(written) if written else None
