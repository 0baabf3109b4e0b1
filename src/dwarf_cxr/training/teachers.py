"""Teachers: a small segmentation net per finding, whose masks stand in for clinicians' regions.

The paper (Table 3) trains one U-Net per finding. Here they are cross-fitted: training patients are
dealt into folds, there is a net for each fold that has seen no film of its patients, and it is that
net that draws on their films. A net's masks on films it was trained on would be better than any it
draws elsewhere, and nearly the clinician's own.

A teacher learns from films with a region of its finding alone. It is only ever asked where the
finding lies in films that are known to have it, so that films without it would teach it a question
that nobody asks.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from dwarf_cxr import __version__
from dwarf_cxr.config import TrainingSettings
from dwarf_cxr.data.batches import RegionTargets, in_unit_range
from dwarf_cxr.data.images import resize
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.files import write_bytes
from dwarf_cxr.objectives.suppressed_dice import suppressed_dice_loss
from dwarf_cxr.training.augmentation import apply_changes, draw_changes
from dwarf_cxr.training.optimisation import rate_factor, set_rates

FORMAT = "dwarf-cxr teacher 1"
ARCHITECTURE: Mapping[str, Any] = {
    "net": "monai.networks.nets.UNet",
    "channels": [16, 32, 64, 128],
    "strides": [2, 2, 2],
    "num_res_units": 0,
    "norm": "instance",
}
STRIDE = 8
"""The product of the strides: sides must be multiples of it."""
BATCH = 8
ASKED_TOGETHER = 64
RECIPE = TrainingSettings(lr=3e-3, weight_decay=0.01, warmup=0.1)
"""Rates and the light augmentation; the rest of it is not used."""
DICE_SMOOTH = 1.0
"""In cells of the net's image."""


@dataclass(frozen=True)
class TeacherSettings:
    """What fixes the teachers of a data set."""

    folds: int = 3
    epochs: int = 30
    size: int = 128
    """Side of the images that the nets see, in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(
                f"folds {self.folds}: choose 2 or more, or no net is left that has not seen an "
                "image's patient"
            )
        if self.epochs < 1:
            raise ConfigError(f"epochs {self.epochs}: choose 1 or more")
        if self.size < 2 * STRIDE or self.size % STRIDE:
            raise ConfigError(
                f"size {self.size}: choose a multiple of {STRIDE}, {2 * STRIDE} at least"
            )
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed}: choose 0 or more")


@dataclass(frozen=True)
class Teachers:
    """The nets of one finding, one for each fold."""

    finding: str
    nets: Sequence[nn.Module]
    """Net k has seen no film of the patients in fold k."""
    fold_of: Mapping[str, int]
    """Of every training patient, by id, and of nobody else."""
    size: int

    def out_of_fold(
        self, data: PreparedData, indices: Int64[np.ndarray, "image"]
    ) -> Float32[np.ndarray, "image size size"]:
        """Probabilities on training images, each by the net that has not seen its patient.

        Raises:
            KeyError: an image is of no training patient.
        """
        folds = np.array([self.fold_of[data.patient_ids[index]] for index in indices], dtype=int)
        drawn = np.zeros((len(indices), self.size, self.size), dtype=np.float32)
        for fold, net in enumerate(self.nets):
            rows = np.flatnonzero(folds == fold)
            drawn[rows] = probabilities(net, small_images(data, indices[rows], self.size))
        return drawn


def deal_folds(
    patients: Sequence[str],
    with_region: Bool[np.ndarray, "image"],
    present: Bool[np.ndarray, "image"],
    folds: int,
    generator: np.random.Generator,
) -> dict[str, int]:
    """A fold, from 0, for the patient of every training image.

    Dealt like cards in random order: first the patients with a region, so that every fold has as
    many of them as any other but for one, then those with the finding, then the rest.
    """
    marked = {patient for patient, has in zip(patients, with_region, strict=True) if has}
    ill = {patient for patient, has in zip(patients, present, strict=True) if has} - marked
    rest = set(patients) - marked - ill
    dealt: list[str] = []
    for group in (marked, ill, rest):
        ordered = sorted(group)
        dealt += [ordered[place] for place in generator.permutation(len(ordered))]
    return {patient: place % folds for place, patient in enumerate(dealt)}


def why_untaught(data: PreparedData, finding: str, folds: int) -> str | None:
    """Why the finding's regions are too few for cross-fitting, or None where they are enough."""
    marked = {data.patient_ids[index] for index in marked_images(data, finding, "train")}
    if len(marked) >= folds:
        return None
    return f"training patients with a region: {len(marked)}, for {folds} folds {folds} are needed"


def marked_images(data: PreparedData, finding: str, split: str) -> Int64[np.ndarray, "image"]:
    """Images of a split that have the finding and a region in force of it."""
    column, indices = data.findings.index(finding), data.indices(split)
    supervised = data.has_region()[:, column] & (data.labels[:, column] == 1)
    return indices[supervised[indices]]


def present_images(data: PreparedData, finding: str, split: str) -> Int64[np.ndarray, "image"]:
    """Images of a split that have the finding."""
    indices = data.indices(split)
    return indices[data.labels[indices, data.findings.index(finding)] == 1]


def cross_fit(
    data: PreparedData,
    finding: str,
    settings: TeacherSettings,
    *,
    files: Sequence[Path] | None = None,
    tick: Callable[[int, int], None] = lambda fold, epoch: None,
) -> Teachers:
    """Train the nets of one finding on the experts' regions of the training split.

    The result depends on the data, the finding and `settings` alone, whichever other findings are
    taught. Net k is written to `files[k]` when it is trained, and one that lies there already,
    of the same data and settings, is taken from there. `tick` is told every epoch.
    """
    data = data.with_regions("expert")
    train, marked = data.indices("train"), marked_images(data, finding, "train")
    # names, not positions: a finding's folds stay when others are added to the data
    stream = list(finding.encode())
    fold_of = deal_folds(
        [data.patient_ids[index] for index in train],
        np.isin(train, marked),
        np.isin(train, present_images(data, finding, "train")),
        settings.folds,
        np.random.default_rng([settings.seed, 0, *stream]),
    )
    fold_of_marked = np.array([fold_of[data.patient_ids[index]] for index in marked])
    nets = []
    for fold in range(settings.folds):

        def tick_fold(epoch: int, fold: int = fold) -> None:
            tick(fold, epoch)

        description = describe(data, finding, fold, settings)
        file = None if files is None else files[fold]
        net = None if file is None else _trained_before(file, description)
        if net is None:
            chosen = marked[fold_of_marked != fold]
            seeds = np.random.SeedSequence([settings.seed, 1 + fold, *stream])
            net = train_net(
                small_images(data, chosen, settings.size),
                _shares(data, finding, chosen, settings.size),
                settings.epochs,
                int(seeds.generate_state(1, np.uint64)[0] >> 1),
                tick_fold,
            )
            if file is not None:
                save_net(net, file, description)
        nets.append(net)
    return Teachers(finding, nets, fold_of, settings.size)


def build_net() -> nn.Module:
    """MONAI's U-Net, (B, 1, size, size) in [0, 1] to logits of the same shape; random weights."""
    from monai.networks.nets import UNet  # takes seconds to import

    return UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=ARCHITECTURE["channels"],
        strides=ARCHITECTURE["strides"],
        num_res_units=ARCHITECTURE["num_res_units"],
        norm=ARCHITECTURE["norm"],
    )


def train_net(
    images: UInt8[np.ndarray, "image size size"],
    shares: UInt8[np.ndarray, "image size size"],
    epochs: int,
    seed: int,
    tick: Callable[[int], None],
) -> nn.Module:
    """A net that was trained with plain soft Dice plus cross-entropy, in evaluation mode.

    `shares` are what the regions cover of each pixel, 255 is all of it. `tick` is called after
    every epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's layers draw their weights from its own generator
        net = build_net().train()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=RECIPE.weight_decay)
    for group in optimizer.param_groups:
        group["base_lr"] = RECIPE.lr
    generator = torch.Generator().manual_seed(seed)
    batches = -(-len(images) // BATCH)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator).numpy()
        for number, rows in enumerate(np.array_split(order, batches)):
            set_rates(optimizer, rate_factor(RECIPE, epoch * batches + number, epochs * batches))
            films, regions = apply_changes(
                in_unit_range(torch.from_numpy(images[rows])),
                in_unit_range(torch.from_numpy(shares[rows]))[:, None],
                draw_changes(RECIPE, len(rows), generator),
            )
            loss = segmentation_loss(_logits(net, films), regions[:, 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        tick(epoch + 1)
    return net.eval()


def segmentation_loss(logits: Tensor, regions: Tensor) -> Tensor:
    """Plain soft Dice plus cross-entropy, both means; (B, h, w), regions in [0, 1]."""
    dice = suppressed_dice_loss(logits.sigmoid(), regions, fp_weight=1.0, smooth=DICE_SMOOTH)
    return dice.mean() + nn.functional.binary_cross_entropy_with_logits(logits, regions)


@torch.no_grad()
def probabilities(
    net: nn.Module, images: UInt8[np.ndarray, "image size size"]
) -> Float32[np.ndarray, "image size size"]:
    """How probable each pixel is the finding's."""
    drawn = np.zeros(images.shape, dtype=np.float32)
    for start in range(0, len(images), ASKED_TOGETHER):
        films = in_unit_range(torch.from_numpy(images[start : start + ASKED_TOGETHER]))
        drawn[start : start + len(films)] = _logits(net, films).sigmoid().numpy()
    return drawn


def small_images(
    data: PreparedData, indices: Int64[np.ndarray, "image"], size: int
) -> UInt8[np.ndarray, "image {size} {size}"]:
    """The prepared images, averaged over areas to size×size."""
    small = np.zeros((len(indices), size, size), dtype=np.uint8)
    for row, index in enumerate(indices):
        small[row] = resize(np.asarray(data.pixels[index]), size)
    return small


def describe(
    data: PreparedData, finding: str, fold: int, settings: TeacherSettings
) -> dict[str, Any]:
    """All that fixes a net, as it is written with its weights."""
    return {
        "format": FORMAT,
        "finding": finding,
        "fold": fold,
        "settings": asdict(settings),
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "architecture": dict(ARCHITECTURE),
        "version": __version__,
    }


def save_net(net: nn.Module, path: Path, description: Mapping[str, Any]) -> None:
    """Write the weights, with `description` in the file's header, atomically."""
    tensors = {
        key: value.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        for key, value in net.state_dict().items()
    }
    content = save_tensors(tensors, metadata={"teacher": json.dumps(description)})
    write_bytes(path, content)


def load_net(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A teacher's net, in evaluation mode, and its description; nothing is unpickled.

    `probabilities` asks it about images of `description["settings"]["size"]` pixels a side.

    Raises:
        CheckpointError: there is no such file, or it is no teacher of this version's architecture.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["teacher"])
        if description["format"] != FORMAT or description["architecture"] != ARCHITECTURE:
            raise CheckpointError(
                f"{path}: format {description['format']!r} or its architecture is not what this "
                f"version reads ({FORMAT!r}); read it with the version {description['version']}"
            )
        net = build_net()
        net.load_state_dict(load_tensors(path.read_bytes()))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; `dwarf teachers` writes them") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as fault:
        raise CheckpointError(
            f"{path}: no teacher of `dwarf teachers`, or damaged ({fault}); make it again"
        ) from None
    return net.eval(), description


def _trained_before(path: Path, description: Mapping[str, Any]) -> nn.Module | None:
    try:
        net, found = load_net(path)
    except CheckpointError:
        return None
    return net if found == description else None


def _logits(net: nn.Module, films: Tensor) -> Tensor:
    """(B, size, size) in [0, 1] to logits of the same shape."""
    # channels last: a third faster on a CPU
    return net(films[:, None].contiguous(memory_format=torch.channels_last))[:, 0]


def _shares(
    data: PreparedData, finding: str, indices: Int64[np.ndarray, "image"], size: int
) -> UInt8[np.ndarray, "image {size} {size}"]:
    targets = RegionTargets.of(data.restrict([finding]), indices, size)
    return targets.shares[targets.rows[indices, 0]]
