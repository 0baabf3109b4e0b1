import inspect
import math

import pytest
import torch
from torch import nn

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.heads import (
    ConvHead,
    LinearHead,
    PriorEvidenceHead,
    build_heads,
    refine,
    to_map,
    to_map_space,
)

GRID = (3, 5)
TOKENS = 15
HEADED_SPACES = ("relative", "logit", "max")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention_and_scores(*shape: int, sharpness: float = 1.0):
    """Attention of one attention head, so that its scores order the tokens as it does."""
    scores = torch.randn(*shape, generator=generator(4)) * sharpness
    return scores.softmax(dim=-1), scores


def refined_map(kind: str, space: str, attention, scores, grid=GRID):
    heads = build_heads(kind, attention.shape[1], grid, generator())
    return to_map(refine(heads, to_map_space(attention, scores, space)), space)


def inversions(first: torch.Tensor, second: torch.Tensor) -> int:
    """Pairs of tokens that `first` orders one way and `second` the other."""
    gap_1 = first[..., :, None] - first[..., None, :]
    gap_2 = second[..., :, None] - second[..., None, :]
    return int(((gap_1 > 0) & (gap_2 < 0)).sum())


@pytest.mark.parametrize("kind", ["none", "linear", "conv1", "conv3"])
@pytest.mark.parametrize("space", HEADED_SPACES)
def test_at_the_start_the_map_orders_pixels_as_the_attention_does(kind, space):
    grid = (14, 14)
    attention, scores = attention_and_scores(2, 3, 196, sharpness=2.0)
    maps = refined_map(kind, space, attention, scores, grid)
    assert inversions(attention, maps) == 0
    apart = (attention[..., :, None] / attention[..., None, :]) > 1.00001
    assert bool((maps[..., :, None] > maps[..., None, :])[apart].all())
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize("space", HEADED_SPACES)
def test_a_random_start_does_not(space):
    attention, scores = attention_and_scores(2, 3, TOKENS)
    assert inversions(attention, refined_map("linear-random", space, attention, scores)) > 20


@pytest.mark.parametrize("kind", ["none", "linear", "conv1", "conv3", "prior"])
def test_uniform_attention_gives_one_half(kind):
    attention = torch.full((2, 3, TOKENS), 1 / TOKENS)
    maps = refined_map(kind, "relative", attention, torch.zeros_like(attention))
    torch.testing.assert_close(maps, torch.full_like(maps, 0.5), rtol=0, atol=1e-6)


def test_identity_map_is_r_over_one_plus_r_of_the_relative_attention():
    attention, scores = attention_and_scores(2, 3, TOKENS)
    relative = attention.double() * TOKENS
    maps = refined_map("linear", "relative", attention, scores)
    torch.testing.assert_close(maps.double(), relative / (1 + relative), rtol=0, atol=1e-6)


def test_attention_of_zero_neither_breaks_the_map_nor_its_gradient():
    attention = torch.zeros(1, 1, TOKENS)
    attention[..., 0] = 1.0
    attention.requires_grad_()
    maps = refined_map("linear", "relative", attention, torch.zeros(1, 1, TOKENS))
    assert maps[0, 0, 1].item() == pytest.approx(1 / (1 + math.exp(12)), rel=1e-3)
    maps.sum().backward()
    assert bool(torch.isfinite(attention.grad).all())


def test_probability_space_is_the_attention_itself():
    attention, scores = attention_and_scores(2, 3, TOKENS)
    assert torch.equal(refined_map("none", "probability", attention, scores), attention)


@pytest.mark.parametrize("identity", [True, False])
def test_linear_head_is_a_linear_layer(identity):
    head = LinearHead(TOKENS, identity, generator(3))
    layer = nn.Linear(TOKENS, TOKENS)
    layer.load_state_dict(head.state_dict())
    flat = torch.randn(4, TOKENS, generator=generator())
    torch.testing.assert_close(head(flat), layer(flat))


def test_random_start_follows_its_generator_alone():
    torch.manual_seed(1)
    first = LinearHead(TOKENS, False, generator(3))
    torch.manual_seed(2)
    again, other = LinearHead(TOKENS, False, generator(3)), LinearHead(TOKENS, False, generator(4))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.abs().max() <= 1 / math.sqrt(TOKENS)


def test_conv_head_sees_rows_and_columns_of_the_grid():
    head = ConvHead(GRID, 3)
    with torch.no_grad():
        head.convolution.weight.zero_()
        head.convolution.weight[0, 0, 1, 2] = 1.0  # the neighbour to the right
    flat = torch.arange(TOKENS, dtype=torch.float32)[None]
    moved = head(flat).reshape(GRID)
    assert torch.equal(moved[:, :-1], flat.reshape(GRID)[:, 1:])
    assert torch.equal(moved[:, -1], torch.zeros(GRID[0]))


def test_prior_head_adds_log_odds():
    head = PriorEvidenceHead(TOKENS)
    prior = torch.linspace(0, 1, TOKENS)
    head.set_prior(prior)
    with torch.no_grad():
        head.gain.fill_(2.0)
    attention, scores = attention_and_scores(2, 1, TOKENS)
    flat = to_map_space(attention, scores, "relative")[:, 0]
    known = prior.clamp(0.01, 0.99)
    odds = known / (1 - known) * (TOKENS * attention[:, 0]) ** 2
    torch.testing.assert_close(head(flat).sigmoid(), odds / (1 + odds))
    uniform = torch.zeros(1, TOKENS)
    torch.testing.assert_close(head(uniform).sigmoid()[0], known)
    torch.testing.assert_close(head.evidence(flat), 2 * flat)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("none", 0),
        ("linear", 38_612),
        ("linear-random", 38_612),
        ("conv1", 2),
        ("conv3", 10),
        ("prior", 197),
    ],
)
@pytest.mark.parametrize("findings", [1, 4, 13])
def test_parameters_per_finding_on_a_grid_of_14(kind, parameters, findings):
    heads = build_heads(kind, findings, (14, 14), generator())
    assert len(heads) == findings
    assert sum(p.numel() for p in heads.parameters()) == findings * parameters


@pytest.mark.parametrize("kind", ["none", "linear-random", "conv1", "conv3", "prior"])
@pytest.mark.parametrize("findings", [1, 3])
def test_heads_together_refine_as_each_alone(kind, findings):
    heads = build_heads(kind, findings, GRID, generator(5))
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(6)))
    raw = torch.randn(4, findings, TOKENS, generator=generator(7))
    alone = torch.stack([head(raw[:, row]) for row, head in enumerate(heads)], dim=1)
    torch.testing.assert_close(refine(heads, raw), alone)
    if kind == "linear-random":
        by_hand = [raw[:, row] @ head.weight.T + head.bias for row, head in enumerate(heads)]
        torch.testing.assert_close(alone, torch.stack(by_hand, dim=1))


def test_heads_of_different_findings_share_nothing():
    heads = build_heads("linear", 3, GRID, generator())
    flat = torch.randn(2, TOKENS, generator=generator())
    refine([heads[1]], flat[:, None]).sum().backward()
    assert all(p.grad is not None for p in heads[1].parameters())
    assert all(p.grad is None for index in (0, 2) for p in heads[index].parameters())


def test_unknown_kind_is_refused():
    unchecked = inspect.unwrap(build_heads)  # settings read from files are not beartyped
    with pytest.raises(ConfigError, match="'cubic'"):
        unchecked("cubic", 1, GRID, generator())
