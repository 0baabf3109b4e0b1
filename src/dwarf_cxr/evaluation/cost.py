"""What a model costs: its numbers, and the time that it takes for a film."""

import contextlib
import platform
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dwarf_cxr.models.outputs import Classifier


class Stopwatch:
    """Adds up wall-clock time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time what is done within; answers must be on the CPU at its end."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def cost_block(
    model: Classifier, seconds: float, films: int, precision: str = "fp32"
) -> dict[str, Any]:
    """The block `cost` of metrics.json.

    Args:
        seconds: that predicting `films` took, at `precision`.
    """
    device = torch.device("cpu")
    if isinstance(model, nn.Module):
        device = next((each.device for each in model.parameters()), device)
    return {
        "parameters": parameter_counts(model),
        "inference_seconds_per_image": seconds / films,
        "images": films,
        "device": _device_name(device),
        # an exported model runs at the precision of its file
        "precision": getattr(model, "precision", precision),
        "threads": torch.get_num_threads(),
    }


def parameter_counts(model: Classifier) -> dict[str, int] | None:
    """`total`: all values of the network's parameters; `trained`: those that training moves.

    Frozen layers, and the detector below `report-attention`, are in `total` alone; a zero-shot
    model has none that were trained. Prompts are stored as vectors: the text encoder that made them
    is not part of the model and counts nowhere. None for a classifier that is no network.
    """
    if not isinstance(model, nn.Module):
        return None
    counts = [(each.numel(), each.requires_grad) for each in model.parameters()]
    trained = sum(count for count, moves in counts if moves)
    if model.card is not None and model.card.zero_shot:
        trained = 0
    return {"total": sum(count for count, _ in counts), "trained": trained}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"
