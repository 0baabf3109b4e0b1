"""`dwarf study report`: tables for a person, for a spreadsheet, and one page for a browser."""

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


def write_report(folder: Path, out: Path, draws: int = 2000) -> list[str]:
    """Write report.html, preferences.csv, agreement.csv, answers.csv and history.csv to `out`.

    Returns:
        Lines for a person.

    Raises:
        DataError: no study there, or nothing was answered yet.
    """
    study = Study.open(folder)
    engine = open_answers(study)
    given = all_given(engine)
    if not given:
        raise DataError(f"{study.database}: nothing was answered yet; invite readers and serve")
    with reading(engine) as session:
        progress = progress_of(session)
        history = session.exec(
            select(Reader.name, Item.position, Answer)
            .join(Item, col(Item.reader_id) == col(Reader.id))
            .join(Answer, col(Answer.item_id) == col(Item.id))
            .order_by(col(Answer.id))
        ).all()
    engine.dispose()
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
    write_text(out / "report.html", _page(report))
    return [*_lines(report), str(out / "report.html")]


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
        preferences=tuple(preferences(judged, draws=draws, seed=study.seed)),
        needed=tuple(needed(judged)),
        agreements=tuple(agreements(judged, draws=draws, seed=study.seed)),
        consistencies=tuple(consistencies(judged)),
        side_biases=tuple(side_biases(judged)),
        strengths=tuple(strengths(judged, runs, draws=draws, seed=study.seed)),
        draws=draws,
    )


PREFERENCE_COLUMNS = (
    "first",
    "second",
    "question",
    "group",
    "name",
    "films",
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


def _lines(report: StudyReport) -> list[str]:
    lines = [f"{one.name}: {one.done} of {one.total} comparisons done" for one in report.progress]
    for one in report.preferences:
        if one.group == ALL or (one.group == "reader" and one.question == "overall"):
            who = "all readers" if one.group == ALL else one.name
            lines.append(
                f"{one.first} over {one.second}, {one.question}, {who}: {share_words(one)}"
            )
    for agreement in report.agreements:
        if agreement.question == "overall":
            lines.append(
                f"{agreement.first} over {agreement.second}, overall, agreement of "
                f"{', '.join(agreement.readers)}: {agreement.kind}'s kappa "
                f"{number(agreement.kappa)}{between(agreement.interval)}, the same in "
                f"{agreement.same} of {agreement.comparisons}"
            )
    for own in report.consistencies:
        if own.question == "overall":
            lines.append(f"{own.reader} repeated {own.same} of {own.repeats} answers, overall")
    for side in report.side_biases[:1]:
        lines.append(f"left preferred {side.left}, right {side.right}, p {p_words(side.p)}")
    for strength in report.strengths:
        lines.append(
            f"strength of {strength.run}: {number(strength.log_strength)}"
            f"{between(strength.interval)}"
        )
    for need in report.needed:
        lines.append(f"{need.first} over {need.second}: {needed_words(need)}")
    return lines


def share_words(one: Preference) -> str:
    """Counts, share, interval and p."""
    counts = one.counts
    said = f"{counts.first} to {counts.second}, {counts.ties} ties"
    if counts.share is None:
        return f"{said}; no preference to test"
    return (
        f"{said}; {counts.share:.1%} of decided{between(one.interval, percent=True)}, "
        f"p {p_words(one.p)}; ties counted half {counts.half_share:.1%}"
    )


def needed_words(need: Needed) -> str:
    """How many answers the seen preference needs."""
    if need.decided is None:
        return "no number of answers below 100,000 would find the preference that was seen"
    return (
        f"to find the preference that was seen (power 80 %, 5 %, two-sided): {need.decided} "
        f"independent decided answers, {need.total} with this study's ties and design effect "
        f"{need.design_effect:.2f}"
    )


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


def _page(report: StudyReport) -> str:
    helpers: dict[str, Callable[..., str]] = {
        "number": number,
        "between": between,
        "p_words": p_words,
        "needed_words": needed_words,
    }
    return (
        page_environment()
        .get_template("study.html.j2")
        .render(report=report, questions=QUESTIONS, **helpers)
    )
