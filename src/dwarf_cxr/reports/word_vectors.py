"""Word vectors of reports (Word2Vec), and which words are near an attribute without meaning it."""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from dwarf_cxr.errors import ConfigError, DataError

MIN_COUNT = 3
WINDOW = 5
EPOCHS = 20


@dataclass(frozen=True)
class WordVectors:
    """Words with their vectors, the most frequent first."""

    words: tuple[str, ...]
    vectors: Float32[np.ndarray, "word d"]


def tokens(text: str) -> list[str]:
    """Lower-case words of a text; numbers and de-identification marks are left out."""
    return [word for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()) if set(word) != {"x"}]


def train_word_vectors(
    texts: Iterable[str], *, width: int, seed: int, min_count: int = MIN_COUNT
) -> WordVectors:
    """Skip-gram Word2Vec of gensim; the same texts and seed give the same vectors.

    Raises:
        ConfigError: gensim is not installed.
        DataError: no word occurs `min_count` times.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise ConfigError(
            "word vectors need gensim, which is not installed: pip install 'dwarf-cxr[reports]'"
        ) from None
    sentences = [words for text in texts if (words := tokens(text))]
    counts: dict[str, int] = {}
    for word in (word for words in sentences for word in words):
        counts[word] = counts.get(word, 0) + 1
    if max(counts.values(), default=0) < min_count:
        raise DataError(
            f"{len(sentences)} texts: no word occurs {min_count} times, so that there is nothing "
            "to learn word vectors from; give more reports"
        )
    # Python's own hash differs from process to process, and with several workers the order does
    model = Word2Vec(
        sentences,
        vector_size=width,
        window=WINDOW,
        min_count=min_count,
        sg=1,
        workers=1,
        epochs=EPOCHS,
        seed=seed,
        hashfxn=lambda word: zlib.crc32(word.encode()),
    )
    return WordVectors(tuple(model.wv.index_to_key), model.wv.vectors.astype(np.float32))


def mean_vectors(
    vectors: WordVectors, words: Sequence[Sequence[str]]
) -> Float32[np.ndarray, "group d"]:
    """The mean vector of each group's words, at length 1; of a group of unknown words, zeros."""
    place = {word: row for row, word in enumerate(vectors.words)}
    means = np.zeros((len(words), vectors.vectors.shape[1]), dtype=np.float32)
    for group, mean in zip(words, means, strict=True):
        rows = [place[word] for word in group if word in place]
        if rows:
            mean[:] = _unit(_unit(vectors.vectors[rows]).mean(axis=0))
    return means


def nearest(
    vectors: WordVectors, wanted: Float32[np.ndarray, "group d"], count: int
) -> list[tuple[str, ...]]:
    """The `count` words nearest to each vector by cosine, the nearest first."""
    cosines = _unit(wanted) @ _unit(vectors.vectors).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [tuple(vectors.words[row] for row in rows) for rows in order]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
