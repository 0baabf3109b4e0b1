import itertools
import math

import pytest
import torch

from dwarf_cxr.config import TrainingSettings
from dwarf_cxr.models.vlm import build_classifier
from dwarf_cxr.training.optimisation import build_optimizer, rate_factor, set_rates
from tests.tiny import FINDINGS, SIZE, settings, write_bert, write_vit


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    chosen = settings(write_vit(folder / "vit"), write_bert(folder / "bert")).model
    return build_classifier(chosen, FINDINGS, SIZE, 0)


TRAINING = TrainingSettings(lr=0.5, encoder_lr=0.25, weight_decay=0.125)


def test_every_trainable_parameter_is_there_once_with_its_rate_and_decay(model):
    optimizer = build_optimizer(model, TRAINING)
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    expected = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = 0.25 if name.startswith("image_encoder.") else 0.5
        kept = name.startswith("heads.") or "norm" in name or name.endswith("bias")
        expected[id(parameter)] = (rate, 0.0 if kept else 0.125)
    assert found == expected
    assert len(expected) < len(list(model.parameters()))


def test_an_identity_is_not_pulled_towards_zero(model):
    optimizer = build_optimizer(model, TRAINING)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    before = model.text_projection.weight.clone()
    optimizer.step()
    assert torch.equal(model.heads[0].weight, torch.eye(16))
    torch.testing.assert_close(model.text_projection.weight, before * (1 - 0.5 * 0.125))


def test_warm_up_is_linear_and_reaches_the_full_rate():
    chosen = TrainingSettings(warmup=0.25, decay="constant")
    factors = [rate_factor(chosen, step, 16) for step in range(16)]
    assert factors == [0.25, 0.5, 0.75] + [1.0] * 13


def test_cosine_falls_from_one_towards_zero():
    chosen = TrainingSettings(warmup=0.2, decay="cosine")
    factors = [rate_factor(chosen, step, 10) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    for step in range(2, 10):
        assert factors[step] == pytest.approx((1 + math.cos(math.pi * (step - 2) / 8)) / 2)
    assert all(a > b for a, b in itertools.pairwise(factors[2:]))
    assert factors[-1] > 0


@pytest.mark.parametrize("decay", ["cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_trainings_have_rates_too(decay, warmup, steps):
    chosen = TrainingSettings(warmup=warmup, decay=decay)
    factors = [rate_factor(chosen, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_rates_are_set_from_their_base_not_from_the_last(model):
    optimizer = build_optimizer(model, TRAINING)
    set_rates(optimizer, 0.5)
    set_rates(optimizer, 0.1)
    assert {group["lr"] for group in optimizer.param_groups} == {0.025, 0.05}
