"""RetinaNet's loss against naive loops, and what it must not look at."""

import math

import pytest
import torch

from dwarf_cxr.detection.anchors import make_anchors
from dwarf_cxr.detection.boxes import FilmBoxes, box_iou
from dwarf_cxr.objectives.detection import detection_loss, focal_loss, known_findings

ANCHORS = make_anchors([(4, 5), (2, 3)], [8, 16], [12.0, 24.0], scales=(1.0,), ratios=(0.5, 1.0))
"""52 anchors."""


def naive_focal(logit: float, target: float, alpha: float, gamma: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    p_t, alpha_t = (p, alpha) if target == 1 else (1 - p, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5)])
def test_focal_loss_is_the_papers_equation(alpha, gamma):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 4
    targets = torch.randint(0, 2, (3, 5), generator=generator).double()
    expected = [
        [naive_focal(*pair, alpha, gamma) for pair in zip(row, targets_row, strict=True)]
        for row, targets_row in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    found = focal_loss(logits, targets, alpha, gamma)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets, alpha, gamma), (logits,))


def test_focal_loss_of_extreme_logits_is_finite():
    logits = torch.tensor([-500.0, 500, -500, 500], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0.0, 0, 1, 1]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0, 375, 125, 0])
    assert bool(torch.isfinite(logits.grad).all())


def made(seed: int, films: int = 3, findings: int = 4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(films, len(ANCHORS), findings, generator=generator) - 1
    offsets = torch.randn(films, len(ANCHORS), 4, generator=generator)
    truths = []
    for film in range(films):
        low = torch.rand(film, 2, generator=generator) * 20
        sides = torch.rand(film, 2, generator=generator) * 15 + 6
        own = torch.randint(0, findings, (film,), generator=generator)
        truths.append(FilmBoxes(torch.cat([low, low + sides], dim=1), own))
    known = torch.ones(films, findings, dtype=torch.bool)
    return logits, offsets, truths, known


def naive_detection(logits, offsets, anchors, truth, known):
    """One film's loss, anchor by anchor and finding by finding."""
    overlap = box_iou(anchors, truth.boxes)
    total, foreground = 0.0, 0
    for a in range(len(anchors)):
        mine = [
            t
            for t in range(len(truth.boxes))
            if overlap[a, t] >= 0.5 or (0 < overlap[a, t] == overlap[:, t].max())
        ]
        for finding in range(logits.shape[1]):
            if not known[finding]:
                continue
            own = [t for t in range(len(truth.boxes)) if truth.findings[t] == finding]
            present = any(t in mine for t in own)
            if not present and any(overlap[a, t] >= 0.4 for t in own):
                continue
            total += naive_focal(float(logits[a, finding]), float(present), 0.25, 2.0)
        if not mine:
            continue
        foreground += 1
        t = max(mine, key=lambda one: float(overlap[a, one]))
        x1, y1, x2, y2 = truth.boxes[t].tolist()
        ax1, ay1, ax2, ay2 = anchors[a].tolist()
        wide, high = ax2 - ax1, ay2 - ay1
        wanted = (
            ((x1 + x2) - (ax1 + ax2)) / 2 / wide,
            ((y1 + y2) - (ay1 + ay2)) / 2 / high,
            math.log((x2 - x1) / wide),
            math.log((y2 - y1) / high),
        )
        for value, target in zip(offsets[a].tolist(), wanted, strict=True):
            gap, beta = abs(value - target), 1 / 9
            total += gap * gap / 2 / beta if gap < beta else gap - beta / 2
    return total / max(1, foreground)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_loop_over_anchors_and_findings(seed):
    logits, offsets, truths, known = made(seed)
    known[0, 1] = known[2, 3] = False
    losses = detection_loss(logits, offsets, ANCHORS, truths, known)
    for film in range(3):
        naive = naive_detection(logits[film], offsets[film], ANCHORS, truths[film], known[film])
        assert float(losses[film]) == pytest.approx(naive, rel=1e-4)


def test_unknown_findings_have_no_gradient_and_known_ones_have():
    labels = torch.tensor([[1.0, float("nan"), 0.0, 1.0]])
    boxed = torch.tensor([[False, False, False, True]])
    known = known_findings(labels, boxed)
    assert known.tolist() == [[False, False, True, True]]
    logits, offsets, _, _ = made(5, films=1)
    logits.requires_grad_()
    truth = FilmBoxes(torch.tensor([[4.0, 4, 18, 15]]), torch.tensor([3]))
    detection_loss(logits, offsets, ANCHORS, [truth], known).sum().backward()
    moved = logits.grad[0].abs().sum(dim=0) > 0
    assert moved.tolist() == [False, False, True, True]
    # the absent one is pushed down everywhere, the boxed one up where its box is
    assert bool((logits.grad[0, :, 2] > 0).all())
    up = logits.grad[0, :, 3] < 0
    overlap = box_iou(ANCHORS, truth.boxes)[:, 0]
    assert up.tolist() == ((overlap >= 0.5) | (overlap == overlap.max())).tolist()
    ignored = (overlap >= 0.4) & ~up
    assert bool((logits.grad[0, ignored, 3] == 0).all())


def test_two_findings_in_one_place_are_both_there():
    logits, offsets, _, known = made(6, films=1)
    logits.requires_grad_()
    box = torch.tensor([[8.0, 8, 20, 20]])
    truth = FilmBoxes(torch.cat([box, box]), torch.tensor([0, 2]))
    detection_loss(logits, offsets, ANCHORS, [truth], known).sum().backward()
    up = logits.grad[0] < 0
    assert bool(up[:, 0].any())
    assert up[:, 0].tolist() == up[:, 2].tolist()
    assert not bool(up[:, [1, 3]].any())


def test_the_box_loss_is_zero_at_the_truth_and_films_do_not_mix():
    logits, offsets, truths, known = made(7)
    whole = detection_loss(logits, offsets, ANCHORS, truths, known)
    for film in range(3):
        one = slice(film, film + 1)
        alone = detection_loss(logits[one], offsets[one], ANCHORS, truths[one], known[one])
        torch.testing.assert_close(alone[0], whole[film])
    nothing = torch.zeros_like(known)
    truth = FilmBoxes(ANCHORS[7:8].clone(), torch.tensor([1]))
    exact = detection_loss(
        logits[:1],
        torch.zeros(1, len(ANCHORS), 4),
        ANCHORS[7:8].expand(52, 4),
        [truth],
        nothing[:1],
    )
    assert float(exact) == pytest.approx(0, abs=1e-6)


def test_a_film_without_boxes_trains_no_offset():
    logits, offsets, truths, known = made(8)
    offsets.requires_grad_()
    detection_loss(logits, offsets, ANCHORS, truths[:1] * 3, known).sum().backward()
    assert float(offsets.grad.abs().sum()) == 0
