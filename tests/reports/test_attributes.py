import numpy as np
import pytest
import torch

from dwarf_cxr.reports.attributes import (
    ATTRIBUTES,
    CHARACTERS,
    FLIP_ORDER,
    LOCATIONS,
    PATTERNS,
    find_mentions,
    flipped,
    flipped_vectors,
)


def test_eleven_places_and_eleven_kinds_each_with_words():
    assert len(LOCATIONS) == len(CHARACTERS) == 11
    assert len(set(ATTRIBUTES)) == 22
    assert {attribute for meant in PATTERNS.values() for attribute in meant} == set(ATTRIBUTES)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("opacity opacities opacification opacified density densities", {"opacity"}),
        ("basilar basal base bases", {"basilar"}),
        ("bibasilar bibasal", {"basilar", "bilateral"}),
        ("hilar perihilar hilum infrahilar", {"perihilar"}),
        ("hazy haziness ground-glass ground glass", {"hazy"}),
        ("severe severely extensive marked markedly", {"severe"}),
        ("airspace air-space air space alveolar", {"airspace"}),
        ("infiltrate infiltrates infiltration", {"infiltrate"}),
        ("multifocal multi-focal", {"multifocal"}),
        ("apex apices apical", {"apical"}),
        ("mid lung midlung middle", {"middle"}),
        ("midline middling overleft copyright baseline based remarkable", set()),
        ("radiopacity nonfocal", set()),
        ("cardiac apex, base of the skull, bone density", set()),
    ],
)  # fmt: skip
def test_words(words, expected):
    for form in (words, words.upper()):
        found = {attribute for mention in find_mentions(form) for attribute in mention.attributes}
        assert found == expected


def test_mentions_are_where_their_words_are():
    sentence = "A patchy opacity, RLL."
    spans = [(sentence[m.start : m.end], m.attributes) for m in find_mentions(sentence)]
    assert spans == [
        ("patchy", ("patchy",)),
        ("opacity", ("opacity",)),
        ("RLL", ("right", "lower")),
    ]


def test_a_flip_swaps_left_and_right_and_nothing_else():
    names = ("left", "bilateral", "lower", "right", "opacity")
    assert flipped(names) == ("right", "bilateral", "lower", "left", "opacity")
    assert flipped(flipped(ATTRIBUTES)) == ATTRIBUTES
    assert tuple(ATTRIBUTES[place] for place in FLIP_ORDER) == flipped(ATTRIBUTES)


def test_vectors_flip_as_names_do():
    values = np.random.default_rng(3).random((5, 22))
    values[0, ATTRIBUTES.index("left")] = np.nan
    mirrored = flipped_vectors(values)
    for column, name in enumerate(ATTRIBUTES):
        other = {"left": "right", "right": "left"}.get(name, name)
        np.testing.assert_array_equal(mirrored[:, column], values[:, ATTRIBUTES.index(other)])
    np.testing.assert_array_equal(flipped_vectors(torch.from_numpy(values)).numpy(), mirrored)
    np.testing.assert_array_equal(flipped_vectors(mirrored), values)
    np.testing.assert_array_equal(flipped_vectors(values[1]), mirrored[1])
