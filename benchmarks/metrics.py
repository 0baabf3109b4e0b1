"""Metrics against their naive twins and peers, in one run: `python benchmarks/metrics.py`.

Prints how many times faster the exact vectorised metric is than the plain loop it must equal, and
how far the two are apart. Times depend on the machine; the ratios, taken side by side in one
process, do so much less.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import sklearn
from made_up import made_up
from sklearn.metrics import f1_score, matthews_corrcoef, roc_auc_score
from threadpoolctl import threadpool_limits
from timing import Target, heading, in_turn, line

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.bootstrap import patient_weights
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.evaluation.maps import max_dice, upsample
from dwarf_cxr.evaluation.scores import area_under_curve, decisions, rank_sums
from dwarf_cxr.models.outputs import ModelCard, Outputs

IMAGES, PATIENTS, FINDINGS, DRAWS = 15_000, 6_000, 13, 1000
NAIVE_DRAWS = 2
MAPS = 30
FEW, MANY = 22_500, 225_000
FLAT = 2.0
"""Times the memory for ten times the images that would still count as flat."""
SIDE = 16
"""Of the images of `memory`: what it takes follows their number."""


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["--measure"]:
        measure(int(sys.argv[2]))
        return
    generator = np.random.default_rng(0)
    heading(f"Metrics (numpy {np.__version__}, scikit-learn {sklearn.__version__})")
    # a second thread of small products only waits, and its waiting counts as CPU time
    with threadpool_limits(1):
        bootstrap(generator)
        peer(generator)
        best_dice(generator)
    memory()


def bootstrap(generator: np.random.Generator) -> None:
    """AUC, F1 and MCC of every finding for 1,000 patient resamples."""
    labels = (generator.random((IMAGES, FINDINGS)) < 0.08).astype(float)
    scores = generator.random((IMAGES, FINDINGS)) + 0.3 * labels
    patients = generator.integers(0, PATIENTS, IMAGES)
    present = (scores > 0.8).astype(float)

    def ours(draws: int = DRAWS) -> np.ndarray:
        found = []
        for weights in patient_weights(PATIENTS, draws, seed=0):
            for finding in range(FINDINGS):
                sums = rank_sums(labels[:, finding], scores[:, finding], patients, weights)
                auc = area_under_curve(sums)
                scored = decisions(labels[:, finding], present[:, finding], patients, weights)
                found.append((auc, scored.f1, scored.mcc))
        return np.array(found[:FINDINGS]) if draws <= NAIVE_DRAWS else np.empty(0)

    def naive() -> np.ndarray:
        found = np.empty((FINDINGS, 3, NAIVE_DRAWS))
        for weights in patient_weights(PATIENTS, NAIVE_DRAWS, seed=0):
            for number, draw in enumerate(weights):
                rows = np.repeat(np.arange(IMAGES), draw[patients].astype(int))
                for finding in range(FINDINGS):
                    truth = labels[rows, finding]
                    found[finding, 0, number] = roc_auc_score(truth, scores[rows, finding])
                    found[finding, 1, number] = f1_score(truth, present[rows, finding])
                    found[finding, 2, number] = matthews_corrcoef(truth, present[rows, finding])
        return found

    fast, slow = in_turn([ours, naive], 2)
    slow *= DRAWS / NAIVE_DRAWS
    what = f"bootstrap of AUC, F1, MCC: {IMAGES} images, {FINDINGS} findings, {DRAWS} draws"
    beside = f"scikit-learn loop {slow:.0f} s (from {NAIVE_DRAWS} draws)"
    line(what, f"{fast:.2f} s", beside, slow / fast, "x", Target(80))
    line("its seconds", f"{fast:.2f} s", "-", fast, " s", Target(1.5, at_most=True))
    error = float(np.abs(ours(NAIVE_DRAWS) - naive()).max())
    line("its largest difference", "exact", "scikit-learn", error, "", Target(1e-12, at_most=True))
    restart_peak()
    before = resident("VmRSS")
    ours()
    extra = (resident("VmHWM") - before) / 2**20
    line("its memory", f"{extra:.0f} MB", "-", extra, " MB", Target(150, at_most=True))


def peer(generator: np.random.Generator) -> None:
    """The AUC of every finding, of torchmetrics where it is installed."""
    if find_spec("torchmetrics") is None:
        print("| AUC of 13 findings | - | torchmetrics is not installed | - | - | - |")
        return
    import torch
    from torchmetrics.functional.classification import multilabel_auroc

    labels = generator.random((IMAGES, FINDINGS)) < 0.08
    scores = generator.random((IMAGES, FINDINGS)) * 0.7 + 0.3 * labels
    images, one = np.arange(IMAGES), np.ones((1, IMAGES))
    given = torch.from_numpy(scores), torch.from_numpy(labels.astype(np.int64))

    def ours() -> list[float]:
        columns = range(FINDINGS)
        sums = [rank_sums(labels[:, c].astype(float), scores[:, c], images, one) for c in columns]
        return [float(area_under_curve(each)[0]) for each in sums]

    def theirs() -> list[float]:
        return multilabel_auroc(*given, num_labels=FINDINGS, average="none").tolist()

    fast, slow = in_turn([ours, theirs], 3)
    error = np.abs(np.array(ours()) - theirs()).max()
    version = importlib.metadata.version("torchmetrics")
    line(
        f"AUC of {FINDINGS} findings, {IMAGES} images",
        f"{fast * 1e3:.0f} ms",
        f"torchmetrics {version}: {slow * 1e3:.0f} ms, {error:.1e} apart",
        slow / fast,
    )


def best_dice(generator: np.random.Generator) -> None:
    """Maximum Dice over thresholds of 224 px maps, and of maps on a 14×14 grid."""
    grids = [generator.random((14, 14)).astype(np.float32) for _ in range(MAPS)]
    truths = []
    for _ in range(MAPS):
        truth = np.zeros((224, 224))
        x, y = generator.integers(0, 150, 2)
        truth[y : y + 50, x : x + 60] = 1
        truths.append(truth)
    smooth = [upsample(grid, 224).ravel() for grid in grids]
    blocks = [np.kron(grid, np.ones((16, 16), dtype=np.float32)).ravel() for grid in grids]

    def ours() -> list[float]:
        return [max_dice(m, y.ravel()) for m, y in zip(smooth, truths, strict=True)]

    def on_the_grid() -> list[float]:
        cells = (cv2.resize(y, (14, 14), interpolation=cv2.INTER_AREA) for y in truths)
        return [max_dice(m.ravel(), y.ravel()) for m, y in zip(grids, cells, strict=True)]

    def loop() -> list[float]:
        return [hundred_thresholds(m, y.ravel()) for m, y in zip(smooth, truths, strict=True)]

    def every_value() -> list[float]:
        return [all_thresholds(m, y.ravel()) for m, y in zip(smooth, truths, strict=True)]

    fast, grid, slow, sorting = in_turn([ours, on_the_grid, loop, every_value], 5)
    low = max(a - b for a, b in zip(ours(), loop(), strict=True))
    line(
        "largest Dice of a 224 px map",
        f"{fast / MAPS * 1e3:.3f} ms, exact",
        f"100 thresholds {slow / MAPS * 1e3:.2f} ms, up to {low:.4f} too low",
        slow / fast,
        "x",
        Target(25),
    )
    error = max(abs(a - b) for a, b in zip(ours(), every_value(), strict=True))
    line(
        "its error",
        "exact",
        f"all pixels sorted {sorting / MAPS * 1e3:.2f} ms",
        error,
        "",
        Target(1e-12, at_most=True),
    )
    line(
        "the same of a 14×14 grid, by its cells",
        f"{grid / MAPS * 1e3:.3f} ms",
        f"100 thresholds at 224 px {slow / MAPS * 1e3:.2f} ms",
        slow / grid,
        "x",
        Target(100),
    )
    at_full_size = [all_thresholds(m, y.ravel()) for m, y in zip(blocks, truths, strict=True)]
    error = max(abs(a - b) for a, b in zip(on_the_grid(), at_full_size, strict=True))
    line("its error", "exact", "all pixels sorted", error, "", Target(1e-6, at_most=True))


def hundred_thresholds(m: np.ndarray, y: np.ndarray) -> float:
    """The naive twin: thresholds 0, 1/99, … 1."""
    best = 0.0
    for threshold in np.linspace(0, 1, 100):
        chosen = m >= threshold
        best = max(best, 2 * (chosen * y).sum() / (chosen.sum() + y.sum()))
    return best


def all_thresholds(m: np.ndarray, y: np.ndarray) -> float:
    """The exact twin: every pixel sorted, Dice after the last of each value."""
    order = np.argsort(-m)
    values, overlap = m[order], np.cumsum(y[order])
    last = np.append(values[1:] != values[:-1], True)
    dice = 2 * overlap / (np.arange(1, len(m) + 1) + y.sum())
    return float(dice[last].max())


def memory() -> None:
    """What an evaluation of few and of many made-up outputs takes beside the start, each alone."""
    found = []
    for images in (FEW, MANY):
        command = [sys.executable, __file__, "--measure", str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    few, many = (one["peak"] / 2**20 for one in found)
    line(
        f"evaluation of {MANY:,} images, {FINDINGS} findings: memory beside the start",
        f"{many:.0f} MB, {found[1]['seconds']:.0f} s",
        f"of {FEW:,}: {few:.0f} MB, {found[0]['seconds']:.0f} s",
        many / few,
        "x",
        Target(FLAT, at_most=True),
    )
    growth = (found[1]["peak"] - found[0]["peak"]) / (MANY - FEW)
    held = FINDINGS * 14 * 14 * 4
    line("it grows by", f"{growth:.0f} bytes an image", f"its maps: {held} bytes", growth / held)


def measure(images: int) -> None:
    """Evaluate and print the peak of this process's memory and the time as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        data = many(Path(folder), images)
        out = Path(folder) / "eval"
        model = Made(data)
        restart_peak()
        before = resident("VmRSS")
        [seconds] = in_turn([lambda: evaluate(model, data, split="test", out=out, draws=20)], 1)
        print(json.dumps({"peak": resident("VmHWM") - before, "seconds": seconds}))


class Made:
    """A classifier whose answers are random."""

    def __init__(self, data: PreparedData) -> None:
        self.findings, self.image_size = data.findings, data.size
        limits: dict[str, float | None] = dict.fromkeys(data.findings, 0.5)
        prior = np.full((len(data.findings), data.size, data.size), 0.3, dtype=np.float32)
        self.card = ModelCard(
            "made up", data.name, "", "", "isolated", "unit", limits, limits, limits, prior
        )
        self.generator = np.random.default_rng(1)

    def predict(self, pixels: np.ndarray, findings: object = None) -> Outputs:
        """Scores and 4×4 maps."""
        shape = (len(pixels), len(self.findings))
        maps = self.generator.random((*shape, 4, 4)).astype(np.float32)
        return Outputs(self.generator.random(shape), maps, {})


def many(folder: Path, images: int) -> PreparedData:
    """Empty images, three a patient, a tenth of the labels present, a box on every twentieth."""
    generator = np.random.default_rng(0)
    findings = tuple(f"Finding {number}" for number in range(FINDINGS))
    shape = (images, SIDE, SIDE)
    np.memmap(folder / "pixels.u8", np.uint8, "w+", shape=shape).flush()
    labels = (generator.random((images, FINDINGS)) < 0.1).astype(np.float32)
    boxed = range(0, images, 20)
    labels[boxed, 0] = 1
    return made_up(
        folder,
        np.memmap(folder / "pixels.u8", np.uint8, "r", shape=shape),
        labels,
        findings,
        dict.fromkeys(boxed, (0,)),
        split="test",
        films_per_patient=3,
    )


def restart_peak() -> None:
    """Let the peak of this process's memory count from here (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> int:
    """This process's memory in bytes: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(each.split()[1]) * 1024 for each in lines if each.startswith(field))


if __name__ == "__main__":
    main()
