"""Readers, what each is shown, and every answer they gave, in study.db.

An answer is never changed: a reader who changes their mind adds a row, and the last one counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

import numpy as np
from sqlalchemy import Column, Connection, Engine, ForeignKey, Integer, MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, col, func, select

from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.study.design import Choice, reading_list
from dwarf_cxr.study.folder import Key, Study
from dwarf_cxr.web.store import Migration, open_database, reading, writing

CHOICES: tuple[str, ...] = get_args(Choice)
CONFIDENCES = ("1", "2", "3", "4", "5")
QUESTIONS = ("accuracy", "specificity", "overall")
NEEDED = (*QUESTIONS, "confidence")
"""What makes a comparison done; a comment is free."""
COMMENT = "comment"
LONGEST_COMMENT = 2000
LONGEST_NAME = 60


class StudyTable(SQLModel, registry=registry(metadata=MetaData())):
    """Tables of a study, apart from those of other databases."""


class Reader(StudyTable, table=True):
    """Someone who was invited."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    invited: str


class Item(StudyTable, table=True):
    """A comparison on a reader's list."""

    __table_args__ = (UniqueConstraint("reader_id", "position"),)

    id: int | None = Field(default=None, primary_key=True)
    reader_id: int = Field(foreign_key="reader.id")
    position: int
    """From 1."""
    comparison_id: str
    swapped: bool
    repeat: bool


class Answer(StudyTable, table=True):
    """One answer to one question, as it was given."""

    id: int | None = Field(
        default=None, sa_column=Column(Integer, primary_key=True, autoincrement=True)
    )
    item_id: int = Field(
        sa_column=Column(Integer, ForeignKey("item.id"), index=True, nullable=False)
    )
    question: str
    value: str
    key: str = Field(unique=True)
    """Made by the page for every answer, so that one sent twice is kept once."""
    saved: str


def _first_tables(connection: Connection) -> None:
    StudyTable.metadata.create_all(connection)


MIGRATIONS: Sequence[Migration] = (_first_tables,)


@dataclass(frozen=True)
class Progress:
    """How far a reader is."""

    name: str
    done: int
    total: int
    last_saved: str | None

    @property
    def finished(self) -> bool:
        """Whether every comparison is done."""
        return self.done == self.total


class OtherAnswerError(Exception):
    """A key that another answer has."""


def open_answers(study: Study) -> Engine:
    """The study's database, made at the first call."""
    return open_database(study.database, MIGRATIONS)


def invite(engine: Engine, study: Study, key: Key, names: Sequence[str]) -> list[str]:
    """Make a list of comparisons for each new reader; those invited before keep theirs.

    Returns:
        The names as they are known.

    Raises:
        ConfigError: no name, or one that is empty, too long or not printable.
    """
    cleaned = [_cleaned(name) for name in names]
    for name, given in zip(cleaned, names, strict=True):
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"reader {given!r}: give a name of 1 to {LONGEST_NAME} letters")
    if not cleaned:
        raise ConfigError("no reader is given; name at least one")
    with writing(engine) as session:
        known = set(session.exec(select(Reader.name)))
        for name in dict.fromkeys(cleaned):
            if name in known:
                continue
            reader = Reader(name=name, invited=_now())
            session.add(reader)
            session.flush()
            assert reader.id is not None
            places = reading_list(
                study.comparisons,
                key.run_of_map,
                repeats=study.repeats,
                generator=np.random.default_rng(
                    [study.seed if key.order_seed is None else key.order_seed, reader.id]
                ),
            )
            session.add_all(
                Item(
                    reader_id=reader.id,
                    position=position,
                    comparison_id=place.comparison_id,
                    swapped=place.swapped,
                    repeat=place.repeat,
                )
                for position, place in enumerate(places, start=1)
            )
    return list(dict.fromkeys(cleaned))


def invited(engine: Engine, names: Sequence[str] | None = None) -> list[str]:
    """Readers who were invited, in that order: all, or those named, as they are known.

    Raises:
        ConfigError: a name is of nobody who was invited; says who was.
    """
    with reading(engine) as session:
        known = list(session.exec(select(Reader.name).order_by(col(Reader.id))))
    if names is None:
        return known
    cleaned = [_cleaned(name) for name in names]
    if strangers := [name for name in cleaned if name not in known]:
        raise ConfigError(
            f"reader {', '.join(map(repr, strangers))}: was not invited; "
            f"invited: {', '.join(known) or 'nobody'}"
        )
    return list(dict.fromkeys(cleaned))


def item_at(session: Session, reader: str, position: int) -> Item | None:
    """What the reader is shown at a position of their list, from 1."""
    query = select(Item).join(Reader).where(Reader.name == reader, Item.position == position)
    return session.exec(query).first()


def answers_of(session: Session, item: Item) -> dict[str, str]:
    """The answers of an item that count: the last to each question."""
    query = select(Answer.question, Answer.value).where(Answer.item_id == item.id)
    return dict(session.exec(query.order_by(col(Answer.id))).all())


def save_answer(engine: Engine, item: Item, question: str, value: str, key: str) -> None:
    """Keep an answer; one that was kept before, by its key, adds no row.

    One that says what the last one said is a row too: without its key, the same one sent again late
    would pass for new, and win over what was answered meanwhile.

    Raises:
        DataError: no such question, or a value that is no answer to it.
        OtherAnswerError: the key is another answer's.
    """
    check_answer(question, value)
    with writing(engine) as session:
        earlier = session.exec(select(Answer).where(Answer.key == key)).first()
        if earlier is not None:
            if (earlier.item_id, earlier.question, earlier.value) != (item.id, question, value):
                raise OtherAnswerError
            return
        assert item.id is not None
        session.add(Answer(item_id=item.id, question=question, value=value, key=key, saved=_now()))


def check_answer(question: str, value: str) -> None:
    """Refuse what is no answer.

    Raises:
        DataError: says what may be answered.
    """
    if question in QUESTIONS:
        allowed: Sequence[str] = CHOICES
    elif question == "confidence":
        allowed = CONFIDENCES
    elif question == COMMENT:
        if len(value) > LONGEST_COMMENT:
            raise DataError(f"a comment has at most {LONGEST_COMMENT} characters")
        return
    else:
        raise DataError(f"there is no question {question!r}")
    if value not in allowed:
        raise DataError(f"{question} is answered by {', '.join(allowed)}, not {value!r}")


def progress_of(session: Session) -> list[Progress]:
    """Every reader's progress, in the order of their invitations."""
    rows = session.exec(
        select(
            Reader.name,
            Item.id,
            func.count(func.distinct(Answer.question)),
            func.max(Answer.saved),
        )
        .join(Item, col(Item.reader_id) == col(Reader.id))
        .join(Answer, _needed_answer, isouter=True)
        .group_by(col(Item.id))
        .order_by(col(Reader.id))
    ).all()
    items: dict[str, list[tuple[bool, str | None]]] = {}
    for name, _, answered, saved in rows:
        items.setdefault(name, []).append((answered == len(NEEDED), saved))
    return [
        Progress(
            name,
            sum(done for done, _ in its),
            len(its),
            max((saved for _, saved in its if saved), default=None),
        )
        for name, its in items.items()
    ]


def done_positions(session: Session, reader: str) -> Mapping[int, bool]:
    """Whether each position of a reader's list is done, in their order."""
    rows = session.exec(
        select(Item.position, func.count(func.distinct(Answer.question)))
        .join(Reader, col(Item.reader_id) == col(Reader.id))
        .join(Answer, _needed_answer, isouter=True)
        .where(Reader.name == reader)
        .group_by(col(Item.id))
        .order_by(col(Item.position))
    ).all()
    return {position: answered == len(NEEDED) for position, answered in rows}


_needed_answer = (col(Answer.item_id) == col(Item.id)) & col(Answer.question).in_(NEEDED)


@dataclass(frozen=True)
class Given:
    """What a reader finally answered to a comparison, and how often they changed it."""

    reader: str
    position: int
    comparison_id: str
    swapped: bool
    repeat: bool
    answers: Mapping[str, str]
    changes: int
    saved: str


def all_given(session: Session) -> list[Given]:
    """Everything answered, by reader and position; items without any answer are left out."""
    rows = session.exec(
        select(Reader.name, Item, Answer)
        .join(Item, col(Item.reader_id) == col(Reader.id))
        .join(Answer, col(Answer.item_id) == col(Item.id))
        .order_by(col(Reader.id), col(Item.position), col(Answer.id))
    ).all()
    grouped: dict[int | None, tuple[str, Item, list[Answer]]] = {}
    for name, item, answer in rows:
        grouped.setdefault(item.id, (name, item, []))[2].append(answer)
    return [
        Given(
            reader=name,
            position=item.position,
            comparison_id=item.comparison_id,
            swapped=item.swapped,
            repeat=item.repeat,
            answers={answer.question: answer.value for answer in given},
            changes=_changes(given),
            saved=given[-1].saved,
        )
        for name, item, given in grouped.values()
    ]


def _changes(given: Sequence[Answer]) -> int:
    """How often an answer differs from the one before it to the same question."""
    last: dict[str, str] = {}
    changes = 0
    for answer in given:
        changes += last.get(answer.question, answer.value) != answer.value
        last[answer.question] = answer.value
    return changes


def _cleaned(name: str) -> str:
    return " ".join(name.split())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
