import pytest

from dwarf_cxr.reports.sentences import split_sentences


def texts(report):
    return [sentence.text for sentence in split_sentences(report)]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("...", []),
        ("Lungs clear", ["Lungs clear"]),
        ("Lungs are clear. No effusion.", ["Lungs are clear.", "No effusion."]),
        ("lungs are clear. no effusion.", ["lungs are clear.", "no effusion."]),
        ("LUNGS ARE CLEAR. NO EFFUSION.", ["LUNGS ARE CLEAR.", "NO EFFUSION."]),
        ("Dr. XXXX was told. Stable.", ["Dr. XXXX was told.", "Stable."]),
        ("Nodule of 2.5 cm. in the left apex.", ["Nodule of 2.5 cm. in the left apex."]),
        ("Nodule of 2.5 cm. No effusion.", ["Nodule of 2.5 cm.", "No effusion."]),
        ("Atelectasis vs. infiltrate. Stable.", ["Atelectasis vs. infiltrate.", "Stable."]),
        ("XXXX are clear. XXXX. Heart normal.", ["XXXX are clear.", "XXXX.", "Heart normal."]),
        ("1. No effusion. 2. Clear lungs.", ["No effusion.", "Clear lungs."]),
        ("1) No effusion 2) Clear lungs", ["No effusion", "Clear lungs"]),
        ("Opacity (films 1, 2) persists.", ["Opacity (films 1, 2) persists."]),
        ("- No effusion\n- Clear lungs", ["No effusion", "Clear lungs"]),
        ("An opacity in the\nleft lung.\n\nHeart normal", ["An opacity in the left lung.",
                                                          "Heart normal"]),
        ("Lungs are clear.No effusion.", ["Lungs are clear.", "No effusion."]),
        ("Seen on film 2. No effusion.", ["Seen on film 2.", "No effusion."]),
        ("Pneumonia? Clear!", ["Pneumonia?", "Clear!"]),
        ("Größe normal. Épanchement.", ["Größe normal.", "Épanchement."]),
    ],
)  # fmt: skip
def test_sentences(report, expected):
    assert texts(report) == expected


def test_headings_open_sections_and_stand_in_no_sentence():
    sentences = split_sentences(
        "Chest film.\nINDICATION: Infiltrate? FINDINGS: Lungs: clear. No effusion.\n"
        "Impression:\n1. Normal chest. 2. Stable. CLINICAL HISTORY: cough"
    )
    assert [(sentence.section, sentence.text) for sentence in sentences] == [
        (None, "Chest film."),
        ("INDICATION", "Infiltrate?"),
        ("FINDINGS", "Lungs: clear."),
        ("FINDINGS", "No effusion."),
        ("IMPRESSION", "Normal chest."),
        ("IMPRESSION", "Stable."),
        ("CLINICAL HISTORY", "cough"),
    ]


def test_a_heading_within_a_sentence_is_a_word():
    assert texts("No findings: clear.") == ["No findings: clear."]
