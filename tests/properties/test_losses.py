"""Laws of the losses, against their equations written out in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dwarf_cxr.objectives.entropy import normalised_entropy
from dwarf_cxr.objectives.label_loss import label_loss
from dwarf_cxr.objectives.suppressed_dice import EPSILON, suppressed_dice_loss

UNIT = st.floats(0, 1, width=32)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))


@st.composite
def pairs(draw) -> tuple[torch.Tensor, torch.Tensor]:
    shape = draw(SHAPES)
    maps, truth = (draw(arrays.arrays(np.float64, shape, elements=UNIT)) for _ in range(2))
    return torch.from_numpy(maps), torch.from_numpy(truth)


@given(pairs(), st.floats(1, 5), st.floats(0.01, 2))
def test_suppressed_dice_is_its_equation_and_lies_between_0_and_1(case, weight, smooth):
    maps, truth = case
    found = suppressed_dice_loss(maps, truth, fp_weight=weight, smooth=smooth)
    for one, m, y in zip(found, maps.numpy(), truth.numpy(), strict=True):
        overlap, wrong = (m * y).sum(), (m * (1 - y)).sum()
        above = 2 * overlap + smooth + EPSILON
        below = m.sum() + y.sum() + (weight - 1) * wrong + smooth + EPSILON
        assert float(one) == pytest.approx(1 - above / below, abs=1e-9)
        assert -1e-9 <= float(one) <= 1


@given(pairs(), st.floats(1, 5), st.floats(0.01, 3))
def test_suppressing_more_never_lowers_the_loss(case, weight, more):
    maps, truth = case
    one = suppressed_dice_loss(maps, truth, fp_weight=weight, smooth=1.0)
    other = suppressed_dice_loss(maps, truth, fp_weight=weight + more, smooth=1.0)
    assert bool((other >= one - 1e-9).all())


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_entropy_is_its_equation_and_does_not_care_for_order(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    cells = height * width
    mask = torch.rand(cells, generator=generator, dtype=torch.float64) + 1e-6
    mask = mask / mask.sum()
    found = float(normalised_entropy(mask.log().reshape(1, 1, height, width)))
    expected = -sum(p * math.log(p) for p in mask.tolist()) / math.log(cells)
    assert found == pytest.approx(expected, abs=1e-5)
    turned = mask[torch.randperm(cells, generator=generator)].log().reshape(1, 1, width, height)
    assert float(normalised_entropy(turned)) == pytest.approx(found, abs=1e-5)


LABELLED = st.tuples(st.floats(-30, 30), st.sampled_from([0.0, 1.0, math.nan]))


@given(st.lists(LABELLED, min_size=1))
def test_cross_entropy_is_its_equation_and_an_unassessed_label_costs_nothing(pairs_):
    logits, labels = (
        torch.tensor(one, dtype=torch.float64)[None] for one in zip(*pairs_, strict=True)
    )
    weight = torch.full((len(pairs_),), 2.5, dtype=torch.float64)
    found = label_loss(logits, labels, weight)[0].tolist()
    for loss, (logit, label) in zip(found, pairs_, strict=True):
        # -log p and -log(1 - p) of p = 1 / (1 + exp(-logit))
        costs = {0.0: math.log1p(math.exp(logit)), 1.0: 2.5 * math.log1p(math.exp(-logit))}
        assert loss == pytest.approx(0.0 if math.isnan(label) else costs[label], abs=1e-9)
