"""The training loop: read it from top to bottom."""

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy
from torch.utils.tensorboard import SummaryWriter

from dwarf_cxr.config import (
    ObjectiveSettings,
    RegionSource,
    RunConfig,
    TrainingSettings,
    prompted,
    save_config,
)
from dwarf_cxr.data.batches import Batch, RegionTargets, in_unit_range, load_batch
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError, TrainingError
from dwarf_cxr.evaluation.calibration import fit_card
from dwarf_cxr.evaluation.evaluate import QuickScorer, refuse_seen_patients
from dwarf_cxr.evaluation.references import mean_coverage
from dwarf_cxr.files import exclusive, write_csv
from dwarf_cxr.models.building import Trainable, build_fresh
from dwarf_cxr.models.checkpoint import save_model
from dwarf_cxr.models.heads import PriorEvidenceHead
from dwarf_cxr.models.initial import classifier_from, load_initial
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.objectives.combined import LossCounts, LossSums, combine, loss_counts
from dwarf_cxr.objectives.contrastive import NO_TEXT
from dwarf_cxr.objectives.label_loss import positive_weights
from dwarf_cxr.parallel import in_order
from dwarf_cxr.progress import Report
from dwarf_cxr.training.augmentation import apply_changes, draw_changes
from dwarf_cxr.training.captions import Captions
from dwarf_cxr.training.few_shot import supervising
from dwarf_cxr.training.losses import (
    CaptionBatch,
    TrainingLoss,
    added_loss_columns,
    loss_columns,
    mean_losses,
)
from dwarf_cxr.training.optimisation import build_optimizer, rate_factor, set_rates
from dwarf_cxr.training.schedules import active_findings
from dwarf_cxr.training.state import (
    Progress,
    has_state,
    load_state,
    refuse_other_run,
    save_state,
)
from dwarf_cxr.training.validation import validate

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "seconds",
    "finding",
    "lr",
    "loss",
    "dice_loss",
    "label_loss",
    "val_auc",
    "val_dice",
    "val_hit_rate",
    "best",
)
ORACLE_COLUMNS = ("oracle_test_auc", "oracle_test_dice", "oracle_test_hit_rate")
"""With `watch_test`: what a choice by the test split would see."""
CHECKPOINT_SECONDS = 120
"""A state is written at every evaluation, and in between when the last is older than this."""


@dataclass
class Interrupt:
    """Set by SIGTERM and SIGINT: finish the step, write the state, leave."""

    signalled: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.signalled = True


def train(config: RunConfig, out: Path, *, resume: bool = False, report: Report) -> None:
    """Train the run that `config` fixes and write it to `out`.

    Raises:
        ConfigError: `out` holds a run already, or another than the one to be resumed.
        DataError: the data changed since, or has no training or validation images.
        TrainingError: interrupted, or too many steps in a row were not finite.
    """
    settings = config.settings.training
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=_strategy(settings),
        precision=settings.precision,
    )
    fabric.launch()
    if fabric.global_rank > 0:
        report = _silent
    lock = exclusive(out) if fabric.global_rank == 0 else contextlib.nullcontext()
    with lock:
        if fabric.global_rank == 0:
            refuse_other_run(config, out, resume=resume)
        fabric.barrier()
        _train(fabric, config, out, resume, report)


def _train(fabric: Fabric, config: RunConfig, out: Path, resume: bool, report: Report) -> None:
    settings, objective = config.settings.training, config.settings.objective
    data = PreparedData.open(Path(config.data)).restrict(config.findings)
    if data.fingerprint != config.data_fingerprint:
        raise DataError(
            f"{config.data}: the data set's hash is {data.fingerprint[:12]}…, the run was "
            f"configured for {config.data_fingerprint[:12]}…; prepare it as it was, or start anew"
        )
    train_indices, val_indices = data.indices("train"), data.indices("val")
    for split, indices in (("train", train_indices), ("val", val_indices)):
        if not len(indices):
            raise DataError(f"{config.data}: no image is in the {split} split; prepare it anew")

    if settings.watch_test and not len(data.indices("test")):
        raise DataError(
            f"{config.data}: watch_test = true, but no image is in the test split; leave it out, "
            "or prepare the data with one"
        )
    _refuse_nothing_to_learn(data, train_indices)
    # teachers' regions, where they are asked for, only train: all that judges goes by `data`
    marked = supervising(data, objective, config.seed)
    if objective.regions != "expert":
        _refuse_no_pseudo_regions(data, train_indices, objective.regions)
        unmarked = _without_region(marked, train_indices)
        if unmarked:
            report(
                f"warning: no training image has a region to learn from for {', '.join(unmarked)} "
                f"(regions = {objective.regions}): of these only the scores are trained",
                0,
                settings.epochs,
            )
    elif objective.detection_weight > 0:
        _refuse_no_box(marked, train_indices)
    elif objective.supervises_maps and not data.has_region()[train_indices].any():
        report(f"warning: {_no_region_words(objective)}", 0, settings.epochs)

    initial = None if config.init is None else load_initial(Path(config.init))
    if initial is None:
        model = build_fresh(config.settings.model, config.findings, data.size, config.seed)
    else:
        if initial.card is not None:
            for split in ("val", "test"):
                refuse_seen_patients(initial.card, data, split)
        model = classifier_from(
            initial, prompted(config.settings), config.findings, data.size, config.seed
        )
    train_prior = mean_coverage(marked, train_indices)
    if isinstance(model, VisionLanguageClassifier):
        _start_from_prior(model, train_prior)
    captions = (
        Captions.of(data, train_indices, prompted(config.settings).text_encoder)
        if objective.contrastive_weight > 0
        else None
    )
    positive_weight = positive_weights(
        torch.from_numpy(data.labels[train_indices]),
        objective.positive_weight_cap,
        objective.positive_weighting,
    )
    if settings.compile:
        compile_parts(model)
    optimizer = build_optimizer(model, settings)
    loss, optimizer = fabric.setup(
        TrainingLoss(model, objective, positive_weight, fabric), optimizer
    )
    # after the set-up: the moments go where the parameters are
    progress = load_state(out / "last", model, optimizer) if has_state(out) else Progress()
    fabric.barrier()
    scorer = QuickScorer(data, val_indices)
    watcher = QuickScorer(data, data.indices("test")) if settings.watch_test else None
    columns = HISTORY_COLUMNS + added_loss_columns(objective) + (ORACLE_COLUMNS if watcher else ())
    targets = RegionTargets.of(marked, train_indices, objective.map_size)

    def load(wanted: tuple[np.ndarray, tuple[int, ...]]) -> Batch:
        batch = load_batch(data, targets, *wanted)
        return batch.pinned() if fabric.device.type == "cuda" else batch

    batches = math.ceil(len(train_indices) / settings.batch_size)
    shares = fabric.world_size * settings.accumulate
    if len(train_indices) // batches < shares:
        raise ConfigError(
            f"batch_size = {settings.batch_size} cannot be shared among {fabric.world_size} "
            f"devices and {settings.accumulate} micro-batches; raise batch_size"
        )
    steps = settings.epochs * batches
    if fabric.global_rank == 0 and not has_state(out):
        save_config(config, out / "config.yaml")  # nothing is refused from here on
    writer = SummaryWriter(str(out / "tensorboard")) if fabric.global_rank == 0 else None
    interrupt = Interrupt()
    estimate = _Estimate(steps, progress.step)
    started = time.monotonic() - progress.seconds
    saved = time.monotonic()

    with _handling_signals(interrupt):
        while progress.epoch < settings.epochs and not _gains_no_more(progress, settings):
            order = np.random.default_rng([config.seed, progress.epoch]).permutation(train_indices)
            # parts of nearly equal size: a last batch of one image would only add noise
            parts = np.array_split(order, batches)
            first = progress.step - progress.batch
            left = [
                (parts[number], _findings_of(config, first + number, batches))
                for number in range(progress.batch, batches)
            ]
            # the next batch is read while the device works on this one
            loaded = in_order(load, left, workers=1, ahead=1)
            for (chosen, findings), batch in zip(left, loaded, strict=True):
                set_rates(optimizer, rate_factor(settings, progress.step, steps))
                totals = take_step(
                    fabric,
                    loss,
                    optimizer,
                    batch,
                    captions,
                    chosen,
                    findings,
                    config,
                    progress.step,
                )
                _record(progress, totals, settings.stop_after_bad_steps)
                progress.batch += 1
                progress.step += 1
                progress.seconds = time.monotonic() - started
                line = estimate.line(progress.step)
                report(line or _loss_line(progress, config), progress.step, steps)
                if fabric.world_size > 1:
                    # a signal can reach one process alone, or the others a step later
                    flag = torch.tensor(float(interrupt.signalled), device=fabric.device)
                    interrupt.signalled = bool(fabric.all_reduce(flag, reduce_op="sum") > 0)
                if interrupt.signalled or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    saved = time.monotonic()
                    if fabric.global_rank == 0:
                        save_state(out / "last", model, optimizer, progress)
                if interrupt.signalled:
                    raise TrainingError(
                        f"{out}: interrupted at step {progress.step} of {steps}; "
                        "continue with the same command and --resume"
                    )

            progress.epoch += 1
            progress.batch = 0
            last_epoch = progress.epoch == settings.epochs
            if progress.epoch % settings.evaluate_every and not last_epoch:
                continue
            if fabric.global_rank == 0:
                validation = validate(model, scorer)
                score = validation.score(objective.supervises_maps)
                best = score is not None and (
                    progress.best_score is None or score > progress.best_score
                )
                if best or score is None or not (out / "model").exists():
                    progress.best_score = score
                    progress.evaluations_without_gain = 0
                    model.card = fit_card(
                        model,
                        data,
                        validation.outputs,
                        train_prior,
                        method=config.method,
                        started_from=None if initial is None else initial.card,
                    )
                    save_model(model, out / "model")
                else:
                    progress.evaluations_without_gain += 1
                progress.seconds = time.monotonic() - started
                row = {
                    "epoch": progress.epoch,
                    "step": progress.step,
                    "seconds": round(progress.seconds, 1),
                    "finding": ";".join(
                        config.findings[index]
                        for index in _findings_of(config, progress.step - 1, batches)
                    ),
                    "lr": settings.lr * rate_factor(settings, progress.step - 1, steps),
                    **mean_losses(progress.sums, objective),
                    "val_auc": validation.auc,
                    "val_dice": validation.dice,
                    "val_hit_rate": validation.hit_rate,
                    "best": int(best),
                }
                if watcher is not None:
                    watched = validate(model, watcher)
                    seen = (watched.auc, watched.dice, watched.hit_rate)
                    row |= dict(zip(ORACLE_COLUMNS, seen, strict=True))
                progress.history.append(row)
                progress.sums = {}
                write_csv(out / "history.csv", columns, progress.history)
                if writer is not None:
                    _log(writer, row)
                save_state(out / "last", model, optimizer, progress)
                saved = time.monotonic()
                report(_epoch_line(row, settings.epochs), progress.step, steps)
            progress = fabric.broadcast(progress)
            if _gains_no_more(progress, settings):
                report(
                    f"stopped: {settings.patience} evaluations without a better one", steps, steps
                )
    if writer is not None:
        writer.close()


def compile_parts(model: Trainable) -> None:
    """Compile the image encoder, and the decoder where there is one, when they first run."""
    model.image_encoder.compile()
    if isinstance(model, VisionLanguageClassifier):
        model.decoder.compile()


def take_step(
    fabric: Fabric,
    loss: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    captions: Captions | None,
    chosen: np.ndarray,
    findings: tuple[int, ...],
    config: RunConfig,
    step: int,
) -> tuple[LossSums, LossCounts] | None:
    """One optimiser step on this process's share of `batch`, of the images `chosen`.

    `loss` is a `TrainingLoss`. Its sums are divided by the counts of the whole batch, and DDP's
    averaging over processes is undone, so that the gradient is the one that a single process would
    compute.

    Returns:
        Sums and counts over the whole batch; None if the step was skipped as not finite.
    """
    settings, objective = config.settings.training, config.settings.objective
    generator = torch.Generator().manual_seed(_seed(config.seed, 1, step))
    changes = draw_changes(settings, len(chosen), generator)
    # dropout draws from torch's own generator; each process needs its own numbers
    torch.manual_seed(_seed(config.seed, 2 + fabric.global_rank, step))

    mine = _shares(len(chosen), fabric.world_size)[fabric.global_rank]
    texts = captions.texts[chosen] if captions else torch.full((len(chosen),), NO_TEXT)
    counted = loss_counts(batch.labels, batch.supervised, texts != NO_TEXT)
    counts = LossCounts(*torch.stack(counted).to(fabric.device))
    totals = torch.zeros(len(LossSums._fields), device=fabric.device)
    parts = _shares(mine.stop - mine.start, settings.accumulate)
    optimizer.zero_grad()
    for number, part in enumerate(parts):
        rows = slice(mine.start + part.start, mine.start + part.stop)
        images, regions = apply_changes(
            in_unit_range(batch.pixels[rows].to(fabric.device, non_blocking=True)),
            in_unit_range(batch.shares[rows].to(fabric.device, non_blocking=True)),
            type(changes)(*(change.to(fabric.device) for change in changes.rows(rows))),
        )
        said = None
        if captions is not None:
            said = CaptionBatch(
                texts[rows].to(fabric.device),
                captions.features(texts[rows]).to(fabric.device),
                largest_share=math.ceil(len(chosen) / fabric.world_size),
            )
        with fabric.no_backward_sync(loss, enabled=number < len(parts) - 1):
            sums = loss(
                images,
                findings,
                batch.labels[rows].to(fabric.device),
                regions,
                batch.supervised[rows].to(fabric.device),
                said,
            )
            fabric.backward(combine(sums, counts, objective) * fabric.world_size)
        totals += torch.stack(sums).detach()

    totals = fabric.all_reduce(totals, reduce_op="sum")
    moving = [p for p in loss.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in moving if p.grad is not None])
    # read back at once: each reading waits for the device
    read = torch.cat([totals, norm[None]]).cpu()
    if not torch.isfinite(read).all():
        optimizer.zero_grad()
        return None
    torch.nn.utils.clip_grads_with_norm_(moving, settings.clip, norm)
    optimizer.step()
    return LossSums(*read[:-1]), counted


def _refuse_nothing_to_learn(data: PreparedData, train_indices: np.ndarray) -> None:
    if np.isnan(data.labels[train_indices]).all():
        raise DataError(
            f"{data.folder}: no training image was assessed for any of "
            f"{', '.join(data.findings)}; there is nothing to learn: prepare the data with labels"
        )


def _without_region(data: PreparedData, indices: np.ndarray) -> list[str]:
    """The findings without any region in force on an image that has them."""
    marked = (data.has_region() & (data.labels == 1))[indices].any(axis=0)
    return [finding for finding, any_ in zip(data.findings, marked, strict=True) if not any_]


def _no_region_words(objective: ObjectiveSettings) -> str:
    if objective.box_weight > 0:
        return (
            "no training image has a region: HAM trains on labels alone; say so with "
            "--set box_weight=0, and the epoch is chosen by the scores alone too"
        )
    return (
        "no training image has a region: the maps are not trained, only the scores; the method for "
        "such data is classifier"
    )


def _refuse_no_box(marked: PreparedData, train_indices: np.ndarray) -> None:
    if _without_region(marked, train_indices) == list(marked.findings):
        raise DataError(
            f"{marked.folder}: no training image has a region of {', '.join(marked.findings)}, and "
            "nothing but boxes tells a detector what is there; give data with regions, or train "
            "classifier, class-attention or ham (--set box_weight=0), which learn from labels"
        )


def _refuse_no_pseudo_regions(
    data: PreparedData, train_indices: np.ndarray, regions: RegionSource
) -> None:
    if _without_region(data.with_regions("pseudo"), train_indices) == list(data.findings):
        raise DataError(
            f"{data.folder}: regions = {regions}, but no training image has a pseudo region of "
            f"{', '.join(data.findings)}; make a data set that has with `dwarf teachers --data "
            f"{data.folder} --out OUT`, and train on OUT"
        )


def _silent(line: str, done: int, planned: int) -> None:
    """Every process would say the same."""


def _strategy(settings: TrainingSettings) -> str | Strategy:
    if settings.devices * settings.nodes == 1:
        return "auto"
    # a cyclic step leaves the other findings' heads without a gradient
    return DDPStrategy(find_unused_parameters=True)


def _findings_of(config: RunConfig, step: int, batches: int) -> tuple[int, ...]:
    return active_findings(
        config.settings.training.schedule,
        epoch=step // batches,
        step=step,
        findings=len(config.findings),
    )


def _gains_no_more(progress: Progress, settings: TrainingSettings) -> bool:
    patience = settings.patience
    return patience is not None and progress.evaluations_without_gain >= patience


def _start_from_prior(model: VisionLanguageClassifier, train_prior: np.ndarray) -> None:
    rows, columns = model.grid
    prior = torch.from_numpy(train_prior)[:, None]
    cells = torch.nn.functional.adaptive_avg_pool2d(prior, (rows, columns))[:, 0]
    for head, finding_prior in zip(model.heads, cells, strict=True):
        if isinstance(head, PriorEvidenceHead):
            head.set_prior(finding_prior.flatten())


def _seed(seed: int, stream: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)[0] >> 1)


def _shares(count: int, parts: int) -> list[slice]:
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def _record(
    progress: Progress, totals: tuple[LossSums, LossCounts] | None, bad_steps_allowed: int
) -> None:
    if totals is None:
        progress.bad_steps += 1
        if progress.bad_steps >= bad_steps_allowed:
            raise TrainingError(
                f"loss or gradient was not finite in {progress.bad_steps} steps in a row "
                f"(step {progress.step}); the last good state is kept: lower lr or encoder_lr"
            )
        return
    progress.bad_steps = 0
    sums, counts = totals
    for name, value in (sums._asdict() | counts._asdict()).items():
        progress.sums[name] = progress.sums.get(name, 0.0) + float(value)


@contextlib.contextmanager
def _handling_signals(interrupt: Interrupt) -> Iterator[None]:
    """Route SIGTERM and SIGINT to `interrupt`; a training outside the main thread cannot."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Estimate:
    """Tells once, after a few steps, how long the training will take."""

    STEPS = 4

    def __init__(self, steps: int, done: int) -> None:
        self.steps, self.first = steps, done
        self.started: float | None = None

    def line(self, step: int) -> str | None:
        # the first step pays for memory and thread start-up
        if step == self.first + 1:
            self.started = time.monotonic()
        if step != self.first + 1 + self.STEPS or self.started is None:
            return None
        per_step = (time.monotonic() - self.started) / self.STEPS
        minutes = (self.steps - step) * per_step / 60
        return f"estimated training time: {minutes:.1f} minutes ({per_step:.2f} s a step)"


def _loss_line(progress: Progress, config: RunConfig) -> str:
    """Every term that is minimised, by its name in history.csv: the epoch's mean so far."""
    means = mean_losses(progress.sums, config.settings.objective)
    terms = ", ".join(
        f"{name.replace('_', ' ')} {'-' if (mean := means[name]) is None else f'{mean:.3f}'}"
        for name in loss_columns(config.settings.objective)
    )
    return f"training epoch {progress.epoch + 1}/{config.settings.training.epochs}: {terms}"


def _epoch_line(row: Mapping[str, object], epochs: int) -> str:
    values = " ".join(
        f"{name.removeprefix('val_')} {value:.3f}" if isinstance(value, float) else f"{name} -"
        for name, value in row.items()
        if name.startswith("val_")
    )
    return f"epoch {row['epoch']}/{epochs} validation: {values}" + (" *" if row["best"] else "")


def _log(writer: SummaryWriter, row: Mapping[str, object]) -> None:
    for name, value in row.items():
        if isinstance(value, int | float) and name not in ("epoch", "step"):
            writer.add_scalar(name, value, row["step"])
    writer.flush()
