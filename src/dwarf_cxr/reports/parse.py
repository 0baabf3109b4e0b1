"""From a report to its attributes, and from many reports to a table.

A report mentions an attribute as present, absent or uncertain, or not at all. Where its sentences
differ, present goes before uncertain, and uncertain before absent: "no focal consolidation" in one
sentence does not undo the focal opacity of another.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from dwarf_cxr.reports.assertion import Polarity
from dwarf_cxr.reports.attributes import ATTRIBUTES, IMPLIED, Attribute
from dwarf_cxr.reports.phrases import statements
from dwarf_cxr.reports.sentences import split_sentences

Attributes = Mapping[Attribute, Polarity]
"""Attributes that are mentioned, in the order of `ATTRIBUTES`; the others are missing."""

SECTIONS_WITH_FINDINGS = frozenset({"FINDINGS", "IMPRESSION", "CONCLUSION", "REPORT"})
"""Sections that say what is seen. What comes before any heading is read as well; an indication
("evaluate for infiltrate") or a comparison is not."""

_PRECEDENCE: tuple[Polarity, ...] = ("absent", "uncertain", "present")


def parse_report(text: str | None) -> dict[Attribute, Polarity]:
    """What a report says of the 22 attributes; empty for a report without text."""
    return merged(parse_sentence(sentence) for sentence in _told(text))


def parse_sentence(sentence: str) -> dict[Attribute, Polarity]:
    """What one sentence says; `bilateral` implies left and right."""
    stated = [(statement.attribute, statement.polarity) for statement in statements(sentence)]
    stated += [
        (implied, polarity)
        for attribute, polarity in stated
        for implied in IMPLIED.get(attribute, ())
    ]
    return merged({attribute: polarity} for attribute, polarity in stated)


def merged(parts: Iterable[Attributes]) -> dict[Attribute, Polarity]:
    """Several statements as one: present before uncertain before absent."""
    strongest: dict[Attribute, Polarity] = {}
    for part in parts:
        for attribute, polarity in part.items():
            known = strongest.get(attribute, polarity)
            strongest[attribute] = max(known, polarity, key=_PRECEDENCE.index)
    return {name: strongest[name] for name in ATTRIBUTES if name in strongest}


def attribute_table(texts: Sequence[str | None]) -> Float[np.ndarray, "report 22"]:
    """Targets for a loss, columns in the order of `ATTRIBUTES`.

    1 where present; 0 where absent or not mentioned, since a report of the lungs leaves out what is
    not there; NaN where uncertain, and in the whole row of a report that says nothing (no text, or
    none in a section with findings): no part in the loss.
    """
    table = np.zeros((len(texts), len(ATTRIBUTES)))
    for row, text in zip(table, texts, strict=True):
        if not _told(text):
            row[:] = np.nan
        for attribute, polarity in parse_report(text).items():
            if polarity != "absent":
                row[ATTRIBUTES.index(attribute)] = 1.0 if polarity == "present" else np.nan
    return table


def document_frequency(reports: Sequence[Attributes]) -> dict[Attribute, float]:
    """Share of the reports in which each attribute is present; 0 of no reports.

    For choosing those worth learning, such as the ones in 1 % of the reports of a pneumonia.
    """
    return {
        name: sum(report.get(name) == "present" for report in reports) / max(len(reports), 1)
        for name in ATTRIBUTES
    }


def _told(text: str | None) -> list[str]:
    return [
        sentence.text
        for sentence in split_sentences(text or "")
        if sentence.section is None or sentence.section in SECTIONS_WITH_FINDINGS
    ]
