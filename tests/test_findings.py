import pytest

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


def test_every_finding_is_described_and_every_synonym_leads_to_one():
    known = {name for names in SETS for name in names}
    assert set(DESCRIPTIONS) == known
    assert set(SYNONYMS.values()) <= known
    assert not set(SYNONYMS) & known
