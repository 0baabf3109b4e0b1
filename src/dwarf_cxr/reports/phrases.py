"""Which finding of a sentence an attribute belongs to, if to any.

Place and quality are said of much that is no finding of the lung: the right atrium, a left
subclavian line, severe scoliosis, normal hilar contours. So the words of a sentence are sorted into
lung and pleural findings, anatomy, other things, and the attributes between them; an attribute
takes part only through the finding that it is attached to, and is as sure as that finding.
"""

import re
from dataclasses import dataclass, replace

from dwarf_cxr.reports.assertion import Polarity, Scope, clause_starts, polarity_at, scopes
from dwarf_cxr.reports.attributes import OPACITIES, QUALITIES, Attribute, Mention, find_mentions

LUNG_FINDINGS: tuple[str, ...] = (
    r"atelecta\w+",
    r"(?:pleural |interlobar )?effusions?",
    r"pleural (?:fluid|reaction|disease|plaques?|scarring|fibrosis|based|calcifications?|"
    r"abnormalit(?:y|ies)|process)",
    r"fluid",
    r"\w*pneumothora\w+",
    r"\w*pneumonia\w*",
    r"pneumonitis",
    r"hemothora\w+|empyema",
    r"(?<!tissue )(?<!subcutaneous )(?<!ankle )edema",
    r"nodul\w+|micronodul\w+",
    r"mass(?:es)?|mass-?like",
    r"granuloma\w*",
    r"scar(?:s|ring|red)?",
    r"fibro\w+",
    r"(?<!subcutaneous )(?<!tissue )emphysem\w+",
    r"bronchiect\w+|bronchitis|bronchitic|bronchiolitis",
    r"bull(?:a|ae|ous)|blebs?",
    r"cavit\w+|cysts?|cystic",
    r"lesions?",
    r"blunt\w+",
    r"(?:pleural|bronchial|peribronchial|fissural|fissure|septal|wall) (?:\w+ )?thickening",
    r"(?:vascular|venous|pulmonary) congestion|congestion",
    r"cuffing|crowding",
    r"markings",
    r"kerley(?: b)?(?: lines)?",
    r"volume loss|loss of volume|collapse[d]?",
    r"hyper-?(?:inflat|expan|lucen|aerat)\w+|hypo-?(?:inflat|aerat|ventilat)\w+",
    r"infecti\w+",
    r"contusions?|hemorrhage|aspiration|inflammat\w+",
    r"metasta\w+|malignan\w+|neoplas\w+|tumors?|carcinoma",
    r"(?:lung|pulmonary|parenchymal|airways?|cardiopulmonary) (?:\w+ )?(?:disease|process|"
    r"abnormalit\w+|changes?|findings?)",
    r"parenchymal|copd",
)
"""What counts as a finding of lung or pleura, beside the opacities of the dictionary."""

ANATOMY: tuple[str, ...] = (
    r"ventric\w+|atri\w+|heart|cardiac|coronary|aort\w+|pericardi\w*",
    r"jugular|subclavian|carotid|brachiocephalic|innominate|veins?|cava|cavoatrial|svc|ivc|"
    r"arter(?:y|ies|ial)|azygos",
    r"vasculature|vascularity|vascular(?! congestion)|vessels?|pulmonary arter\w+",
    r"extremit\w+|arms?|shoulders?|humer\w+|clavic\w+|ribs?|scapul\w+|acromi\w+|sternum|sternal",
    r"hemi-?diaphragm\w*|diaphragm\w*",
    r"breasts?|nipples?|axill\w+|neck|abd\w+|quadrants?|stomach|gastric|colon|colonic|bowel|"
    r"liver|hepatic|splen\w+|kidneys?|renal|hips?|flank|thyroid",
    r"thoracic|lumbar|cervical|dorsal|spine|spinal|vertebra\w*|disc",
    r"mediastin\w*|paramediastinal|cardiomediastin\w*|paratracheal|trache\w+|esophag\w+|carina\w*",
    r"mainstem|bronch(?:us|i|ial tree)",
    r"contours?|silhouettes?|borders?|structures?|prominence|enlargement|fullness|shadows?|"
    r"limits?|curvature|regions? (?:is|are)|lordotic|decubitus|view",
    r"lymph|nodes?|adenopathy|lymphadenopathy|calcifications?",
    r"chest wall|soft tissues?|\d+(?:st|nd|rd|th)",
    r"superior (?:vena|mediast)\w*",
)
"""What has a side or height of its own: a place said of it is not that of a lung finding."""

OTHER_THINGS: tuple[str, ...] = (
    r"catheter\w*|picc|ports?|port-?a-?\S+|portacath|lines?|tubes?|tubing|pacemakers?|pacer|"
    r"pacing|leads?|aicd|icd|defibrillator|devices?|clips?|sutures?|hardware|wires?|stents?|"
    r"valves?|prosthe\w+|anchors?|electrodes?|stimulator|tips?|staples?",
    r"fractures?|degenerat\w*|osteo\w+|spondyl\w*|arthr\w+|oss?eous|bony|bones?|skelet\w+|"
    r"scolio\w+|kypho\w+|deformit\w+|curvature|dextro\w+|levo\w+",
    r"hernia\w*|eventration",
    r"surg\w+|post-?surg\w+|post-?op\w*|thoracotomy|lobectomy|mastectomy|cabg|sternotomy",
    r"cardiomegaly|tortu\w+|ectasia|ectatic|athero\w+|aneurysm\w*|lipoma\w*|pericardial effusion",
    r"subcutaneous (?:emphysema|edema)",
)
"""What is neither lung nor a place in it; a place or quality said of it stays with it."""

_NORMAL = r"clear|normal|unremarkable|well|limits"
_LINK = (
    r"in|within|at|of|on|over|overlying|projecting|near|involving|throughout|along|to|from|and|"
    r"is|are|was|were|has|have|with|without|may|shows?|demonstrates?|seen|noted|identified|"
    r"present|remains?|appears?|which|that|there|versus|vs|or|for|concerning|suspicious|"
    r"worrisome|suggest\w*|represent\w*|reflect\w*|possibl[ey]|probabl[ey]|likely|most|could|"
    r"might|consistent|compatible|question\w*|differential|due|secondary|related|as|given|by|this|otherwise"
)

_WORD = re.compile(
    rf"(?P<other>\b(?:{'|'.join(OTHER_THINGS)})\b)"
    rf"|(?P<finding>\b(?:{'|'.join(LUNG_FINDINGS)})\b)"
    rf"|(?P<anatomy>\b(?:{'|'.join(ANATOMY)})\b)"
    rf"|(?P<normal>\b(?:{_NORMAL})\b)"
    rf"|(?P<link>\b(?:{_LINK})\b|,)"
)
_ALTERNATIVES = re.compile(r"\b(?:or|versus|vs|and/or)\b|(?<=[a-z])/(?=[a-z])")
_LIST_GAP = re.compile(r",\s*(?:\w+\s+){0,2}")
_NEARBY = re.compile(r"\W*(?:[\w-]+\s+){0,3}[\w-]*\W*")
_HAZE = re.compile(r"haziness|haze|ground[ -]?glass")
"""A quality that reports also use as the finding itself."""
_ADJOINING = re.compile(r"[\s-]*(?:lung |pulmonary |pleural |disease )?")
_REACH = 60
"""Characters within which a quality finds its finding; some eight words."""


_TYPOGRAPHY = str.maketrans({"’": "'", "‐": "-", "‑": "-", "–": "-", "—": ";"})
"""Apostrophes and dashes of word processors; one long dash parts statements."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A lung finding's words and whether it is there; `kind` is less sure among alternatives."""

    start: int
    end: int
    there: Polarity
    kind: Polarity


@dataclass(frozen=True, slots=True)
class Statement:
    """An attribute as a sentence states it."""

    attribute: Attribute
    polarity: Polarity


def statements(sentence: str) -> tuple[Statement, ...]:
    """What one sentence says of lung findings, in order; an attribute may come more than once.

    A place is stated only of findings that are not denied: "no right effusion" says nothing of the
    right.
    """
    text = sentence.lower().translate(_TYPOGRAPHY)
    mentions = find_mentions(text)
    found = scopes(text)
    marks = _marks(text, mentions)
    findings = _findings(text, mentions, marks, found)
    stated: list[Statement] = []
    for mention in mentions:
        for attribute in mention.attributes:
            polarity: Polarity | None
            if attribute in OPACITIES:
                polarity = _of_opacity(mention, findings)
            elif attribute in QUALITIES:
                finding = _finding_of_quality(text, mention, findings, marks)
                own = polarity_at(found, mention.start)
                polarity = None if finding is None else _less_sure(finding.there, own)
            else:
                finding = _finding_of_place(text, mention, findings, marks)
                polarity = None if finding is None or finding.there == "absent" else finding.there
            if polarity is not None:
                stated.append(Statement(attribute, polarity))
    return tuple(stated)


@dataclass(frozen=True, slots=True)
class _Mark:
    start: int
    end: int
    kind: str


def _marks(text: str, mentions: tuple[Mention, ...]) -> tuple[_Mark, ...]:
    """Anatomy, other things, links and plain normality, where no attribute or finding stands."""
    taken = [(mention.start, mention.end) for mention in mentions]
    marks = []
    for match in _WORD.finditer(text):
        overlaps = any(start < match.end() and match.start() < end for start, end in taken)
        if not overlaps:
            marks.append(_Mark(match.start(), match.end(), match.lastgroup or ""))
    return tuple(marks)


def _findings(
    text: str, mentions: tuple[Mention, ...], marks: tuple[_Mark, ...], found: tuple[Scope, ...]
) -> tuple[Finding, ...]:
    spans = [(mark.start, mark.end) for mark in marks if mark.kind == "finding"]
    spans += [
        (mention.start, mention.end)
        for mention in mentions
        if (
            any(attribute in OPACITIES for attribute in mention.attributes)
            or _HAZE.fullmatch(text, mention.start, mention.end)
        )
        and not _belongs_elsewhere(text, mention, marks)
    ]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and _ADJOINING.fullmatch(text, joined[-1][1], start):
            joined[-1] = (joined[-1][0], end)
        elif not joined or start >= joined[-1][1]:
            joined.append((start, end))
    findings = []
    for start, end in joined:
        polarity = polarity_at(found, start)
        findings.append(Finding(start, end, polarity, polarity))
    return _with_alternatives(text, findings)


def _belongs_elsewhere(text: str, opacity: Mention, marks: tuple[_Mark, ...]) -> bool:
    """Whether the word before names another thing: a bony density, a mediastinal opacity."""
    return any(
        mark.kind in ("anatomy", "other") and not text[mark.end : opacity.start].strip()
        for mark in marks
        if mark.end <= opacity.start
    )


def _with_alternatives(text: str, findings: list[Finding]) -> tuple[Finding, ...]:
    """Findings joined by "or" or "versus", unless denied, are each uncertain in kind.

    Of a list only with a comma before the "or" too: "opacity, scar or infiltrate" explains the
    opacity, "infiltrate, scar, or edema" doubts it.
    """
    doubted: set[int] = set()
    for word in _ALTERNATIVES.finditer(text):
        before = [n for n, finding in enumerate(findings) if finding.end <= word.start()]
        after = [n for n, finding in enumerate(findings) if finding.start >= word.end()]
        if not before or not after:
            continue
        left, right = before[-1], after[0]
        if "absent" in (findings[left].there, findings[right].there):
            continue
        close = len(text[findings[left].end : word.start()].split()) <= 6
        if close and _NEARBY.fullmatch(text, word.end(), findings[right].start):
            doubted |= {left, right}
            serial = "," in text[findings[left].end : word.start()]
            while (
                serial
                and left > 0
                and _LIST_GAP.fullmatch(text, findings[left - 1].end, findings[left].start)
            ):
                left -= 1
                doubted.add(left)
    return tuple(
        replace(finding, kind="uncertain")
        if number in doubted and finding.kind == "present"
        else finding
        for number, finding in enumerate(findings)
    )


def _of_opacity(mention: Mention, findings: tuple[Finding, ...]) -> Polarity | None:
    for finding in findings:
        if finding.start <= mention.start < finding.end:
            return finding.kind
    return None


def _finding_of_quality(
    text: str, mention: Mention, findings: tuple[Finding, ...], marks: tuple[_Mark, ...]
) -> Finding | None:
    """The finding that follows in the same phrase, else the one before: "opacities are patchy"."""
    ahead = [f for f in findings if f.end >= mention.end]
    stops = [
        mark
        for mark in marks
        if mark.start >= mention.end and (mark.kind in ("other", "anatomy", "normal"))
    ]
    first_stop = stops[0].start if stops else len(text)
    if ahead and ahead[0].start < min(first_stop, mention.end + _REACH):
        between = text[mention.end : ahead[0].start]
        if not re.search(r"[;:]|\b(?:is|are|was|were|with|without|there|but(?! also))\b", between):
            return ahead[0]
    clause = _clause_end(text, mention.end)
    if first_stop < clause and not re.search(
        r"\b(?:in|within|at|over|along|near|involving|throughout|and|,)\b",
        text[mention.end : first_stop],
    ):
        return None
    behind = [f for f in findings if f.end <= mention.start and f.end > mention.start - _REACH]
    if not behind or _clause_start(text, mention.start) > behind[-1].start:
        return None
    crossed = [m for m in marks if behind[-1].end <= m.start < mention.start]
    return None if any(m.kind == "other" for m in crossed) else behind[-1]


def _finding_of_place(
    text: str, mention: Mention, findings: tuple[Finding, ...], marks: tuple[_Mark, ...]
) -> Finding | None:
    """The finding of the same phrase ("left basilar opacity"), else before it, else after it."""
    start, end = _clause_start(text, mention.start), _clause_end(text, mention.end)
    ahead = [f for f in findings if f.start >= mention.start and f.start < end]
    behind = [f for f in findings if f.end <= mention.start and f.start >= start]
    first = next((mark for mark in marks if mark.start >= mention.end), None)
    elsewhere = first is not None and first.kind in ("anatomy", "other")
    if first is not None and elsewhere and not (ahead and ahead[0].start < first.start):
        return None
    phrase_end = first.start if first is not None and first.kind != "finding" else end
    if ahead and ahead[0].start < phrase_end:
        return ahead[0]
    if behind:
        crossed = [m.kind for m in marks if behind[-1].end <= m.start < mention.start]
        if "other" not in crossed and "normal" not in crossed:
            return behind[-1]
    if ahead:
        crossed = [m.kind for m in marks if mention.end <= m.start < ahead[0].start]
        if "other" not in crossed and "normal" not in crossed:
            return ahead[0]
    return None


def _clause_start(text: str, place: int) -> int:
    return max(start for start in clause_starts(text) if start <= place)


def _clause_end(text: str, place: int) -> int:
    return min((start for start in clause_starts(text) if start > place), default=len(text))


_CERTAINTY: tuple[Polarity, ...] = ("present", "uncertain", "absent")


def _less_sure(one: Polarity, other: Polarity) -> Polarity:
    return max(one, other, key=_CERTAINTY.index)
