"""The detector's term in the training's loss, from moved masks to the sum."""

import pytest
import torch
from lightning_fabric import Fabric

from dwarf_cxr.config import ObjectiveSettings, RetinaNetSettings
from dwarf_cxr.detection.boxes import FilmBoxes
from dwarf_cxr.models.building import build_fresh
from dwarf_cxr.objectives.combined import combine, loss_counts
from dwarf_cxr.objectives.detection import detection_loss
from dwarf_cxr.training.losses import TrainingLoss

NAN = float("nan")
LABELS = torch.tensor([[1.0, 0.0, 1.0], [NAN, 1.0, 0.0]])
SUPERVISED = torch.tensor([[True, False, False], [False, True, False]])
"""On the first film the third finding is present without a box."""


def made(regions: torch.Tensor):
    model = build_fresh(RetinaNetSettings(width=16, depth=1), ("a", "b", "c"), 64, seed=2)
    objective = ObjectiveSettings(seg_weight=0, label_weight=0, detection_weight=0.5)
    loss = TrainingLoss(model, objective, torch.ones(3), Fabric(accelerator="cpu", devices=1))
    images = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(1))
    sums = loss(images, (0, 1, 2), LABELS, regions, SUPERVISED)
    return loss, images, sums


def masks() -> torch.Tensor:
    regions = torch.zeros(2, 3, 32, 32)
    regions[0, 0, 4:10, 6:20] = 1
    regions[1, 1, 0:8, 0:8] = 1
    regions[1, 1, 20:32, 16:28] = 1
    return regions


def test_it_is_the_loss_of_the_masks_boxes():
    loss, images, sums = made(masks())
    said = loss.model(images)
    truths = [
        FilmBoxes(torch.tensor([[12.0, 8, 40, 20]]), torch.tensor([0])),
        FilmBoxes(torch.tensor([[0.0, 0, 16, 16], [32, 40, 56, 64]]), torch.tensor([1, 1])),
    ]
    known = torch.tensor([[True, True, False], [False, True, True]])
    alone = detection_loss(
        said.extras["class_logits"], said.extras["offsets"], said.extras["anchors"], truths, known
    )
    assert float(sums.detection) == pytest.approx(float(alone.sum()), rel=1e-5)
    counts = loss_counts(LABELS, SUPERVISED, torch.zeros(2, dtype=torch.bool))
    total = combine(sums, counts, loss.objective)
    assert float(total) == pytest.approx(0.5 * float(alone.mean()), rel=1e-5)
    total.backward()
    # the subnets learn, and nothing is pulled towards the third finding's absence on film one
    bias = loss.model.class_subnet[-1].bias.grad.reshape(9, 3)
    assert bool((bias[:, 2] > 0).all())
    assert float(loss.model.box_subnet[-1].bias.grad.abs().sum()) > 0


def test_a_finding_whose_boxes_were_moved_off_the_film_trains_nothing():
    regions = masks()
    regions[1, 1] = 0
    loss, images, sums = made(regions)
    said = loss.model(images)
    truths = [
        FilmBoxes(torch.tensor([[12.0, 8, 40, 20]]), torch.tensor([0])),
        FilmBoxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    known = torch.tensor([[True, True, False], [False, False, True]])
    alone = detection_loss(
        said.extras["class_logits"], said.extras["offsets"], said.extras["anchors"], truths, known
    )
    assert float(sums.detection) == pytest.approx(float(alone.sum()), rel=1e-5)
