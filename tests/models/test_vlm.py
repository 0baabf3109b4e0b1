import itertools

import numpy as np
import pytest
import torch

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.findings import DESCRIPTIONS
from dwarf_cxr.models.predicting import PREDICT_BATCH, simplex_to_unit
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.models.vlm import VisionLanguageClassifier, build_classifier, prompts_of
from tests.tiny import FINDINGS, SIZE, random_pixels, settings, write_bert, write_vit


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return write_vit(folder / "vit"), write_bert(folder / "bert")


def build(folders, assignments=(), *, seed: int = 3) -> VisionLanguageClassifier:
    return build_classifier(settings(*folders, assignments).model, FINDINGS, SIZE, seed)


def films(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(random_pixels(count)).float() / 255


@torch.no_grad()
@pytest.mark.parametrize(
    ("head", "space"),
    [
        ("prior", "relative"),
        *itertools.product(["linear", "conv1", "conv3", "none"], ["relative", "max", "logit"]),
    ],
)
def test_before_training_maps_order_pixels_as_the_attention_does(folders, head, space):
    # the mean of several attention heads' scores need not order as the mean of their softmaxes
    heads = "attention_heads=1" if space == "logit" else "attention_heads=2"
    model = build(folders, [f"head={head}", f"map_space={space}", heads]).eval()
    prediction = model(films())
    attention = prediction.extras["attention"].flatten(2)
    maps = prediction.maps.flatten(2)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 3), rtol=0, atol=1e-5)
    gap, map_gap = (x[..., :, None] - x[..., None, :] for x in (attention, maps))
    assert bool(((gap > 0) & (map_gap < 0)).sum() == 0)
    clearly = attention[..., :, None] > attention[..., None, :] * 1.00001
    assert clearly.float().mean() > 0.4
    assert bool((map_gap > 0)[clearly].all())
    assert prediction.domain == "unit"


@torch.no_grad()
def test_random_heads_do_not_keep_the_order(folders):
    prediction = build(folders, ["head=linear-random"]).eval()(films())
    attention, maps = prediction.extras["attention"].flatten(2), prediction.maps.flatten(2)
    gap, map_gap = (x[..., :, None] - x[..., None, :] for x in (attention, maps))
    assert ((gap > 0) & (map_gap < 0)).sum() > 100


@torch.no_grad()
@pytest.mark.parametrize(("head", "space"), [("linear", "relative"), ("none", "probability")])
def test_where_attention_is_uniform_the_shown_map_is_one_half(folders, head, space):
    model = build(folders, [f"head={head}", f"map_space={space}"])
    for layer in model.decoder.layers:
        layer.cross_attention.query.weight.zero_()
        layer.cross_attention.query.bias.zero_()
    maps = model.predict(random_pixels(2)).maps
    np.testing.assert_allclose(maps, 0.5, atol=1e-6)


@torch.no_grad()
def test_probability_space_is_a_simplex_until_it_is_shown(folders):
    model = build(folders, ["head=none", "map_space=probability"]).eval()
    prediction = model(films())
    assert prediction.domain == "simplex"
    torch.testing.assert_close(prediction.maps.sum((-1, -2)), torch.ones(2, 3))
    identity = build(folders, ["head=linear"]).predict(random_pixels(2)).maps
    np.testing.assert_allclose(model.predict(random_pixels(2)).maps, identity, atol=1e-5)


def test_simplex_to_unit_by_hand():
    maps = torch.tensor([[[[0.5, 0.25, 0.25], [0.0, 0.0, 0.0]]]])
    expected = torch.tensor([[[[3 / 4, 1.5 / 2.5, 0.6], [0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(simplex_to_unit(maps), expected)


@pytest.mark.parametrize("context", ["isolated", "joint"])
def test_a_finding_asked_alone(folders, context):
    model = build(folders, [f"query_context={context}"])
    pixels = random_pixels(3)
    together, alone = model.predict(pixels), model.predict(pixels, ["Nodule"])
    assert alone.maps.shape == (3, 1, 4, 4)
    np.testing.assert_allclose(together.probability[:, 2:], alone.probability, rtol=0, atol=1e-5)
    np.testing.assert_allclose(together.maps[:, 2:], alone.maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("context", ["isolated", "joint"])
def test_other_findings_prompts_matter_only_in_the_joint_context(folders, context):
    model = build(folders, [f"query_context={context}"])
    pixels = random_pixels(3)
    before = model.predict(pixels, ["Nodule"])
    with torch.no_grad():
        model.prompt_features[0] += torch.linspace(-3, 3, model.prompt_features.shape[1])
    after = model.predict(pixels, ["Nodule"])
    same = np.allclose(before.probability, after.probability, rtol=0, atol=1e-5)
    assert same == (context == "isolated")


def test_in_the_joint_context_findings_that_are_not_asked_get_no_gradient_in_their_heads(folders):
    model = build(folders, ["query_context=joint"])
    prediction = model(torch.rand(2, 64, 64), [2])
    (prediction.maps.square().sum() + prediction.logits.sum()).backward()
    assert [head.weight.grad is not None for head in model.heads] == [False, False, True]


def test_findings_come_in_the_order_asked_with_their_own_heads(folders):
    model = build(folders)
    with torch.no_grad():
        for index, head in enumerate(model.heads):
            head.bias.fill_(float(index) - 1)
    pixels = random_pixels(2)
    whole, turned = model.predict(pixels), model.predict(pixels, ["Nodule", "Mass"])
    np.testing.assert_allclose(turned.maps, whole.maps[:, [2, 0]], atol=1e-5)
    np.testing.assert_allclose(turned.probability, whole.probability[:, [2, 0]], atol=1e-5)


def test_an_unknown_finding_is_refused(folders):
    with pytest.raises(ConfigError, match="'Flu'"):
        build(folders).predict(random_pixels(1), ["Flu"])


def test_predicting_more_than_a_batch_and_nothing_at_all(folders):
    model = build(folders)
    pixels = random_pixels(PREDICT_BATCH + 3)
    whole, tail = model.predict(pixels), model.predict(pixels[PREDICT_BATCH - 1 :])
    assert whole.probability.dtype == np.float64
    assert whole.maps.dtype == np.float32
    np.testing.assert_allclose(whole.probability[PREDICT_BATCH - 1 :], tail.probability, atol=1e-6)
    np.testing.assert_allclose(whole.maps[PREDICT_BATCH - 1 :], tail.maps, atol=1e-5)
    none = model.predict(pixels[:0])
    assert none.probability.shape == (0, 3)
    assert none.maps.shape == (0, 3, 4, 4)


@pytest.mark.parametrize("context", ["isolated", "joint"])
def test_a_batch_of_one_is_a_batch_of_many(folders, context):
    model = build(folders, [f"query_context={context}"])
    pixels = random_pixels(5)
    together = model.predict(pixels)
    for index in range(len(pixels)):
        alone = model.predict(pixels[index : index + 1])
        np.testing.assert_allclose(
            together.probability[index], alone.probability[0], rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(together.maps[index], alone.maps[0], rtol=0, atol=1e-5)
    assert np.abs(together.maps[0] - together.maps[1]).max() > 1e-4


def test_predicting_has_no_dropout_and_gives_the_mode_back(folders):
    model = build(folders, ["dropout=0.5"]).train()
    pixels = random_pixels(2)
    first, second = model.predict(pixels), model.predict(pixels)
    assert np.array_equal(first.probability, second.probability)
    assert model.training
    assert not build(folders).eval().training


def test_pixels_are_taken_as_they_are_strided_and_read_only(folders):
    model = build(folders)
    pixels = random_pixels(4)
    pixels.setflags(write=False)
    np.testing.assert_array_equal(
        model.predict(pixels[::2]).maps, model.predict(pixels[::2].copy()).maps
    )


def test_prior_and_evidence_add_up_to_the_map(folders):
    model = build(folders, ["head=prior"])
    with torch.no_grad():
        for head in model.heads:
            head.set_prior(torch.rand(16))
            head.gain.fill_(1.7)
    outputs = model.predict(random_pixels(2))
    odds = [value / (1 - value) for value in (outputs.extras["prior"], outputs.extras["evidence"])]
    assert outputs.extras["prior"].shape == (3, 4, 4)
    np.testing.assert_allclose(outputs.maps, odds[0] * odds[1] / (1 + odds[0] * odds[1]), rtol=1e-3)


def test_other_words_change_their_finding_alone(folders):
    model = build(folders)
    pixels = random_pixels(2)
    plain = model.predict(pixels)
    changed = model.predict(pixels, prompts={"Effusion": "fluid around the lungs"})
    same = model.predict(pixels, prompts={"Effusion": "Effusion"})
    assert np.array_equal(plain.probability[:, [0, 2]], changed.probability[:, [0, 2]])
    assert np.abs(plain.probability[:, 1] - changed.probability[:, 1]).min() > 1e-5
    np.testing.assert_allclose(same.probability, plain.probability, atol=1e-6)
    with pytest.raises(ConfigError, match="'Flu'"):
        model.predict(pixels, prompts={"Flu": "mass"})


def test_words_from_another_text_encoder_are_refused(folders, tmp_path):
    model = build(folders)
    model.settings = model.settings.model_copy(update={"text_encoder": "minilm"})
    with pytest.raises(CheckpointError, match=r"384.*24"):
        model.predict(random_pixels(1), prompts={"Mass": "mass"})


def test_prompts_are_names_or_descriptions():
    assert prompts_of(["Mass", "Own Finding"], "name") == ["Mass", "Own Finding"]
    described = prompts_of(["Mass", "Own Finding"], "description")
    assert described == [DESCRIPTIONS["Mass"], "Own Finding"]


def test_prompt_vectors_are_stored_and_not_trained(folders):
    model = build(folders)
    expected = encode_prompts(str(folders[1]), FINDINGS)
    torch.testing.assert_close(model.prompt_features, expected)
    assert "prompt_features" in model.state_dict()
    assert "prompt_features" not in dict(model.named_parameters())


def test_the_seed_fixes_every_fresh_weight(folders):
    first, again, other = (build(folders, ["head=linear-random"], seed=s) for s in (1, 1, 2))
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    differing = {
        key
        for key, value in first.state_dict().items()
        if not torch.equal(value, other.state_dict()[key])
    }
    assert {"score.weight", "positions", "heads.0.weight", "image_projection.weight"} <= differing


def test_only_the_asked_heads_get_a_gradient(folders):
    model = build(folders).train()
    prediction = model(films(), [1])
    (prediction.maps.sum() + prediction.logits.sum()).backward()
    assert all(p.grad is not None for p in model.heads[1].parameters())
    assert all(p.grad is None for index in (0, 2) for p in model.heads[index].parameters())
    assert model.score.weight.grad is not None
