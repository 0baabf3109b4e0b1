"""From pixels to plain arrays: what every trained network's `predict` does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dwarf_cxr.detection.detections import Detections
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import select
from dwarf_cxr.models.outputs import Classifier, Outputs, Prediction

PREDICT_BATCH = 32

Precision = Literal["fp32", "bf16"]
"""Numbers that a network predicts with: as it is stored, or bfloat16 in its large products."""


def asked_findings(
    known: Sequence[str], findings: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """The findings that a model is asked for, by default all it knows, and where it has them.

    Raises:
        ConfigError: a finding the model was not trained on.
    """
    names = select(known if findings is None else findings, known, where="predict")
    return names, [known.index(name) for name in names]


@contextmanager
def predicting_at(precision: Precision, model: Classifier) -> Iterator[None]:
    """Within, in this thread, `predict` of `model` runs at `precision`.

    Raises:
        ConfigError: bf16 for a model that is no PyTorch network.
    """
    if precision == "fp32":
        yield
        return
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "an exported model runs at the precision of its file; leave --precision out, or give "
            "the run that it was exported from"
        )
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16):
        yield


@torch.inference_mode()
def predict_in_batches(
    network: nn.Module,
    answer: Callable[[Tensor], Prediction],
    pixels: UInt8[np.ndarray, "batch size size"],
    findings: int,
    grid: tuple[int, int],
) -> Outputs:
    """Probabilities and unit-domain maps of `answer`, with `network` in evaluation mode.

    Boxes and attributes are had where the answer's extras have them: "boxes" (b, C, place, 4) with
    "box_scores" (b, C, place), 0 for those that are not kept, and "attributes" (b, K), logits.

    Args:
        answer: what `network` says of images (b, size, size) in [0, 1].
        findings: how many it answers for, and
        grid: the maps' rows and columns: the shape of the answer to no image at all.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts: list[Prediction] = []
    for start in range(0, len(pixels), PREDICT_BATCH):
        chunk = np.ascontiguousarray(pixels[start : start + PREDICT_BATCH])
        parts.append(answer(torch.from_numpy(chunk).to(device).float() / 255))
    network.train(was_training)
    if not parts:
        shape = (0, findings, *grid)
        return Outputs(np.zeros(shape[:2]), np.zeros(shape, dtype=np.float32), {})
    probability = torch.cat([part.logits for part in parts]).double().sigmoid()
    maps = torch.cat([part.maps for part in parts]).float()
    if parts[0].domain == "simplex":
        maps = simplex_to_unit(maps)
    extras = {}
    if "prior" in parts[0].extras:
        extras["prior"] = parts[0].extras["prior"].float().cpu().numpy()
        evidence = torch.cat([part.extras["evidence"] for part in parts])
        extras["evidence"] = evidence.float().cpu().numpy()
    detections = attributes = None
    if "box_scores" in parts[0].extras:
        boxes, scores = (
            torch.cat([part.extras[name] for part in parts]).float().cpu().numpy()
            for name in ("boxes", "box_scores")
        )
        detections = tuple(map(Detections.kept, boxes, scores))
    if "attributes" in parts[0].extras:
        told = torch.cat([part.extras["attributes"] for part in parts])
        attributes = told.double().sigmoid().cpu().numpy()
    return Outputs(probability.cpu().numpy(), maps.cpu().numpy(), extras, detections, attributes)


def simplex_to_unit(maps: Float[Tensor, "batch finding h w"]) -> Float[Tensor, "batch finding h w"]:
    """r / (1 + r) of the relative attention r = N·A: what an identity head makes of it."""
    relative = maps * (maps.shape[-1] * maps.shape[-2])
    return relative / (1 + relative)
