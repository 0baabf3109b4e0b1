"""How far a review is, and how well its readers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dwarf_cxr.data.records import Finding
from dwarf_cxr.review.agreement import Difference, decide, difference, verdict_kappa
from dwarf_cxr.review.annotation import NOTHING, Assessment
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.ledger import Ledger

Said = Mapping[tuple[int, Finding], Mapping[str, Assessment]]


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


def progress(review: Review, ledger: Ledger) -> tuple[ReaderProgress, ...]:
    """How far every reader is, the adjudicator last."""
    told = [
        _progress_of(reader, review.settings.films, review, ledger)
        for reader in readers_of(review, ledger)
    ]
    third = review.settings.adjudicator
    if third is not None:
        open_cases = disputes(review, ledger)
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


def disputes(review: Review, ledger: Ledger) -> dict[int, tuple[Dispute, ...]]:
    """What needs a third opinion, by film; the films with most of it first, then as queued."""
    readers, third = readers_of(review, ledger), review.settings.adjudicator
    found: dict[int, list[Dispute]] = {}
    for (film, finding), said in ledger.said().items():
        if finding not in review.settings.findings:
            continue
        why = _widest(said, readers, review.frame(film))
        if why is not None and why.matters:
            decided = decide(said, readers, third)
            is_decided = third is not None and decided is not None and decided.readers == (third,)
            found.setdefault(film, []).append(Dispute(finding, why, is_decided))
    place = {film: number for number, film in enumerate(review.settings.films)}
    order = sorted(found, key=lambda film: (-len(found[film]), place.get(film, len(place)), film))
    rank = {finding: number for number, finding in enumerate(review.settings.findings)}
    return {
        film: tuple(sorted(found[film], key=lambda one: rank.get(one.finding, len(rank))))
        for film in order
    }


def _widest(
    said: Mapping[str, Assessment], readers: Sequence[str], frame: tuple[int, int]
) -> Difference | None:
    """The difference of the two readers who are furthest apart."""
    given = [said[name] for name in readers if name in said]
    all_of_them = [
        why
        for one, other in combinations(given, 2)
        if (why := difference(one, other, frame)) is not None
    ]
    return min(
        all_of_them,
        key=lambda why: (not why.verdicts, 1.0 if why.iou is None else why.iou),
        default=None,
    )


def agreement(review: Review, ledger: Ledger) -> tuple[FindingAgreement, ...]:
    """How well every two readers agree on every finding that both have read."""
    said, rows = ledger.said(), []
    for pair in combinations(readers_of(review, ledger), 2):
        for finding in review.settings.findings:
            row = _agreement_on(finding, pair, said, review)
            if row.films:
                rows.append(row)
    return tuple(rows)


def _agreement_on(
    finding: Finding, pair: tuple[str, str], said: Said, review: Review
) -> FindingAgreement:
    verdicts, overlaps = [], []
    for (film, name), its in said.items():
        one, other = (its.get(reader, NOTHING) for reader in pair)
        if name != finding or one.verdict is None or other.verdict is None:
            continue
        verdicts.append((one.verdict, other.verdict))
        how = difference(one, other, review.frame(film))
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
