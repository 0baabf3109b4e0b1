import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from dwarf_cxr.objectives.attention_mining import (
    RANGE_FLOOR,
    erase,
    external_loss,
    mining_loss,
    unit_scaled,
)


def upsampled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear between the centres of cells, by scipy."""
    rows, columns = (
        (np.arange(new) + 0.5) * old / new - 0.5
        for old, new in zip(values.shape, size, strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    return map_coordinates(values, grid, order=1, mode="nearest")


def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(values.max() - values.min(), RANGE_FLOOR)


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    """Films of 12×10 and attention of 3×2, sums of 1, for 4 pairs."""
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(4, 12, 10, generator=generator)
    attention = torch.randn(4, 6, generator=generator).softmax(-1).reshape(4, 3, 2)
    return images, attention


@pytest.mark.parametrize(("slope", "threshold"), [(10.0, 0.5), (3.0, 0.8)])
def test_erasing_against_a_naive_loop(case, slope, threshold):
    images, attention = case
    erased = erase(images, attention, slope=slope, threshold=threshold)
    for pair, image in enumerate(images.double().numpy()):
        map_ = upsampled(scaled(attention[pair].double().numpy()), (12, 10))
        for row in range(12):
            for column in range(10):
                mask = 1 / (1 + math.exp(-slope * (map_[row, column] - threshold)))
                expected = image[row, column] * (1 - mask)
                assert erased[pair, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_only_what_is_attended_is_erased():
    attention = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    erased = erase(torch.ones(1, 8, 8), attention, slope=50.0, threshold=0.5)[0]
    assert erased[6:, 6:].max() < 1e-6
    assert erased[:4, :4].min() > 1 - 1e-6


def test_a_scale_of_the_attention_changes_nothing(case):
    images, attention = case
    erased = erase(images, attention, slope=10.0, threshold=0.5)
    again = erase(images, 0.3 * attention, slope=10.0, threshold=0.5)
    torch.testing.assert_close(erased, again)


def test_flat_attention_erases_next_to_nothing_and_has_a_gradient():
    attention = torch.full((1, 3, 3), 1 / 9, requires_grad=True)
    erased = erase(torch.ones(1, 6, 6), attention, slope=10.0, threshold=0.5)
    torch.testing.assert_close(erased, torch.full((1, 6, 6), 1 - 1 / (1 + math.exp(5))))
    erased.sum().backward()
    assert bool(torch.isfinite(attention.grad).all())


def test_maps_in_half_precision_are_scaled_in_single(case):
    _, attention = case
    assert unit_scaled(attention.bfloat16()).dtype == torch.float32
    assert unit_scaled(attention).amax(dim=(-2, -1)).tolist() == pytest.approx([1.0] * 4)
    assert unit_scaled(attention).amin(dim=(-2, -1)).tolist() == [0.0] * 4


def test_the_gradient_through_the_mask_is_that_of_finite_differences(case):
    """The score of an erased film, by its attention: a fixed linear scorer stands for the model."""
    images, attention = case
    weights = torch.randn(12, 10, generator=torch.Generator().manual_seed(8)).double()

    def loss(attention: torch.Tensor) -> float:
        # in double precision, by other means
        total = 0.0
        for image, map_ in zip(images.double(), attention, strict=True):
            mask = upsampled(scaled(map_.numpy()), (12, 10))
            kept = image * (1 - torch.sigmoid(10 * (torch.from_numpy(mask) - 0.5)))
            total += float((kept * weights).sum().sigmoid())
        return total

    attention = attention.requires_grad_()
    erased = erase(images, attention, slope=10.0, threshold=0.5)
    mining_loss((erased * weights.float()).sum(dim=(-2, -1))).sum().backward()
    exact = attention.detach().double()
    assert attention.grad.abs().max() > 1e-2
    for place in np.ndindex(*exact.shape):
        step = torch.zeros_like(exact)
        step[place] = 1e-6
        slope = (loss(exact + step) - loss(exact - step)) / 2e-6
        assert attention.grad[place].item() == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_the_mining_loss_is_the_probability():
    logits = torch.tensor([-2.0, 0.0, 3.0])
    expected = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    assert mining_loss(logits).tolist() == pytest.approx(expected)


def test_no_pair_gives_no_loss():
    erased = erase(torch.zeros(0, 4, 4), torch.zeros(0, 2, 2), slope=10.0, threshold=0.5)
    assert erased.shape == (0, 4, 4)
    assert external_loss(torch.zeros(0, 2, 2), torch.zeros(0, 4, 4)).sum() == 0


def test_the_external_loss_is_the_mean_squared_error_of_the_scaled_map(case):
    _, attention = case
    regions = torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(9))
    found = external_loss(attention, regions)
    for pair in range(4):
        map_ = upsampled(scaled(attention[pair].double().numpy()), (9, 9))
        expected = np.mean((map_ - regions[pair].numpy()) ** 2)
        assert found[pair].item() == pytest.approx(expected, abs=1e-6)
