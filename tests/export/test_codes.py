import re
from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts as known

from dwarf_cxr.export import codes
from dwarf_cxr.export.codes import FINDINGS, OURS, Concept, concept_of, long_string
from dwarf_cxr.findings import VOCABULARY

CONCEPTS = [
    *FINDINGS.values(),
    *(value for value in vars(codes).values() if isinstance(value, Concept)),
]


def verhoeff(digits: str) -> int:
    """Verhoeff's check sum over the dihedral group of the pentagon; 0 for a right identifier."""
    swap = [[(place * 1) for place in range(10)], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for row in range(2, 8):
        swap.append([swap[row - 1][swap[1][place]] for place in range(10)])
    total = 0
    for place, digit in enumerate(reversed(digits)):
        a, b = total, swap[place % 8][int(digit)]
        flip = a >= 5
        turn = (a + (-b if flip else b)) % 5
        total = turn + 5 * (flip != (b >= 5))
    return total


def test_check_sum_knows_right_from_wrong():
    assert verhoeff("2363") == 0  # the published example: 236 and its check digit 3
    assert [verhoeff(f"236{digit}") == 0 for digit in range(10)].count(True) == 1


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.meaning)
def test_codes_are_well_formed(concept):
    assert 0 < len(concept.value) <= 16
    assert 0 < len(concept.meaning) <= 64
    if concept.scheme == "SCT":
        assert verhoeff(concept.value) == 0


def test_meanings_are_those_of_the_dictionary():
    """As far as pydicom's dictionary goes: it holds DICOM's context groups only."""
    compared = 0
    for concept in CONCEPTS:
        meanings = {
            meaning.casefold()
            for entries in known.get(concept.scheme, {}).values()
            for value, (meaning, *_) in entries.items()
            if value == concept.value
        }
        assert not meanings or concept.meaning.casefold() in meanings
        compared += bool(meanings)
    assert compared == 17


def test_vocabulary_is_covered():
    # named by a radiologist's habit rather than by one disorder: no code that we are sure of
    by_name = {"Enlarged Cardiomediastinum", "Lung Lesion", "Lung Opacity", "Pleural Other"}
    by_name |= {"Pleural Thickening", "Support Devices"}
    assert set(VOCABULARY) - set(FINDINGS) == by_name
    assert set(FINDINGS) <= set(VOCABULARY)
    assert len({concept.value for concept in FINDINGS.values()}) == len(FINDINGS)


def test_the_documented_table_is_the_one_in_use():
    page = Path(__file__).resolve().parents[2] / "docs" / "dicom-out.md"
    rows = re.findall(r"^\| (.+?) \| (SCT|DCM) (\d+) \| (.+?) \|$", page.read_text("utf-8"), re.M)
    assert {name: Concept(code, scheme, words) for name, scheme, code, words in rows} == FINDINGS


def test_other_findings_get_a_code_of_ours():
    names = ["Pleural Thickening", "Lung Opacity", "lung opacity", "Ω", "x" * 300, "x" * 301]
    concepts = [concept_of(name) for name in names]
    assert {concept.scheme for concept in concepts} == {OURS}
    assert len({concept.value for concept in concepts}) == len(names)
    assert concepts == [concept_of(name) for name in names]
    assert concepts[0].meaning == "Pleural Thickening"
    assert all(len(concept.value) <= 16 and len(concept.meaning) <= 64 for concept in concepts)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a\\b", "a/b"),
        ("a\nb\tc", "a b c"),
        (" ", "unnamed"),
        ("\x00", "unnamed"),
        ("é" * 70, "é" * 64),
    ],
)
def test_words_fit_a_long_string(words, expected):
    assert long_string(words) == expected
