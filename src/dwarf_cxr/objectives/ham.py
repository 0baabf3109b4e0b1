"""The losses that tie HAM's attention maps together (Ouyang et al., IEEE TMI 2021).

Class maps M_c and the abnormality map M_a are analytic CAMs after ReLU (`models/ham.py`), on their
own scale: the bound and union losses ask for values above .75, whatever the other pixels have. A
label that is NaN is neither positive nor negative.

All but the abnormality's cross-entropy are means over the positives *of a class in a batch*, then
over classes, so their values depend on how films are put into batches; `config.py` refuses them
with micro-batches and several devices.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dwarf_cxr.objectives.attention_mining import RANGE_FLOOR, unit_scaled

SLOPE = 100.0
MASK_THRESHOLD = 0.75
"""T(M) = sigmoid(100 · (M - .75)): which pixels of a raw map count as attended."""
REFINED_THRESHOLD = 0.4
"""R = sigmoid(100 · (M~ - .4)): which part of a map's range the refined map keeps."""


def anomaly_labels(labels: Float[Tensor, "batch finding"]) -> Float[Tensor, "batch"]:
    """1 where any finding is present, 0 where all are absent; NaN where nobody knows."""
    present = (labels == 1).any(dim=1)
    unknown = ~present & torch.isnan(labels).any(dim=1)
    return present.to(labels.dtype).masked_fill(unknown, float("nan"))


def anomaly_loss(
    anomaly_logit: Float[Tensor, "batch"], labels: Float[Tensor, "batch finding"]
) -> Float[Tensor, "batch"]:
    """L_ano: cross-entropy of "any finding" for each film; 0 where that is unknown."""
    targets = anomaly_labels(labels).to(anomaly_logit.dtype)
    known = ~torch.isnan(targets)
    losses = F.binary_cross_entropy_with_logits(
        anomaly_logit, targets.nan_to_num(), reduction="none"
    )
    return losses * known


def bound_loss(
    cams: Float[Tensor, "batch finding h w"],
    anomaly_cam: Float[Tensor, "batch h w"],
    labels: Float[Tensor, "batch finding"],
) -> Float[Tensor, ""]:
    """L_bound: a present finding's map lies inside the map of the abnormality.

    b_nc = 1 - Σ min(M_c, M_a) T(M_c) / max(Σ M_c, 1e-5), averaged over the positives of each
    finding, then over findings with a positive. It is not 0 where M_c = M_a: pixels below .75 are
    missing from the numerator, so that the term also pulls a map's mass above .75. Without any
    positive it is 0, with a gradient of 0.

    Args:
        cams: M_c >= 0, not scaled.
        anomaly_cam: M_a >= 0, not scaled.

    Returns:
        A mean in [0, 1].
    """
    cams, anomaly = cams.float(), anomaly_cam.float()[:, None]
    inside = (torch.minimum(cams, anomaly) * _attended(cams)).sum(dim=(-2, -1))
    outside = 1 - inside / cams.sum(dim=(-2, -1)).clamp(min=RANGE_FLOOR)
    return _mean_over_classes(outside, labels == 1)


def union_loss(
    cams: Float[Tensor, "batch finding h w"],
    anomaly_cam: Float[Tensor, "batch h w"],
    labels: Float[Tensor, "batch finding"],
) -> Float[Tensor, ""]:
    """L_union: the maps of the present findings together cover the map of the abnormality.

    With U = max over present findings of M_c, u_n = 1 - Σ min(U, M_a) T(M_a) / max(Σ M_a, 1e-5),
    averaged over films with a present finding; without any it is 0, with a gradient of 0.

    Args:
        cams: M_c >= 0, not scaled; absent findings' are taken as 0.
        anomaly_cam: M_a >= 0, not scaled.

    Returns:
        A mean in [0, 1].
    """
    cams, anomaly = cams.float(), anomaly_cam.float()
    present = labels == 1
    union = (cams * present[:, :, None, None]).amax(dim=1)
    covered = (torch.minimum(union, anomaly) * _attended(anomaly)).sum(dim=(-2, -1))
    uncovered = 1 - covered / anomaly.sum(dim=(-2, -1)).clamp(min=RANGE_FLOOR)
    return _mean_over_classes(uncovered[:, None], present.any(dim=1, keepdim=True))


def refined_map(
    cams: Float[Tensor, "*maps h w"], size: tuple[int, int]
) -> Float[Tensor, "*maps rows columns"]:
    """R = sigmoid(100 · (M~ - .4)), in single precision: a map upsampled, min-maxed, then cut.

    Upsampling puts the corner cells' centres on the corner pixels' (align_corners), as HAM does.
    A flat map becomes 0 before the cut. R >= .999 is HAM's predicted region: M~ >= .469.

    Args:
        cams: M >= 0, of any scale.
        size: rows and columns of the result.
    """
    with torch.autocast(cams.device.type, enabled=False):
        maps = cams.float().reshape(-1, 1, *cams.shape[-2:])
        upsampled = F.interpolate(maps, list(size), mode="bilinear", align_corners=True)[:, 0]
        refined = torch.sigmoid(SLOPE * (unit_scaled(upsampled) - REFINED_THRESHOLD))
    return refined.reshape(*cams.shape[:-2], *size)


def box_loss(
    refined: Float[Tensor, "batch finding h w"],
    regions: Float[Tensor, "batch finding h w"],
    supervised: Bool[Tensor, "batch finding"],
) -> Float[Tensor, ""]:
    """L_box: refined maps against the boxes of annotated positives.

    e_c = Σ (R - G)² / Σ (R + G), sums over the pixels of all annotated films of a finding; then the
    mean over findings with a box in the batch. On binary maps e_c = 1 - Dice. Without any box it is
    0, with a gradient of 0.

    Args:
        refined: R in [0, 1] (`refined_map`).
        regions: G, the share in [0, 1] of each cell that the finding's boxes cover.
        supervised: present and annotated; all others are left out.

    Returns:
        A mean in [0, 1].
    """
    refined, regions = refined.float(), regions.float()
    counted = supervised[:, :, None, None]
    squared = ((refined - regions).square() * counted).sum(dim=(0, 2, 3))
    mass = ((refined + regions) * counted).sum(dim=(0, 2, 3))
    boxed = supervised.any(dim=0)
    losses = squared / mass.clamp(min=RANGE_FLOOR)
    return (losses * boxed).sum() / boxed.sum().clamp(min=1)


def _attended(maps: Tensor) -> Tensor:
    # in half precision so steep a sigmoid would be a step: callers bring single precision
    return torch.sigmoid(SLOPE * (maps - MASK_THRESHOLD))


def _mean_over_classes(
    losses: Float[Tensor, "batch finding"], counted: Bool[Tensor, "batch finding"]
) -> Float[Tensor, ""]:
    """The mean of the counted losses of each column, then over the columns that have any."""
    number = counted.sum(dim=0)
    means = (losses * counted).sum(dim=0) / number.clamp(min=1)
    return means.sum() / (number > 0).sum().clamp(min=1)
