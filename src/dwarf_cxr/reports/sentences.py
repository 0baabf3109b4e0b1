"""A report's sentences, each with the section in which it stands.

Dictated reports are not prose: they abbreviate ("Dr.", "2.5 cm."), number their impressions, forget
the blank after a full stop, write in capitals or without any, and in public collections names and
dates are replaced by XXXX.
"""

import re
from dataclasses import dataclass

HEADINGS: tuple[str, ...] = (
    "CLINICAL HISTORY",
    "CLINICAL INDICATION",
    "CLINICAL INFORMATION",
    "COMPARISON",
    "CONCLUSION",
    "EXAM",
    "EXAMINATION",
    "FINDINGS",
    "HISTORY",
    "IMPRESSION",
    "INDICATION",
    "INDICATIONS",
    "PROCEDURE",
    "REASON FOR EXAM",
    "REASON FOR EXAMINATION",
    "RECOMMENDATION",
    "RECOMMENDATIONS",
    "REPORT",
    "TECHNIQUE",
    "VIEWS",
)
"""Words that open a section where a colon follows: in capitals anywhere, else where a line or
sentence begins. Other labels ("Lungs:") stay in their sentence."""

NEVER_LAST = frozenset(
    {"approx", "dr", "drs", "e.g", "fig", "i.e", "mr", "mrs", "ms", "prof", "st", "vs"}
)
"""Abbreviations that never end a sentence."""

SELDOM_LAST = frozenset({"a.m", "ca", "cm", "etc", "ft", "in", "mm", "p.m", "yr", "yrs"})
"""Abbreviations that end a sentence only where what follows does not begin in lower case."""

_names = "|".join(re.escape(name) for name in sorted(HEADINGS, key=len, reverse=True))
_HEADING = re.compile(
    rf"\b(?P<capitals>{_names})\s*:|(?:^|(?<=\n)|(?<=[.!?]\s))[ \t]*(?P<any>(?i:{_names}))\s*:"
)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_NEW_ITEM = re.compile(r"\n[ \t]*(?:[-*•–]|\(?\d{1,2}[.)])[ \t]+")
_ITEM_WITHIN = re.compile(r"(?<=[\s.])\d{1,2}\)\s+(?=[A-Za-z])")
_MARKER = re.compile(r"^(?:[-*•–]|\(?\d{1,2}[.)])\s+")
_STOP = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|(?<=[a-z]{2})\.(?=[A-Z][a-z])|(?<=XXXX)\.(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence without its heading or number, and the section's heading in capitals."""

    text: str
    section: str | None = None


def split_sentences(text: str) -> tuple[Sentence, ...]:
    """Sentences in reading order; none of an empty text."""
    sentences: list[Sentence] = []
    section = None
    start = 0
    for heading in _HEADING.finditer(text):
        before = text[start : heading.start()]
        sentences += [Sentence(words, section) for words in _split_section(before)]
        section = " ".join((heading["capitals"] or heading["any"]).upper().split())
        start = heading.end()
    sentences += [Sentence(words, section) for words in _split_section(text[start:])]
    return tuple(sentences)


def _split_section(text: str) -> list[str]:
    blocks = [
        item
        for block in _BLANK_LINE.split(text.strip())
        for item in _NEW_ITEM.split(f"\n{block}")
        if item.strip()
    ]
    return [sentence for block in blocks for sentence in _split_block(" ".join(block.split()))]


def _split_block(block: str) -> list[str]:
    sentences = []
    start = 0
    for stop in (*_STOP.finditer(block), None):
        if stop is not None and not _ends_sentence(block[start : stop.end()], block[stop.end() :]):
            continue
        end = len(block) if stop is None else stop.end()
        sentences += _split_items(block[start:end])
        start = end
    unmarked = [_MARKER.sub("", sentence.lstrip(" .")).strip() for sentence in sentences]
    return [sentence for sentence in unmarked if any(letter.isalpha() for letter in sentence)]


def _split_items(sentence: str) -> list[str]:
    """Items of a list such as "1) Clear. 2) Stable", unless the bracket closes an earlier one."""
    parts = []
    start = 0
    for item in _ITEM_WITHIN.finditer(sentence):
        before = sentence[: item.start()]
        if before.count("(") <= before.count(")"):
            parts.append(sentence[start : item.start()])
            start = item.end()
    return [*parts, sentence[start:]]


def _ends_sentence(before: str, after: str) -> bool:
    """Whether the full stop at the end of `before` ends a sentence that `after` follows."""
    words = before.rstrip(".!?\"')]").split()
    last = words[-1].lower().strip("(") if words else ""
    following = after.lstrip()
    if not words or (len(words) == 1 and re.fullmatch(r"\(?\d{1,2}", last)):
        return False  # the number of an item
    if last in NEVER_LAST or (len(last) == 1 and last.isalpha()):
        return not following
    if last in SELDOM_LAST:
        return not following[:1].islower()
    return not following.startswith((",", ";"))
