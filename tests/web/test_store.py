import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from dwarf_cxr.errors import DataError
from dwarf_cxr.web.store import backup, open_database, open_to_read, reading, writing


def first(connection):
    connection.exec_driver_sql("CREATE TABLE reader (name TEXT PRIMARY KEY)")
    connection.exec_driver_sql(
        "CREATE TABLE answer (id INTEGER PRIMARY KEY, reader TEXT NOT NULL REFERENCES reader(name))"
    )


def second(connection):
    connection.exec_driver_sql("ALTER TABLE answer ADD COLUMN value INTEGER NOT NULL DEFAULT 7")


def count(engine, table="answer"):
    with reading(engine) as session:
        return session.scalar(text(f"SELECT count(*) FROM {table}"))


@pytest.fixture
def engine(tmp_path):
    opened = open_database(tmp_path / "a.db", [first, second])
    with writing(opened) as session:
        session.execute(text("INSERT INTO reader VALUES ('ann')"))
    yield opened
    opened.dispose()


def test_file_is_private(engine, tmp_path):
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600


def test_log_and_foreign_keys(engine):
    with reading(engine) as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        # 2 is FULL: a commit is on the disk
        assert session.scalar(text("PRAGMA synchronous")) == 2
    with pytest.raises(IntegrityError), writing(engine) as session:
        session.execute(text("INSERT INTO answer (reader) VALUES ('nobody')"))


def test_what_raises_is_undone(engine):
    def write(statements):
        with writing(engine) as session:
            for statement in statements:
                session.execute(text(statement))

    with pytest.raises(IntegrityError):
        write(["INSERT INTO answer (id, reader) VALUES (1, 'ann')"] * 2)
    assert count(engine) == 0


def test_migrations_run_once_and_keep_rows(tmp_path):
    path = tmp_path / "a.db"
    old = open_database(path, [first])
    with writing(old) as session:
        session.execute(text("INSERT INTO reader VALUES ('ann')"))
        session.execute(text("INSERT INTO answer (reader) VALUES ('ann')"))
    old.dispose()
    for _ in range(2):
        new = open_database(path, [first, second])
        with reading(new) as session:
            assert session.execute(text("SELECT reader, value FROM answer")).all() == [("ann", 7)]
        new.dispose()


def test_migration_that_fails_leaves_the_earlier_version(tmp_path):
    path = tmp_path / "a.db"
    open_database(path, [first]).dispose()

    def half(connection):
        connection.exec_driver_sql("CREATE TABLE more (id INTEGER)")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        open_database(path, [first, half])
    engine = open_database(path, [first, second])
    with pytest.raises(Exception, match="no such table"):
        count(engine, "more")
    engine.dispose()


def test_newer_version_is_refused(tmp_path):
    open_database(tmp_path / "a.db", [first, second]).dispose()
    with pytest.raises(DataError, match="of version 2, this program knows 1"):
        open_database(tmp_path / "a.db", [first])


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.db").write_text("not a database, but long enough to be read as one " * 99)
    with pytest.raises(DataError, match="not a usable database"):
        open_database(tmp_path / "a.db", [first])


def test_busy_is_not_called_damaged(tmp_path, monkeypatch):
    """Whoever restores a backup over a busy database loses what was answered since."""
    monkeypatch.setattr("dwarf_cxr.web.store.BUSY_SECONDS", 0.05)
    path = tmp_path / "a.db"
    open_database(path, [first]).dispose()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DataError, match="another program holds it") as raised:
            open_database(path, [first])
        assert "backup" not in str(raised.value)
        other.execute("ROLLBACK")
    open_database(path, [first]).dispose()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_READONLY_DIRECTORY, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_FULL, "disk is full"),
        (sqlite3.SQLITE_IOERR_WRITE, "disk does not answer"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "another program holds it"),
    ],
)
def test_only_damage_asks_for_a_backup(tmp_path, code, words):
    path = tmp_path / "a.db"

    def fails(connection):
        fault = sqlite3.OperationalError("said by sqlite")
        fault.sqlite_errorcode = code
        raise fault

    with pytest.raises(DataError, match=words) as raised:
        open_database(path, [fails])
    assert "backup" not in str(raised.value)
    assert "said by sqlite" in str(raised.value)


def test_full_database_is_told(tmp_path):
    """By sqlite itself."""

    def fills(connection):
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        connection.exec_driver_sql("CREATE TABLE big (x BLOB)")
        connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(1000000))")

    with pytest.raises(DataError, match="disk is full"):
        open_database(tmp_path / "a.db", [fills])


def test_eight_writers_that_read_first_lose_nothing(engine):
    with writing(engine) as session:
        session.execute(text("INSERT INTO answer (id, reader, value) VALUES (1, 'ann', 0)"))

    def add(_):
        with writing(engine) as session:
            value = session.scalar(text("SELECT value FROM answer WHERE id = 1"))
            session.execute(text(f"UPDATE answer SET value = {value + 1} WHERE id = 1"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    with reading(engine) as session:
        assert session.scalar(text("SELECT value FROM answer WHERE id = 1")) == 200


def _write_until_killed(path, pipe):
    engine = open_database(path, [first, second])
    while True:
        with writing(engine) as session:
            key = session.connection().exec_driver_sql(
                "INSERT INTO answer (reader) VALUES ('ann') RETURNING id"
            )
            number = key.scalar_one()
        pipe.send(number)


def test_killed_writer_loses_nothing_that_it_confirmed(engine, tmp_path):
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    writer = multiprocessing.get_context("fork").Process(
        target=_write_until_killed, args=(tmp_path / "a.db", theirs)
    )
    writer.start()
    confirmed = [ours.recv() for _ in range(15)]
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    while ours.poll():
        confirmed.append(ours.recv())
    assert count(engine) in (len(confirmed), len(confirmed) + 1)


def test_opened_twice_in_a_process_loses_nothing_to_another_that_leaves(engine, tmp_path):
    """Locks are a process's: opening once more must not take them from who has it open."""
    path = tmp_path / "a.db"
    open_database(path, [first, second]).dispose()

    def elsewhere():
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "print(c.execute('SELECT count(*) FROM answer').fetchone()[0]); c.close()"
        )
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
        return int(done.stdout)

    # the other process leaves, as the last one if it sees no lock; what is written then counts
    for number in range(3):
        assert elsewhere() == number
        with writing(engine) as session:
            session.execute(text("INSERT INTO answer (reader) VALUES ('ann')"))


def test_backup_while_a_writer_is_at_work(engine, tmp_path):
    with writing(engine) as session:
        session.execute(text("INSERT INTO answer (reader) VALUES ('ann')"))
    with writing(engine) as session:
        session.execute(text("INSERT INTO answer (reader) VALUES ('ann')"))
        session.flush()
        out = backup(tmp_path / "a.db", tmp_path / "copy.db")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]
    with sqlite3.connect(out) as copy:
        assert copy.execute("SELECT count(*) FROM answer").fetchone() == (1,)
    assert count(engine) == 2
    with pytest.raises(DataError, match="exists"):
        backup(tmp_path / "a.db", out)
    with pytest.raises(DataError, match="no such database"):
        backup(tmp_path / "none.db", tmp_path / "b.db")


def test_opened_to_read_it_cannot_be_written(engine, tmp_path):
    for is_served in (True, False):
        if not is_served:
            engine.dispose()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        opened = open_to_read(tmp_path / "a.db", [first, second])
        assert count(opened, "reader") == 1
        with pytest.raises(OperationalError, match="readonly"), writing(opened) as session:
            session.execute(text("DELETE FROM reader"))
        opened.dispose()
        after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert set(after) == set(before)
        assert after["a.db"] == before["a.db"]


def test_opened_to_read_it_must_be_of_this_version(engine, tmp_path):
    for migrations, remedy in (([first], "newer program"), ([first, second, first], "serve")):
        with pytest.raises(DataError, match=remedy):
            open_to_read(tmp_path / "a.db", migrations)
    with pytest.raises(DataError, match="no such database"):
        open_to_read(tmp_path / "b.db", [first])
    assert not (tmp_path / "b.db").exists()
