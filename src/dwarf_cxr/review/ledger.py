"""What readers said, kept as every change of it: a table that is only ever added to.

A row is one finding of one film for one reader, before and after; the last row is the state. Rows
that were made together (several findings at once) share a step, and are undone together. The
database itself refuses to change or delete a row.

A change names the step that its page knew last: if there is a newer one, made in another tab, it
is refused, and nothing is overwritten. It also has a key of its own: sent twice, because the
answer to the first was lost, it is done once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, bindparam, text
from sqlmodel import Field, Session, SQLModel, col, select

from dwarf_cxr.errors import ConfigError, DwarfError
from dwarf_cxr.review.annotation import (
    NOTHING,
    Assessment,
    assessment_from_json,
    assessment_to_json,
)
from dwarf_cxr.review.history import Action, Reach, reach
from dwarf_cxr.review.words import count
from dwarf_cxr.web.store import Migration, open_database, open_to_read, reading, writing


class StaleError(DwarfError):
    """A change made from a page that does not know the newest state."""


class Change(SQLModel, table=True):
    """A row: what one reader changed in one finding of one film."""

    id: int | None = Field(default=None, primary_key=True)
    step: int
    film: int
    """Its index in DATA."""
    finding: str
    reader: str
    at: str
    """UTC, ISO 8601."""
    action: str
    target: int | None = None
    """The step that is undone or redone."""
    key: str
    suggestions_shown: bool | None = None
    """Whether the reader saw the model's word when changing this."""
    verdict: str | None = None
    """Of `after`."""
    before: str
    after: str


def _first_tables(connection: Connection) -> None:
    connection.exec_driver_sql(
        "CREATE TABLE change (id INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, "
        "film INTEGER NOT NULL, finding TEXT NOT NULL, reader TEXT NOT NULL, at TEXT NOT NULL, "
        "action TEXT NOT NULL, target INTEGER, key TEXT NOT NULL, suggestions_shown BOOLEAN, "
        "verdict TEXT, before TEXT NOT NULL, after TEXT NOT NULL, "
        "UNIQUE (reader, film, key, finding))"
    )
    connection.exec_driver_sql("CREATE INDEX change_by_case ON change (reader, film, finding, id)")
    for event in ("UPDATE", "DELETE"):
        connection.exec_driver_sql(
            f"CREATE TRIGGER change_is_kept_on_{event.lower()} BEFORE {event} ON change "
            "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END"
        )


HALF = "\\ud"
"""How a character of two halves begins in the JSON of a row."""
MIGRATIONS: Sequence[Migration] = (_first_tables,)


@dataclass(frozen=True)
class FilmState:
    """What a reader has said of a film, and what can be undone."""

    version: int
    """The last step; 0 before the first."""
    assessments: Mapping[str, Assessment]
    """By finding; one that is missing was not touched."""
    reach: Reach


@dataclass(frozen=True)
class Entered:
    """What was taken over from elsewhere."""

    changed: Mapping[int, Mapping[str, Assessment]]
    """By film and finding."""
    replaced: int
    """How many of these are in the place of words that were given before."""


class Ledger:
    """The readers' words of one review."""

    def __init__(self, path: Path, *, to_read: bool = False) -> None:
        """Open the ledger, made where there is none; `to_read` one that is there, unchanged."""
        self._engine = (open_to_read if to_read else open_database)(path, MIGRATIONS)

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def state(self, film: int, reader: str) -> FilmState:
        """What `reader` has said of `film`."""
        with reading(self._engine) as session:
            return _state(session, film, reader)

    def edit(
        self,
        film: int,
        reader: str,
        edits: Mapping[str, Assessment],
        *,
        version: int,
        key: str,
        suggestions_shown: bool | None = None,
    ) -> FilmState:
        """Replace the assessments of some findings, in one step; unchanged ones leave no row.

        Raises:
            StaleError: the film has a newer step of this reader than `version`.
        """
        with writing(self._engine) as session:
            before = _begin(session, film, reader, version, key)
            if before is None:
                return _state(session, film, reader)
            changed = _changed(before, edits)
            _add(session, film, reader, changed, key, "edit", None, suggestions_shown)
            return _state(session, film, reader)

    def enter(
        self,
        reader: str,
        edits: Mapping[int, Mapping[str, Assessment]],
        *,
        replacing: bool = False,
    ) -> Entered:
        """Take over a reader's words on many films from elsewhere: all of them or none.

        A film is a step. Comments of before stay where there is none now. A film without a change
        has no step.

        Raises:
            ConfigError: other words than these were given before, and they are not to be replaced.
        """
        done: dict[int, dict[str, Assessment]] = {}
        replaced: list[tuple[int, str]] = []
        with writing(self._engine) as session:
            for film, its in edits.items():
                before = _state(session, film, reader)
                changed = _changed(
                    before,
                    {
                        finding: after
                        if after.comment
                        else replace(
                            after, comment=before.assessments.get(finding, NOTHING).comment
                        )
                        for finding, after in its.items()
                    },
                )
                _add(
                    session, film, reader, changed, f"import-{before.version}", "import", None, None
                )
                if changed:
                    done[film] = {finding: after for finding, (_, after) in changed.items()}
                replaced += [
                    (film, finding)
                    for finding, (earlier, _) in changed.items()
                    if earlier.verdict is not None or earlier.regions
                ]
            if replaced and not replacing:
                first_film, first_finding = replaced[0]
                raise ConfigError(
                    f"{reader} has said something else before in "
                    f"{count(len(replaced), 'case')}: {first_finding} in film {first_film + 1}"
                    f"{', …' if len(replaced) > 1 else ''}; --replace puts the file's words in "
                    "the place of those, which can be undone film by film"
                )
        return Entered(done, len(replaced))

    def undo(self, film: int, reader: str, *, version: int, key: str) -> FilmState:
        """Take the reader's last step on the film back; without one nothing happens.

        Raises:
            StaleError: as `edit`.
        """
        return self._turn(film, reader, "undo", version, key)

    def redo(self, film: int, reader: str, *, version: int, key: str) -> FilmState:
        """Do again what was undone last, unless something was changed since.

        Raises:
            StaleError: as `edit`.
        """
        return self._turn(film, reader, "redo", version, key)

    def _turn(self, film: int, reader: str, action: Action, version: int, key: str) -> FilmState:
        with writing(self._engine) as session:
            before = _begin(session, film, reader, version, key)
            if before is None:
                return _state(session, film, reader)
            open_steps = before.reach.undoable if action == "undo" else before.reach.redoable
            if not open_steps:
                return before
            rows = session.exec(
                select(Change).where(col(Change.step) == open_steps[-1]).order_by(col(Change.id))
            ).all()
            turned = {
                row.finding: (row.after, row.before)
                if action == "undo"
                else (row.before, row.after)
                for row in rows
            }
            changed = {
                finding: (_assessment(one), _assessment(other))
                for finding, (one, other) in turned.items()
            }
            _add(session, film, reader, changed, key, action, open_steps[-1], None)
            return _state(session, film, reader)

    def said(self, film: int | None = None) -> dict[tuple[int, str], dict[str, Assessment]]:
        """The newest words of all readers by film and finding, of one film or of all."""
        only = "" if film is None else "WHERE film = :film "
        newest = f"SELECT max(id) FROM change {only}GROUP BY reader, film, finding"
        found: dict[tuple[int, str], dict[str, Assessment]] = {}
        with reading(self._engine) as session:
            rows = session.connection().execute(
                text(
                    f"SELECT film, finding, reader, after FROM change WHERE id IN ({newest}) "
                    "ORDER BY film, id"
                ),
                {} if film is None else {"film": film},
            )
            for number, finding, reader, after in rows:
                found.setdefault((number, finding), {})[reader] = _assessment(after)
        return found

    def news(self, last: int) -> tuple[int, list[tuple[tuple[int, str], str, Assessment]]]:
        """The number of the last row, and film, finding, reader and newest words since `last`."""
        newest = "SELECT max(id) FROM change WHERE id > :last GROUP BY reader, film, finding"
        with reading(self._engine) as session:
            rows = session.connection().execute(
                text(
                    f"SELECT id, film, finding, reader, after FROM change WHERE id IN ({newest}) "
                    "ORDER BY film, id"
                ),
                {"last": last},
            )
            found = rows.all()
        news = [((row.film, row.finding), row.reader, _assessment(row.after)) for row in found]
        return max((row.id for row in found), default=last), news

    def verdicts(self, reader: str, findings: Sequence[str]) -> dict[int, int]:
        """How many of `findings` the reader has given a verdict on, by film."""
        with reading(self._engine) as session:
            rows = session.connection().execute(
                text(
                    "SELECT film, count(*) FROM change WHERE id IN (SELECT max(id) FROM change "
                    "WHERE reader = :reader GROUP BY film, finding) AND verdict IS NOT NULL "
                    "AND finding IN :findings GROUP BY film"
                ).bindparams(bindparam("findings", expanding=True)),
                {"reader": reader, "findings": list(findings)},
            )
            return {row[0]: row[1] for row in rows}

    def readers(self) -> tuple[str, ...]:
        """All who have said anything, in the order of their first word."""
        with reading(self._engine) as session:
            rows = session.connection().execute(
                text("SELECT reader FROM change GROUP BY reader ORDER BY min(id)")
            )
            return tuple(row[0] for row in rows)

    def changes(self) -> Iterator[Change]:
        """The audit, oldest first."""
        with reading(self._engine) as session:
            yield from session.exec(select(Change).order_by(col(Change.id)))


def _begin(session: Session, film: int, reader: str, version: int, key: str) -> FilmState | None:
    """The state to be changed; None when the change with this key was done before."""
    known = session.exec(
        select(Change.id)
        .where(col(Change.reader) == reader, col(Change.film) == film, col(Change.key) == key)
        .limit(1)
    ).first()
    if known is not None:
        return None
    state = _state(session, film, reader)
    if state.version != version:
        raise StaleError(
            "This film was changed in another tab or window since this page was loaded. Nothing "
            "was overwritten: the newer state is shown now, and your last change was not saved."
        )
    return state


def _changed(
    before: FilmState, edits: Mapping[str, Assessment]
) -> dict[str, tuple[Assessment, Assessment]]:
    """Before and after of the findings that the edits change."""
    return {
        finding: (before.assessments.get(finding, NOTHING), after)
        for finding, after in edits.items()
        if _text(before.assessments.get(finding, NOTHING)) != _text(after)
    }


def _state(session: Session, film: int, reader: str) -> FilmState:
    rows = session.connection().execute(
        text(
            "SELECT finding, after FROM change WHERE id IN (SELECT max(id) FROM change "
            "WHERE reader = :reader AND film = :film GROUP BY finding)"
        ),
        {"reader": reader, "film": film},
    )
    assessments = {finding: _assessment(after) for finding, after in rows}
    steps = session.connection().execute(
        text(
            "SELECT step, min(action) FROM change WHERE reader = :reader AND film = :film "
            "GROUP BY step ORDER BY step"
        ),
        {"reader": reader, "film": film},
    )
    history: list[tuple[int, Action]] = [(step, action) for step, action in steps]
    return FilmState(history[-1][0] if history else 0, assessments, reach(history))


def _add(
    session: Session,
    film: int,
    reader: str,
    changed: Mapping[str, tuple[Assessment, Assessment]],
    key: str,
    action: Action,
    target: int | None,
    suggestions_shown: bool | None,
) -> None:
    last = session.connection().execute(text("SELECT max(id) FROM change")).scalar_one()
    step = (last or 0) + 1
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    for finding, (before, after) in changed.items():
        session.add(
            Change(
                step=step,
                film=film,
                finding=finding,
                reader=reader,
                at=now,
                action=action,
                target=target,
                key=key,
                suggestions_shown=suggestions_shown,
                verdict=after.verdict,
                before=_text(before),
                after=_text(after),
            )
        )
        session.flush()


def _text(assessment: Assessment) -> str:
    return json.dumps(assessment_to_json(assessment), sort_keys=True, separators=(",", ":"))


def _assessment(written: str) -> Assessment:
    content = json.loads(written)
    if HALF in written:
        # reviews of before may hold half a character, which no page can be written with
        whole = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        content = json.loads(whole)
    return assessment_from_json(content, "review.db")
