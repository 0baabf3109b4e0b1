import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from dwarf_cxr.objectives.ham import (
    anomaly_labels,
    anomaly_loss,
    bound_loss,
    box_loss,
    refined_map,
    union_loss,
)

NAN = float("nan")


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def inside(maps: np.ndarray, other: np.ndarray, judged: np.ndarray) -> float:
    """1 - Σ min(maps, other) T(judged) / max(Σ judged, 1e-5), pixel by pixel."""
    total = sum(
        min(maps[place], other[place]) * sigmoid(100 * (judged[place] - 0.75))
        for place in np.ndindex(judged.shape)
    )
    return 1 - total / max(judged.sum(), 1e-5)


@pytest.fixture(params=range(4))
def case(request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps about the threshold, 5 films, 3 findings of which the last may have no positive."""
    generator = torch.Generator().manual_seed(request.param)
    films, findings, rows, columns = 5 + request.param, 3, 4, 7
    cams = (torch.randn(films, findings, rows, columns, generator=generator) + 0.5).relu()
    anomaly = (torch.randn(films, rows, columns, generator=generator) + 0.6).relu()
    cams[0, 0] = 0
    anomaly[1] = 0
    labels = (torch.rand(films, findings, generator=generator) < 0.5).float()
    labels[0, 0] = 1
    labels[1, 1] = 1
    labels[2] = 0
    labels[3, 1] = NAN
    labels[:, 2] *= request.param % 2
    return cams, anomaly, labels


def test_bound_against_a_naive_loop(case):
    cams, anomaly, labels = case
    per_class = []
    for finding in range(labels.shape[1]):
        terms = [
            inside(
                cams[film, finding].double().numpy(),
                anomaly[film].double().numpy(),
                cams[film, finding].double().numpy(),
            )
            for film in range(len(labels))
            if labels[film, finding] == 1
        ]
        if terms:
            per_class.append(sum(terms) / len(terms))
    expected = sum(per_class) / len(per_class)
    assert bound_loss(cams, anomaly, labels).item() == pytest.approx(expected, abs=1e-5)


def test_union_against_a_naive_loop(case):
    cams, anomaly, labels = case
    terms = []
    for film in range(len(labels)):
        present = [c for c in range(labels.shape[1]) if labels[film, c] == 1]
        if present:
            union = np.max([cams[film, c].double().numpy() for c in present], axis=0)
            judged = anomaly[film].double().numpy()
            terms.append(inside(union, judged, judged))
    expected = sum(terms) / len(terms)
    assert union_loss(cams, anomaly, labels).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("largest", "expected"), [(0.3, 1.0), (0.7, 1.0), (0.8, 0.88), (2.0, 0.14)]
)
def test_the_bound_depends_on_the_scale_of_the_maps(largest, expected):
    maps = torch.rand(1, 1, 700, 700, generator=torch.Generator().manual_seed(1)) * largest
    loss = bound_loss(maps, maps[:, 0], torch.ones(1, 1))
    assert loss.item() == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("loss", [bound_loss, union_loss])
def test_maps_of_findings_that_are_not_known_to_be_present_play_no_part(case, loss):
    cams, anomaly, labels = case
    other = torch.where((labels == 1)[:, :, None, None], cams, cams + 3)
    torch.testing.assert_close(loss(cams, anomaly, labels), loss(other, anomaly, labels))


def test_box_loss_of_binary_maps_is_one_minus_dice():
    rng = np.random.default_rng(3)
    for _ in range(10):
        guess, truth = (rng.random((2, 1, 1, 6, 9)) < rng.random()).astype(np.float32)
        guess[0, 0, 0, 0] = 1
        dice = 2 * (guess * truth).sum() / (guess.sum() + truth.sum())
        found = box_loss(torch.tensor(guess), torch.tensor(truth), torch.tensor([[True]]))
        assert found.item() == pytest.approx(1 - dice, abs=1e-6)


def test_box_loss_against_a_naive_loop():
    generator = torch.Generator().manual_seed(4)
    refined = torch.rand(5, 4, 3, 6, generator=generator)
    regions = torch.rand(5, 4, 3, 6, generator=generator)
    supervised = torch.rand(5, 4, generator=generator) < 0.6
    supervised[:, 2] = False
    per_class = []
    for finding in range(4):
        films = [n for n in range(5) if supervised[n, finding]]
        if films:
            squared = sum(((refined[n, finding] - regions[n, finding]) ** 2).sum() for n in films)
            mass = sum((refined[n, finding] + regions[n, finding]).sum() for n in films)
            per_class.append(float(squared / mass))
    expected = sum(per_class) / len(per_class)
    assert len(per_class) == 3
    assert box_loss(refined, regions, supervised).item() == pytest.approx(expected, abs=1e-6)


def test_refined_map_against_scipy():
    generator = np.random.default_rng(5)
    cams = generator.random((2, 3, 4, 5)).astype(np.float32) * 7
    refined = refined_map(torch.tensor(cams), (10, 13))
    grid = np.meshgrid(np.linspace(0, 3, 10), np.linspace(0, 4, 13), indexing="ij")
    for film, finding in np.ndindex(2, 3):
        up = map_coordinates(cams[film, finding].astype(float), grid, order=1)
        scaled = (up - up.min()) / (up.max() - up.min())
        expected = 1 / (1 + np.exp(-100 * (scaled - 0.4)))
        np.testing.assert_allclose(refined[film, finding], expected, atol=2e-4)


def test_hams_region_is_where_the_scaled_map_reaches_469_thousandths():
    values = torch.linspace(0, 1, 1001).reshape(1, 1001)
    region = refined_map(values, (1, 1001)) >= 0.999
    assert values[region].min().item() == pytest.approx(0.469, abs=0.0011)


def test_a_flat_map_has_an_empty_refined_map_and_no_gradient_that_explodes():
    cams = torch.full((1, 2, 3, 3), 4.0, requires_grad=True)
    refined = refined_map(cams, (6, 6))
    assert refined.max().item() < 1e-12
    box_loss(refined, torch.ones(1, 2, 6, 6), torch.ones(1, 2, dtype=torch.bool)).backward()
    assert torch.isfinite(cams.grad).all()


def test_nan_labels_are_neither_positive_nor_negative():
    labels = torch.tensor([[1.0, NAN], [0.0, NAN], [0.0, 0.0], [NAN, NAN], [0.0, 1.0]])
    torch.testing.assert_close(
        anomaly_labels(labels), torch.tensor([1.0, NAN, 0.0, NAN, 1.0]), equal_nan=True
    )
    logit = torch.tensor([0.3, 5.0, -0.8, 9.0, -2.0], requires_grad=True)
    losses = anomaly_loss(logit, labels)
    expected = [-math.log(sigmoid(0.3)), 0, -math.log(sigmoid(0.8)), 0, -math.log(sigmoid(-2.0))]
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)
    losses.sum().backward()
    assert logit.grad[[1, 3]].tolist() == [0, 0]


@pytest.mark.parametrize("absent", [0.0, NAN])
def test_a_batch_without_positives_has_losses_of_0_with_a_gradient(absent):
    cams = torch.rand(3, 2, 4, 5, requires_grad=True)
    anomaly = torch.rand(3, 4, 5, requires_grad=True)
    labels = torch.full((3, 2), absent)
    refined = refined_map(cams, (8, 8))
    nothing = box_loss(refined, torch.zeros(3, 2, 8, 8), labels == 1)
    losses = (bound_loss(cams, anomaly, labels), union_loss(cams, anomaly, labels), nothing)
    assert [loss.item() for loss in losses] == [0, 0, 0]
    sum(losses).backward()
    assert not cams.grad.any()
    assert not anomaly.grad.any()


def test_half_precision_maps_are_compared_in_single_precision():
    cams = torch.rand(2, 3, 4, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        refined = refined_map(cams, (8, 8))
        loss = bound_loss(cams, cams[:, 0], torch.ones(2, 3))
    assert refined.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(refined, refined_map(cams.float(), (8, 8)))


def test_the_losses_depend_on_how_films_are_put_into_batches():
    """Why micro-batches and several devices are refused with these terms."""
    cams = torch.stack([torch.full((1, 2, 2), 0.3), *[torch.full((1, 2, 2), 2.0)] * 2])
    labels = torch.ones(3, 1)
    whole = bound_loss(cams, cams[:, 0], labels)
    parts = [bound_loss(cams[rows], cams[rows, 0], labels[rows]) for rows in ([0], [1, 2])]
    assert whole.item() == pytest.approx(1 / 3, abs=1e-4)
    assert sum(parts).item() / 2 == pytest.approx(1 / 2, abs=1e-4)
