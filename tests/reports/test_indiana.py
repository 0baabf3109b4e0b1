"""The parser against 200 sentences of the Indiana reports that were read by hand.

`indiana_sentences.csv` names the sentences and holds what they say, not the sentences themselves:
the reports may not be copied. `drawing.py` draws them; docs/reports.md says how they were read.
"""

import csv
import hashlib
from pathlib import Path

import pytest

from dwarf_cxr.data.openi import read_reports
from dwarf_cxr.reports.attributes import ATTRIBUTES
from dwarf_cxr.reports.parse import parse_sentence
from tests.reports.drawing import drawn
from tests.reports.signs import from_signs

TABLE = Path(__file__).with_name("indiana_sentences.csv")

FLOORS = {"develop": (0.98, 0.97), "held-out": (0.92, 0.96)}
"""Precision and recall of presence, a little under what was measured."""


@pytest.fixture(scope="module")
def rows():
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sentences(shared_data):
    return drawn(read_reports(shared_data / "annotations"))


def test_the_table_holds_two_halves_and_what_it_promises(rows):
    assert [row["half"] for row in rows] == ["develop"] * 100 + ["held-out"] * 100
    said = [from_signs(row["gold"]) for row in rows]
    assert sum(map(bool, said)) >= 100
    assert sum("absent" in each.values() for each in said) >= 40
    assert sum("uncertain" in each.values() for each in said) >= 15
    assert len({(row["report"], row["sentence"]) for row in rows}) == 200


def test_the_sentences_are_those_that_were_drawn(rows, sentences):
    for row, (report, number, text, half) in zip(rows, sentences, strict=True):
        assert (row["report"], row["sentence"], row["half"]) == (report, str(number), half)
        assert row["sha256"] == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("half", ["develop", "held-out"])
def test_agreement_with_the_reader(half, rows, sentences):
    hits = false = missed = same = 0
    for row, (report, number, text, _) in zip(rows, sentences, strict=True):
        if row["half"] != half:
            continue
        read, parsed = from_signs(row["gold"]), parse_sentence(text)
        there = {name for name in ATTRIBUTES if read.get(name) == "present"}
        found = {name for name in ATTRIBUTES if parsed.get(name) == "present"}
        same += read == parsed
        hits += len(there & found)
        false += len(found - there)
        missed += len(there - found)
        if read != parsed:
            print(f"{report} {number}: read {read}, parsed {parsed}")
    precision, recall = hits / (hits + false), hits / (hits + missed)
    print(f"{half}: precision {precision:.3f}, recall {recall:.3f}, {same} sentences alike")
    assert precision >= FLOORS[half][0]
    assert recall >= FLOORS[half][1]
