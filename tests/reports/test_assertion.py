import pytest

from dwarf_cxr.reports.assertion import polarity_at, scopes


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("WORD persists.", "present"),
        ("No WORD.", "absent"),
        ("NO EFFUSION, MASS OR WORD.", "absent"),
        ("Without evidence of WORD.", "absent"),
        ("WORD is no longer seen.", "absent"),
        ("WORD has resolved.", "absent"),
        ("WORD has not completely resolved.", "present"),
        ("Interval resolution of WORD.", "absent"),
        ("No effusion but WORD.", "present"),
        ("No effusion; WORD.", "present"),
        ("No effusion, the WORD persists.", "present"),
        ("There is WORD without effusion.", "present"),
        ("No significant change in WORD.", "present"),
        ("WORD is not excluded.", "uncertain"),
        ("Cannot exclude WORD.", "uncertain"),
        ("Difficult to exclude WORD.", "uncertain"),
        ("This may represent WORD.", "uncertain"),
        ("WORD may represent effusion.", "present"),
        ("Findings suggesting WORD.", "uncertain"),
        ("No finding to suggest WORD.", "absent"),
        ("No effusion, possible WORD.", "uncertain"),
        ("Possible effusion without WORD.", "absent"),
        ("WORD is unlikely.", "absent"),
        ("Consistent with WORD.", "present"),
        ("Knot and notable WORD.", "present"),
    ],
)
def test_what_is_said_of_a_word(sentence, expected):
    place = sentence.index("WORD")
    assert polarity_at(scopes(sentence), place) == expected


def test_a_denial_reaches_no_further_than_its_clause():
    sentence = "The mass is stable, and the effusion has resolved."
    found = scopes(sentence)
    assert polarity_at(found, sentence.index("mass")) == "present"
    assert polarity_at(found, sentence.index("effusion")) == "absent"
