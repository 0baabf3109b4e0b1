import pytest

from dwarf_cxr.data import chest_det, chexpert_boxes, covid, nih, openi, rsna, vindr
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import (
    CHESTX_DET_4,
    CHESTX_DET_7,
    CHESTX_DET_13,
    CHEXLOCALIZE_10,
    CHEXPERT_13,
    CHEXPERT_BOXED_9,
    DESCRIPTIONS,
    NIH_14,
    NIH_BOXED_8,
    SYNONYMS,
    select,
)

SETS = {
    CHESTX_DET_4: 4,
    CHESTX_DET_7: 7,
    CHESTX_DET_13: 13,
    NIH_14: 14,
    NIH_BOXED_8: 8,
    CHEXPERT_13: 13,
    CHEXLOCALIZE_10: 10,
    CHEXPERT_BOXED_9: 9,
}


def test_select_keeps_the_wanted_order():
    assert select(["Mass", "Effusion"], CHESTX_DET_13, where="here") == ("Mass", "Effusion")


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (["Mass", "Flu", "Cold"], ["'Flu'", "'Cold'", "Pneumothorax"]),
        (["mass"], ["'mass'"]),
        (["Mass", "Effusion", "Mass"], ["twice"]),
        ([], ["no finding", "Pneumothorax"]),
    ],
)
def test_select_refuses_naming_the_place(wanted, named):
    with pytest.raises(ConfigError) as caught:
        select(wanted, CHESTX_DET_13, where="--findings")
    assert all(part in str(caught.value) for part in ["--findings", *named])


@pytest.mark.parametrize(("names", "count"), list(SETS.items()))
def test_sets_have_the_size_they_are_called_by_and_no_name_twice(names, count):
    assert len(names) == len(set(names)) == count


def test_subsets_are_subsets():
    assert set(CHESTX_DET_4) < set(CHESTX_DET_7) < set(CHESTX_DET_13)
    assert set(NIH_BOXED_8) < set(NIH_14)
    assert set(CHEXLOCALIZE_10) < set(CHEXPERT_13)
    assert set(CHEXPERT_BOXED_9) < set(CHEXPERT_13)


READERS = {
    "nih": nih.NAMES.values(),
    "chestx-det": chest_det.NAMES.values(),
    "vindr": vindr.NAMES.values(),
    "vindr by its lists": [vindr.NAMES[name] for name in (*vindr.LOCAL_22, *vindr.GLOBAL_5)],
    "chexlocalize": CHEXPERT_13,
    "chexpert-boxes": chexpert_boxes.NAMES.values(),
    "rsna": (rsna.FINDING,),
    "openi": openi.FINDINGS,
    "covid": covid.FINDINGS,
    "synthetic": CHESTX_DET_13,
}
"""The findings that each reader of a public set gives."""


@pytest.mark.parametrize("reader", READERS)
def test_every_finding_that_a_reader_gives_is_described(reader):
    assert not set(READERS[reader]) - set(DESCRIPTIONS)


def test_a_description_is_a_sentence_of_its_own():
    given = {name for names in READERS.values() for name in names}
    assert set(DESCRIPTIONS) == given
    assert len(set(DESCRIPTIONS.values())) == len(DESCRIPTIONS)
    for sentence in DESCRIPTIONS.values():
        assert 3 <= len(sentence.split()) <= 14
        assert sentence[0].isupper()
        assert not sentence.endswith(".")


def test_synonyms_lead_to_known_findings():
    known = {name for names in SETS for name in names}
    assert set(SYNONYMS.values()) <= known
    assert not set(SYNONYMS) & known
