"""Evaluated runs as a report needs them: metrics, cases, settings and history, checked to match."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.config import RunConfig, load_config
from dwarf_cxr.data.harmonise import FindingUnion
from dwarf_cxr.errors import DataError, DwarfError
from dwarf_cxr.evaluation.cases import Cases, read_cases
from dwarf_cxr.files import read_json
from dwarf_cxr.models.opening import evaluation_folder, is_exported

REQUIRED = (
    "method",
    "seed",
    "findings_order",
    "protocol",
    "findings",
    "macro",
    "references",
    "oracle",
)
CURVES = ("loss", "val_auc", "val_dice")
"""What is read of history.csv, besides epoch, seconds and best."""


@dataclass(frozen=True)
class History:
    """history.csv; one entry per evaluated epoch, NaN where a value is undefined."""

    epochs: Float64[np.ndarray, "row"]
    seconds: float
    """Training time at the last row."""
    best_epoch: float | None
    """The epoch whose weights were kept."""
    curves: Mapping[str, Float64[np.ndarray, "row"]]
    steps: float | None = None
    """Optimiser steps at the last row."""


@dataclass(frozen=True)
class EvaluatedRun:
    """A run, or bare model folder, with its evaluation on one split."""

    name: str
    """Short and different for every run of a report."""
    folder: Path
    evaluation: Path
    """The folder with metrics.json and cases.csv."""
    metrics: Mapping[str, Any]
    cases: Cases
    config: RunConfig | None
    """None for a bare model folder."""
    history: History | None

    @property
    def method(self) -> str:
        """The trained method's name."""
        return str(self.metrics["method"])

    @property
    def seed(self) -> int | None:
        """The training's seed, if known."""
        seed = self.metrics["seed"]
        return None if seed is None else int(seed)

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The block `protocol` of metrics.json."""
        return self.metrics["protocol"]

    @property
    def fingerprint(self) -> str:
        """The hash of the data it was evaluated on."""
        return str(self.protocol["data"]["fingerprint"])

    @property
    def shared_findings(self) -> Mapping[str, Mapping[str, list[str]]]:
        """For every evaluated finding, what it is made of: `model`, `data`, `never_assessed`."""
        said = self.protocol.get("shared_findings", {})
        plain = (
            (name, {"model": [name], "data": [name], "never_assessed": []})
            for name in self.metrics["findings_order"]
        )
        return {name: said.get(name, itself) for name, itself in plain}

    @property
    def model_parts(self) -> dict[str, tuple[str, ...]]:
        """The model's findings that each evaluated one is the largest of."""
        return {name: tuple(one["model"]) for name, one in self.shared_findings.items()}

    @property
    def data_unions(self) -> dict[str, FindingUnion]:
        """The data's findings that each evaluated one is the union of."""
        return {
            name: FindingUnion(tuple(one["data"]), tuple(one["never_assessed"]))
            for name, one in self.shared_findings.items()
        }

    @property
    def title(self) -> str:
        """Name, method and seed in one line."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.name} ({self.method}{seed})"

    def case(self, image_id: str, finding: str) -> tuple[int, int] | None:
        """Row and column of an image and finding in `cases`; None when it was not evaluated."""
        if image_id not in self.cases.image_ids or finding not in self.cases.findings:
            return None
        return self.cases.image_ids.index(image_id), self.cases.findings.index(finding)


def all_findings(runs: Sequence[EvaluatedRun]) -> list[str]:
    """The findings that any of the runs was evaluated for, in order."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics["findings_order"]))


def read_runs(
    folders: Sequence[Path], split: str, evaluation: Path | None = None
) -> tuple[EvaluatedRun, ...]:
    """Read the evaluations of runs on a split of one data set.

    Args:
        evaluation: where the only run's evaluation lies, if not in its folder `eval-SPLIT`.

    Raises:
        DwarfError: no run, a run twice, one that was not evaluated, or different data.
    """
    if not folders:
        raise DwarfError("no run is given; name at least one run folder")
    repeated = [str(folder) for folder, n in Counter(map(Path.resolve, folders)).items() if n > 1]
    if repeated:
        raise DwarfError(f"{', '.join(repeated)}: given twice; name every run once")
    names = _short_names(folders)
    runs: list[EvaluatedRun] = []
    for folder, name in zip(folders, names, strict=True):
        its = evaluation or evaluation_folder(folder, split)
        runs.append(_read_run(folder, name, split, its, compared_on=_data_folder(runs)))
    first = runs[0]
    for run in runs[1:]:
        if run.fingerprint != first.fingerprint:
            raise DataError(
                f"{run.folder} was evaluated on other data than {first.folder}: "
                f"{_data_words(run)} and {_data_words(first)}; evaluate both on the same data, as "
                f"with `dwarf evaluate {run.folder} --data {_data_folder(runs)} --split {split}`"
            )
        for name, union in run.data_unions.items():
            if first.data_unions.get(name, union) != union:
                raise DataError(
                    f"{run.folder} and {first.folder} mean different findings of the data by "
                    f"{name}: {' or '.join(union.parts)}, and "
                    f"{' or '.join(first.data_unions[name].parts)}; evaluate both with the same "
                    "--label-map"
                )
    return tuple(runs)


def _data_folder(runs: Sequence[EvaluatedRun]) -> str | None:
    """The data that the first run was evaluated on, which the others need too."""
    return str(runs[0].protocol["data"]["folder"]) if runs else None


def _read_run(
    folder: Path, name: str, split: str, evaluation: Path, compared_on: str | None
) -> EvaluatedRun:
    if not folder.is_dir() and not (is_exported(folder) and folder.is_file()):
        raise DwarfError(f"{folder}: no such folder; give the folder of a run")
    config_file = folder / "config.yaml"
    config = load_config(config_file) if config_file.is_file() else None
    file = evaluation / "metrics.json"
    if not file.is_file():
        data = compared_on or (config.data if config is not None else "DATA")
        raise DwarfError(
            f"{folder}: not evaluated on the {split} split ({file} is missing); run "
            f"`dwarf evaluate {folder} --data {data} --split {split}` first"
        )
    metrics = read_json(file)
    missing = [key for key in REQUIRED if not isinstance(metrics, dict) or key not in metrics]
    if missing:
        raise DataError(f"{file}: {', '.join(missing)} is missing; evaluate {folder} again")
    return EvaluatedRun(
        name=name,
        folder=folder,
        evaluation=evaluation,
        metrics=metrics,
        cases=read_cases(evaluation / "cases.csv"),
        config=config,
        history=_read_history(folder / "history.csv"),
    )


def _read_history(path: Path) -> History | None:
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return None
    try:
        best = [float(row["epoch"]) for row in rows if row["best"] == "1"]
        return History(
            epochs=np.array([float(row["epoch"]) for row in rows]),
            seconds=float(rows[-1]["seconds"]),
            best_epoch=best[-1] if best else None,
            steps=float(rows[-1]["step"]) if rows[-1].get("step") else None,
            curves={name: np.array([float(row[name] or "nan") for row in rows]) for name in CURVES},
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise DataError(
            f"{path}: damaged ({fault}); restore it, or remove it to report without a history"
        ) from None


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as make them differ."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def _data_words(run: EvaluatedRun) -> str:
    data = run.protocol["data"]
    return f"{data['name']} in {data['folder']} (fingerprint {run.fingerprint[:12]}…)"
