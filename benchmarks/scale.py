"""What large data sets need: `python benchmarks/scale.py`.

First the bookkeeping, measured at 225,000 and 10 million images: splits by patient, the order of an
epoch, the schedule, AUC with two bootstrap draws. Each runs in a process of its own. Then a plan:
storage and hours, from rates that can be given; the defaults are no measurements of your machine.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
from metrics import resident, restart_peak

from dwarf_cxr.data.splits import (
    iterative_stratification,
    patient_hashes,
    refuse_shared_patients,
    splits_sha256,
)
from dwarf_cxr.evaluation.bootstrap import patient_weights
from dwarf_cxr.evaluation.scores import area_under_curve, rank_sums
from dwarf_cxr.training.schedules import active_findings

SIZES = (225_000, 10_000_000)
STEPS = ("splits", "epoch", "schedule", "auc")
FINDINGS, SIDE, BATCH = 13, 224, 64


def main() -> None:
    """Print two tables."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--measure", choices=STEPS, help=argparse.SUPPRESS)
    words.add_argument("--images", type=int, nargs="+", default=list(SIZES))
    words.add_argument("--train-rate", type=float, default=1500.0, help="images per second, a GPU")
    words.add_argument("--evaluate-rate", type=float, default=3000.0, help="likewise")
    words.add_argument("--prepare-ms", type=float, default=66.0, help="a film, all cores")
    words.add_argument("--gpus", type=int, default=1)
    given = words.parse_args()
    if given.measure:
        measure(given.measure, given.images[0])
        return
    print("\nBookkeeping\n\n| what | images | seconds | MB beside the start |\n|---|---|---|---|")
    for step in STEPS:
        for images in given.images:
            command = [sys.executable, __file__, "--measure", step, "--images", str(images)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            print(f"| {step} | {images:,} | {found['seconds']:.1f} | {found['peak'] / 2**20:.0f} |")
    print(
        f"\nPlan, {SIDE} px, {FINDINGS} findings, {given.gpus} GPUs at {given.train_rate:g} "
        f"images/s in training and {given.evaluate_rate:g} in evaluation, "
        f"{given.prepare_ms:g} ms to prepare a film\n\n"
        "| images | cache | preparing | an epoch | evaluating | scores of all |\n"
        "|---|---|---|---|---|---|"
    )
    for images in given.images:
        print(plan(images, given))


def plan(images: int, given: argparse.Namespace) -> str:
    """A row of the plan."""
    hours = (
        images * given.prepare_ms / 3.6e6,
        images / (given.train_rate * given.gpus) / 3600,
        images / (given.evaluate_rate * given.gpus) / 3600,
    )
    return (
        f"| {images:,} | {images * SIDE**2 / 1e9:.1f} GB | {hours[0]:.1f} h | {hours[1]:.2f} h | "
        f"{hours[2]:.2f} h | {images * FINDINGS * 8 / 1e6:.0f} MB |"
    )


def measure(step: str, images: int) -> None:
    """Print seconds and peak memory of one part of the bookkeeping as JSON."""
    generator = np.random.default_rng(0)
    restart_peak()
    before, started = resident("VmRSS"), time.perf_counter()
    if step == "splits":
        splits(images)
    elif step == "epoch":
        order = np.random.default_rng([0, 0]).permutation(np.arange(images))
        assert sum(map(len, np.array_split(order, -(-images // BATCH)))) == images
    elif step == "schedule":
        per_epoch = -(-images // BATCH)
        for number in range(per_epoch):
            active_findings("cyclic", epoch=number // per_epoch, step=number, findings=FINDINGS)
    else:
        labels = (generator.random(images) < 0.1).astype(float)
        scores = generator.random(images)
        patients = np.arange(images) // 3
        count = int(patients[-1]) + 1
        area_under_curve(rank_sums(labels, scores, patients, np.ones((1, count))))
        for weights in patient_weights(count, 2, seed=0):
            area_under_curve(rank_sums(labels, scores, patients, weights))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": resident("VmHWM") - before}))


def splits(images: int) -> None:
    """Patients to splits, as preparing does where a set has none, and who was seen by a model."""
    generator = np.random.default_rng(0)
    patients = images // 3
    counts = (generator.random((patients, FINDINGS)) < 0.1).astype(np.int64)
    weights = np.full(patients, 3)
    parts = iterative_stratification(counts, weights, (0.7, 0.1, 0.2), generator)
    names = [f"p{number:08d}" for number in range(patients)]
    told = [("train", "val", "test")[part] for part in parts]
    refuse_shared_patients(names, told)
    splits_sha256(names, told)
    patient_hashes("made up", names)


if __name__ == "__main__":
    main()
