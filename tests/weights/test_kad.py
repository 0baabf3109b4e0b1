import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.weights.kad import import_kad
from dwarf_cxr.weights.query_decoder import Wanted
from tests.weights.made import (
    dwarf,
    kad_checkpoint,
    light,
    original_decoder,
    original_prompts,
    original_tokens,
    write_text_folder,
)

ASKED = "Effusion,Mass,Cardiomegaly,Hernia"
SHORT = ("Nodule", "Mass")
PROMPTS = ["pleural effusion", "lung mass", "cardiomegaly", "hernia"]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> Path:
    return write_text_folder(tmp_path_factory.mktemp("text") / "Med-KEBERT")


@pytest.fixture(scope="module")
def checkpoint(text_folder) -> dict:
    return kad_checkpoint(text_folder)


@pytest.fixture(scope="module")
def file(tmp_path_factory, checkpoint) -> Path:
    path = tmp_path_factory.mktemp("kad") / "best_valid.pt"
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def light_checkpoint(checkpoint) -> dict:
    return light(checkpoint)


@pytest.fixture(scope="module")
def imported(tmp_path_factory, file, text_folder) -> Path:
    out = tmp_path_factory.mktemp("imported") / "kad"
    words = ("weights", "import", "kad", file, "--out", out, "--text-encoder", text_folder)
    with pytest.MonkeyPatch.context() as patch:
        assert dwarf(*words, "--findings", ASKED, monkeypatch=patch) == 0
    return out


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 144])
def test_logits_and_maps_are_the_originals(imported, checkpoint, text_folder, size):
    films = torch.rand(2, size, size, generator=torch.Generator().manual_seed(size))
    tokens = original_tokens(checkpoint["image_encoder"], films, stages=4)
    prompts = original_prompts(checkpoint["text_encoder"], text_folder, PROMPTS)
    model = checkpoint["model"]
    decoded, maps = original_decoder(model, prompts, tokens, norm_inputs=True)
    pair = decoded @ model["mlp_head.0.weight"].T + model["mlp_head.0.bias"]

    ours = load_model(imported)
    ours.grid = ours.image_encoder.grid(size)
    prediction = ours(films)
    assert prediction.logits.std(0).min() > 0.01
    assert prediction.logits.std(1).min() > 0.05
    torch.testing.assert_close(prediction.logits, pair[..., 1] - pair[..., 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        prediction.logits.sigmoid(), pair.softmax(-1)[..., 1], rtol=0, atol=1e-5
    )
    attention = prediction.extras["attention"].flatten(2)
    assert attention.shape == maps[-1].shape
    torch.testing.assert_close(attention, maps[-1], rtol=0, atol=1e-5)
    # and not a map that is the same everywhere or of another layer
    assert attention.std(-1).max() > 1e-3
    assert (attention - maps[0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_batch_of_one_is_a_batch_of_many(imported):
    films = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(5))
    model = load_model(imported)
    model.grid = model.image_encoder.grid(96)
    together = model(films).logits
    alone = torch.cat([model(film[None]).logits for film in films])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    model.train()
    for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.eval()
    torch.testing.assert_close(model(films[:1]).logits, together[:1], rtol=1e-5, atol=1e-5)


def test_the_folder_says_where_it_comes_from(imported, file, checkpoint):
    config = json.loads((imported / "config.json").read_text())
    notes = "\n".join(config["origin"]["notes"])
    assert (config["origin"]["family"], config["origin"]["file"]) == ("kad", file.name)
    for said in (
        "res_features.7.* equals resnet.layer4.*",
        "decoder_norm.* equals decoder.norm.*",
        "resnet.fc.*",
        "num_batches_tracked",
        "position_ids",
        "logit_scale",
        "sections config, epoch, lr_scheduler, optimizer",
        "KAD-512 assumed",
        "Effusion = 'pleural effusion'",
    ):
        assert said in notes, said
    model = load_model(imported)
    assert (model.image_size, model.grid, model.card) == (512, (16, 16), None)
    assert model.settings.query_context == "joint"
    readme = (imported / "README.md").read_text(encoding="utf-8")
    assert config["origin"]["sha256"] in readme


@torch.no_grad()
def test_new_words_are_encoded_as_the_original_does(imported, checkpoint, text_folder):
    folder = load_model(imported).settings.text_encoder
    assert Path(folder) == imported / "text_encoder"
    words = ["lung nodule", "Pleural THICKEN"]
    expected = original_prompts(checkpoint["text_encoder"], text_folder, words)
    torch.testing.assert_close(encode_prompts(folder, words), expected, rtol=1e-4, atol=1e-4)


def test_the_report_names_the_next_step(
    light_checkpoint, text_folder, tmp_path, monkeypatch, capsys
):
    torch.save(light_checkpoint, tmp_path / "best.pt")
    words = ("weights", "import", "kad", tmp_path / "best.pt", "--out", tmp_path / "kad")
    words += ("--text-encoder", text_folder, "--findings", "Mass", "--image-size", 1024)
    assert dwarf(*words, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "ResNet-50 to layer4, 1024 px, 32×32 tokens" in said
    assert f"next: dwarf evaluate {tmp_path / 'kad'}" in said
    assert load_model(tmp_path / "kad").grid == (32, 32)


@torch.no_grad()
def test_the_224_px_variant_ends_with_layer3(text_folder, tmp_path):
    checkpoint = kad_checkpoint(text_folder, stages=3, seed=3)
    torch.save(checkpoint, tmp_path / "kad.pt")
    report = import_kad(
        tmp_path / "kad.pt",
        tmp_path / "out",
        Wanted(text_encoder=text_folder, findings=["Mass"], prompts={"Mass": "the lung mass"}),
    )
    model = load_model(tmp_path / "out")
    assert (model.image_size, model.grid) == (224, (14, 14))
    assert any("resnet.layer4" in line for line in report.dropped)
    films = torch.rand(1, 224, 224, generator=torch.Generator().manual_seed(6))
    tokens = original_tokens(checkpoint["image_encoder"], films, stages=3)
    assert tokens.shape == (1, 196, 768)
    torch.testing.assert_close(model.image_encoder(films), tokens, rtol=1e-4, atol=1e-5)
    words = original_prompts(checkpoint["text_encoder"], text_folder, ["the lung mass"])
    torch.testing.assert_close(model.prompt_features, words, rtol=1e-4, atol=1e-4)


def test_wrapped_keys_are_unwrapped(light_checkpoint, text_folder, tmp_path):
    wrapped = dict(light_checkpoint)
    for name, prefix in (("model", "module."), ("image_encoder", "_orig_mod.module.")):
        wrapped[name] = {prefix + key: value for key, value in light_checkpoint[name].items()}
    torch.save(wrapped, tmp_path / "kad.pt")
    import_kad(
        tmp_path / "kad.pt", tmp_path / "out", Wanted(text_encoder=text_folder, findings=SHORT)
    )
    assert load_model(tmp_path / "out").findings == SHORT


def without(section: str, key: str):
    def change(checkpoint: dict) -> None:
        del checkpoint[section][key]

    return change


def put(section: str, key: str, value: torch.Tensor):
    def change(checkpoint: dict) -> None:
        checkpoint[section][key] = value

    return change


def drop_section(checkpoint: dict) -> None:
    del checkpoint["text_encoder"]


REFUSALS = {
    "missing": (
        without("model", "decoder.layers.2.multihead_attn.in_proj_bias"),
        ["missing decoder.layers.2.multihead_attn.in_proj_bias (2304,)"],
    ),
    "unexpected": (
        put("image_encoder", "adapter.weight", torch.ones(3, 4)),
        ["image_encoder: unexpected adapter.weight (3, 4)"],
    ),
    "mis-shaped": (
        put("model", "mlp_head.0.weight", torch.ones(14, 768)),
        ["mlp_head.0.weight is (14, 768), expected (2, 768)"],
    ),
    "unequal alias": (
        put("image_encoder", "res_features.7.2.conv3.weight", torch.ones(2048, 512, 1, 1)),
        ["res_features.7.2.conv3.weight and its alias resnet.layer4.2.conv3.weight differ"],
    ),
    "unequal norm": (
        put("model", "decoder_norm.bias", torch.full((768,), 7.0)),
        ["decoder_norm.bias and its alias decoder.norm.bias differ"],
    ),
    "another vocabulary": (
        put("text_encoder", "bert_model.embeddings.word_embeddings.weight", torch.ones(99, 768)),
        ["vocabulary: the weights have 99 words", "says 14"],
    ),
    "not a number": (
        put("model", "mlp_head.0.bias", torch.tensor([0.0, float("nan")])),
        ["mlp_head.0.bias holds NaN or infinity"],
    ),
    "no section": (drop_section, ["section text_encoder is missing"]),
}


@pytest.mark.parametrize(
    "faults", [["missing"], ["unequal alias"], ["no section"], list(REFUSALS)[:7]]
)
def test_what_does_not_fit_is_listed_and_nothing_written(
    light_checkpoint, text_folder, tmp_path, monkeypatch, capsys, faults
):
    changed = {k: dict(v) if isinstance(v, dict) else v for k, v in light_checkpoint.items()}
    for fault in faults:
        REFUSALS[fault][0](changed)
    torch.save(changed, tmp_path / "kad.pt")
    words = ("weights", "import", "kad", tmp_path / "kad.pt", "--out", tmp_path / "out")
    assert dwarf(*words, "--text-encoder", text_folder, monkeypatch=monkeypatch) == 1
    message = capsys.readouterr().err
    for fault in faults:
        for part in REFUSALS[fault][1]:
            assert part in message, fault
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kad.pt"]


def test_without_a_tokeniser_the_error_says_what_to_give(light_checkpoint, tmp_path):
    torch.save(light_checkpoint, tmp_path / "kad.pt")
    with pytest.raises(CheckpointError, match=r"give --text-encoder FOLDER.* Med-KEBERT"):
        import_kad(tmp_path / "kad.pt", tmp_path / "out", Wanted(text_encoder=None))


def test_a_tokeniser_beside_the_file_is_found(light_checkpoint, text_folder, tmp_path):
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((text_folder / name).read_bytes())
    torch.save(light_checkpoint, tmp_path / "kad.pt")
    import_kad(tmp_path / "kad.pt", tmp_path / "out", Wanted(text_encoder=None, findings=SHORT))
    assert (tmp_path / "out" / "text_encoder" / "projection.safetensors").is_file()


def test_what_is_there_already_is_not_replaced(light_checkpoint, text_folder, tmp_path):
    torch.save(light_checkpoint, tmp_path / "kad.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="there is something already"):
        import_kad(tmp_path / "kad.pt", tmp_path / "out", Wanted(text_encoder=text_folder))
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_a_finding_that_nobody_knows_is_refused(file, text_folder, tmp_path):
    with pytest.raises(ConfigError, match="'Gout'"):
        import_kad(file, tmp_path / "out", Wanted(text_encoder=text_folder, findings=["Gout"]))


def test_the_generated_section_has_the_published_count_of_numbers(checkpoint):
    section = checkpoint["model"]
    unique = {key: value for key, value in section.items() if not key.startswith("decoder_norm.")}
    assert sum(value.numel() for value in unique.values()) == 25_219_075


@pytest.mark.slow
def test_a_checkpoint_with_a_whole_bert_base(light_checkpoint, tmp_path):
    """Every shape of the released KAD-512, BERT of 12 layers and 30,522 words included."""
    folder = tmp_path / "Med-KEBERT"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mass", "lung"]
    words += [f"word{number}" for number in range(30522 - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = BertConfig(vocab_size=30522)
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in BertModel(config).state_dict().items()}
    text = {f"bert_model.{key}": torch.tensor(0.01).expand(shape) for key, shape in shapes.items()}
    assert sum(value.numel() for value in text.values()) == 109_482_240
    others = {k: v for k, v in light_checkpoint["text_encoder"].items() if "bert_model" not in k}
    torch.save(light_checkpoint | {"text_encoder": text | others}, tmp_path / "kad.pt")
    report = import_kad(
        tmp_path / "kad.pt", tmp_path / "out", Wanted(text_encoder=folder, findings=["Mass"])
    )
    assert report.variant == "ResNet-50 to layer4, 512 px, 16×16 tokens"
    model = load_model(tmp_path / "out")
    assert model.prompt_features.shape == (1, 768)
    assert sum(value.numel() for value in model.decoder.parameters()) == 25_217_536
