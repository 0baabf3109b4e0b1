import json

import numpy as np
import pytest
import torch

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.clip import ClipClassifier, ClipSettings
from dwarf_cxr.models.outputs import ZeroShotClassifier
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.weights.clip import import_clip
from tests.models.made_towers import write_both_towers
from tests.tiny import SIZE, random_pixels

FINDINGS = ("Mass", "Effusion", "Nodule")
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PIXELS = {"clip": OPENAI, "siglip": HALF}
BOTH = pytest.mark.parametrize("family", ["clip", "siglip"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    return {family: write_both_towers(root / family, family) for family in PIXELS}


@pytest.fixture(scope="module")
def made(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("imported")
    return {family: imported(folders[family], root / family) for family in PIXELS}


def imported(folder, out, **options):
    import_clip(str(folder), out, FINDINGS, **options)
    return load_model(out)


def transformers_own(folder, family, films, sentences):
    """transformers' model on normalised films and tokenised sentences, both by hand."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    length = {} if family == "clip" else {"padding": "max_length", "max_length": 12}
    said = tokenizer(sentences, return_tensors="pt", **({"padding": True} | length))
    inputs = {"input_ids": said["input_ids"]}
    if family == "clip":
        inputs["attention_mask"] = said["attention_mask"]
    grey = torch.from_numpy(films).float() / 255
    channels = [(grey - m) / s for m, s in zip(*PIXELS[family], strict=True)]
    model = AutoModel.from_pretrained(folder).eval()
    return model, model(
        **inputs, pixel_values=torch.stack(channels, 1), interpolate_pos_encoding=True
    )


@BOTH
@torch.no_grad()
def test_scores_are_the_softmax_over_both_sentences(folders, made, family):
    films = random_pixels(5)
    scores = made[family].predict(films).probability
    assert scores.dtype == np.float64
    for column, finding in enumerate(("mass", "effusion", "nodule")):
        _, said = transformers_own(folders[family], family, films, [finding, f"no {finding}"])
        expected = said.logits_per_image.double().softmax(dim=1)[:, 0].numpy()
        np.testing.assert_allclose(scores[:, column], expected, rtol=0, atol=1e-6)
    assert np.ptp(scores) > 1e-4


@BOTH
@torch.no_grad()
@pytest.mark.parametrize("maps", ["difference", "positive"])
def test_maps_compare_every_patch_with_both_sentences(folders, family, maps, tmp_path):
    settings = ClipSettings("chest with {finding}", "chest without {finding}", maps)
    model = imported(folders[family], tmp_path / "m", settings=settings)
    films = random_pixels(2)
    answer = model.predict(films).maps
    assert answer.shape == (2, 3, 4, 4)
    assert answer.dtype == np.float32
    sentences = ["chest with nodule", "chest without nodule"]
    own, said = transformers_own(folders[family], family, films, sentences)
    for film in range(2):
        for patch in range(16):
            if family == "clip":
                token = said.vision_model_output.last_hidden_state[film, 1 + patch]
                token = own.visual_projection(own.vision_model.post_layernorm(token))
            else:
                # the pool of one token: its value, whatever the probe asks
                hidden = said.vision_model_output.last_hidden_state[film, patch]
                head = own.vision_model.head
                weight, bias = head.attention.in_proj_weight[64:], head.attention.in_proj_bias[64:]
                value = head.attention.out_proj(weight @ hidden + bias)
                token = value + head.mlp(head.layernorm(value))
            near = [float(torch.cosine_similarity(token, text, 0)) for text in said.text_embeds]
            both = (2 + near[0] - near[1]) / 4
            expected = both if maps == "difference" else (1 + near[0]) / 2
            value = answer[film, 2, patch // 4, patch % 4]
            assert value == pytest.approx(expected, abs=1e-6)
    assert np.ptp(answer) > 1e-3


@BOTH
def test_a_bright_square_changes_the_map_where_it_is(made, family):
    film = random_pixels(1) // 4
    square = film.copy()
    square[:, :16, 48:] = 255  # upper right
    change = np.abs(made[family].predict(square).maps - made[family].predict(film).maps)
    assert int(change.sum(axis=(0, 1)).argmax()) == 3


@BOTH
def test_one_film_alone_is_one_among_many(made, family):
    films = random_pixels(35)  # more than one batch
    together = made[family].predict(films)
    alone = made[family].predict(films[33:34])
    np.testing.assert_allclose(alone.probability[0], together.probability[33], atol=1e-6)
    np.testing.assert_allclose(alone.maps[0], together.maps[33], atol=1e-6)
    none = made[family].predict(films[:0])
    assert none.probability.shape == (0, 3)
    assert none.maps.shape == (0, 3, 4, 4)


@BOTH
def test_a_finding_does_not_depend_on_the_others_asked(made, family):
    films, model = random_pixels(2), made[family]
    assert isinstance(model, ZeroShotClassifier)
    everything = model.predict(films)
    chosen = model.predict(films, ["Nodule", "Mass"])
    np.testing.assert_allclose(chosen.probability, everything.probability[:, [2, 0]], atol=1e-7)
    np.testing.assert_allclose(chosen.maps, everything.maps[:, [2, 0]], atol=1e-7)
    asked = model.asking({"fluid": "large fluid", "Nodule": "Nodule"})
    assert asked.findings == ("fluid", "Nodule")
    assert model.findings == FINDINGS
    again = asked.predict(films)
    np.testing.assert_allclose(again.probability[:, 1], everything.probability[:, 2], atol=1e-7)
    with_words = model.predict(films, ["Mass"], {"Mass": "Large fluid"})
    np.testing.assert_allclose(with_words.probability[:, 0], again.probability[:, 0], atol=1e-6)
    np.testing.assert_allclose(with_words.maps[:, 0], again.maps[:, 0], atol=1e-6)


@BOTH
def test_a_model_folder_holds_all_that_is_needed(folders, made, family, tmp_path):
    import shutil

    model = made[family]
    model.save_pretrained(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    again = load_model(tmp_path / "moved")
    assert isinstance(again, ClipClassifier)
    assert again.origin == model.origin
    assert again.card is None
    films = random_pixels(2)
    words = {"Mass": "a large mass"}
    for given in (None, words):
        one, two = model.predict(films, prompts=given), again.predict(films, prompts=given)
        np.testing.assert_array_equal(one.probability, two.probability)
        np.testing.assert_array_equal(one.maps, two.maps)
    assert json.loads((tmp_path / "moved" / "config.json").read_text())["kind"] == "clip"
    with pytest.raises(CheckpointError, match="ClipClassifier"):
        VisionLanguageClassifier.from_pretrained(tmp_path / "moved")


def test_a_damaged_tokeniser_or_an_unknown_kind_is_refused(made, tmp_path):
    made["clip"].save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokeniser cannot be read"):
        load_model(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"kind": "newer"}))
    with pytest.raises(CheckpointError, match="'newer'"):
        load_model(tmp_path / "m")


@BOTH
def test_sentences_that_cannot_be_read_are_refused(folders, made, family):
    model = made[family]
    with pytest.raises(CheckpointError, match="no word of 'zebra'"):
        model.asking({"Zebra": "Zebra"})
    with pytest.raises(ConfigError, match="tokens long, this model reads 12"):
        model.asking({"Mass": "a large mass " * 4})
    with pytest.raises(ConfigError, match="unknown finding 'Zebra'"):
        model.predict(random_pixels(1), ["Zebra"])
    with pytest.raises(ConfigError, match="unknown finding 'Zebra'"):
        model.predict(random_pixels(1), prompts={"Zebra": "mass"})


def test_templates_that_cannot_ask_are_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"needs \{finding\}"):
        ClipSettings(positive="a mass")
    same = ClipSettings("{finding}", "{finding}")
    with pytest.raises(ConfigError, match="are the same"):
        import_clip(str(folders["clip"]), tmp_path / "m", FINDINGS, settings=same)
    assert not (tmp_path / "m").exists()


def test_another_image_size_interpolates_positions(folders, tmp_path):
    model = imported(folders["siglip"], tmp_path / "m", image_size=96)
    assert model.image_size == 96
    assert model.predict(np.zeros((1, 96, 96), dtype=np.uint8)).maps.shape == (1, 3, 6, 6)
    with pytest.raises(ConfigError, match="--size 64 or 80"):
        import_clip(str(folders["siglip"]), tmp_path / "n", FINDINGS, image_size=SIZE + 6)
