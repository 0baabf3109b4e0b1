import math

import pytest
import torch
import torch.nn.functional as F

from dwarf_cxr.objectives.contrastive import contrastive_loss

SCALE = torch.tensor(5.0)


def vectors(count: int, seed: int, width: int = 7) -> torch.Tensor:
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=-1)


def naive(images, texts, captions, scale) -> list[float]:
    """Term by term, with Python's exp and log."""
    losses = []
    for i, mine in enumerate(captions):
        if mine < 0:
            losses.append(0.0)
            continue
        others = [j for j, its in enumerate(captions) if j == i or (its >= 0 and its != mine)]
        to_text = [math.exp(scale * float(images[i] @ texts[j])) for j in others]
        to_image = [math.exp(scale * float(images[j] @ texts[i])) for j in others]
        own = scale * float(images[i] @ texts[i])
        losses.append((math.log(sum(to_text)) + math.log(sum(to_image))) / 2 - own)
    return losses


@pytest.mark.parametrize(
    "captions",
    [
        [0, 1, 2, 3, 4],
        [0, 1, 0, -1, 4],
        [2, 2, 2, 2, 2],
        [-1, -1, 3, -1, -1],
        [-1] * 5,
    ],
)
def test_against_a_naive_loop(captions):
    images = vectors(5, 1)
    said = vectors(9, 2)
    texts = said[torch.tensor(captions)]
    found = contrastive_loss(images, texts, torch.tensor(captions), SCALE)
    assert found.tolist() == pytest.approx(naive(images, texts, captions, 5.0), abs=1e-5)


def test_with_different_texts_it_is_clips_loss():
    images, texts = vectors(6, 3), vectors(6, 4)
    logits = 5 * images @ texts.T
    answers = torch.arange(6)
    expected = (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2
    found = contrastive_loss(images, texts, answers, SCALE)
    torch.testing.assert_close(found.mean(), expected)


def test_films_without_text_and_of_the_same_text_do_not_push_each_other():
    images, texts = vectors(4, 5).requires_grad_(), vectors(4, 6).requires_grad_()
    losses = contrastive_loss(images, texts, torch.tensor([3, 3, -1, 8]), SCALE)
    losses[0].backward()
    assert images.grad[1].abs().max() == 0
    assert images.grad[2].abs().max() == 0
    assert texts.grad[2].abs().max() == 0
    assert images.grad[0].abs().max() > 0
    assert images.grad[3].abs().max() > 0


def test_without_any_text_the_loss_is_zero_with_a_gradient_of_zero():
    images, scale = vectors(3, 7).requires_grad_(), SCALE.clone().requires_grad_()
    losses = contrastive_loss(images, vectors(3, 8), torch.full((3,), -1), scale)
    assert losses.tolist() == [0.0] * 3
    losses.sum().backward()
    assert torch.equal(images.grad, torch.zeros(3, 7))
    assert scale.grad.item() == 0


def test_a_single_film_has_nothing_to_be_told_from():
    images = vectors(1, 9).requires_grad_()
    loss = contrastive_loss(images, vectors(1, 10), torch.tensor([4]), SCALE)
    loss.sum().backward()
    assert loss.item() == 0
    assert images.grad.abs().max() == 0


def test_gradients_are_those_of_finite_differences():
    images, texts = vectors(4, 11).double(), vectors(4, 12).double()
    scale = torch.tensor(2.0, dtype=torch.float64)
    captions = torch.tensor([0, 1, -1, 0])
    inputs = [value.requires_grad_() for value in (images, texts, scale)]
    assert torch.autograd.gradcheck(
        lambda images, texts, scale: contrastive_loss(images, texts, captions, scale), inputs
    )
