import secrets

import pytest
from sqlmodel import select

from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.study.answers import (
    Answer,
    Item,
    OtherAnswerError,
    all_given,
    answers_of,
    done_positions,
    invite,
    invited,
    item_at,
    open_answers,
    progress_of,
    save_answer,
)
from dwarf_cxr.study.folder import read_key
from dwarf_cxr.web.store import reading


def key():
    return secrets.token_hex(8)


@pytest.fixture
def engine(study):
    opened = open_answers(study)
    invite(opened, study, read_key(study.folder), ["ann", "bob"])
    yield opened
    opened.dispose()


@pytest.fixture
def item(engine):
    with reading(engine) as session:
        return item_at(session, "ann", 1)


def rows(engine):
    with reading(engine) as session:
        return [(row.question, row.value) for row in session.exec(select(Answer))]


def test_every_reader_has_an_own_list(engine):
    with reading(engine) as session:
        items = session.exec(select(Item)).all()
    lists = [
        [(item.comparison_id, item.swapped) for item in items if item.reader_id == reader]
        for reader in (1, 2)
    ]
    assert [len(one) for one in lists] == [22, 22]
    assert lists[0] != lists[1]
    assert {name for name, _ in lists[0]} == {name for name, _ in lists[1]}


def test_inviting_again_changes_nothing(engine, study):
    with reading(engine) as session:
        before = [item.model_dump() for item in session.exec(select(Item))]
    assert invite(engine, study, read_key(study.folder), [" ann ", "bob", "ann"]) == ["ann", "bob"]
    with reading(engine) as session:
        assert [item.model_dump() for item in session.exec(select(Item))] == before


def test_who_was_invited(engine):
    assert invited(engine) == ["ann", "bob"]
    assert invited(engine, [" bob "]) == ["bob"]
    with pytest.raises(ConfigError, match="'eve': was not invited; invited: ann, bob"):
        invited(engine, ["bob", "eve"])


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x00b"])
def test_names_that_are_none(engine, study, name):
    with pytest.raises(ConfigError, match="give a name"):
        invite(engine, study, read_key(study.folder), [name])


def test_no_name(engine, study):
    with pytest.raises(ConfigError, match="no reader"):
        invite(engine, study, read_key(study.folder), [])


def test_sent_twice_is_kept_once(engine, item):
    same = key()
    for _ in range(3):
        save_answer(engine, item, "accuracy", "A", same)
    assert rows(engine) == [("accuracy", "A")]
    # from another page, and no change of mind
    save_answer(engine, item, "accuracy", "A", key())
    assert rows(engine) == [("accuracy", "A")] * 2
    with reading(engine) as session:
        (given,) = all_given(session)
    assert given.changes == 0


def test_changed_answers_keep_their_history(engine, item):
    for value in ("A", "B", "A", "tie"):
        save_answer(engine, item, "overall", value, key())
    assert rows(engine) == [
        ("overall", "A"),
        ("overall", "B"),
        ("overall", "A"),
        ("overall", "tie"),
    ]
    with reading(engine) as session:
        assert answers_of(session, item) == {"overall": "tie"}
        (given,) = all_given(session)
    assert (given.reader, given.position, given.changes) == ("ann", 1, 3)
    assert given.answers == {"overall": "tie"}


def test_an_old_answer_sent_late_does_not_win(engine, item):
    old = key()
    save_answer(engine, item, "overall", "A", old)
    save_answer(engine, item, "overall", "B", key())
    save_answer(engine, item, "overall", "A", old)
    with reading(engine) as session:
        assert answers_of(session, item) == {"overall": "B"}


def test_an_old_answer_that_said_nothing_new_does_not_win_late(engine, item):
    first, same = key(), key()
    save_answer(engine, item, "overall", "A", first)
    save_answer(engine, item, "overall", "A", same)
    save_answer(engine, item, "overall", "B", key())
    save_answer(engine, item, "overall", "A", same)
    with reading(engine) as session:
        assert answers_of(session, item) == {"overall": "B"}
        (given,) = all_given(session)
    assert given.changes == 1


def test_key_of_another_answer(engine, item):
    same = key()
    save_answer(engine, item, "overall", "A", same)
    with pytest.raises(OtherAnswerError):
        save_answer(engine, item, "overall", "B", same)
    assert rows(engine) == [("overall", "A")]


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("overall", "a"),
        ("overall", ""),
        ("confidence", "6"),
        ("confidence", "4.0"),
        ("nothing", "A"),
        ("comment", "x" * 2001),
    ],
)
def test_what_is_no_answer(engine, item, question, value):
    with pytest.raises(DataError):
        save_answer(engine, item, question, value, key())
    assert rows(engine) == []


def test_progress(engine, item):
    for question in ("accuracy", "specificity", "overall"):
        save_answer(engine, item, question, "tie", key())
    save_answer(engine, item, "comment", "hm", key())
    with reading(engine) as session:
        assert done_positions(session, "ann")[1] is False
        assert [(one.name, one.done, one.total) for one in progress_of(session)] == [
            ("ann", 0, 22),
            ("bob", 0, 22),
        ]
    save_answer(engine, item, "confidence", "2", key())
    save_answer(engine, item, "confidence", "3", key())
    with reading(engine) as session:
        positions = done_positions(session, "ann")
        ann, bob = progress_of(session)
    assert list(positions) == list(range(1, 23))
    assert [position for position, done in positions.items() if done] == [1]
    assert (ann.done, bob.done) == (1, 0)
    assert ann.last_saved is not None
    assert bob.last_saved is None


def test_positions_of_others_and_beyond(engine):
    with reading(engine) as session:
        assert item_at(session, "ann", 0) is None
        assert item_at(session, "ann", 23) is None
        assert item_at(session, "eve", 1) is None
        assert done_positions(session, "eve") == {}
