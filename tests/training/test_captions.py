import numpy as np
import pytest
import torch

from dwarf_cxr.errors import DataError
from dwarf_cxr.models import text_encoders
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.training.captions import Captions
from tests.tiny import write_bert, write_data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    write_bert(folder / "bert")
    write_data(folder / "data", texts=True)
    return folder


@pytest.fixture(scope="module")
def data(place):
    from dwarf_cxr.data.store import PreparedData

    return PreparedData.open(place / "data")


def test_every_film_has_the_vector_of_its_text_and_the_same_text_the_same_number(place, data):
    train = data.indices("train")
    captions = Captions.of(data, train, str(place / "bert"))
    features = captions.features(captions.texts)
    assert features.shape == (len(data.texts), 24)
    for index, text in enumerate(data.texts):
        if text is None or index not in train:
            assert captions.texts[index] == -1
            assert features[index].abs().max() == 0
            continue
        alone = encode_prompts(str(place / "bert"), [text])[0]
        torch.testing.assert_close(features[index], alone, rtol=0, atol=1e-5)
        for other in train:
            same = captions.texts[index] == captions.texts[other]
            assert bool(same) == (text == data.texts[other])
    assert (captions.texts[train] == -1).any()
    assert len(captions.vectors) < (captions.texts >= 0).sum()


def test_without_any_text_the_remedy_is_named(place, data):
    silent = np.array([index for index in data.indices("train") if data.texts[index] is None])
    assert len(silent)
    with pytest.raises(DataError, match="no training image has a text"):
        Captions.of(data, silent, str(place / "bert"))


def test_many_texts_are_read_in_parts(place, monkeypatch):
    texts = ["mass", "round opacity", "fluid around the lungs", "nodule", "effusion the"]
    whole = encode_prompts(str(place / "bert"), texts)
    monkeypatch.setattr(text_encoders, "PROMPT_BATCH", 2)
    parts = encode_prompts(str(place / "bert"), texts)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_a_report_longer_than_the_encoder_reads_is_cut(place):
    # the tiny BERT reads 32 tokens, two of which open and close the text
    long, cut = "mass " * 100, "mass " * 30
    found = encode_prompts(str(place / "bert"), [long, cut])
    torch.testing.assert_close(found[0], found[1])
