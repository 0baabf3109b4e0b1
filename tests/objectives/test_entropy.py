import math

import pytest
import torch
from scipy.stats import entropy

from dwarf_cxr.objectives.entropy import absent_entropy_loss, normalised_entropy

NAN = math.nan


def random_logs(*shape: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3
    return logits.flatten(2).log_softmax(-1).unflatten(-1, shape[2:])


def test_against_scipy():
    logs = random_logs(2, 3, 4, 5)
    ours = normalised_entropy(logs)
    for row in range(2):
        for column in range(3):
            mask = logs[row, column].exp().flatten().numpy()
            assert ours[row, column].item() == pytest.approx(entropy(mask, base=20), abs=1e-5)


@pytest.mark.parametrize("cells", [(2, 3), (14, 14), (56, 56)])
def test_a_uniform_mask_costs_nothing_and_a_single_cell_costs_one(cells):
    uniform = torch.zeros(1, 1, *cells).flatten(2).log_softmax(-1).unflatten(-1, cells)
    peaked = torch.zeros(1, 1, *cells)
    peaked[..., 1, 2] = 1e4
    peaked = peaked.flatten(2).log_softmax(-1).unflatten(-1, cells)
    absent = torch.zeros(1, 1)
    assert absent_entropy_loss(uniform, absent).item() == pytest.approx(0, abs=1e-5)
    assert absent_entropy_loss(peaked, absent).item() == pytest.approx(1)


def test_only_absent_findings_count():
    logs = random_logs(3, 2, 3, 4, seed=1).requires_grad_()
    labels = torch.tensor([[1.0, 0.0], [NAN, NAN], [0.0, 1.0]])
    losses = absent_entropy_loss(logs, labels)
    assert torch.equal(losses != 0, labels == 0)
    losses.sum().backward()
    assert torch.equal(logs.grad.abs().sum(dim=(-2, -1)) > 0, labels == 0)


def test_a_cell_without_any_mass_keeps_value_and_gradient_finite():
    logits = torch.tensor([[[[0.0, -math.inf], [0.0, 0.0]]]], requires_grad=True)
    logs = logits.flatten(2).log_softmax(-1).unflatten(-1, (2, 2))
    value = normalised_entropy(logs)
    assert value.item() == pytest.approx(math.log(3) / math.log(4))
    value.sum().backward()
    assert bool(torch.isfinite(logits.grad).all())


def test_half_precision_is_computed_in_single():
    assert normalised_entropy(random_logs(1, 2, 5, 6).bfloat16()).dtype == torch.float32


def test_a_map_of_a_single_cell_is_uniform():
    assert absent_entropy_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3)).eq(0).all()


def test_films_of_which_nothing_is_assessed_add_nothing():
    logs = random_logs(2, 3, 4, 5).requires_grad_()
    total = absent_entropy_loss(logs, torch.full((2, 3), NAN)).sum()
    total.backward()
    assert total.item() == 0
    assert not logs.grad.any()
