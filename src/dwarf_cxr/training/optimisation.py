"""The optimiser and the course of its learning rate."""

import math

import torch
from torch import nn

from dwarf_cxr.config import TrainingSettings
from dwarf_cxr.models.building import Trainable


def build_optimizer(model: Trainable, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW with a lower rate for the pretrained image encoder.

    Disease heads, biases and norms are not decayed: decay would pull an identity towards zero.
    A head without a gradient is skipped altogether, momentum included.
    """
    encoder = _trainable(model.image_encoder)
    undecayed = {id(parameter) for parameter in model.undecayed()}
    rest = [p for p in _trainable(model) if id(p) not in {id(e) for e in encoder}]

    def split(parameters: list[nn.Parameter], rate: float) -> list[dict[str, object]]:
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in undecayed]
        plain = [p for p in parameters if p.ndim <= 1 or id(p) in undecayed]
        return [
            {"params": decayed, "lr": rate, "base_lr": rate, "weight_decay": settings.weight_decay},
            {"params": plain, "lr": rate, "base_lr": rate, "weight_decay": 0.0},
        ]

    groups = [*split(encoder, settings.encoder_lr), *split(rest, settings.lr)]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def rate_factor(settings: TrainingSettings, step: int, steps: int) -> float:
    """What the base rates are multiplied by in `step` of `steps`: warm-up, then decay."""
    warmup = math.ceil(settings.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.decay == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
