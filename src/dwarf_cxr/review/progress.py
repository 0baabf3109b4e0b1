"""How far a review is, and how well its readers agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from dwarf_cxr.data.records import Finding
from dwarf_cxr.review.agreement import Difference, verdict_kappa
from dwarf_cxr.review.annotation import NOTHING
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.standing import Said, Standing, Words


@dataclass(frozen=True)
class ReaderProgress:
    """How far one reader is."""

    reader: str
    done: int
    """Films with a verdict on every finding."""
    begun: int
    """Films with a verdict on some."""
    films: int
    """To be read; of the adjudicator those on which readers disagree."""


@dataclass(frozen=True)
class FindingAgreement:
    """How well two readers agree on a finding."""

    finding: Finding
    readers: tuple[str, str]
    films: int
    """That both gave a verdict on."""
    agreed: int
    """With the same verdict."""
    kappa: float | None
    """Cohen's; None where chance alone agrees always."""
    mean_iou: float | None
    """Over films where both call it present and either marked a region."""
    compared: int
    """Those films."""


@dataclass(frozen=True)
class Dispute:
    """A finding of a film on which two readers differ so that a third must decide."""

    finding: Finding
    why: Difference
    is_decided: bool


def readers_of(review: Review, ledger: Ledger) -> tuple[str, ...]:
    """All readers but the adjudicator: those invited, and those who said something."""
    third = review.settings.adjudicator
    names = dict.fromkeys([*review.settings.readers, *ledger.readers()])
    return tuple(name for name in names if name != third)


def progress(
    review: Review, ledger: Ledger, standing: Standing | None = None
) -> tuple[ReaderProgress, ...]:
    """How far every reader is, the adjudicator last."""
    told = [
        _progress_of(reader, review.settings.films, review, ledger)
        for reader in readers_of(review, ledger)
    ]
    third = review.settings.adjudicator
    if third is not None:
        open_cases = disputes(review, ledger, standing)
        decided = [all(one.is_decided for one in its) for its in open_cases.values()]
        some = [any(one.is_decided for one in its) for its in open_cases.values()]
        told.append(ReaderProgress(third, sum(decided), sum(some) - sum(decided), len(open_cases)))
    return tuple(told)


def _progress_of(
    reader: str, films: Sequence[int], review: Review, ledger: Ledger
) -> ReaderProgress:
    verdicts = ledger.verdicts(reader, review.settings.findings)
    counts = np.array([verdicts.get(film, 0) for film in films], dtype=np.int64)
    whole = len(review.settings.findings)
    return ReaderProgress(
        reader,
        int((counts >= whole).sum()),
        int(((counts > 0) & (counts < whole)).sum()),
        len(films),
    )


def disputes(
    review: Review, ledger: Ledger, standing: Standing | None = None
) -> dict[int, tuple[Dispute, ...]]:
    """What needs a third opinion, by film; the films with most of it first, then as queued."""
    standing = Standing(review, ledger) if standing is None else standing
    readers, third = readers_of(review, ledger), review.settings.adjudicator
    found: dict[int, list[Dispute]] = {}
    for finding, said in standing.said().items():
        work_out = partial(_disputes_on, standing, finding, said, readers, third)
        for film, dispute in standing.once(("disputes", finding, readers, third), said, work_out):
            found.setdefault(film, []).append(dispute)
    place = {film: number for number, film in enumerate(review.settings.films)}
    order = sorted(found, key=lambda film: (-len(found[film]), place.get(film, len(place)), film))
    return {film: tuple(found[film]) for film in order}


def _disputes_on(
    standing: Standing, finding: Finding, said: Said, readers: tuple[str, ...], third: str | None
) -> list[tuple[int, Dispute]]:
    found = []
    for film, words in said.items():
        why = _widest(standing, finding, film, words, readers)
        if why is not None and why.matters:
            is_decided = third is not None and words.get(third, NOTHING).verdict is not None
            found.append((film, Dispute(finding, why, is_decided)))
    return found


def _widest(
    standing: Standing, finding: Finding, film: int, words: Words, readers: Sequence[str]
) -> Difference | None:
    """The difference of the two readers who are furthest apart."""
    given = [name for name in readers if name in words]
    all_of_them = [
        why
        for one, other in combinations(given, 2)
        if (why := standing.difference(finding, film, words, one, other)) is not None
    ]
    return min(
        all_of_them,
        key=lambda why: (not why.verdicts, 1.0 if why.iou is None else why.iou),
        default=None,
    )


def agreement(
    review: Review, ledger: Ledger, standing: Standing | None = None
) -> tuple[FindingAgreement, ...]:
    """How well every two readers agree on every finding that both have read."""
    standing = Standing(review, ledger) if standing is None else standing
    rows = []
    for pair in combinations(readers_of(review, ledger), 2):
        for finding, said in standing.said().items():
            work_out = partial(_agreement_on, standing, finding, said, pair)
            row = standing.once(("agreement", finding, pair), said, work_out)
            if row.films:
                rows.append(row)
    return tuple(rows)


def _agreement_on(
    standing: Standing, finding: Finding, said: Said, pair: tuple[str, str]
) -> FindingAgreement:
    verdicts, overlaps = [], []
    for film, words in said.items():
        one, other = (words.get(reader, NOTHING) for reader in pair)
        if one.verdict is None or other.verdict is None:
            continue
        verdicts.append((one.verdict, other.verdict))
        how = standing.difference(finding, film, words, *pair)
        if how is not None and how.iou is not None:
            overlaps.append(how.iou)
    return FindingAgreement(
        finding=finding,
        readers=pair,
        films=len(verdicts),
        agreed=sum(one == other for one, other in verdicts),
        kappa=verdict_kappa(verdicts),
        mean_iou=float(np.mean(overlaps)) if overlaps else None,
        compared=len(overlaps),
    )
