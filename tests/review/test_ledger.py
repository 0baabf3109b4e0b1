import sqlite3
import threading
from itertools import pairwise

import pytest

from dwarf_cxr.review.annotation import NOTHING, Assessment, assessment_to_json
from dwarf_cxr.review.ledger import Ledger, StaleError
from tests.review.made import ABSENT, box, present


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "review.db")
    yield ledger
    ledger.close()


def words(state, finding):
    return assessment_to_json(state.assessments.get(finding, NOTHING))


def test_every_change_is_kept_with_before_and_after(ledger):
    first, second = present(box(1, 2, 8, 9)), present(box(1, 2, 8, 9), box(20, 2, 28, 9))
    state = ledger.edit(3, "anna", {"Mass": first}, version=0, key="k1", suggestions_shown=True)
    state = ledger.edit(3, "anna", {"Mass": second}, version=state.version, key="k2")
    state = ledger.undo(3, "anna", version=state.version, key="k3")
    assert words(state, "Mass") == assessment_to_json(first)
    state = ledger.redo(3, "anna", version=state.version, key="k4")
    assert words(state, "Mass") == assessment_to_json(second)
    rows = list(ledger.changes())
    assert [row.action for row in rows] == ["edit", "edit", "undo", "redo"]
    assert [row.target for row in rows] == [None, None, rows[1].step, rows[1].step]
    assert [row.suggestions_shown for row in rows] == [True, None, None, None]
    for earlier, later in pairwise(rows):
        assert later.before == earlier.after
        assert later.at >= earlier.at
    assert {row.reader for row in rows} == {"anna"}


def test_findings_that_were_changed_together_are_undone_together(ledger):
    state = ledger.edit(1, "anna", {"Mass": present()}, version=0, key="a")
    state = ledger.edit(
        1, "anna", {"Effusion": ABSENT, "Nodule": ABSENT}, version=state.version, key="b"
    )
    assert ledger.verdicts("anna", ("Mass", "Effusion", "Nodule")) == {1: 3}
    state = ledger.undo(1, "anna", version=state.version, key="c")
    assert ledger.verdicts("anna", ("Mass", "Effusion", "Nodule")) == {1: 1}
    assert words(state, "Nodule") == assessment_to_json(NOTHING)
    state = ledger.redo(1, "anna", version=state.version, key="d")
    assert ledger.verdicts("anna", ("Mass", "Effusion", "Nodule")) == {1: 3}


def test_a_change_sent_twice_is_done_once(ledger):
    once = ledger.edit(1, "anna", {"Mass": ABSENT}, version=0, key="same")
    again = ledger.edit(1, "anna", {"Mass": ABSENT}, version=0, key="same")
    assert again.version == once.version
    undone = ledger.undo(1, "anna", version=once.version, key="undo")
    assert ledger.undo(1, "anna", version=once.version, key="undo").version == undone.version
    assert len(list(ledger.changes())) == 2


def test_a_page_that_is_behind_overwrites_nothing(ledger):
    ledger.edit(1, "anna", {"Mass": present(box(1, 2, 8, 9))}, version=0, key="new")
    with pytest.raises(StaleError, match="another tab"):
        ledger.edit(1, "anna", {"Mass": ABSENT}, version=0, key="old")
    with pytest.raises(StaleError):
        ledger.undo(1, "anna", version=0, key="old undo")
    assert len(list(ledger.changes())) == 1


def test_readers_and_films_do_not_meet(ledger):
    ledger.edit(1, "anna", {"Mass": ABSENT}, version=0, key="k")
    ledger.edit(1, "ben", {"Mass": present()}, version=0, key="k")
    ledger.edit(2, "anna", {"Mass": present()}, version=0, key="k2")
    assert {case: sorted(said) for case, said in ledger.said().items()} == {
        (1, "Mass"): ["anna", "ben"],
        (2, "Mass"): ["anna"],
    }
    assert list(ledger.said(2)) == [(2, "Mass")]
    assert ledger.readers() == ("anna", "ben")
    state = ledger.state(1, "ben")
    state = ledger.undo(1, "ben", version=state.version, key="u")
    assert ledger.said()[1, "Mass"]["anna"].verdict == "absent"
    assert ledger.said()[1, "Mass"]["ben"].verdict is None


def test_what_changes_nothing_leaves_no_trace(ledger):
    state = ledger.edit(1, "anna", {"Mass": NOTHING}, version=0, key="k")
    assert state.version == 0
    assert ledger.undo(1, "anna", version=0, key="u").version == 0
    assert ledger.redo(1, "anna", version=0, key="r").version == 0
    assert list(ledger.changes()) == []


def test_the_database_refuses_to_rewrite_the_audit(ledger, tmp_path):
    ledger.edit(1, "anna", {"Mass": ABSENT}, version=0, key="k")
    with sqlite3.connect(tmp_path / "review.db") as connection:
        for statement in ("UPDATE change SET reader = 'ben'", "DELETE FROM change"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                connection.execute(statement)
    connection.close()


def test_eight_readers_at_once_lose_nothing(tmp_path):
    faults = []

    def read(reader):
        ledger = Ledger(tmp_path / "review.db")
        try:
            state = ledger.state(0, reader)
            for number in range(12):
                said = Assessment("unsure", (), f"{reader} {number}")
                state = ledger.edit(
                    0, reader, {"Mass": said}, version=state.version, key=str(number)
                )
        except Exception as fault:  # the assertion below shows it
            faults.append(fault)
        finally:
            ledger.close()

    threads = [threading.Thread(target=read, args=(f"reader {one}",)) for one in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    ledger = Ledger(tmp_path / "review.db")
    rows = list(ledger.changes())
    assert len(rows) == 96
    assert len({(row.reader, row.key) for row in rows}) == 96
    assert {one.comment for one in ledger.said()[0, "Mass"].values()} == {
        f"reader {one} 11" for one in range(8)
    }
    ledger.close()
