import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dwarf_cxr.config import ReportAttentionSettings
from dwarf_cxr.errors import DataError
from dwarf_cxr.models.region_attention import RegionAttention, Regions
from dwarf_cxr.objectives.region_text import similarity
from dwarf_cxr.reports.attributes import ATTRIBUTES
from dwarf_cxr.reports.neighbours import AttributeWords
from dwarf_cxr.reports.word_vectors import WordVectors
from dwarf_cxr.training.report_attention import (
    RegionLoss,
    ReportedFilms,
    macro_auc,
    read_corpus,
    reports_digest,
)
from tests.tiny import write_data

WIDTH = 8


def regions(films: int, count: int, seed: int) -> Regions:
    generator = torch.Generator().manual_seed(seed)
    return Regions(
        torch.randn(films, count, 6, generator=generator),
        torch.rand(films, count, 5, generator=generator),
        torch.rand(films, count, 2, generator=generator),
        torch.ones(films, count, dtype=torch.bool),
    )


def made(films: int = 3) -> tuple[RegionLoss, ReportedFilms, AttributeWords]:
    rng = np.random.default_rng(0)
    words = ("opacity", "left", "patchy", "stone", "cloud")
    known = AttributeWords.of(
        WordVectors(words, rng.normal(size=(len(words), WIDTH)).astype(np.float32))
    )
    attributes = torch.zeros(films, len(ATTRIBUTES))
    attributes[0, [ATTRIBUTES.index("opacity"), ATTRIBUTES.index("left")]] = 1
    attributes[1, ATTRIBUTES.index("patchy")] = 1
    attributes[1, ATTRIBUTES.index("hazy")] = float("nan")
    texts = ["left opacity", "patchy", "nothing"]
    others = np.stack(
        [
            known.hard_negatives(row == 1, text)
            for row, text in zip(attributes.numpy(), texts, strict=True)
        ]
    )
    torch.manual_seed(0)
    loss = RegionLoss(
        RegionAttention(6, 2, len(ATTRIBUTES), WIDTH, 0.0),
        ReportAttentionSettings(word_sharpness=3, region_sharpness=4),
        0.3,
        known,
        torch.full((len(ATTRIBUTES),), 2.0),
    )
    films_ = ReportedFilms(
        regions(films, 5, 1), regions(films, 4, 2), attributes, torch.from_numpy(others)
    )
    return loss, films_, known


def test_the_losses_are_those_of_films_taken_one_by_one():
    loss, films, known = made()
    attribute, triplet = loss(films)
    network, sharp = loss.attention, {"word_sharpness": 3.0, "region_sharpness": 4.0}
    terms, hinges = [], []
    for film in range(3):
        one = films.rows(torch.tensor([film]))
        answer = network(one.best)
        for column in range(len(ATTRIBUTES)):
            label, p = one.attributes[0, column], answer.attributes[0, column].sigmoid()
            if label == 1:
                terms.append(-2 * p.log())
            elif label == 0:
                terms.append(-(1 - p).log())
        said = [row for row in range(len(ATTRIBUTES)) if one.attributes[0, row] == 1]
        if not said:
            continue
        own = torch.from_numpy(known.vectors[said])[None]
        other = one.others[:, said]
        every = torch.ones(1, len(said), dtype=torch.bool)
        low = network(one.worst)

        def ask(answer, there, words, every=every):
            return similarity(answer.embedded, answer.attention, there, words, every, **sharp)

        mine = ask(answer, one.best.there, own)
        worst = ask(low, one.worst.there, own)
        wrong = ask(answer, one.best.there, other)
        hinges.append(
            torch.relu(0.3 - mine.regions + worst.regions)
            + torch.relu(0.3 - mine.words + wrong.words)
        )
    torch.testing.assert_close(attribute, torch.stack(terms).mean())
    assert len(hinges) == 2
    torch.testing.assert_close(triplet, torch.cat(hinges).mean())


def test_films_whose_reports_say_nothing_known_have_no_triplet():
    loss, films, _ = made()
    attribute, triplet = loss(films.rows(torch.tensor([2])))
    assert triplet.item() == 0
    attribute.backward()
    silent = films._replace(attributes=torch.full_like(films.attributes, float("nan")))
    attribute, triplet = loss(silent)
    assert (attribute.item(), triplet.item()) == (0, 0)


def test_macro_auc_is_the_mean_of_scikit_learn_s():
    rng = np.random.default_rng(1)
    labels = torch.from_numpy(rng.integers(0, 2, (30, 4)).astype(np.float32))
    labels[3, 0] = float("nan")
    labels[:, 3] = 1
    logits = torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32))
    expected = []
    for column in range(3):
        known = ~torch.isnan(labels[:, column])
        expected.append(roc_auc_score(labels[known, column], logits[known, column]))
    assert macro_auc(labels, logits) == pytest.approx(np.mean(expected))
    assert macro_auc(labels[:, 3:], logits[:, 3:]) is None


def test_another_corpus_or_other_data_are_other_reports(tmp_path):
    data = write_data(tmp_path / "data", texts=True).folder
    other = write_data(tmp_path / "other", texts=True, seed=1).folder
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("clear lungs\nhazy lungs\n", encoding="utf-8")
    assert read_corpus(corpus) == ["clear lungs", "hazy lungs"]
    assert read_corpus(None) == []
    said = {
        reports_digest([data], None),
        reports_digest([other], None),
        reports_digest([data], corpus),
        reports_digest([data, other], corpus),
    }
    assert len(said) == 4
    assert reports_digest([data], corpus) == reports_digest([data], corpus)
    corpus.write_bytes(b"\xff\xfe\x00")
    said = {
        corpus: "not text in UTF-8",
        tmp_path / "none.txt": "no such file",
        tmp_path: "directory",
    }
    for wrong, words in said.items():
        with pytest.raises(
            DataError, match=f"{words}; give a file of one report a line"
        ) as refused:
            read_corpus(wrong)
        assert "Errno" not in str(refused.value)
