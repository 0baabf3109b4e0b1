"""SQLite for the pages: durable, one writer at a time, versioned, copied while it is in use.

Eight writers of a deferred transaction that reads before it writes lose up to nine answers in ten
to "database is locked", with a write-ahead log or without: SQLite refuses at once to turn a read
into a write that another has overtaken. `BEGIN IMMEDIATE` waits for its turn instead.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import atomic_path

BUSY_SECONDS = 20.0
"""How long a transaction waits for another's end."""

Migration = Callable[[Connection], None]
"""Takes the tables from one version to the next."""


def open_database(path: Path, migrations: Sequence[Migration]) -> Engine:
    """Open or create a database, taken to the newest version of its tables.

    Every connection has a write-ahead log synced at each commit, foreign keys enforced and a
    timeout. The version is the number of migrations done, in `PRAGMA user_version`.

    Raises:
        DataError: not a database, one that is busy or cannot be written, or one of a newer version
            than `migrations` leads to; says which.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # answers of readers are nobody else's to read; one that is there is not even opened, since
    # closing a file takes all of this process's locks from it (POSIX), those of an open database
    # too, whose log another process would then throw away under it
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        with writing(engine) as session:
            connection = session.connection()
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > len(migrations):
                raise DataError(
                    f"{path}: its tables are of version {version}, this program knows "
                    f"{len(migrations)}; use the newer program that wrote it"
                )
            for migrate in migrations[version:]:
                migrate(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {len(migrations)}")
    except BaseException as fault:
        engine.dispose()
        cause = getattr(fault, "orig", fault)
        if isinstance(cause, sqlite3.DatabaseError):
            raise DataError(f"{path}: {_remedy(cause)}") from fault
        raise
    return engine


def open_to_read(path: Path, migrations: Sequence[Migration]) -> Engine:
    """Open a database of the newest version without changing a byte of it or beside it.

    Raises:
        DataError: there is none, it is not a database, or one of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such database; it is begun by serving the pages")
    engine = create_engine("sqlite://", creator=lambda: _only_reading(path), poolclass=NullPool)
    event.listen(engine, "connect", _separate)
    event.listen(engine, "begin", _begin)
    try:
        with reading(engine) as session:
            version = session.connection().exec_driver_sql("PRAGMA user_version").scalar_one()
    except SQLAlchemyError as fault:
        engine.dispose()
        raise DataError(f"{path}: not a usable database ({fault}); restore a backup") from fault
    if version != len(migrations):
        engine.dispose()
        remedy = "serve its pages once" if version < len(migrations) else "use a newer program"
        raise DataError(
            f"{path}: its tables are of version {version}, this program's of {len(migrations)}; "
            f"{remedy}"
        )
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A transaction that may write: it waits for its turn, and is kept whole or not at all.

    What is done in the block is on the disk when the block is left, and undone if it raises.
    """
    with (
        engine.connect().execution_options(writing=True) as connection,
        connection.begin(),
        Session(connection, expire_on_commit=False) as session,
    ):
        yield session
        session.flush()


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A transaction that sees one state of the database and changes nothing."""
    with engine.connect() as connection, Session(connection, autoflush=False) as session:
        yield session


def backup(path: Path, out: Path) -> Path:
    """Copy a database, also while it is written to, into one whole file.

    Raises:
        DataError: there is no database, `out` exists, or the copy is damaged.
    """
    path, out = Path(path), Path(out)
    if not path.is_file():
        raise DataError(f"{path}: no such database")
    if out.exists():
        raise DataError(f"{out}: exists; give the name of a new file")
    with atomic_path(out, private=True) as temporary:
        with (
            closing(_only_reading(path)) as source,
            closing(sqlite3.connect(temporary)) as target,
        ):
            source.backup(target)
            # a copy that is one file: no log beside it
            target.execute("PRAGMA journal_mode = DELETE")
            state = target.execute("PRAGMA integrity_check").fetchone()[0]
        if state != "ok":
            raise DataError(f"{path}: damaged ({state}); restore an earlier backup")
    return out


def _only_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write.

    Even a reader makes the write-ahead log's files where there are none. Without a log nobody has
    the database open, all of it is in the one file, and it can be read as one that nobody changes.
    """
    is_open = path.with_name(f"{path.name}-wal").exists()
    how = "mode=ro" if is_open else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?{how}",
        uri=True,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
    )


def _remedy(fault: sqlite3.DatabaseError) -> str:
    """What is wrong with a database and what to do; a backup is for damage alone.

    Whoever restores one over a database that is merely busy loses what was answered since.
    """
    primary = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"another program holds it for more than {BUSY_SECONDS:.0f} s ({fault}); it is not "
            "damaged: end that program, or wait, and give the command again"
        )
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return f"cannot be written ({fault}); make the file and its folder writable"
    if primary == sqlite3.SQLITE_CANTOPEN:
        return f"cannot be opened ({fault}); make the file and its folder readable and writable"
    if primary == sqlite3.SQLITE_FULL:
        return f"the disk is full ({fault}), what was saved is as it was; free some space"
    if primary == sqlite3.SQLITE_IOERR:
        return (
            f"the disk does not answer ({fault}); see that it is there and not full, and give the "
            "command again"
        )
    return f"not a usable database ({fault}); restore a backup"


def _separate(connection: Any, _record: Any) -> None:
    # the driver would begin transactions by itself, and deferred ones
    connection.isolation_level = None


def _prepare(connection: Any, record: Any) -> None:
    _separate(connection, record)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {round(BUSY_SECONDS * 1000)}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
