"""Attributes as word vectors, and the words that a triplet loss puts in their place.

A hard negative is the word nearest to an attribute that does not mean it: no synonym or inflection
of it, nothing that the report says too. Without that guard "opacities" would be the negative of
"opacity", and "left" that of "right" in a report of both.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from dwarf_cxr.reports.attributes import ATTRIBUTES, find_mentions
from dwarf_cxr.reports.word_vectors import WordVectors, mean_vectors, nearest, tokens

NEIGHBOURS = 60
"""Words looked through for one that may stand for an attribute."""


@dataclass(frozen=True)
class AttributeWords:
    """The dictionary's attributes in the space of word vectors."""

    vectors: Float32[np.ndarray, "attribute d"]
    """The mean of the words that say this attribute and no other; zeros where none is known."""
    known: Bool[np.ndarray, "attribute"]
    neighbours: tuple[tuple[str, ...], ...]
    """Of each attribute, the nearest first."""
    meanings: dict[str, frozenset[str]]
    """What the neighbours say."""
    words: WordVectors

    @classmethod
    def of(cls, words: WordVectors) -> "AttributeWords":
        """The attributes among `words`."""
        meanings = {word: _meaning(word) for word in words.words}
        saying = [
            [word for word in words.words if meanings[word] == {attribute}]
            for attribute in ATTRIBUTES
        ]
        vectors = mean_vectors(words, saying)
        return cls(
            vectors,
            np.array([bool(own) for own in saying]),
            tuple(nearest(words, vectors, NEIGHBOURS)),
            meanings,
            words,
        )

    def hard_negatives(
        self, said: Bool[np.ndarray, "attribute"], text: str
    ) -> Float32[np.ndarray, "attribute d"]:
        """For each attribute that a report says, the vector of the nearest word that it does not.

        Rows of the others, and of attributes without such a word, are zeros.
        """
        present = {name for name, true in zip(ATTRIBUTES, said, strict=True) if true}
        spoken = set(tokens(text))
        place = {word: row for row, word in enumerate(self.words.words)}
        negatives = np.zeros_like(self.vectors)
        for row in np.flatnonzero(said & self.known):
            for word in self.neighbours[row]:
                meaning = self.meanings[word]
                if word in spoken or meaning & (present | {ATTRIBUTES[row]}):
                    continue
                vector = self.words.vectors[place[word]]
                negatives[row] = vector / max(np.linalg.norm(vector), 1e-12)
                break
        return negatives


def _meaning(word: str) -> frozenset[str]:
    return frozenset(
        attribute for mention in find_mentions(word) for attribute in mention.attributes
    )
