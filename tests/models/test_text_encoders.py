import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.text_encoders import encode_prompts, starter_text_folder
from tests.tiny import booby_trap, write_bert

PROMPTS = ["mass", "round opacity", "fluid around the lungs"]


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("encoders") / "bert")


@torch.no_grad()
def hidden_states(folder, prompt: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Last hidden states (token, width) and pooler output of one prompt, without padding."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    output = AutoModel.from_pretrained(folder).eval()(**tokenizer(prompt, return_tensors="pt"))
    return output.last_hidden_state[0], output.pooler_output[0]


def test_a_bert_gives_its_pooler_output_prompt_by_prompt(bert_folder):
    vectors = encode_prompts(str(bert_folder), PROMPTS)
    expected = torch.stack([hidden_states(bert_folder, prompt)[1] for prompt in PROMPTS])
    assert vectors.shape == (3, 24)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_a_sentence_transformers_folder_gives_the_mean_over_tokens_of_length_one(
    bert_folder, tmp_path
):
    folder = write_bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    means = torch.stack([hidden_states(folder, prompt)[0].mean(0) for prompt in PROMPTS])
    expected = means / means.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(encode_prompts(str(folder), PROMPTS), expected, rtol=0, atol=1e-5)


def test_the_starter_is_what_sentence_transformers_makes_of_it():
    prompts = ["Effusion", "Excess fluid around the lungs"]
    vectors = encode_prompts("minilm", prompts)
    means = torch.stack([hidden_states(starter_text_folder(), one)[0].mean(0) for one in prompts])
    expected = means / means.norm(dim=-1, keepdim=True)
    assert vectors.shape == (2, 384)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)


def test_the_vectors_do_not_depend_on_the_other_prompts(bert_folder):
    alone = encode_prompts(str(bert_folder), PROMPTS[:1])
    torch.testing.assert_close(
        encode_prompts(str(bert_folder), PROMPTS)[:1], alone, rtol=0, atol=1e-5
    )


def test_the_vectors_carry_no_gradient(bert_folder):
    assert not encode_prompts(str(bert_folder), PROMPTS).requires_grad


def test_unknown_words_are_refused(bert_folder):
    with pytest.raises(CheckpointError, match=r"no word of 'zzz qqq'.*vocab"):
        encode_prompts(str(bert_folder), ["mass", "zzz qqq"])


def test_a_cut_off_vocabulary_is_noticed(tmp_path):
    folder = write_bert(tmp_path / "bert", words=())
    with pytest.raises(CheckpointError, match=r"'mass'.*vocab"):
        encode_prompts(str(folder), PROMPTS)


def test_a_missing_folder_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"text_encoder = .*nowhere"):
        encode_prompts(str(tmp_path / "nowhere"), PROMPTS)


def test_a_folder_without_tokeniser_is_a_config_error(bert_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert_folder / name).read_bytes())
    with pytest.raises((ConfigError, CheckpointError), match="text_encoder = "):
        encode_prompts(str(tmp_path), PROMPTS)


def test_a_broken_config_is_a_config_error(bert_folder, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises((ConfigError, CheckpointError), match="text_encoder = "):
        encode_prompts(str(tmp_path), PROMPTS)


def test_missing_weights_are_listed(bert_folder, tmp_path):
    folder = write_bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "pooler" not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"pooler\.dense\.bias.*pooler\.dense\.weight"):
        encode_prompts(str(folder), PROMPTS)


def test_a_pickle_is_never_executed(tmp_path):
    folder = write_bert(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    mark = booby_trap(folder / "pytorch_model.bin", tmp_path / "sprung")
    with pytest.raises(CheckpointError, match="cannot be read"):
        encode_prompts(str(folder), PROMPTS)
    assert not mark.exists()
