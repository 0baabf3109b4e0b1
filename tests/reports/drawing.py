"""How the 200 sentences of `indiana_sentences.csv` were drawn, and into which half each went."""

import random
import re

from dwarf_cxr.reports.sentences import split_sentences

SEED = 20240617

SIZES = {"plain": 60, "negated": 56, "uncertain": 44, "other": 40}
"""Sentences by group: with a word of the dictionary and negation, doubt or neither; without one."""

_ATTRIBUTE = re.compile(
    r"\b(left|right|bilateral\w*|both|upper|mid\w*|lower|lingula\w*|\w*basilar|\w*basal|bases?|"
    r"retrocardiac|\w*hilar|\w*apical|apex|apices|opaci\w*|densit\w*|consolidat\w*|infiltrat\w*|"
    r"air[ -]?space|alveolar|interstitial|interstitium|reticul\w*|patchy|focal|multifocal|"
    r"diffuse\w*|hazy|haziness|ground.glass|severe\w*|extensive|marked\w*|[RL][UML]L)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(no|not|without|free|clear|negative|resol\w*|cleared|absent|absence|rather|ruled|"
    r"exclude\w*|denies|unremarkable|normal)\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(may|might|could|possib\w*|probab\w*|likely|suggest\w*|suspicio\w*|suspect\w*|question\w*|"
    r"cannot|can't|exclude\w*|versus|vs|differential|concern\w*|consider\w*|appears? to|perhaps|"
    r"equivocal)\b",
    re.IGNORECASE,
)


def drawn(reports):
    """(report, number of the sentence, its text, half) of every sentence drawn, half by half."""
    distinct = {}
    for report in reports:
        for number, sentence in enumerate(split_sentences(report.text or "")):
            key = " ".join(sentence.text.lower().split())
            distinct.setdefault(key, (report.uid, number, sentence.text))
    sentences = list(distinct.values())
    random.Random(SEED).shuffle(sentences)
    groups = {name: [] for name in SIZES}
    for sentence in sentences:
        groups[_group(sentence[2])].append(sentence)
    return [
        (*sentence, half)
        for first, half in enumerate(("develop", "held-out"))
        for name, size in SIZES.items()
        for sentence in groups[name][first:size:2]
    ]


def _group(text):
    if not _ATTRIBUTE.search(text):
        return "other"
    if _DOUBT.search(text):
        return "uncertain"
    return "negated" if _NEGATION.search(text) else "plain"
