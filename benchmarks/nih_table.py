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
    if (out / "eval-test" / "metrics.json").exists():
        return
    train = ["train", *row.words, "--data", str(data), "--out", str(out), "--seed", str(seed)]
    train += ["--findings", ",".join(NIH_BOXED_8)]
    if (out / "config.yaml").exists():
        train.append("--resume")
    for arguments in (train, ["evaluate", str(out), "--data", str(data)]):
        print("dwarf", *arguments, flush=True)
        subprocess.run([sys.executable, "-m", "dwarf_cxr.cli", *arguments], check=True)


def print_table(rows: list[Row], seeds: list[int], out: Path) -> None:
    """Markdown: mean ± sd over seeds, the first seed's interval, and the references."""
    print("| method | seeds | " + " | ".join(METRICS) + " | minutes |")
    print("|---|---|" + "---|" * (len(METRICS) + 1))
    references: dict[str, dict[str, float]] = {}
    for row in rows:
        done = [out / f"{row.name}-{seed}" for seed in seeds]
        done = [run for run in done if (run / "eval-test" / "metrics.json").exists()]
        if not done:
            continue
        metrics = [json.loads((run / "eval-test" / "metrics.json").read_text()) for run in done]
        cells = [_cell([one["macro"][name] for one in metrics]) for name in METRICS]
        minutes = statistics.mean(_seconds(run) for run in done) / 60
        print(f"| {row.name} | {len(done)} | " + " | ".join(cells) + f" | {minutes:.1f} |")
        for name, block in metrics[0]["references"].items():
            label = f"{name} of {row.name}" if name == "shuffled" else name
            references[label] = block["macro"]
    for label, macro in references.items():
        cells = [_cell([macro[name]]) if name in macro else "–" for name in METRICS]
        print(f"| *{label}* | | " + " | ".join(cells) + " | |")


def _cell(entries: list[dict[str, float]]) -> str:
    values = [entry["value"] for entry in entries]
    if any(value is None for value in values):
        return "–"
    interval = f"[{entries[0]['low']:.3f}, {entries[0]['high']:.3f}]"
    if len(values) == 1:
        return f"{values[0]:.3f} {interval}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} {interval}"


def _seconds(run: Path) -> float:
    with (run / "history.csv").open(newline="") as stream:
        return float(list(csv.DictReader(stream))[-1]["seconds"])


if __name__ == "__main__":
    main()
