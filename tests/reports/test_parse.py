import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwarf_cxr.reports.attributes import ATTRIBUTES, LOCATIONS, flipped
from dwarf_cxr.reports.parse import (
    attribute_table,
    document_frequency,
    merged,
    parse_report,
    parse_sentence,
)
from tests.reports.made_sentences import SENTENCES
from tests.reports.signs import from_signs

_SWAP = {"left": "right", "right": "left", "rul": "lul", "lul": "rul", "rll": "lll", "lll": "rll"}


@pytest.mark.parametrize(("sentence", "said"), SENTENCES)
def test_sentences(sentence, said):
    assert parse_sentence(sentence) == from_signs(said)


def test_the_sentences_cover_every_attribute():
    assert {name for _, said in SENTENCES for name in from_signs(said)} == set(ATTRIBUTES)


@pytest.mark.parametrize(("sentence", "said"), SENTENCES)
def test_upper_case_says_the_same(sentence, said):
    assert parse_sentence(sentence.upper()) == from_signs(said)


@pytest.mark.parametrize("sentence", [text for text, _ in SENTENCES if "RML" not in text])
def test_a_report_with_sides_swapped_is_the_flipped_report(sentence):
    swapped = re.sub(
        r"\b(left|right|[rl][ul]l)\b",
        lambda word: _SWAP[word[0].lower()],
        sentence,
        flags=re.IGNORECASE,
    )
    said = parse_sentence(sentence)
    mirrored = dict(zip(flipped(said), said.values(), strict=True))
    assert parse_sentence(swapped) == mirrored


@given(st.lists(st.sampled_from([text for text, _ in SENTENCES]), max_size=4), st.text())
def test_any_text_is_read_and_denied_places_are_left_out(sentences, tail):
    for polarity in (said := parse_report(" ".join([*sentences, tail]))).values():
        assert polarity in ("present", "absent", "uncertain")
    assert list(said) == [name for name in ATTRIBUTES if name in said]
    assert all(said[name] != "absent" for name in LOCATIONS if name in said)


def test_typography_of_word_processors():
    assert parse_sentence("Can’t exclude infiltrate — ground‑glass opacity.") == from_signs(
        "infiltrate? hazy+ opacity+"
    )


def test_present_goes_before_uncertain_and_uncertain_before_absent():
    assert parse_report("No opacity. Possible opacity.") == from_signs("opacity?")
    assert parse_report("Opacity. No opacity. Possible opacity.") == from_signs("opacity+")
    assert parse_report("No focal opacity. Patchy opacity.") == from_signs(
        "opacity+ focal- patchy+"
    )
    assert merged([]) == {}


def test_what_is_asked_is_not_what_is_seen():
    report = "INDICATION: Right infiltrate. COMPARISON: Left opacity. FINDINGS: No consolidation."
    assert parse_report(report) == from_signs("consolidation-")


def test_the_table():
    table = attribute_table(
        ["Bilateral opacities, possible infiltrate. No consolidation.", "Normal chest.", "", None,
         "INDICATION: left opacity."]
    )  # fmt: skip
    assert table.shape == (5, 22)
    first = dict(zip(ATTRIBUTES, table[0], strict=True))
    assert {name for name in ATTRIBUTES if first[name] == 1} == {
        "left", "right", "bilateral", "opacity",
    }  # fmt: skip
    assert np.isnan(first["infiltrate"])
    assert first["consolidation"] == first["hazy"] == 0
    assert (table[1] == 0).all()
    assert np.isnan(table[2:]).all()
    assert attribute_table([]).shape == (0, 22)


def test_document_frequency_counts_reports_and_only_presence():
    reports = ["Left opacity. Left opacity.", "No opacity.", "Possible opacity.", "Opacity."]
    frequency = document_frequency([parse_report(report) for report in reports])
    assert frequency["opacity"] == 0.5
    assert frequency["left"] == 0.25
    assert frequency["hazy"] == 0
    assert set(document_frequency([]).values()) == {0.0}
