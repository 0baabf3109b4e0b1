"""The head of class-based attention against naive loops, and what the paper says of it."""

import math

import pytest
import torch
from torch import Tensor, nn

from dwarf_cxr.config import ClassAttentionSettings
from dwarf_cxr.models.backbones import build_backbone
from dwarf_cxr.models.class_attention import ClassAttentionClassifier

FINDINGS = ("Mass", "Effusion", "Nodule", "Hernia")
CHANNELS = (3, 5, 7, 11)


class Pyramid(nn.Module):
    """Four convolutions in the place of a network."""

    def __init__(self, channels: tuple[int, int, int, int] = CHANNELS) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.ModuleList(
            nn.Conv2d(given, made, stride, stride)
            for given, made, stride in zip((1, *channels[:3]), channels, (4, 2, 2, 2), strict=True)
        )

    def stages(self, images: Tensor) -> tuple[Tensor, ...]:
        stages, features = [], images[:, None] * 4 - 2
        for layer in self.layers:
            features = layer(features)
            stages.append(features)
        return tuple(stages)

    def describe(self) -> dict[str, str]:
        return {"kind": "pyramid"}


def make(seed: int = 0, **settings) -> ClassAttentionClassifier:
    torch.manual_seed(seed)
    chosen = ClassAttentionSettings(**{"width": 6, **settings})
    generator = torch.Generator().manual_seed(seed)
    model = ClassAttentionClassifier(chosen, Pyramid(), FINDINGS, 96, generator)
    with torch.no_grad():  # biases too are to matter
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(generator=generator)
    return model


def films(count: int = 2, *, height: int = 96, width: int = 64, seed: int = 9) -> Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed))


def normalised(model: ClassAttentionClassifier, image: Tensor) -> list[Tensor]:
    """The stages of a film, each brought to mean 0 and deviation 1, then to its channels' own."""
    stages = [stage[0] for stage in model.image_encoder.stages(image[None])][-len(model.norms) :]
    made = []
    for stage, norm in zip(stages, model.norms, strict=True):
        even = (stage - stage.mean()) / (stage.var(unbiased=False) + norm.eps).sqrt()
        made.append(even * norm.weight[:, None, None] + norm.bias[:, None, None])
    return made


def naive(model: ClassAttentionClassifier, image: Tensor, finding: int) -> tuple[float, Tensor]:
    """Logit and third mask of one film and finding, position by position."""
    *stages, last = normalised(model, image)
    pooled = torch.stack([channel.sum() / channel.numel() for channel in last])
    pieces, mask = [], torch.zeros(0)
    for number, (stage, attention) in enumerate(zip(stages, model.stages, strict=True)):
        g = attention.pooled.weight @ pooled + attention.pooled.bias
        own = number == 2 and model.settings.attention == "class"
        a = attention.vectors[finding if own else 0]
        rows, columns = stage.shape[1:]
        scores = torch.zeros(rows, columns)
        for row in range(rows):
            for column in range(columns):
                local = attention.local.weight @ stage[:, row, column]
                if model.settings.compatibility == "linear":
                    score = a @ local + a @ g
                elif model.settings.compatibility == "tanh":
                    score = sum(a[k] * math.tanh(local[k] + g[k]) for k in range(len(a)))
                else:
                    score = sum(a[k] * local[k] * g[k] for k in range(len(a)))
                scores[row, column] = score
        mask = scores.exp() / scores.exp().sum()
        vector = torch.zeros(len(stage))
        for row in range(rows):
            for column in range(columns):
                vector += mask[row, column] * stage[:, row, column]
        pieces.append(vector)
    whole = model.score.weight[finding]
    first, second = CHANNELS[:2]
    v = torch.cat([whole[: first + second], model.score_third.weight[finding]])
    logit = v @ torch.cat(pieces) + model.score.bias[finding]
    if model.settings.append_global:
        logit = logit + whole[first + second :] @ pooled
    return float(logit), mask


@pytest.mark.parametrize("compatibility", ["linear", "tanh", "dot"])
@pytest.mark.parametrize(("attention", "append"), [("class", False), ("image", True)])
@torch.no_grad()
def test_against_loops_over_positions(compatibility, attention, append):
    model = make(3, compatibility=compatibility, attention=attention, append_global=append)
    images = films(2)
    prediction = model(images)
    for row in range(2):
        for finding in range(len(FINDINGS)):
            logit, mask = naive(model, images[row], finding)
            assert prediction.logits[row, finding].item() == pytest.approx(logit, abs=1e-4)
            torch.testing.assert_close(prediction.maps[row, finding], mask)


@pytest.mark.parametrize("attention", ["image", "class"])
def test_masks_sum_to_one_and_stay_in_single_precision(attention):
    model = make(attention=attention)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(films(3))
    assert prediction.domain == "simplex"
    assert prediction.maps.shape == (3, 4, 6, 4)
    assert prediction.extras["attention_1"].shape == (3, 24, 16)
    assert prediction.extras["attention_2"].shape == (3, 12, 8)
    for name in ("attention", "attention_1", "attention_2"):
        mask = prediction.extras[name]
        assert mask.dtype == torch.float32
        sums = mask.sum(dim=(-2, -1))
        torch.testing.assert_close(sums, torch.ones_like(sums))
    assert bool(torch.isfinite(prediction.logits).all())
    assert bool(torch.isfinite(prediction.extras["log_attention"]).all())


def test_masks_of_class_attention_are_each_findings_own_and_those_of_image_attention_shared():
    own, shared = make(attention="class")(films()).maps, make(attention="image")(films()).maps
    assert not torch.allclose(own[:, 0], own[:, 1])
    assert torch.equal(shared, shared[:, :1].expand_as(shared))


def gradients(model: ClassAttentionClassifier) -> tuple[float, float]:
    """Largest gradient of the last stage, and of the projections of g."""
    logits = model(films(3)).logits
    directions = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))
    (logits * directions).mean().backward()
    last = model.image_encoder.layers[3].weight.grad
    projections = [stage.pooled.weight.grad for stage in model.stages]
    return float(last.abs().max()), max(float(one.abs().max()) for one in projections)


@pytest.mark.parametrize("attention", ["image", "class"])
def test_in_the_papers_formula_the_global_vector_cancels(attention):
    for gradient in gradients(make(2, attention=attention, compatibility="linear")):
        assert gradient < 1e-6
    for compatibility in ("tanh", "dot"):
        for gradient in gradients(make(2, attention=attention, compatibility=compatibility)):
            assert gradient > 1e-4


def test_appended_the_pooled_last_stage_is_trained_with_any_formula():
    last, projection = gradients(make(2, compatibility="linear", append_global=True))
    assert last > 1e-3
    assert projection < 1e-6


@pytest.mark.parametrize("width", [128, 1024])
def test_class_attention_has_less_than_a_percent_more_parameters(width):
    findings = [f"Finding {number}" for number in range(14)]

    def count(attention: str) -> int:
        settings = ClassAttentionSettings(attention=attention, width=width)
        with torch.device("meta"):
            encoder = build_backbone("resnet50", None)
        model = ClassAttentionClassifier(settings, encoder, findings, 224, torch.Generator())
        return sum(parameter.numel() for parameter in model.parameters())

    image, own = count("image"), count("class")
    assert image > 23_508_032  # ResNet-50 without its classifier
    assert own - image == 13 * width
    assert 0 < (own - image) / image < 0.01


@pytest.mark.parametrize("attention", ["none", "image", "class"])
def test_some_findings_are_columns_of_all(attention):
    model = make(attention=attention, append_global=True)
    everything, some = model(films()), model(films(), [3, 1])
    torch.testing.assert_close(some.logits, everything.logits[:, [3, 1]])
    torch.testing.assert_close(some.maps, everything.maps[:, [3, 1]])


@torch.no_grad()
def test_the_plain_network_scores_pooled_features_and_shows_class_activation_maps():
    model = make(attention="none")
    images = films()
    features = [normalised(model, image)[-1] for image in images]
    prediction = model(images)
    # the pooled activation map is the score: pooling and a linear layer commute
    raw = torch.stack([model.score.weight @ one.flatten(1) for one in features])
    torch.testing.assert_close(prediction.logits, raw.mean(-1) + model.score.bias)
    lowest, highest = raw.amin(-1, keepdim=True), raw.amax(-1, keepdim=True)
    expected = (raw - lowest) / (highest - lowest)
    torch.testing.assert_close(prediction.maps, expected.unflatten(-1, (3, 2)))
    assert prediction.domain == "unit"
    assert prediction.extras == {}


def test_the_same_seed_makes_the_same_head():
    one, two, other = make(1).state_dict(), make(1).state_dict(), make(2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["score_third.weight"], other["score_third.weight"])
