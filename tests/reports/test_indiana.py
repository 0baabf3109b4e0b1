"""The parser against 200 sentences of the Indiana reports that were read by hand.

`indiana_sentences.csv` names the sentences and holds what they say, not the sentences themselves:
the reports may not be copied. docs/reports.md says how they were drawn and read.
"""

import csv
import hashlib
from pathlib import Path

import pytest

from dwarf_cxr.data.openi import read_reports
from dwarf_cxr.reports.attributes import ATTRIBUTES
from dwarf_cxr.reports.parse import parse_sentence
from dwarf_cxr.reports.sentences import split_sentences
from tests.reports.signs import from_signs

TABLE = Path(__file__).with_name("indiana_sentences.csv")

FLOORS = {"develop": (0.98, 0.97), "held-out": (0.92, 0.96)}
"""Precision and recall of presence, a little under what was measured."""


@pytest.fixture(scope="module")
def rows():
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_two_halves_and_what_it_promises(rows):
    assert [row["half"] for row in rows] == ["develop"] * 100 + ["held-out"] * 100
    said = [from_signs(row["gold"]) for row in rows]
    assert sum(map(bool, said)) >= 100
    assert sum("absent" in each.values() for each in said) >= 40
    assert sum("uncertain" in each.values() for each in said) >= 15
    assert len({(row["report"], row["sentence"]) for row in rows}) == 200


@pytest.mark.parametrize("half", ["develop", "held-out"])
def test_agreement_with_the_reader(half, rows, shared_data):
    reports = {report.uid: report for report in read_reports(shared_data / "annotations")}
    hits = false = missed = same = 0
    for row in (row for row in rows if row["half"] == half):
        sentence = split_sentences(reports[row["report"]].text)[int(row["sentence"])].text
        digest = hashlib.sha256(sentence.encode()).hexdigest()[:16]
        assert digest == row["sha256"], f"sentence {row['sentence']} of {row['report']} has changed"
        read, parsed = from_signs(row["gold"]), parse_sentence(sentence)
        same += read == parsed
        there = {name for name in ATTRIBUTES if read.get(name) == "present"}
        found = {name for name in ATTRIBUTES if parsed.get(name) == "present"}
        hits += len(there & found)
        false += len(found - there)
        missed += len(there - found)
        if read != parsed:
            print(f"{row['report']} {row['sentence']}: read {read}, parsed {parsed}")
    precision, recall = hits / (hits + false), hits / (hits + missed)
    print(f"{half}: precision {precision:.3f}, recall {recall:.3f}, {same} sentences alike")
    assert precision >= FLOORS[half][0]
    assert recall >= FLOORS[half][1]
