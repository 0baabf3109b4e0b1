import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from dwarf_cxr.config import ModelSettings, ObjectiveSettings
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.objectives.attention_mining import erase
from dwarf_cxr.training.losses import (
    CaptionBatch,
    TrainingLoss,
    frozen_batch_norm,
    loss_columns,
    mean_losses,
)

NAN = float("nan")
LABELS = torch.tensor([[1.0, 0.0, 1.0], [NAN, 0.0, 0.0], [0.0, 1.0, NAN]])


class Convolution(nn.Module):
    """An encoder with a batch norm that learns: 16 px to 4×4 tokens of 6."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, 4, 4)
        self.norm = nn.BatchNorm2d(6)
        self.norms_trained: list[bool] = []

    def grid(self, image_size: int) -> tuple[int, int]:
        return image_size // 4, image_size // 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.norms_trained.append(self.norm.training)
        return self.norm(self.convolution(images[:, None])).flatten(2).transpose(1, 2)


def make_loss(objective: ObjectiveSettings, context="isolated", dropout=0.0) -> TrainingLoss:
    torch.manual_seed(3)
    settings = ModelSettings(
        width=8,
        layers=2,
        attention_heads=2,
        feedforward=12,
        dropout=dropout,
        head="none",
        query_context=context,
        contrastive=objective.contrastive_weight > 0,
    )
    generator = torch.Generator().manual_seed(4)
    prompts = torch.randn(3, 5, generator=generator)
    model = VisionLanguageClassifier(
        settings, Convolution(), ("A", "B", "C"), prompts, 16, generator
    )
    return TrainingLoss(model, objective, torch.ones(3), Fabric(accelerator="cpu", devices=1))


def sums_of(loss: TrainingLoss, labels=LABELS, findings=(0, 1, 2), captions=None):
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(3, 16, 16, generator=generator)
    regions = torch.rand(3, 3, 8, 8, generator=generator)[:, list(findings)]
    labels = labels[:, list(findings)]
    return images, loss(images, findings, labels, regions, labels == 1, captions)


MINING = ObjectiveSettings(seg_weight=0, mining_weight=1, mining_slope=6.0, mining_threshold=0.4)


@pytest.mark.parametrize("context", ["isolated", "joint"])
def test_mining_is_the_sum_of_scores_on_films_erased_one_by_one(context):
    loss = make_loss(MINING, context)
    loss.eval()
    images, sums = sums_of(loss)
    attention = loss.model(images).extras["attention"]
    expected = 0.0
    for film, finding in ((0, 0), (0, 2), (2, 1)):
        one = erase(images[[film]], attention[[film], finding], slope=6.0, threshold=0.4)
        expected += loss.model(one, [finding]).logits.sigmoid().item()
    assert sums.mining.item() == pytest.approx(expected, rel=1e-5)


def test_only_the_findings_of_the_step_are_erased():
    loss = make_loss(MINING)
    loss.eval()
    images, sums = sums_of(loss, findings=(2,))
    attention = loss.model(images, [2]).extras["attention"]
    one = erase(images[[0]], attention[[0], 0], slope=6.0, threshold=0.4)
    expected = loss.model(one, [2]).logits.sigmoid().item()
    assert sums.mining.item() == pytest.approx(expected, rel=1e-5)


def test_the_external_term_is_the_error_of_raw_attention_on_regions_that_are_on_the_film():
    loss = make_loss(ObjectiveSettings(seg_weight=0, external_weight=1))
    loss.eval()
    generator = torch.Generator().manual_seed(8)
    images, regions = (
        torch.rand(3, *shape, generator=generator) for shape in ((16, 16), (3, 8, 8))
    )
    regions[2, 1] = 0.0  # moved off the film: nothing to compare with
    sums = loss(images, (0, 1, 2), LABELS, regions, LABELS == 1)
    attention = loss.model(images).extras["attention"]
    expected = 0.0
    for film, finding in ((0, 0), (0, 2)):
        map_ = attention[film, finding]
        map_ = (map_ - map_.min()) / (map_.max() - map_.min())
        large = F.interpolate(map_[None, None], (8, 8), mode="bilinear", align_corners=False)[0, 0]
        expected += (large - regions[film, finding]).square().mean().item()
    assert sums.external.item() == pytest.approx(expected, rel=1e-5)
    assert sums.mining.item() == 0


def test_a_finding_keeps_its_weight_of_positives_whichever_others_a_step_trains():
    loss = make_loss(ObjectiveSettings(seg_weight=0))
    loss.eval()
    loss.positive_weight.copy_(torch.tensor([2.0, 3.0, 7.0]))
    _, whole = sums_of(loss)
    alone = [sums_of(loss, findings=(index,))[1].label.item() for index in (2, 0, 1)]
    assert sum(alone) == pytest.approx(whole.label.item(), rel=1e-5)


def test_no_present_pair_mines_exactly_nothing():
    loss = make_loss(MINING)
    _, sums = sums_of(loss, labels=torch.zeros(3, 3))
    assert sums.mining.item() == 0.0
    assert not sums.mining.requires_grad
    assert len(loss.model.image_encoder.norms_trained) == 1


def test_the_gradient_reaches_the_attention_through_the_erased_film():
    """In a last layer whose values are cut off, queries and keys serve the map alone."""
    loss = make_loss(MINING)
    last = loss.model.decoder.layers[-1].cross_attention
    with torch.no_grad():
        last.value.weight.zero_()
        last.value.bias.zero_()
        last.output.weight.zero_()
    _, sums = sums_of(loss)
    keys = last.key.weight
    (by_labels,) = torch.autograd.grad(sums.label, keys, retain_graph=True, allow_unused=True)
    (by_mining,) = torch.autograd.grad(sums.mining, keys)
    assert by_labels is None or by_labels.abs().max() == 0
    assert by_mining.abs().max() > 0


def test_the_batch_norm_sees_films_only_and_trains_again_afterwards():
    mined, plain = make_loss(MINING), make_loss(ObjectiveSettings(seg_weight=0))
    sums_of(mined)
    sums_of(plain)
    encoder = mined.model.image_encoder
    assert encoder.norms_trained == [True, False]
    assert encoder.norm.training
    assert torch.equal(encoder.norm.running_mean, plain.model.image_encoder.norm.running_mean)
    assert torch.equal(encoder.norm.running_var, plain.model.image_encoder.norm.running_var)


def test_batch_norms_that_were_fixed_stay_so_and_errors_give_them_back():
    norms = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2).eval(), nn.Dropout())

    def fails() -> None:
        with frozen_batch_norm(norms):
            assert [part.training for part in norms] == [False, False, True]
            raise MemoryError

    with pytest.raises(MemoryError):
        fails()
    assert [part.training for part in norms] == [True, False, True]


def test_a_weight_of_zero_costs_no_second_pass():
    loss = make_loss(ObjectiveSettings(seg_weight=0.5))
    _, sums = sums_of(loss)
    assert len(loss.model.image_encoder.norms_trained) == 1
    assert [sums.mining.item(), sums.external.item(), sums.contrastive.item()] == [0, 0, 0]


def test_the_scale_of_contrast_is_held_below_100_and_can_come_back():
    loss = make_loss(ObjectiveSettings(seg_weight=0, contrastive_weight=1))
    features = torch.randn(3, 5, generator=torch.Generator().manual_seed(6))
    captions = CaptionBatch(torch.tensor([4, -1, 7]), features, 3)
    with torch.no_grad():
        loss.model.log_scale.fill_(9.0)
    _, sums = sums_of(loss, captions=captions)
    assert loss.model.log_scale.exp().item() == pytest.approx(100)
    sums.contrastive.backward()
    assert loss.model.log_scale.grad.abs() > 0


def test_means_of_an_epoch():
    objective = ObjectiveSettings(seg_weight=0.25, mining_weight=2)
    totals = {
        "dice": 3.0,
        "pairs": 4.0,
        "label": 6.0,
        "labels": 12.0,
        "mining": 2.0,
        "present": 5.0,
    }
    assert mean_losses(totals, objective) == pytest.approx(
        {
            "loss": 0.25 * 0.75 + 0.75 * 0.5 + 2 * 0.4,
            "dice_loss": 0.75,
            "label_loss": 0.5,
            "mining_loss": 0.4,
        }
    )
    assert mean_losses({}, objective)["loss"] is None
    nothing = mean_losses({"label": 0.0, "labels": 0.0}, objective)
    assert nothing["loss"] == 0
    assert nothing["dice_loss"] is None


@pytest.mark.parametrize(
    ("objective", "columns"),
    [
        (ObjectiveSettings(), ("label_loss", "dice_loss")),
        (ObjectiveSettings(seg_weight=0), ("label_loss",)),
        (ObjectiveSettings(seg_weight=1), ("dice_loss",)),
        (
            ObjectiveSettings(seg_weight=0, label_weight=0, detection_weight=1),
            ("detection_loss",),
        ),
        (
            ObjectiveSettings(seg_weight=0, anomaly_weight=0.01, box_weight=0.5),
            ("label_loss", "anomaly_loss", "box_loss"),
        ),
    ],
)
def test_only_what_is_minimised_has_a_name(objective, columns):
    assert loss_columns(objective) == columns
