"""What a training step costs: `python benchmarks/training_step.py --data D`.

Takes the training loop's own steps on a prepared data set, with a vision transformer of random
weights as image encoder, at several batch sizes: images per second, memory, the share of the
device's peak, and what of the step is not the image encoder. Nothing is learned from the weights.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from dwarf_cxr.config import RunConfig, prompted
from dwarf_cxr.data.batches import Batch, RegionTargets, in_unit_range, load_batch
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.models.building import build_fresh
from dwarf_cxr.objectives.label_loss import positive_weights
from dwarf_cxr.parallel import in_order
from dwarf_cxr.training.augmentation import apply_changes, draw_changes
from dwarf_cxr.training.loop import compile_parts, take_step
from dwarf_cxr.training.losses import TrainingLoss
from dwarf_cxr.training.optimisation import build_optimizer
from dwarf_cxr.training.run import make_config

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations per second, by the vendor's data sheets (SXM)."""


def main() -> None:
    """Print a line per batch size, then where the time of the last one goes."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--method", default="dwarf")
    words.add_argument("--image-encoder", default="vit-b16")
    words.add_argument("--batches", default="32,64,128,256")
    words.add_argument("--width", type=int, default=256)
    words.add_argument("--precision", default="bf16-mixed")
    words.add_argument("--steps", type=int, default=20)
    words.add_argument("--compile", action="store_true", help="as `--set compile=true`")
    words.add_argument("--profile", action="store_true", help="the kernels of a step")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    config = make_config(
        given.method,
        given.data,
        assignments=[
            f"image_encoder={given.image_encoder}",
            f"width={given.width}",
            f"precision={given.precision}",
        ],
    )
    found: list[dict[str, Any]] = []
    step = None
    for size in map(int, given.batches.split(",")):
        step = None
        gc.collect()  # the one before would count as this one's memory
        step = Step(config, size, compiled=given.compile)
        row = measure(step, given.steps)
        found.append(row)
        print(line(row), flush=True)
    if given.profile and step is not None:
        print(kernels(step))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


class Step:
    """A training at a batch size, ready to take steps."""

    def __init__(self, config: RunConfig, size: int, *, compiled: bool) -> None:
        settings = config.settings
        self.config, self.size, self.compiled = config, size, compiled
        self.fabric = Fabric(accelerator="auto", devices=1, precision=settings.training.precision)
        self.data = PreparedData.open(Path(config.data)).restrict(config.findings)
        self.indices = self.data.indices("train")
        model = build_fresh(settings.model, config.findings, self.data.size, config.seed)
        self.optimizer: Any = build_optimizer(model, settings.training)
        weights = positive_weights(
            torch.from_numpy(self.data.labels[self.indices]),
            settings.objective.positive_weight_cap,
            settings.objective.positive_weighting,
        )
        self.loss: Any
        self.loss, self.optimizer = self.fabric.setup(
            TrainingLoss(model, settings.objective, weights, self.fabric), self.optimizer
        )
        self.encoder = model.image_encoder
        self.encoder_optimizer = torch.optim.AdamW(self.encoder.parameters(), lr=0, fused=True)
        if compiled:
            compile_parts(model)
        self.targets = RegionTargets.of(self.data, self.indices, settings.objective.map_size)
        self.findings = tuple(range(len(config.findings)))
        self.generator = np.random.default_rng(0)
        self.batches = in_order(self.read, self.draws(), workers=1, ahead=1)
        self.number = 0

    def draws(self) -> Iterator[np.ndarray]:
        """Images of each step; with repetition, where the data has fewer."""
        while True:
            yield self.generator.choice(self.indices, self.size, replace=True)

    def read(self, chosen: np.ndarray) -> tuple[np.ndarray, Batch]:
        """As the training loop reads a batch, ahead of its step."""
        batch = load_batch(self.data, self.targets, chosen, self.findings)
        return chosen, batch.pinned() if self.fabric.device.type == "cuda" else batch

    def take(self) -> None:
        """The training loop's step."""
        chosen, batch = next(self.batches)
        take_step(
            self.fabric,
            self.loss,
            self.optimizer,
            batch,
            None,
            chosen,
            self.findings,
            self.config,
            self.number,
        )
        self.number += 1

    def load(self) -> Batch:
        """A batch, on the host; the training loop does so during the step before."""
        return self.read(next(self.draws()))[1]

    def augment(self, batch: Batch) -> torch.Tensor:
        """The batch on the device, moved."""
        changes = draw_changes(
            self.config.settings.training, self.size, torch.Generator().manual_seed(0)
        )
        device = self.fabric.device
        images, _ = apply_changes(
            in_unit_range(batch.pixels.to(device, non_blocking=True)),
            in_unit_range(batch.shares.to(device, non_blocking=True)),
            type(changes)(*(change.to(device) for change in changes)),
        )
        return images

    def encode(self, images: torch.Tensor) -> None:
        """The image encoder alone: forwards, backwards, its gradient limited, its weights moved."""
        self.encoder_optimizer.zero_grad()
        with self.fabric.autocast():
            tokens = self.encoder(images)
        tokens.float().square().mean().backward()
        moving = list(self.encoder.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in moving if p.grad is not None])
        torch.nn.utils.clip_grads_with_norm_(moving, 1.0, norm)
        self.encoder_optimizer.step()


def measure(step: Step, steps: int) -> dict[str, Any]:
    """Times in milliseconds, medians over `steps` after five to warm up."""
    cuda = step.fabric.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(5):
        step.take()
    _wait(step)
    warm_up = time.perf_counter() - started
    whole = median_ms(step, step.take, steps)
    batch = step.load()
    images = step.augment(batch)
    row: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "encoder": step.config.settings.model.image_encoder,
        "width": prompted(step.config.settings).width,
        "findings": len(step.findings),
        "precision": step.config.settings.training.precision,
        "compiled": step.compiled,
        "batch": step.size,
        "warm_up_s": warm_up,
        "step_ms": whole,
        "load_ms": median_ms(step, step.load, steps),
        "augment_ms": median_ms(step, lambda: step.augment(batch), steps),
        "encoder_ms": median_ms(step, lambda: step.encode(images), steps),
        "optimizer_ms": median_ms(step, step.optimizer.step, steps),
        "images_per_s": step.size / whole * 1000,
    }
    if cuda:
        row["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    row["tflop"] = operations(step) / 1e12
    row["tflop_per_s"] = row["tflop"] / whole * 1000
    peak = next((value for name, value in PEAKS.items() if name in row["device"]), None)
    row["share_of_peak"] = None if peak is None else row["tflop_per_s"] * 1e12 / peak
    return row


def operations(step: Step) -> float:
    """Floating point operations of a step's matrix products, forwards and backwards."""
    if step.compiled:
        # what is compiled cannot be counted; the same step, uncompiled, does the same
        step = Step(step.config, step.size, compiled=False)
    counter = FlopCounterMode(display=False)
    with counter:
        step.take()
    return counter.get_total_flops()


def median_ms(step: Step, action: Callable[[], object], steps: int) -> float:
    """Median time of `action` in milliseconds."""
    action()
    _wait(step)
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        action()
        _wait(step)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def line(row: dict[str, Any]) -> str:
    """The row in words."""
    peak = row["share_of_peak"]
    rest = row["step_ms"] - row["encoder_ms"]
    return (
        f"{row['device']} {row['encoder']} {row['precision']}{' compiled' * row['compiled']} "
        f"batch {row['batch']}: "
        f"{row['images_per_s']:.0f} images/s, {row['step_ms']:.1f} ms a step, "
        f"{row['tflop_per_s']:.0f} TFLOP/s{'' if peak is None else f' ({peak:.0%} of peak)'}"
        + (f", {row['memory_gib']:.1f} GiB" if "memory_gib" in row else "")
        + f"; encoder {row['encoder_ms']:.1f} ms, the rest {rest:.1f} ms "
        f"({rest / row['encoder_ms']:.1%} more): loading {row['load_ms']:.1f}, "
        f"augmentation {row['augment_ms']:.1f}, optimiser {row['optimizer_ms']:.1f}"
    )


def kernels(step: Step) -> str:
    """The device's kernels of three steps, those first that take longest."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    cuda = step.fabric.device.type == "cuda"
    if cuda:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(3):
            step.take()
        _wait(step)
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    return profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60)


def _wait(step: Step) -> None:
    if step.fabric.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
