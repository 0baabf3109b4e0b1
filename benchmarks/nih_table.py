"""The table of RESULTS.md on NIH ChestX-ray14: train, evaluate and print it.

    python benchmarks/nih_table.py --data D --out RUNS [--seeds 0,1,2] [--only dwarf,classifier]

Rows are trained one after another with the commands that are printed; finished ones are skipped and
interrupted ones resumed, so that the same call continues where a session ended. `--print` only
prints the table of what is there.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwarf_cxr.evaluation.bootstrap import LEVEL, patient_weights
from dwarf_cxr.evaluation.cases import mean_over_findings, read_cases
from dwarf_cxr.findings import NIH_BOXED_8

METRICS = ("auc", "dice", "max_dice", "iou", "hit_rate", "energy_inside")


@dataclass(frozen=True)
class Row:
    """One row of the table: a name and the training's arguments."""

    name: str
    words: tuple[str, ...]


ROWS = (
    Row("dwarf", ("dwarf",)),
    Row("dwarf-prior", ("dwarf-prior",)),
    Row("classifier", ("classifier",)),
    Row("gain", ("gain",)),
    Row("direct", ("direct",)),
    Row("dwarf-interleaved", ("dwarf", "--set", "schedule=interleaved")),
    Row("dwarf-cyclic", ("dwarf", "--set", "schedule=cyclic")),
    # equal epochs of every finding: 16 cyclic epochs train each of 8 findings twice
    Row("dwarf-cyclic-16", ("dwarf", "--set", "schedule=cyclic", "--epochs", "16")),
    Row("dwarf-joint-2", ("dwarf", "--epochs", "2")),
)


class SeedMean(NamedTuple):
    """A macro metric of several trainings: each one's value, and their mean in every draw."""

    per_seed: list[float]
    draws: np.ndarray


SeedMeans = dict[str, SeedMean]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default=",".join(row.name for row in ROWS))
    parser.add_argument("--print", action="store_true", dest="only_print")
    words = parser.parse_args()
    seeds = [int(seed) for seed in words.seeds.split(",")]
    rows = [row for row in ROWS if row.name in words.only.split(",")]
    if not words.only_print:
        for seed in seeds:
            for row in rows:
                run(row, seed, words.data, words.out / f"{row.name}-{seed}")
    print_table(rows, seeds, words.out)


def run(row: Row, seed: int, data: Path, out: Path) -> None:
    """Train and evaluate one run unless it is done."""
    if _is_done(out):
        return
    train = ["train", *row.words, "--data", str(data), "--out", str(out), "--seed", str(seed)]
    train += ["--findings", ",".join(NIH_BOXED_8)]
    if (out / "config.yaml").exists():
        train.append("--resume")
    for arguments in (train, ["evaluate", str(out), "--data", str(data)]):
        print("dwarf", *arguments, flush=True)
        subprocess.run([sys.executable, "-m", "dwarf_cxr.cli", *arguments], check=True)


def print_table(rows: list[Row], seeds: list[int], out: Path) -> None:
    """Markdown: mean over seeds ± their sd, the mean's interval over patients, the references."""
    done = {
        row.name: found
        for row in rows
        if (found := [run for seed in seeds if _is_done(run := out / f"{row.name}-{seed}")])
    }
    print("| method | seeds | " + " | ".join(METRICS) + " | minutes |")
    print("|---|---|" + "---|" * (len(METRICS) + 1))
    means: dict[str, SeedMeans] = {}
    references: dict[str, dict[str, dict[str, float]]] = {}
    for name, runs in done.items():
        means[name] = seed_means(runs)
        cells = [_cell(*means[name][metric]) for metric in METRICS]
        minutes = statistics.mean(_seconds(run) for run in runs) / 60
        print(f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {minutes:.1f} |")
        metrics = json.loads((runs[0] / "eval-test" / "metrics.json").read_text())
        for reference, block in metrics["references"].items():
            label = f"{reference} of {name}" if reference == "shuffled" else reference
            references[label] = block["macro"]
    for label, macro in references.items():
        cells = [_reference_cell(macro[name]) if name in macro else "–" for name in METRICS]
        print(f"| *{label}* | | " + " | ".join(cells) + " | |")
    print_differences(means)
    print_validation(done)


def print_differences(means: dict[str, SeedMeans]) -> None:
    """Each row minus the first, paired: the same patients in every draw."""
    baseline, *others = means
    print(f"\n| minus {baseline} | " + " | ".join(METRICS) + " |")
    print("|---|" + "---|" * len(METRICS))
    for name in others:
        cells = []
        for metric in METRICS:
            one, two = means[baseline][metric], means[name][metric]
            cells.append(_interval(two.draws - one.draws, statistics.mean(two.per_seed), one))
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_validation(done: dict[str, list[Path]]) -> None:
    """What the default settings are chosen by: the kept epoch's validation, mean ± sd."""
    columns = ("epoch", "val_auc", "val_dice", "val_hit_rate")
    print("\n| on validation | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name, runs in done.items():
        kept = []
        for run in runs:
            with (run / "history.csv").open(newline="") as stream:
                kept.append([row for row in csv.DictReader(stream) if row["best"] == "1"][-1])
        cells = [_spread([float(row[column]) for row in kept]) for column in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def seed_means(runs: list[Path], draws: int = 1000) -> SeedMeans:
    """Resample patients, the same for every training, and average the trainings in each draw."""
    tables = [read_cases(run / "eval-test" / "cases.csv") for run in runs]
    patients = len(set(tables[0].patient_ids))
    means = {}
    for metric in METRICS:
        points = [table.per_finding(metric, np.ones((1, patients))) for table in tables]
        defined = ~np.isnan(points[0][0])
        sampled = [
            np.concatenate(
                [
                    mean_over_findings(table.per_finding(metric, weights), defined)
                    for weights in patient_weights(patients, draws, seed=0)
                ]
            )
            for table in tables
        ]
        values = [float(mean_over_findings(point, defined)[0]) for point in points]
        means[metric] = SeedMean(values, np.mean(sampled, axis=0))
    return means


def _cell(per_seed: list[float], draws: np.ndarray) -> str:
    low, high = np.nanpercentile(draws, LEVEL)
    return f"{_spread(per_seed)} [{low:.3f}, {high:.3f}]"


def _interval(differences: np.ndarray, mean: float, baseline: SeedMean) -> str:
    low, high = np.nanpercentile(differences, LEVEL)
    return f"{mean - statistics.mean(baseline.per_seed):+.3f} [{low:+.3f}, {high:+.3f}]"


def _spread(values: list[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def _reference_cell(entry: dict[str, float]) -> str:
    if entry["value"] is None:
        return "–"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _is_done(run: Path) -> bool:
    return (run / "eval-test" / "metrics.json").exists()


def _seconds(run: Path) -> float:
    with (run / "history.csv").open(newline="") as stream:
        return float(list(csv.DictReader(stream))[-1]["seconds"])


if __name__ == "__main__":
    main()
