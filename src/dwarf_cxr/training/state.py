"""The state of an interrupted training, from which it continues bit-identically.

Random numbers are drawn from generators seeded by (seed, step), so that the position alone
restores them; tensors go to safetensors and nothing is ever unpickled.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from dwarf_cxr.config import RunConfig, differences, load_config
from dwarf_cxr.errors import CheckpointError, ConfigError, DataError
from dwarf_cxr.files import (
    atomic_folder,
    read_json,
    recover_folder,
    sha256_of,
    write_bytes,
    write_json,
)
from dwarf_cxr.models.checkpoint import read_tensors


@dataclass
class Progress:
    """Where a training stands; everything that is not a tensor."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""
    step: int = 0
    """Optimiser steps since the start, skipped ones included."""
    bad_steps: int = 0
    """Consecutive steps skipped because the loss or a gradient was not finite."""
    best_score: float | None = None
    evaluations_without_gain: int = 0
    seconds: float = 0.0
    """Training time so far, evaluations included."""
    sums: dict[str, float] = field(default_factory=dict)
    """Loss sums and counts of the epoch so far."""
    history: list[dict[str, Any]] = field(default_factory=list)


def refuse_other_run(config: RunConfig, out: Path, *, resume: bool) -> None:
    """Refuse a folder `out` that cannot be that of the run that `config` fixes.

    The settings are written once all checks are passed (`save_config`), so that a refused training
    leaves nothing behind.

    Raises:
        ConfigError: a data set or another run lies there, or the run to resume was another.
        CheckpointError: there is no run to resume.
    """
    if (out / "dataset.json").exists():
        raise ConfigError(
            f"{out}: a prepared data set lies there; choose another folder for the run"
        )
    file = out / "config.yaml"
    if resume:
        if not file.is_file():
            raise CheckpointError(f"{out}: no run to resume there; train without --resume")
        changed = differences(load_config(file), config)
        if changed:
            raise ConfigError(
                f"{out}: cannot resume, the run was configured otherwise: {'; '.join(changed)}"
            )
    elif has_state(out) or (out / "model").exists():
        raise ConfigError(
            f"{out}: a run is there already; add --resume to continue it, or choose another folder"
        )


def has_state(out: Path) -> bool:
    """Whether a training can be resumed in the run folder `out`."""
    recover_folder(out / "last")
    return (out / "last").exists()


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write everything a resume needs to `folder`, replacing the earlier state as a whole."""
    state = optimizer.state_dict()["state"]
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    tensors |= {
        f"optimizer/{index}/{key}": value
        for index, slots in state.items()
        for key, value in slots.items()
    }
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_folder(folder) as fresh:
        write_bytes(fresh / "state.safetensors", save_tensors(contiguous))
        progress_json = json.loads(json.dumps(asdict(progress)))
        write_json(
            fresh / "progress.json",
            {"sha256": sha256_of(fresh / "state.safetensors"), "progress": progress_json},
        )


@torch.no_grad()
def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore `model` and `optimizer` and return where the training stood.

    Raises:
        CheckpointError: nothing to resume, or the state is damaged.
    """
    recover_folder(folder)
    weights = folder / "state.safetensors"
    if not weights.is_file() or not (folder / "progress.json").is_file():
        raise CheckpointError(f"{folder}: no training state to resume; train without --resume")
    try:
        record = read_json(folder / "progress.json")
        expected, progress = record["sha256"], Progress(**record["progress"])
    except (DataError, KeyError, TypeError) as fault:
        raise CheckpointError(
            f"{folder / 'progress.json'}: damaged ({fault}); restore it, or train again into "
            "another folder"
        ) from None
    if sha256_of(weights) != expected:
        raise CheckpointError(
            f"{weights}: its SHA-256 is not the recorded one, the file is damaged; "
            "restore it, or train again into another folder"
        )
    tensors = read_tensors(weights)
    model.load_state_dict(
        {key.removeprefix("model/"): tensors[key] for key in tensors if key.startswith("model/")}
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            index, _, slot = rest.partition("/")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # fused AdamW walks memory: moments need their parameter's memory format
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(index), {})[slot] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    return progress
