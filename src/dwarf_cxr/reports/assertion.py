"""Whether a sentence affirms, denies or doubts what it names: NegEx's rules, for radiology.

After Chapman et al., A simple algorithm for identifying negated findings and diseases in discharge
summaries (2001): a cue ("no", "has resolved", "may represent") acts on the words after it or before
it, up to a word that ends its scope ("but"); phrases that only look like a cue ("no change in")
come first and act on nothing. Where several cues reach a word, the nearest before it decides, else
the one behind it.

Decisions:

- "suggests", "likely", "probable", "favored", "concerning for" are uncertain; "suggests" and
  "concerning for" change nothing that is denied already ("no finding to suggest").
- "consistent with" and "compatible with" affirm.
- "resolving" and "improved" are still present, "resolved" and "cleared" absent, "unlikely" too.
- "no new" and "no other" are absent: what is old is said elsewhere.
- Alternatives ("atelectasis or infiltrate", "versus") are each uncertain, although something is
  there; `phrases.py` sees to that.
"""

import re
from dataclasses import dataclass
from typing import Literal

Polarity = Literal["present", "absent", "uncertain"]

_SEEN = (
    r"(?:clearly |definitely |definitively |well )?(?:seen|identified|visuali[sz]ed|appreciated|"
    r"evident|present|noted|demonstrated|detected|found|observed|apparent|visible|recogni[sz]ed)"
)
_DEGREE = (
    r"(?:(?:significant|significantly|substantial|substantially|appreciable|definite|definitely|"
    r"interval|convincing|great|much|acute|other|obvious|suspicious|radiographic|overt|"
    r"x+) )*"
)

_CAUSED = r" (?:due|secondary|related) to"
_CLOSES = r"(?=\W*(?:$|[.,;]|(?:and|in|on|at|within|given|but)\b))"

LOOKS_LIKE_A_CUE: tuple[str, ...] = (
    rf"(?:no|not|without|nor) {_DEGREE}(?:change[sd]?|increased?|decreased?|improvement|improved|"
    r"progression|difference|worsening|worsened|different)(?: in| of| from| since)?",
    r"not only",
    r"not necessarily",
    r"no longer as",
    r"not (?:well|fully|completely|adequately|optimally|entirely|as well) "
    r"(?:seen|visuali[sz]ed|evaluated|defined|assessed|demonstrated)",
    r"(?:not|incompletely|partially|nearly|almost|near|mostly|largely) (?:completely |fully )?"
    r"(?:resolved|cleared)",
    r"(?:partial|near|incomplete)[ -]?(?:complete |total )?(?:resolution|clearing)(?: of)?",
    r"likely (?:unchanged|stable)",
    r"or (?:so|greater|less|more)",
)
"""Phrases that would else be read as negation or doubt."""

DENIES_AFTER: tuple[str, ...] = (
    r"no",
    r"without(?: any)?",
    r"nor",
    r"neither",
    r"never",
    r"(?:free|clear) of",
    r"negative for",
    r"absence of",
    r"lack of",
    r"(?:complete |interval )*(?:resolution|clearing) of",
    r"(?:do|does|did|is|are|was|were) not (?:show|demonstrate|have|reveal|see|identify|suggest|"
    r"indicate|contain|represent|any)",
    r"not any",
    r"rather than",
    r"instead of",
    r"(?:has|have) no",
    r"ruled out for",
)
"""Cues that deny what follows."""

DENIES_SOON_AFTER: tuple[str, ...] = (r"not", r"non", r"unlikely", r"resolved", r"cleared")
"""Cues that deny no more than the next four words."""

DENIES_BEFORE: tuple[str, ...] = (
    rf"(?:is |are |was |were |has been |have been )?(?:not|no longer|never) (?:been )?{_SEEN}",
    r"(?:is|are|was|were|has|have)(?: now| since)? (?:been )?(?:completely |fully |since |now |"
    r"essentially |interval )*(?:resolved|cleared|disappeared|gone)",
    r"(?:has|have) been ruled out",
    r"(?:is|are) (?:ruled out|absent|excluded|unlikely)",
    r"(?:is|are|appears?|remains?) (?:\w+ )?(?:normal|unremarkable|within normal limits|"
    r"clear(?! of\b))",
    r"within normal limits",
    rf"(?:felt |thought |considered )?unlikely{_CLOSES}",
)
"""Cues that deny what precedes."""

DOUBTS_AFTER: tuple[str, ...] = (
    rf"(?:may|might|could|would|possibly|probably|(?:most |less |more )?likely)(?: \w+)?{_CAUSED}",
    r"may|might|could|would",
    r"possib(?:le|ly|ility of)",
    r"probab(?:le|ly)",
    r"(?:most |less |more )?likely",
    r"perhaps",
    r"presumed|presumably",
    r"suspect(?:ed|s)?",
    r"suspicion (?:of|for)",
    r"questionable|questioned|question(?: of)?",
    r"equivocal",
    r"(?:can ?not|can't|could not|unable to|difficult to)(?: \w+)? ?(?:exclude|rule out)",
    r"(?:not|difficult to|cannot) (?:\w+ )?(?:exclude|rule out)",
    r"(?:to|evaluate to) (?:exclude|rule out)",
    r"rule out",
    r"r/o",
    r"evaluate for|evaluation for|assess for",
    r"differential(?: diagnosis| considerations?)?(?: include[sd]?| is)?",
    r"consider(?:ations?)?",
    r"favor(?:ed|s)?",
    r"if",
    r"appears? to (?:represent|reflect)",
    r"(?:raises?|raising) (?:the )?(?:possibility|question|concern|suspicion)(?: of| for)?",
)
"""Cues that doubt what follows."""

SUGGESTS: tuple[str, ...] = (
    r"suggest(?:s|ing|ed|ive of|ion of)?",
    r"(?:concern|concerning|suspicious|worrisome) (?:for|of)",
    r"indicat(?:e|ive of)",
)
"""Cues that doubt what follows, unless they are denied themselves."""

DOUBTS_BEFORE: tuple[str, ...] = (
    r"(?:is|are)?\s?(?:not|cannot be|can ?not be|can't be|could not be|not be)"
    r"(?: \w+)? ?(?:excluded|ruled out)",
    r"(?:not|difficult to) (?:entirely |completely )?(?:exclude|rule out)(?=\W*$)",
    r"(?:is|are|remains?) (?:also )?(?:possible|probable|suspected|questioned|questionable|likely|"
    r"a (?:possibility|consideration|concern)|considered|in the differential|"
    rf"(?:less|more|most) likely){_CLOSES}",
    r"(?:could|may|might|should) (?:also )?(?:be (?:present|considered|possible)|have this \w+)",
    r"difficult to exclude(?=\W*$)",
)
"""Cues that doubt what precedes."""

ENDS_SCOPE: tuple[str, ...] = (
    r"but(?! also)",
    r"otherwise",
    r"however",
    r"although",
    r"though",
    r"except(?: for)?",
    r"aside from",
    r"apart from",
    r"other than",
    r"while",
    r"whereas",
    r"yet",
    r"which",
    r"because",
    r"secondary to",
    r"due to",
    r"with",
    r"there (?:is|are|has|have)",
    r"is|are|was|were|has|have|had|remains?|shows?|demonstrates?|persists?",
)
"""Words at which a cue's reach forward ends, as it does at a semicolon, colon or bracket."""

_CLAUSE = re.compile(
    r"[;:()]|\b(?:but(?! also)|otherwise|however|although|though|except(?: for)?|"
    r"aside from|apart from|other than|while|whereas|there (?:is|are|has|have))\b"
)
"""Where one statement ends and another begins, in both directions."""

_VERB = re.compile(
    r"(?<!that )(?<!which )\b(?:is|are|was|were|has|have|remains?|shows?|demonstrates?|with)\b"
)
_NEW_SUBJECT = re.compile(
    r",\s*(?:and |with )?(?:the|there|a|an|stable|unchanged|persistent|increased|increasing|"
    r"decreased|improved|again|mild|minimal|moderate|scattered|residual|likely|probable|"
    r"bibasilar|left|right|bilateral)\b(?!.*\b(?:or|nor)\b)"
    r"|\band (?:the|there|stable|unchanged|persistent|increased|improved|mild|minimal|patchy|"
    r"scattered|residual|bibasilar|lungs?)\b"
)
"""Words that begin a statement of its own: after "and", or after a comma if no "or" follows."""

_ENDS = re.compile(rf"[;:()]|\b(?:{'|'.join(ENDS_SCOPE)})\b|{_NEW_SUBJECT.pattern}")
_GROUPS = {
    "none": LOOKS_LIKE_A_CUE,
    "doubts_before": DOUBTS_BEFORE,
    "denies_before": DENIES_BEFORE,
    "doubts_after": DOUBTS_AFTER,
    "denies_after": DENIES_AFTER,
    "suggests": SUGGESTS,
    "denies_soon": DENIES_SOON_AFTER,
}
_CUE = re.compile(
    "|".join(
        rf"(?P<{name}>(?<![\w-])(?:{'|'.join(patterns)})(?![\w]))"
        for name, patterns in _GROUPS.items()
    )
)
_SOON = re.compile(r"(?:\W*[\w'-]+){1,4}")


@dataclass(frozen=True, slots=True)
class Scope:
    """Characters `start` to `end` of a sentence and what a cue makes of them."""

    start: int
    end: int
    polarity: Polarity
    after: bool
    """Whether the cue stands before these characters."""


def scopes(sentence: str) -> tuple[Scope, ...]:
    """What every cue of the sentence reaches."""
    text = sentence.lower()
    found: list[Scope] = []
    for cue in _CUE.finditer(text):
        kind = cue.lastgroup
        if kind == "suggests" and polarity_at(found, cue.start()) == "absent":
            continue
        if kind in ("doubts_before", "denies_before"):
            polarity: Polarity = "uncertain" if kind == "doubts_before" else "absent"
            found.append(Scope(_reach_back(text, cue.start()), cue.start(), polarity, False))
        elif kind in ("doubts_after", "suggests"):
            found.append(Scope(cue.end(), _reach(text, cue.end()), "uncertain", True))
        elif kind in ("denies_after", "denies_soon"):
            end = _reach(text, cue.end())
            soon = _SOON.match(text, cue.end())
            if kind == "denies_soon":
                end = min(end, soon.end() if soon else cue.end())
            found.append(Scope(cue.end(), end, "absent", True))
    return tuple(found)


def polarity_at(found: tuple[Scope, ...] | list[Scope], place: int) -> Polarity:
    """What the sentence says of the word that begins at `place`."""
    behind = [scope for scope in found if not scope.after and scope.start <= place < scope.end]
    if any(scope.polarity == "absent" for scope in behind):
        return "absent"
    before = [scope for scope in found if scope.after and scope.start <= place < scope.end]
    if before:
        return max(before, key=lambda scope: scope.start).polarity
    return behind[0].polarity if behind else "present"


def clause_starts(sentence: str) -> tuple[int, ...]:
    """Places at which a statement of its own begins, the first being 0."""
    return (0, *(end.end() for end in _CLAUSE.finditer(sentence.lower())))


def _reach(text: str, start: int) -> int:
    end = _ENDS.search(text, start)
    return end.start() if end else len(text)


def _reach_back(text: str, end: int) -> int:
    """The last clause or verb before `end`: what "has resolved" is said of."""
    starts = [0]
    starts += [match.end() for match in _CLAUSE.finditer(text, 0, end)]
    starts += [match.end() for match in _VERB.finditer(text, 0, end)]
    starts += [match.start() for match in _NEW_SUBJECT.finditer(text, 0, end)]
    return max(starts)
