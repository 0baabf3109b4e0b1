"""The numbers of a study: pure functions of judgements.

Preferences are counted from first showings alone; repeats tell how constant a reader is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from dwarf_cxr.evaluation.kappa import cohen_kappa, fleiss_kappa
from dwarf_cxr.study.answers import QUESTIONS
from dwarf_cxr.study.bradley_terry import log_strengths, standard_errors
from dwarf_cxr.study.clustered import (
    Interval,
    around,
    bootstrap,
    bootstrap_share,
    clustered_wilson,
    design_effect,
    patient_weights,
)
from dwarf_cxr.study.judgements import OUTCOMES, Judgement, outcomes_of
from dwarf_cxr.study.preference import (
    FEWEST_DECIDED,
    Counts,
    binomial_p,
    clusters_of,
    count,
    decided_needed,
    wilson,
)

ALL = "all"


@dataclass(frozen=True)
class Preference:
    """How two runs compare by one question, in one group of answers."""

    first: str
    second: str
    question: str
    group: str
    """`all`, `reader` or `finding`."""
    name: str
    """Of the reader or the finding; empty for all."""
    films: int
    patients: int
    """Of the films; as many as those where the key does not tell patients."""
    counts: Counts
    interval: Interval | None
    """Of the share without ties: clustered Wilson; None without a decided answer."""
    bootstrap: Interval | None
    plain: Interval | None
    """Wilson's interval as if all answers were independent."""
    p: float | None
    """Exact binomial test, as if all decided answers were independent."""
    half_interval: Interval | None
    """Of the share with ties counted half, by the bootstrap."""


@dataclass(frozen=True)
class Needed:
    """How many answers would find the share that was seen."""

    first: str
    second: str
    counts: Counts
    """What was seen."""
    decided: int | None
    """Independent decided answers; None where too few were given to plan from, and where no number
    up to 100,000 would do."""
    total: int | None
    """Answers, with this study's ties and design effect."""
    design_effect: float


@dataclass(frozen=True)
class Agreement:
    """How far readers agree on one question about two runs."""

    first: str
    second: str
    question: str
    readers: tuple[str, ...]
    kappa: float | None
    interval: Interval | None
    same: int
    """Comparisons of which all these readers said the same."""
    comparisons: int

    @property
    def kind(self) -> str:
        """Whose kappa it is."""
        return "Cohen" if len(self.readers) == 2 else "Fleiss"


@dataclass(frozen=True)
class Consistency:
    """A reader's answers to what they were shown twice."""

    reader: str
    question: str
    same: int
    repeats: int
    interval: Interval | None
    kappa: float | None


@dataclass(frozen=True)
class SideBias:
    """Whether the left map was preferred because it was on the left."""

    reader: str
    """Empty for all."""
    left: int
    right: int
    interval: Interval | None
    p: float | None


@dataclass(frozen=True)
class Strength:
    """A run's strength among more than two, by the overall preference."""

    run: str
    log_strength: float | None
    interval: Interval | None
    """None where it cannot be told: of one patient, or of patients that are all alike."""


def _answered(
    judged: Sequence[Judgement], first: str, second: str, question: str
) -> list[Judgement]:
    """What was said of two runs by a question; a comparison shown again does not count twice."""
    return [
        one
        for one in judged
        if (one.first, one.second) == (first, second)
        and not one.repeat
        and question in one.outcomes
    ]


def preferences(
    judged: Sequence[Judgement], findings: Sequence[str], *, draws: int, seed: int
) -> list[Preference]:
    """Every two runs, by every question answered: all answers, each reader's, each finding's."""
    rows = []
    for first, second in pairs(judged):
        for question in QUESTIONS:
            its = _answered(judged, first, second, question)
            if not its:
                continue
            groups = [(ALL, "", its)]
            for reader in dict.fromkeys(one.reader for one in its):
                groups.append(("reader", reader, [one for one in its if one.reader == reader]))
            for finding in findings:
                if members := [one for one in its if one.finding == finding]:
                    groups.append(("finding", finding, members))
            rows += [
                _preference(first, second, question, group, name, members, draws, seed)
                for group, name, members in groups
            ]
    return rows


def pairs(judged: Sequence[Judgement]) -> list[tuple[str, str]]:
    """Every two runs that were compared."""
    return list(dict.fromkeys((one.first, one.second) for one in judged))


def _preference(
    first: str,
    second: str,
    question: str,
    group: str,
    name: str,
    judged: Sequence[Judgement],
    draws: int,
    seed: int,
) -> Preference:
    outcomes = outcomes_of(judged, question)
    counts = count(outcomes)
    won, decided, total = by_patient(judged, question)
    weights = patient_weights(len(total), draws, seed) if len(total) else None
    half = won + (total - decided) / 2
    return Preference(
        first=first,
        second=second,
        question=question,
        group=group,
        name=name,
        films=len({one.film for one in judged}),
        patients=len(total),
        counts=counts,
        interval=clustered_wilson(won, decided) if counts.decided else None,
        bootstrap=None if weights is None else bootstrap_share(won, decided, weights),
        plain=Interval(*wilson(counts.first, counts.decided)) if counts.decided else None,
        p=binomial_p(counts.first, counts.decided) if counts.decided else None,
        half_interval=None if weights is None else bootstrap_share(half, total, weights),
    )


def by_patient(
    judged: Sequence[Judgement], question: str
) -> tuple[
    Float[np.ndarray, "patient"], Float[np.ndarray, "patient"], Float[np.ndarray, "patient"]
]:
    """For each patient: answers for the first run, decided answers, all answers."""
    patients = clusters_of([one.patient for one in judged])
    outcomes = outcomes_of(judged, question)
    size = int(patients.max()) + 1 if len(patients) else 0
    won, decided, total = (
        np.bincount(patients, weights=kept, minlength=size).astype(np.float64)
        for kept in (outcomes == 1, outcomes != 0, np.ones(len(outcomes), dtype=bool))
    )
    return won, decided, total


def needed(judged: Sequence[Judgement]) -> list[Needed]:
    """For every two runs, by the overall preference."""
    rows = []
    for first, second in pairs(judged):
        its = _answered(judged, first, second, "overall")
        counts = count(outcomes_of(its, "overall"))
        won, decided, _ = by_patient(its, "overall")
        effect = design_effect(won, decided)
        least = None
        if counts.share is not None and counts.decided >= FEWEST_DECIDED:
            least = decided_needed(counts.share)
        total = None
        if least is not None:
            total = math.ceil(least * effect * counts.total / counts.decided)
        rows.append(Needed(first, second, counts, least, total, effect))
    return rows


def agreements(judged: Sequence[Judgement], *, draws: int, seed: int) -> list[Agreement]:
    """Cohen's kappa of every two readers; of more than two also Fleiss', of what all answered."""
    readers = list(dict.fromkeys(one.reader for one in judged))
    groups: list[tuple[str, ...]] = list(combinations(readers, 2))
    if len(readers) > 2:
        groups.append(tuple(readers))
    rows = []
    for first, second in pairs(judged):
        for question in QUESTIONS:
            its = _answered(judged, first, second, question)
            rows += [
                _agreement(first, second, question, group, its, draws, seed) for group in groups
            ]
    return rows


def _agreement(
    first: str,
    second: str,
    question: str,
    readers: tuple[str, ...],
    judged: Sequence[Judgement],
    draws: int,
    seed: int,
) -> Agreement:
    said: dict[str, dict[str, int]] = {}
    patient_of = {}
    for one in judged:
        if one.reader in readers:
            said.setdefault(one.comparison_id, {})[one.reader] = one.outcomes[question]
            patient_of[one.comparison_id] = one.patient
    shared = [name for name, answers in said.items() if len(answers) == len(readers)]
    said_by_all = [[said[name][reader] for reader in readers] for name in shared]
    answers = np.array(said_by_all, dtype=np.int64).reshape(len(shared), len(readers))
    kappa = _kappa(answers)
    interval = None
    if not math.isnan(kappa):
        patients = clusters_of([patient_of[name] for name in shared])
        weights = patient_weights(int(patients.max()) + 1, draws, seed)
        interval = bootstrap(
            lambda draw: _kappa(np.repeat(answers, draw[patients], axis=0)), weights
        )
    same = int((answers == answers[:, :1]).all(axis=1).sum()) if len(shared) else 0
    return Agreement(
        first,
        second,
        question,
        readers,
        None if math.isnan(kappa) else kappa,
        interval,
        same,
        len(shared),
    )


def _kappa(answers: Int[np.ndarray, "comparison reader"]) -> float:
    """Cohen's kappa of two readers, Fleiss' of more."""
    if answers.shape[1] > 2:
        return fleiss_kappa(np.stack([(answers == one).sum(axis=1) for one in OUTCOMES], axis=1))
    table = [
        [int(((answers[:, 0] == one) & (answers[:, 1] == two)).sum()) for two in OUTCOMES]
        for one in OUTCOMES
    ]
    return cohen_kappa(np.array(table))


def consistencies(judged: Sequence[Judgement]) -> list[Consistency]:
    """Every reader who was shown something twice, by every question."""
    rows = []
    for reader in dict.fromkeys(one.reader for one in judged):
        before = {
            one.comparison_id: one for one in judged if one.reader == reader and not one.repeat
        }
        again = [one for one in judged if one.reader == reader and one.repeat]
        for question in QUESTIONS:
            both = [
                (before[one.comparison_id].outcomes[question], one.outcomes[question])
                for one in again
                if one.comparison_id in before
                and question in one.outcomes
                and question in before[one.comparison_id].outcomes
            ]
            if not both:
                continue
            same = sum(one == two for one, two in both)
            kappa = _kappa(np.array(both))
            rows.append(
                Consistency(
                    reader,
                    question,
                    same,
                    len(both),
                    Interval(*wilson(same, len(both))),
                    None if math.isnan(kappa) else kappa,
                )
            )
    return rows


def side_biases(judged: Sequence[Judgement]) -> list[SideBias]:
    """Left against right by the overall preference, repeats included: of all, and of each reader.

    Sides are balanced, so that a preference between runs does not make one between sides.
    """
    rows = []
    for reader in ("", *dict.fromkeys(one.reader for one in judged)):
        sides = [
            one.left("overall")
            for one in judged
            if "overall" in one.outcomes and reader in ("", one.reader)
        ]
        left, right = sides.count(1), sides.count(-1)
        decided = left + right
        rows.append(
            SideBias(
                reader,
                left,
                right,
                Interval(*wilson(left, decided)) if decided else None,
                binomial_p(left, decided) if decided else None,
            )
        )
    return rows


def strengths(judged: Sequence[Judgement], runs: Sequence[str]) -> list[Strength]:
    """Bradley-Terry strengths by the overall preference; empty for two runs.

    Intervals are by standard errors that know the patients, with Student's t. A bootstrap serves
    less: of strengths far apart, many of its draws have no maximum.
    """
    if len(runs) < 3:
        return []
    its = [one for one in judged if not one.repeat and "overall" in one.outcomes]
    patients = clusters_of([one.patient for one in its])
    size = int(patients.max()) + 1 if len(patients) else 0
    wins = np.zeros((size, len(runs), len(runs)))
    for patient, one in zip(patients, its, strict=True):
        first, second = runs.index(one.first), runs.index(one.second)
        share = (one.outcomes["overall"] + 1) / 2
        wins[patient, first, second] += share
        wins[patient, second, first] += 1 - share
    found = log_strengths(wins.sum(axis=0)) if size else None
    if found is None:
        return [Strength(run, None, None) for run in runs]
    errors = standard_errors(wins, found)
    return [
        Strength(run, float(found[number]), around(float(found[number]), float(error), size))
        for number, (run, error) in enumerate(zip(runs, errors, strict=True))
    ]
