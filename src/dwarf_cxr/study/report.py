"""`dwarf study report`: tables for a person, for a spreadsheet, and one page for a browser."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import write_csv, write_text
from dwarf_cxr.reporting.page import page_environment
from dwarf_cxr.study.analysis import (
    ALL,
    Agreement,
    Consistency,
    Needed,
    Preference,
    SideBias,
    Strength,
    agreements,
    consistencies,
    needed,
    preferences,
    side_biases,
    strengths,
)
from dwarf_cxr.study.answers import (
    QUESTIONS,
    Answer,
    Given,
    Item,
    Progress,
    Reader,
    all_given,
    open_answers,
    progress_of,
)
from dwarf_cxr.study.cells import safe_cell
from dwarf_cxr.study.clustered import Interval
from dwarf_cxr.study.folder import Key, Study, read_key
from dwarf_cxr.study.judgements import Judgement, judgements
from dwarf_cxr.study.preference import FEWEST_DECIDED, MOST_NEEDED
from dwarf_cxr.web.store import reading

NO = "—"


@dataclass(frozen=True)
class StudyReport:
    """Everything that a report says."""

    study: Study
    key: Key
    progress: tuple[Progress, ...]
    judged: tuple[Judgement, ...]
    preferences: tuple[Preference, ...]
    needed: tuple[Needed, ...]
    agreements: tuple[Agreement, ...]
    consistencies: tuple[Consistency, ...]
    side_biases: tuple[SideBias, ...]
    strengths: tuple[Strength, ...]
    draws: int

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the compared runs."""
        return tuple(run.name for run in self.key.runs)

    def shown(self, question: str) -> list[Preference]:
        """Preferences by one question; an only reader or finding, who is all there is, but once."""
        its = [one for one in self.preferences if one.question == question]
        groups = Counter((one.first, one.second, one.group) for one in its)
        return [
            one for one in its if one.group == ALL or groups[one.first, one.second, one.group] > 1
        ]

    def readers_of(self, one: Preference) -> str:
        """Whose answers a row of all answers has."""
        readers = sum(
            (other.first, other.second, other.question, other.group)
            == (one.first, one.second, one.question, "reader")
            for other in self.preferences
        )
        return "all readers" if readers > 1 else "one reader"


def write_report(folder: Path, out: Path, draws: int = 2000) -> list[str]:
    """Write report.html, preferences.csv, agreement.csv, answers.csv and history.csv to `out`.

    Returns:
        Lines for a person.

    Raises:
        DataError: no study there, or nothing was answered yet.
    """
    study = Study.open(folder)
    engine = open_answers(study)
    # one state of it, whatever readers answer meanwhile
    with reading(engine) as session:
        given = all_given(session)
        progress = progress_of(session)
        history = session.exec(
            select(Reader.name, Item.position, Answer)
            .join(Item, col(Item.reader_id) == col(Reader.id))
            .join(Answer, col(Answer.item_id) == col(Item.id))
            .order_by(col(Answer.id))
        ).all()
    engine.dispose()
    if not given:
        raise DataError(f"{study.database}: nothing was answered yet; invite readers and serve")
    report = analyse(study, read_key(folder), given, progress, draws=draws)
    write_csv(out / "preferences.csv", PREFERENCE_COLUMNS, map(_preference_row, report.preferences))
    write_csv(out / "agreement.csv", AGREEMENT_COLUMNS, _agreement_rows(report))
    write_csv(
        out / "answers.csv", ANSWER_COLUMNS, (_answer_row(report, one) for one in report.judged)
    )
    write_csv(
        out / "history.csv",
        ("reader", "position", "question", "value", "saved"),
        (
            {
                "reader": safe_cell(name),
                "position": position,
                "question": answer.question,
                "value": safe_cell(answer.value),
                "saved": answer.saved,
            }
            for name, position, answer in history
        ),
    )
    write_text(out / "report.html", page(report))
    return [*lines(report), str(out / "report.html")]


def analyse(
    study: Study,
    key: Key,
    given: Sequence[Given],
    progress: Sequence[Progress],
    *,
    draws: int,
) -> StudyReport:
    """All numbers of a study; the same answers and draws give the same numbers."""
    judged = judgements(study, key, given)
    runs = [run.name for run in key.runs]
    return StudyReport(
        study=study,
        key=key,
        progress=tuple(progress),
        judged=tuple(judged),
        preferences=tuple(preferences(judged, study.findings, draws=draws, seed=study.seed)),
        needed=tuple(needed(judged)),
        agreements=tuple(agreements(judged, draws=draws, seed=study.seed)),
        consistencies=tuple(consistencies(judged)),
        side_biases=tuple(side_biases(judged)),
        strengths=tuple(strengths(judged, runs)),
        draws=draws,
    )


PREFERENCE_COLUMNS = (
    "first",
    "second",
    "question",
    "group",
    "name",
    "films",
    "patients",
    "first_preferred",
    "second_preferred",
    "ties",
    "share",
    "low",
    "high",
    "bootstrap_low",
    "bootstrap_high",
    "plain_low",
    "plain_high",
    "p",
    "half_share",
    "half_low",
    "half_high",
)


def _preference_row(one: Preference) -> dict[str, Any]:
    row = {
        "first": safe_cell(one.first),
        "second": safe_cell(one.second),
        "question": one.question,
        "group": one.group,
        "name": safe_cell(one.name),
        "films": one.films,
        "patients": one.patients,
        "first_preferred": one.counts.first,
        "second_preferred": one.counts.second,
        "ties": one.counts.ties,
        "share": one.counts.share,
        "p": one.p,
        "half_share": one.counts.half_share,
    }
    for prefix, interval in (
        ("", one.interval),
        ("bootstrap_", one.bootstrap),
        ("plain_", one.plain),
        ("half_", one.half_interval),
    ):
        row[f"{prefix}low"] = None if interval is None else interval.low
        row[f"{prefix}high"] = None if interval is None else interval.high
    return row


AGREEMENT_COLUMNS = (
    "kind",
    "first",
    "second",
    "question",
    "readers",
    "same",
    "of",
    "same_low",
    "same_high",
    "kappa",
    "low",
    "high",
)


def _agreement_rows(report: StudyReport) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one in report.agreements:
        rows.append(
            {
                "kind": f"between readers ({one.kind})",
                "first": safe_cell(one.first),
                "second": safe_cell(one.second),
                "question": one.question,
                "readers": safe_cell(", ".join(one.readers)),
                "same": one.same,
                "of": one.comparisons,
                "kappa": one.kappa,
                "low": None if one.interval is None else one.interval.low,
                "high": None if one.interval is None else one.interval.high,
            }
        )
    for own in report.consistencies:
        rows.append(
            {
                "kind": "with oneself",
                "question": own.question,
                "readers": safe_cell(own.reader),
                "same": own.same,
                "of": own.repeats,
                "same_low": None if own.interval is None else own.interval.low,
                "same_high": None if own.interval is None else own.interval.high,
                "kappa": own.kappa,
            }
        )
    return rows


ANSWER_COLUMNS = (
    "reader",
    "position",
    "repeat",
    "image_id",
    "finding",
    "A",
    "B",
    *QUESTIONS,
    "confidence",
    "comment",
    "changes",
    "saved",
)


def _answer_row(report: StudyReport, one: Judgement) -> dict[str, Any]:
    words = {1: one.first, -1: one.second, 0: "tie"}
    left, right = (one.first, one.second) if one.first_left else (one.second, one.first)
    answers = {name: safe_cell(words[outcome]) for name, outcome in one.outcomes.items()}
    return {
        "reader": safe_cell(one.reader),
        "position": one.position,
        "repeat": int(one.repeat),
        "image_id": safe_cell(report.key.image_of_film[one.film]),
        "finding": safe_cell(one.finding),
        "A": safe_cell(left),
        "B": safe_cell(right),
        **answers,
        "confidence": one.confidence,
        "comment": safe_cell(one.comment),
        "changes": one.changes,
        "saved": one.saved,
    }


def lines(report: StudyReport) -> list[str]:
    """The report in words for a terminal."""
    said = [f"warning: {sentence}" for sentence in report.key.trained_elsewhere(report.study)]
    said += [f"{one.name}: {one.done} of {one.total} comparisons done" for one in report.progress]
    for question in QUESTIONS:
        for one in report.shown(question):
            if one.group == ALL:
                of = f"{one.first} over {one.second}, {question}, {report.readers_of(one)}"
                said.append(f"{of}: {share_words(one)}{half_words(one)}")
            else:
                said.append(f"  {one.group} {one.name}: {share_words(one)}")
    if any(one.p is not None for one in report.preferences):
        said.append(
            "intervals know that answers about one patient belong together; p does not, nor how "
            "many lines there are"
        )
    for agreement in report.agreements:
        if agreement.question == "overall":
            said.append(
                f"{agreement.first} over {agreement.second}, overall, agreement of "
                f"{', '.join(agreement.readers)}: {agreement_words(agreement)}"
            )
    for own in report.consistencies:
        if own.question == "overall":
            said.append(
                f"{own.reader}: the same answer to {own.same} of {own.repeats} comparisons shown "
                "twice, overall"
            )
    for side in report.side_biases[:1]:
        said.append(f"left or right, overall, repeats too: {side_words(side)}")
    for strength in report.strengths:
        said.append(f"strength of {strength.run}: {strength_words(strength)}")
    for need in report.needed:
        said.append(f"{need.first} over {need.second}: {needed_words(need)}")
    return said


def share_words(one: Preference) -> str:
    """Counts, share, interval and p."""
    counts = one.counts
    said = f"{counts.first} to {counts.second}, {many(counts.ties, 'tie')}"
    if counts.share is None:
        return f"{said}; no untied answer, so no preference to tell of"
    if counts.decided < FEWEST_DECIDED:
        return f"{said}; too few untied answers to tell a preference from chance"
    return (
        f"{said}; {counts.share:.1%} of untied answers{between(one.interval, percent=True)}, "
        f"p {p_words(one.p)}"
    )


def half_words(one: Preference) -> str:
    """The share with ties counted half, where there are ties and untied answers to tell by."""
    counts = one.counts
    if not counts.ties or counts.decided < FEWEST_DECIDED:
        return ""
    return f"; ties counted half {counts.half_share:.1%}{between(one.half_interval, percent=True)}"


def needed_words(need: Needed) -> str:
    """How many answers the seen preference needs."""
    counts = need.counts
    if not counts.total:
        return "no answer on the overall preference yet, so nothing to plan with"
    if counts.decided < FEWEST_DECIDED:
        return (
            f"too few untied answers to plan with, {counts.decided} of {counts.total} (fewer than "
            f"{FEWEST_DECIDED} cannot be told from chance, whatever they say)"
        )
    if counts.first == counts.second:
        return (
            "as many untied answers for the one as for the other, so no preference was seen that "
            "more answers could find"
        )
    if need.decided is None or need.total is None:
        return (
            f"more than {MOST_NEEDED:,} independent untied answers to find a preference as small "
            f"as the one that was seen ({counts.share:.1%})"
        )
    return (
        f"to find the preference that was seen, {counts.share:.1%} (power 80 %, 5 %, two-sided): "
        f"{need.decided} independent untied answers, {need.total} with this study's ties and "
        f"design effect {need.design_effect:.2f}"
    )


def agreement_words(one: Agreement) -> str:
    """Kappa, its interval, and how often they said the same."""
    if not one.comparisons:
        return "no comparison that all of them answered"
    same = f"the same in {one.same} of {one.comparisons}"
    if one.kappa is None:
        return f"{one.kind}'s kappa is undefined, since all answers are the same; {same}"
    return f"{one.kind}'s kappa {number(one.kappa)}{between(one.interval)}, {same}"


def side_words(one: SideBias) -> str:
    """How often either side was preferred."""
    if one.p is None:
        return "no untied answer to tell by"
    return f"{one.left} left, {one.right} right, p {p_words(one.p)}"


def strength_words(one: Strength) -> str:
    """A run's strength, and where there is none, why."""
    if one.log_strength is None:
        return "undefined: some runs never won against the others, or were not compared yet"
    return f"{number(one.log_strength)}{between(one.interval)}"


def many(count: int, what: str) -> str:
    """A number of things."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def number(value: float | None) -> str:
    """Two digits, or a dash."""
    return NO if value is None else f"{value:.2f}".replace("-", "−")


def between(interval: Interval | None, *, percent: bool = False) -> str:
    """An interval after its number; nothing if there is none."""
    if interval is None:
        return ""
    if percent:
        return f" [{interval.low:.1%}, {interval.high:.1%}]"
    return f" [{number(interval.low)}, {number(interval.high)}]"


def p_words(p: float | None) -> str:
    """A p value, small ones by their bound."""
    if p is None:
        return NO
    return "< .001" if p < 0.001 else f"{p:.3f}"


def page(report: StudyReport) -> str:
    """The report as one page that needs nothing else."""
    helpers: dict[str, Callable[..., str]] = {
        "number": number,
        "between": between,
        "p_words": p_words,
        "many": many,
        "needed_words": needed_words,
        "side_words": side_words,
        "strength_words": strength_words,
    }
    return (
        page_environment()
        .get_template("study.html.j2")
        .render(report=report, questions=QUESTIONS, fewest=FEWEST_DECIDED, **helpers)
    )
