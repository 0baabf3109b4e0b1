from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.weights.kebert import import_kebert
from tests.weights.made import Draw, dwarf, original_prompts, text_weights, write_text_folder

PROMPTS = ["pleural effusion", "lung mass", "hernia"]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> Path:
    return write_text_folder(tmp_path_factory.mktemp("text") / "Med-KEBERT")


@pytest.fixture(scope="module")
def weights(text_folder) -> dict[str, torch.Tensor]:
    return text_weights(Draw(5), text_folder)


@torch.no_grad()
def test_keberts_own_file_gives_its_vectors(weights, text_folder, tmp_path, monkeypatch, capsys):
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 3, "name": "kebert", "state_dict": wrapped}, tmp_path / "kebert.pt")
    words = ("weights", "import", "med-kebert", tmp_path / "kebert.pt", "--out", tmp_path / "out")
    assert dwarf(*words, "--text-encoder", text_folder, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "with mlp_embed" in said
    assert f"--set text_encoder={tmp_path / 'out'}" in said
    expected = original_prompts(weights, text_folder, PROMPTS)
    found = encode_prompts(str(tmp_path / "out"), PROMPTS)
    assert (found[0] - found[1]).abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert "sections epoch, name" in (tmp_path / "out" / "README.md").read_text()


@torch.no_grad()
def test_a_bare_folder_gives_the_poolers_output(text_folder, tmp_path):
    report = import_kebert(text_folder, tmp_path / "out", text_encoder=None, trust=False)
    assert "no mlp_embed" in report.notes[-1]
    expected = encode_prompts(str(text_folder), PROMPTS)
    torch.testing.assert_close(encode_prompts(str(tmp_path / "out"), PROMPTS), expected)
    assert not (tmp_path / "out" / "projection.safetensors").exists()


@torch.no_grad()
def test_a_masked_language_model_with_names_of_2019_is_read(text_folder, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    for name in ("config.json", "vocab.txt"):
        (folder / name).write_bytes((text_folder / name).read_bytes())
    old = {}
    for key, value in load_file(text_folder / "model.safetensors").items():
        name = key.replace("LayerNorm.weight", "LayerNorm.gamma")
        old["bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    old["cls.predictions.bias"] = torch.zeros(14)
    torch.save(old, folder / "pytorch_model.bin")
    report = import_kebert(folder, tmp_path / "out", text_encoder=None, trust=False)
    assert any("cls.*" in line for line in report.dropped)
    ours, theirs = (
        BertModel.from_pretrained(f).state_dict() for f in (tmp_path / "out", text_folder)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_tokeniser_of_another_bert_is_named(weights, tmp_path):
    other = write_text_folder(tmp_path / "other", layers=1, words=("one", "two"))
    torch.save({"state_dict": weights}, tmp_path / "kebert.pt")
    with pytest.raises(CheckpointError, match=r"the weights have 14 words.*says 7"):
        import_kebert(tmp_path / "kebert.pt", tmp_path / "out", text_encoder=other, trust=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_tokeniser_is_refused(text_folder, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    save_file(load_file(text_folder / "model.safetensors"), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="no tokeniser there; give --text-encoder"):
        import_kebert(folder, tmp_path / "out", text_encoder=None, trust=False)
    with pytest.raises(CheckpointError, match="no weights there"):
        import_kebert(tmp_path, tmp_path / "out", text_encoder=None, trust=False)


@torch.no_grad()
def test_a_projection_that_does_not_fit_is_an_error(weights, text_folder, tmp_path):
    torch.save({"state_dict": weights}, tmp_path / "kebert.pt")
    import_kebert(tmp_path / "kebert.pt", tmp_path / "out", text_encoder=text_folder, trust=False)
    save_file({"0.weight": torch.ones(3, 3)}, tmp_path / "out" / "projection.safetensors")
    with pytest.raises(CheckpointError, match=r"projection\.safetensors does not fit"):
        encode_prompts(str(tmp_path / "out"), PROMPTS)
