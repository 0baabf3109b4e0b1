import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.weights.medklip import import_medklip
from dwarf_cxr.weights.query_decoder import Wanted
from tests.weights.made import (
    dwarf,
    light,
    medklip_checkpoint,
    original_decoder,
    original_tokens,
    tokens_of,
    write_text_folder,
)

BOOK = {
    "effusion": "the pleural effusion",
    "eumonia": "lung mass the nodule",
    "tortuous": "cardiomegaly " + "the " * 80,
}


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> Path:
    return write_text_folder(tmp_path_factory.mktemp("text") / "Bio_ClinicalBERT")


@pytest.fixture(scope="module")
def checkpoint() -> dict:
    return medklip_checkpoint()


@pytest.fixture(scope="module")
def imported(tmp_path_factory, checkpoint, text_folder) -> Path:
    folder = tmp_path_factory.mktemp("medklip")
    torch.save(checkpoint, folder / "checkpoint.pth")
    (folder / "book.json").write_text(json.dumps(BOOK))
    words = ("weights", "import", "medklip", folder / "checkpoint.pth", "--out", folder / "out")
    words += ("--text-encoder", text_folder, "--prompts", folder / "book.json")
    with pytest.MonkeyPatch.context() as patch:
        assert dwarf(*words, monkeypatch=patch) == 0
    return folder / "out"


def original_book(text_folder: Path) -> torch.Tensor:
    """[CLS] words, cut at 64 tokens; the last hidden state of [CLS]."""
    bert = BertModel.from_pretrained(text_folder).eval()
    rows = []
    for words in BOOK.values():
        ids = tokens_of(text_folder, words, sep=False)[:, :64]
        rows.append(bert(input_ids=ids).last_hidden_state[0, 0])
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 112])
def test_logits_and_maps_are_the_originals(imported, checkpoint, text_folder, size):
    model = {key.removeprefix("module."): value for key, value in checkpoint["model"].items()}
    films = torch.rand(2, size, size, generator=torch.Generator().manual_seed(size))
    tokens = original_tokens(model, films, stages=3)
    book = original_book(text_folder)
    queries = book @ model["disease_embedding_layer.weight"].T
    queries = queries + model["disease_embedding_layer.bias"]
    decoded, maps = original_decoder(model, queries, tokens, norm_inputs=False)
    pair = decoded @ model["classifier.weight"].T + model["classifier.bias"]

    ours = load_model(imported)
    ours.grid = ours.image_encoder.grid(size)
    prediction = ours(films)
    assert prediction.logits.std(1).min() > 0.02
    torch.testing.assert_close(ours.prompt_features, book, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prediction.logits, pair[..., 1] - pair[..., 0], rtol=1e-5, atol=1e-5)
    attention = prediction.extras["attention"].flatten(2)
    expected = torch.stack(maps).mean(0)
    torch.testing.assert_close(attention, expected, rtol=0, atol=1e-5)
    assert (attention - maps[-1]).abs().max() > 1e-3


def test_observations_have_their_shared_names(imported):
    model = load_model(imported)
    assert model.findings == ("Effusion", "Pneumonia", "tortuous")
    assert (model.image_size, model.grid) == (224, (14, 14))
    notes = "\n".join(model.origin.notes)
    for said in ("cl_fc.*", "3 observations", "num_batches_tracked", "pooler.*"):
        assert said in notes


def test_without_a_book_the_descriptions_are_asked(checkpoint, text_folder, tmp_path):
    torch.save(light(checkpoint), tmp_path / "medklip.pth")
    report = import_medklip(
        tmp_path / "medklip.pth",
        tmp_path / "out",
        Wanted(text_encoder=text_folder, findings=["Effusion", "Lung Lesion"]),
    )
    assert any("give the book with --prompts" in note for note in report.notes)
    assert load_model(tmp_path / "out").findings == ("Effusion", "Lung Lesion")


def test_other_families_are_told_what_they_look_like(checkpoint, text_folder, tmp_path, capsys):
    torch.save(light(checkpoint), tmp_path / "medklip.pth")
    with pytest.MonkeyPatch.context() as patch:
        for family, said in (
            ("kad", "section image_encoder, text_encoder is missing"),
            ("vit", "no ViT in it"),
            ("med-kebert", "holds no tensors"),
        ):
            words = ("weights", "import", family, tmp_path / "medklip.pth", "--out")
            assert dwarf(*words, tmp_path / "out", monkeypatch=patch) == 1
            message = capsys.readouterr().err
            assert said in message
            assert "it looks like a MedKLIP checkpoint: use 'medklip'" in message
    assert not (tmp_path / "out").exists()


def test_a_bert_of_another_width_is_refused(checkpoint, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "bert"
    small = BertConfig(
        vocab_size=6,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(small).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    torch.save(light(checkpoint), tmp_path / "medklip.pth")
    words = ("weights", "import", "medklip", tmp_path / "medklip.pth", "--out", tmp_path / "out")
    assert dwarf(*words, "--text-encoder", folder, monkeypatch=monkeypatch) == 1
    assert "hidden_size is 24, not 768" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
