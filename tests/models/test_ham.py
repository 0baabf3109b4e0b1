import numpy as np
import pytest
import torch
from torch import nn

from dwarf_cxr.config import HamSettings
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.foreground_attention import ForegroundAttention
from dwarf_cxr.models.ham import HamClassifier, class_activation, log_sum_exp_pool
from tests.tiny import random_pixels

FINDINGS = ("Mass", "Effusion", "Nodule")
SIZE = 48


class TinyBackbone(nn.Module):
    """Features at strides 4, 8, 8, 8."""

    channels = (4, 5, 6, 7)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 7, 8, stride=8)

    def describe(self) -> dict:
        return {"kind": "tiny"}

    def stages(self, images):
        last = torch.tanh(self.stem(images[:, None]))
        return (last[:, :4], last[:, :5], last[:, :6], last)


def classifier(seed: int = 1, **changes) -> HamClassifier:
    settings = HamSettings(width=16, output_stride=8, **changes)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = HamClassifier(settings, TinyBackbone(), FINDINGS, SIZE, generator)
    # the scores start small; larger ones let maps differ
    nn.init.normal_(model.class_scores.weight)
    nn.init.normal_(model.anomaly_score.weight)
    return model


def films(count: int = 4, seed: int = 2) -> torch.Tensor:
    return torch.rand(count, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def test_shapes_and_ranges():
    model = classifier()
    said = model(films())
    assert said.logits.shape == (4, 3)
    assert said.maps.shape == said.extras["cam"].shape == (4, 3, *model.grid) == (4, 3, 6, 6)
    assert said.extras["anomaly_cam"].shape == said.extras["foreground"].shape == (4, 6, 6)
    assert said.extras["anomaly_logit"].shape == (4,)
    assert said.domain == "unit"
    assert said.extras["cam"].min() == 0
    for cam, map_ in zip(said.extras["cam"].flatten(0, 1), said.maps.flatten(0, 1), strict=True):
        low, high = cam.min(), cam.max()
        expected = (cam - low) / (high - low) if high > low else torch.zeros_like(cam)
        torch.testing.assert_close(map_, expected)


def test_log_sum_exp_pooling_lies_between_mean_and_maximum():
    features = torch.randn(3, 5, 4, 7, dtype=torch.float64)
    flat = features.flatten(2)
    r = 6.0
    expected = torch.log(torch.exp(r * flat).mean(dim=-1)) / r
    torch.testing.assert_close(log_sum_exp_pool(features, r), expected)
    torch.testing.assert_close(log_sum_exp_pool(features, 1e-6), flat.mean(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(log_sum_exp_pool(features, 1e4), flat.amax(-1), atol=1e-3, rtol=0)


def test_cam_is_grad_cam():
    """The gradient of a score, pooled over positions, weighs the features: Selvaraju et al."""
    model = classifier(dropout=0.0)
    kept = {}
    model.dropout.register_forward_hook(lambda module, given, output: kept.update(f=output))
    said = model.eval()(films())
    features = kept["f"]
    cells = features.shape[-1] * features.shape[-2]
    every = {**dict(enumerate(said.logits.unbind(1))), "any": said.extras["anomaly_logit"]}
    for finding, score in every.items():
        (gradient,) = torch.autograd.grad(score.sum(), features, retain_graph=True)
        weight = gradient.mean(dim=(-2, -1), keepdim=True)
        grad_cam = (weight * features).sum(dim=1).relu() * cells
        cam = said.extras["anomaly_cam"] if finding == "any" else said.extras["cam"][:, finding]
        largest = grad_cam.max()
        assert largest > 0
        torch.testing.assert_close(cam / largest, grad_cam / largest, atol=1e-6, rtol=0)


def test_maps_have_gradients_into_the_features_and_not_into_the_classifiers():
    model = classifier()
    said = model(films())
    (said.extras["cam"].sum() + said.extras["anomaly_cam"].sum() + said.maps.sum()).backward()
    assert model.class_scores.weight.grad is None
    assert model.anomaly_score.weight.grad is None
    assert model.join[0].weight.grad.abs().max() > 0
    assert model.image_encoder.stem.weight.grad.abs().max() > 0


def naive_foreground(module: ForegroundAttention, x: np.ndarray) -> np.ndarray:
    """The map s·z of one film x (C, h, w), position by position, batch norm at its start."""
    weight = {name: value.detach().numpy() for name, value in module.named_parameters()}
    _, rows, columns = x.shape
    places = list(np.ndindex(rows, columns))
    logits = np.array([weight["position.weight"][0, :, 0, 0] @ x[:, r, c] for r, c in places])
    p = np.exp(logits) / np.exp(logits).sum()
    m = sum(share * x[:, r, c] for share, (r, c) in zip(p, places, strict=True))
    hidden = np.maximum(weight["squeeze.weight"] @ m, 0)
    y = 1 / (1 + np.exp(-weight["excite.weight"] @ hidden))
    s = np.zeros((rows + 2, columns + 2))
    for r, c in places:
        v = weight["value.weight"][:, :, 0, 0] @ x[:, r, c] * y
        s[r + 1, c + 1] = weight["score.weight"][0, :, 0, 0] @ v
    kernel = weight["gate.0.weight"][0, 0]
    foreground = np.zeros((rows, columns))
    for r, c in places:
        convolved = (kernel * s[r : r + 3, c : c + 3]).sum() / np.sqrt(1 + 1e-5)
        foreground[r, c] = s[r + 1, c + 1] / (1 + np.exp(-convolved))
    return foreground


def test_foreground_attention_against_a_naive_loop():
    torch.manual_seed(4)
    module = ForegroundAttention(16).double().eval()
    with torch.no_grad():
        module.gamma.fill_(0.7)
    x = torch.randn(3, 16, 4, 5, dtype=torch.float64)
    raised, foreground = module(x)
    for film in range(3):
        expected = naive_foreground(module, x[film].numpy())
        np.testing.assert_allclose(foreground[film].detach(), expected, atol=1e-6)
        np.testing.assert_allclose(
            raised[film].detach(), x[film].numpy() + 0.7 * expected, atol=1e-6
        )


def test_foreground_attention_starts_as_the_identity_and_can_leave_it():
    module = ForegroundAttention(16)
    x = torch.randn(2, 16, 4, 5)
    raised, foreground = module(x)
    assert torch.equal(raised, x)
    assert foreground.abs().max() > 0
    (raised * torch.randn_like(raised)).sum().backward()
    assert module.gamma.grad.abs() > 0


def test_a_subset_of_findings_gives_those_columns():
    model = classifier().eval()
    every, some = model(films()), model(films(), [2, 0])
    torch.testing.assert_close(some.logits, every.logits[:, [2, 0]])
    torch.testing.assert_close(some.maps, every.maps[:, [2, 0]])
    torch.testing.assert_close(some.extras["cam"], every.extras["cam"][:, [2, 0]])
    torch.testing.assert_close(some.extras["anomaly_logit"], every.extras["anomaly_logit"])


def test_a_map_without_any_activation_is_0():
    model = classifier()
    with torch.no_grad():
        model.class_scores.weight[1] = -model.class_scores.weight[1].abs()
    said = model.eval()(films())
    assert not said.maps[:, 1].any()
    assert said.maps[:, 0].any()


def test_autocast_gives_finite_single_precision():
    model = classifier()
    with torch.autocast("cpu", torch.bfloat16):
        said = model(films() * 1.0)
        loss = said.logits.square().sum() + said.maps.sum() + said.extras["anomaly_logit"].sum()
    loss.backward()
    for value in (said.logits, said.maps, *said.extras.values()):
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_no_overflow_where_features_are_large():
    features = torch.full((1, 2, 3, 3), 1000.0)
    assert log_sum_exp_pool(features, 6.0).tolist() == [[pytest.approx(1000)] * 2]
    assert class_activation(features, torch.tensor([[1.0, -2.0]])).max() == 0


def test_predict_gives_plain_arrays_in_the_order_asked():
    model = classifier()
    pixels = random_pixels(3, size=SIZE)
    every, some = model.predict(pixels), model.predict(pixels, ("Nodule", "Mass"))
    assert model.training
    np.testing.assert_allclose(some.probability, every.probability[:, [2, 0]], rtol=1e-5)
    assert some.maps.shape == (3, 2, 6, 6)
    assert model.predict(pixels[:0]).maps.shape == (0, 3, 6, 6)
    with pytest.raises(ConfigError, match="Hernia"):
        model.predict(pixels, ["Hernia"])


def test_a_seed_fixes_the_start():
    first, second, other = classifier(1), classifier(1), classifier(2)
    assert torch.equal(first.join[0].weight, second.join[0].weight)
    assert not torch.equal(first.join[0].weight, other.join[0].weight)
