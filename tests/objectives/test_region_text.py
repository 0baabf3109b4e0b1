import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from dwarf_cxr.objectives.region_text import Similarity, similarity, triplet_loss


def naive(regions, weights, words, word_sharpness, region_sharpness):
    """S_roi and S_text of one film, by loops."""
    n, k = len(regions), len(words)
    s = [[float(cosine_similarity(r, w, dim=0)) for w in words] for r in regions]
    by_word, by_region = [], []
    for j in range(k):
        total = torch.zeros_like(regions[0])
        for i in range(n):
            a = math.exp(word_sharpness * s[i][j]) / sum(
                math.exp(word_sharpness * s[i][m]) for m in range(k)
            )
            total = total + weights[i] * a * regions[i]
        by_word.append(float(cosine_similarity(total, words[j], dim=0)))
    for i in range(n):
        total = torch.zeros_like(words[0])
        for j in range(k):
            b = math.exp(region_sharpness * s[i][j]) / sum(
                math.exp(region_sharpness * s[m][j]) for m in range(n)
            )
            total = total + b * words[j]
        by_region.append(float(cosine_similarity(total, regions[i], dim=0)))
    return sum(by_region) / n, sum(by_word) / k


def test_similarity_is_that_of_a_naive_loop_and_padding_has_no_part():
    generator = torch.Generator().manual_seed(3)
    counts = [(5, 3), (2, 4), (1, 1)]
    regions = torch.randn(3, 5, 7, generator=generator)
    words = torch.randn(3, 4, 7, generator=generator)
    weights = torch.rand(3, 5, generator=generator)
    there = torch.arange(5) < torch.tensor([n for n, _ in counts])[:, None]
    said = torch.arange(4) < torch.tensor([k for _, k in counts])[:, None]
    found = similarity(
        regions, weights, there, words, said, word_sharpness=2.0, region_sharpness=5.0
    )
    for film, (n, k) in enumerate(counts):
        own = naive(regions[film, :n], weights[film, :n], words[film, :k], 2.0, 5.0)
        assert found.regions[film].item() == pytest.approx(own[0], abs=1e-5)
        assert found.words[film].item() == pytest.approx(own[1], abs=1e-5)


def test_without_a_word_or_a_region_similarity_is_zero_and_its_gradient_a_number():
    regions = torch.randn(2, 3, 4).requires_grad_()
    there = torch.tensor([[True] * 3, [False] * 3])
    said = torch.tensor([[False, False], [True, True]])
    found = similarity(
        regions,
        torch.rand(2, 3),
        there,
        torch.randn(2, 2, 4),
        said,
        word_sharpness=9.0,
        region_sharpness=9.0,
    )
    assert found.regions.tolist() == [0, 0]
    assert found.words[0].item() == 0
    (found.regions.sum() + found.words.sum()).backward()
    assert bool(torch.isfinite(regions.grad).all())


def test_the_loss_is_zero_once_own_is_more_similar_by_the_margin():
    own = Similarity(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.9, 0.9, 0.1]))
    worst, other = torch.tensor([0.6, 0.4, 0.5]), torch.tensor([0.7, 0.2, 0.4])
    loss = triplet_loss(own, worst, other, 0.2)
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.1, 0.6 + 0.5]))


def test_learning_the_loss_brings_regions_to_their_words():
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(1, 2, 6, generator=generator)
    other = torch.randn(1, 2, 6, generator=generator)
    regions = torch.randn(1, 4, 6, generator=generator).requires_grad_()
    worst = torch.randn(1, 3, 6, generator=generator)
    weights, said = torch.full((1, 4), 0.25), torch.ones(1, 2, dtype=torch.bool)
    all_there, worst_there = torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)

    def loss():
        sharp = {"word_sharpness": 9.0, "region_sharpness": 9.0}
        own = similarity(regions, weights, all_there, words, said, **sharp)
        low = similarity(worst, weights[:, :3], worst_there, words, said, **sharp).regions
        wrong = similarity(regions, weights, all_there, other, said, **sharp).words
        return triplet_loss(own, low, wrong, 0.2).sum()

    before = loss().item()
    optimizer = torch.optim.Adam([regions], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    assert before > 0.2
    assert loss().item() < 0.05
