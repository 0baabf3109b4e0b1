import math

import pytest
import torch
import torch.nn.functional as F

from dwarf_cxr.objectives.label_loss import label_loss, positive_weights

NAN = math.nan


def test_against_a_naive_loop_with_unassessed_labels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator) * 3
    labels = torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], [0, 1, 1], [1, 1, 0]])
    weights = torch.tensor([1.0, 4.0, 2.5])
    losses = label_loss(logits, labels, weights)
    for row in range(4):
        for column in range(3):
            label, p = labels[row, column].item(), 1 / (1 + math.exp(-logits[row, column]))
            expected = 0.0
            if label == 1:
                expected = -weights[column].item() * math.log(p)
            elif label == 0:
                expected = -math.log(1 - p)
            assert losses[row, column].item() == pytest.approx(expected, rel=1e-4)


def test_unassessed_labels_give_no_gradient():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([[1, NAN, 0], [NAN, NAN, NAN]])
    label_loss(logits, labels, torch.ones(3)).sum().backward()
    assert torch.equal(logits.grad == 0, torch.isnan(labels))


def test_it_is_kads_two_way_cross_entropy_on_the_difference_of_two_logits():
    pair = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(2))
    labels = (torch.rand(5, 2, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    kad = F.cross_entropy(pair.flatten(0, 1), labels.flatten().long(), reduction="none")
    ours = label_loss(pair[..., 1] - pair[..., 0], labels, torch.ones(2))
    torch.testing.assert_close(ours.flatten(), kad)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    losses = label_loss(logits, torch.tensor([[0.0], [1.0]]), torch.tensor([10.0]))
    losses.sum().backward()
    assert losses[:, 0].tolist() == [1e4, 1e5]
    assert bool(torch.isfinite(logits.grad).all())


def test_positive_weights_by_hand():
    columns = {
        "3 negatives, 1 positive": ([0, 0, 0, 1, NAN], 3.0),
        "more positives": ([1, 1, 1, 0, NAN], 1.0),
        "capped": ([0, 0, 0, 0, 1], 3.5),
        "no positive": ([0, 0, NAN, NAN, NAN], 1.0),
        "no negative": ([1, 1, NAN, NAN, NAN], 1.0),
        "never assessed": ([NAN] * 5, 1.0),
    }
    labels = torch.tensor([column for column, _ in columns.values()]).T
    expected = torch.tensor([weight for _, weight in columns.values()])
    torch.testing.assert_close(positive_weights(labels, 3.5), expected)


def test_a_cap_of_one_weighs_nothing():
    labels = torch.tensor([[0.0], [0.0], [1.0]])
    assert positive_weights(labels, 1.0).tolist() == [1.0]


def test_weights_by_frequency_by_hand():
    columns = {
        "1 of 4 assessed": ([0, 0, 0, 1, NAN], 2.0),
        "mostly present": ([1, 1, 1, 0, NAN], 0.5 * 4 / 3),
        "capped": ([0, 0, 0, 0, 1], 2.25),
        "no positive": ([0, 0, NAN, NAN, NAN], 1.0),
        "never assessed": ([NAN] * 5, 1.0),
    }
    labels = torch.tensor([column for column, _ in columns.values()]).T
    expected = torch.tensor([weight for _, weight in columns.values()])
    torch.testing.assert_close(positive_weights(labels, 2.25, "frequency"), expected)


def test_weights_of_the_papers_formula_by_hand_and_without_cap():
    labels = torch.zeros(40, 4)
    labels[:3, 0], labels[:12, 1], labels[:30, 2] = 1, 1, 1
    weights = positive_weights(labels, 1.0, "paper")
    assert weights.tolist() == pytest.approx([3.0, 0.75, 0.3, 1.0])  # 9 / 3, 9 / 12, 9 / 30
    assert positive_weights(torch.full((3, 2), NAN), 1.0, "paper").tolist() == [1.0, 1.0]


def test_on_nih_the_papers_weights_are_near_half_the_inverse_frequency():
    # published totals of 112,120 films: the commonest and the rarest finding
    films, infiltration, hernia = 112_120, 19_894, 227
    labels = torch.zeros(films, 2)
    labels[:infiltration, 0], labels[:hernia, 1] = 1, 1
    paper = positive_weights(labels, 1.0, "paper")
    assert paper.tolist() == pytest.approx([2.59, 227.0], abs=0.01)
    frequency = positive_weights(labels, 1e6, "frequency")
    torch.testing.assert_close(paper / frequency, torch.full((2,), 0.46 / 0.5), rtol=0.01, atol=0)
