import subprocess
import sys

import numpy as np
import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.reports.word_vectors import (
    WordVectors,
    mean_vectors,
    nearest,
    tokens,
    train_word_vectors,
)

TEXTS = [
    "patchy opacity in the left base",
    "hazy opacity in the right base",
    "the heart is large",
    "the heart is normal",
] * 20


def test_tokens_are_words():
    assert tokens("No XXXX, 2.5 cm Opacity; left-sided!") == ["no", "cm", "opacity", "left-sided"]
    assert tokens("") == []


def test_words_of_like_use_come_to_lie_together():
    vectors = train_word_vectors(TEXTS * 15, width=12, seed=0)
    place = {word: vectors.vectors[row] for row, word in enumerate(vectors.words)}

    def cosine(one, other):
        a, b = place[one], place[other]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine("left", "right") > cosine("left", "large")
    assert vectors.vectors.shape == (len(vectors.words), 12)


def test_the_same_seed_gives_the_same_vectors_in_another_process():
    code = (
        "from tests.reports.test_word_vectors import TEXTS\n"
        "from dwarf_cxr.reports.word_vectors import train_word_vectors\n"
        "print(train_word_vectors(TEXTS, width=6, seed=3).vectors.tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    here = f"{train_word_vectors(TEXTS, width=6, seed=3).vectors.tolist()}\n"
    assert said == {here}


def test_too_few_texts_are_refused():
    with pytest.raises(DataError, match="2 texts: no word occurs 3 times"):
        train_word_vectors(["one film", "another"], width=6, seed=0)


def test_means_and_neighbours_by_hand():
    known = WordVectors(
        ("east", "north", "west"), np.array([[2, 0], [0, 3], [-1, 0]], dtype=np.float32)
    )
    means = mean_vectors(known, [["east"], ["east", "north"], ["nowhere"], ["west", "nowhere"]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(means, [[1, 0], [half, half], [0, 0], [-1, 0]], atol=1e-6)
    assert nearest(known, means[:2], 2) == [("east", "north"), ("east", "north")]
    assert nearest(known, means[3:], 3) == [("west", "north", "east")]
