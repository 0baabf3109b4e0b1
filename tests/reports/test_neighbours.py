import numpy as np

from dwarf_cxr.reports.attributes import ATTRIBUTES
from dwarf_cxr.reports.neighbours import AttributeWords
from dwarf_cxr.reports.word_vectors import WordVectors

WORDS = {
    "opacity": [1.0, 0.0, 0.0],
    "opacities": [0.9, 0.1, 0.0],
    "mist": [0.8, 0.6, 0.0],
    "consolidation": [0.95, 0.3, 0.0],
    "left": [0.0, 0.0, 1.0],
    "right": [0.0, 0.1, 1.0],
    "arm": [0.0, 0.7, 0.7],
    "bibasilar": [-0.2, 0.0, -0.2],
}


def made() -> AttributeWords:
    return AttributeWords.of(
        WordVectors(tuple(WORDS), np.array(list(WORDS.values()), dtype=np.float32))
    )


def said(*names: str) -> np.ndarray:
    return np.array([name in names for name in ATTRIBUTES])


def chosen(words: AttributeWords, attribute: str, present: np.ndarray, text: str) -> str | None:
    vector = words.hard_negatives(present, text)[ATTRIBUTES.index(attribute)]
    for word, own in WORDS.items():
        if np.allclose(vector, np.array(own) / np.linalg.norm(own), atol=1e-6):
            return word
    assert not vector.any()
    return None


def test_an_attribute_is_the_mean_of_its_own_words():
    words = made()
    opacity = words.vectors[ATTRIBUTES.index("opacity")]
    parts = [np.array(WORDS[word]) for word in ("opacity", "opacities")]
    mean = sum(part / np.linalg.norm(part) for part in parts)
    np.testing.assert_allclose(opacity, mean / np.linalg.norm(mean), atol=1e-6)
    # a word of two attributes is the vector of neither
    assert not words.known[ATTRIBUTES.index("basilar")]
    assert set(np.array(ATTRIBUTES)[words.known]) == {"opacity", "consolidation", "left", "right"}


def test_the_nearest_word_that_means_something_else_is_taken():
    words = made()
    assert chosen(words, "opacity", said("opacity"), "an opacity") == "consolidation"
    assert chosen(words, "left", said("left"), "on the left") == "right"


def test_synonyms_what_is_said_too_and_what_the_report_words_contain_are_passed_over():
    words = made()
    both = said("opacity", "consolidation")
    assert chosen(words, "opacity", both, "opacity and consolidation") == "mist"
    assert chosen(words, "opacity", both, "opacity, consolidation, mist") == "arm"
    assert chosen(words, "left", said("left", "right"), "left and right") == "arm"


def test_what_is_not_said_or_not_known_has_no_negative():
    words = made()
    assert chosen(words, "left", said("opacity"), "an opacity") is None
    assert chosen(words, "basilar", said("basilar"), "at the base") is None


def test_without_any_other_word_there_is_none():
    few = WordVectors(("opacity", "opacities"), np.eye(2, 3, dtype=np.float32))
    words = AttributeWords.of(few)
    assert chosen(words, "opacity", said("opacity"), "an opacity") is None
