import pytest
import torch
from torch import nn

from dwarf_cxr.models.decoder import Attention, DecoderLayer, QueryDecoder

WIDTH, HEADS, FEEDFORWARD, LAYERS = 12, 3, 20, 2
BATCH, QUERIES, TOKENS = 2, 5, 7


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter non-trivial, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def decoder(dropout: float = 0.1) -> QueryDecoder:
    return randomised(QueryDecoder(WIDTH, LAYERS, HEADS, FEEDFORWARD, dropout))


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randn(QUERIES, WIDTH, generator=generator)
    return prompts, torch.randn(BATCH, TOKENS, WIDTH, generator=generator)


def as_torch_attention(ours: Attention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    return theirs.eval()


def as_torch_layer(ours: DecoderLayer) -> nn.TransformerDecoderLayer:
    theirs = nn.TransformerDecoderLayer(
        WIDTH, HEADS, FEEDFORWARD, activation="relu", batch_first=True, norm_first=True
    )
    theirs.self_attn = as_torch_attention(ours.self_attention)
    theirs.multihead_attn = as_torch_attention(ours.cross_attention)
    pairs = {
        theirs.linear1: ours.expand,
        theirs.linear2: ours.contract,
        theirs.norm1: ours.norm1,
        theirs.norm2: ours.norm2,
        theirs.norm3: ours.norm3,
    }
    for target, source in pairs.items():
        target.load_state_dict(source.state_dict())
    return theirs.eval()


@pytest.mark.parametrize("context", ["isolated", "joint"])
def test_decoder_is_torchs_pre_norm_decoder_with_kads_shared_norm(context):
    ours = decoder().eval()
    prompts, tokens = inputs()
    mask = None
    if context == "isolated":
        mask = ~torch.eye(QUERIES, dtype=torch.bool)
    queries, memory = ours.norm(prompts).repeat(BATCH, 1, 1), ours.norm(tokens)
    layers = [as_torch_layer(layer) for layer in ours.layers]
    for layer in layers[:-1]:
        queries = layer(queries, memory, tgt_mask=mask)
    before_last = queries
    expected = ours.norm(layers[-1](queries, memory, tgt_mask=mask))

    decoded, attention, scores = ours(prompts, tokens, context)
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-5)

    last = layers[-1]
    normed = last.norm1(before_last)
    seen = before_last + last.self_attn(normed, normed, normed, attn_mask=mask)[0]
    _, their_attention = last.multihead_attn(
        last.norm2(seen), memory, memory, need_weights=True, average_attn_weights=True
    )
    torch.testing.assert_close(attention, their_attention, rtol=0, atol=1e-5)
    assert scores.shape == (BATCH, QUERIES, TOKENS)


def test_scores_are_what_the_softmax_sees():
    attention = randomised(Attention(WIDTH, HEADS, 0.0))
    prompts, tokens = inputs()
    _, scores, probabilities = attention(prompts.repeat(BATCH, 1, 1), tokens)
    torch.testing.assert_close(probabilities, scores.exp() / scores.exp().sum(-1, keepdim=True))
    q = (prompts @ attention.query.weight.T + attention.query.bias).reshape(QUERIES, HEADS, -1)
    k = (tokens @ attention.key.weight.T + attention.key.bias).reshape(BATCH, TOKENS, HEADS, -1)
    naive = torch.einsum("qhd,bthd->bhqt", q, k) / (WIDTH / HEADS) ** 0.5
    torch.testing.assert_close(scores, naive)


def test_attention_rows_sum_to_one_in_training_with_dropout():
    ours = decoder(dropout=0.6).train()
    torch.manual_seed(0)
    decoded, attention, _ = ours(*inputs(), "isolated")
    torch.testing.assert_close(attention.sum(-1), torch.ones(BATCH, QUERIES), rtol=0, atol=1e-6)
    assert bool((attention > 0).all())
    torch.manual_seed(1)
    other, _, _ = ours(*inputs(), "isolated")
    assert not torch.allclose(decoded, other), "dropout is not in force: the test shows nothing"


def test_dropout_falls_on_the_probabilities_that_gather_values():
    attention = randomised(Attention(WIDTH, HEADS, 0.5)).train()
    prompts, tokens = inputs()
    queries = prompts.repeat(BATCH, 1, 1)
    torch.manual_seed(3)
    first, _, shown = attention(queries, tokens)
    second, _, shown_again = attention(queries, tokens)
    assert torch.equal(shown, shown_again)
    assert not torch.allclose(first, second)


def test_isolated_queries_equal_runs_with_a_single_prompt():
    ours = decoder().eval()
    prompts, tokens = inputs()
    together = ours(prompts, tokens, "isolated")
    for index in range(QUERIES):
        alone = ours(prompts[index : index + 1], tokens, "isolated")
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[:, 0], many[:, index], rtol=0, atol=1e-5)


def test_joint_queries_depend_on_each_other():
    ours = decoder().eval()
    prompts, tokens = inputs()
    together, attention, _ = ours(prompts, tokens, "joint")
    alone, attention_alone, _ = ours(prompts[:1], tokens, "joint")
    assert (together[:, 0] - alone[:, 0]).abs().max() > 1e-3
    assert (attention[:, 0] - attention_alone[:, 0]).abs().max() > 1e-4


def test_images_of_a_batch_do_not_mix():
    ours = decoder().eval()
    prompts, tokens = inputs()
    both, alone = ours(prompts, tokens, "joint"), ours(prompts, tokens[1:], "joint")
    for many, one in zip(both, alone, strict=True):
        torch.testing.assert_close(many[1:], one, rtol=0, atol=1e-6)


def test_size_of_kads_decoder():
    # spec: 6,304,000 a layer and one norm of 1,536 at width 768, feed-forward 1024
    kad = QueryDecoder(768, 1, 4, 1024, 0.1)
    assert sum(p.numel() for p in kad.parameters()) == 6_304_000 + 1_536


@torch.no_grad()
def test_maps_of_all_layers_are_their_mean():
    torch.manual_seed(7)
    decoder = QueryDecoder(12, layers=3, heads=2, feedforward=20, dropout=0.3).eval()
    prompts, tokens = torch.randn(4, 12), torch.randn(2, 5, 12)
    seen, scored = [], []

    def keep(_module, _inputs, out):
        scored.append(out[1])
        seen.append(out[2])

    for layer in decoder.layers:
        layer.register_forward_hook(keep)
    decoded, attention, scores = decoder(prompts, tokens, "joint", "mean")
    assert len(seen) == 3
    torch.testing.assert_close(attention, sum(part.mean(1) for part in seen) / 3)
    torch.testing.assert_close(scores, sum(part.mean(1) for part in scored) / 3)
    last = decoder(prompts, tokens, "joint", "last")
    torch.testing.assert_close(last[1], seen[2].mean(1))
    torch.testing.assert_close(decoded, last[0])
