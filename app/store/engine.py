"""Opens the database, SQLite or PostgreSQL, and its transactions; app/store/schema.py migrates it."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.security.encryption import Cipher
from app.store.private_files import make_private, open_to_others
from app.store.schema import Schema
from app.store.trouble import explain
from config.database_url import DRIVER, ENCODE, fit_database_url

BUSY_SECONDS = 5
"""How long a writer waits for another writer before the caller is asked to come back."""
SPARE = 10
"""Connections to the database beside the pool of five and those of the accounts worked on."""
LOCK_SECONDS = 10
"""How long a statement waits for a row that another process has locked (PostgreSQL)."""
STILL_SECONDS = 15
"""After this, PostgreSQL ends the transaction of a process that stands still, with its locks."""
ATTEMPTS = 4
"""How often a transaction is tried that a deadlock undoes."""
DEADLOCK = "40P01"
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""
UNHEARD = {
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}  # fmt: skip
"""libpq's options by which a connection to a database host that is gone ends within half a minute.
https://www.postgresql.org/docs/current/libpq-connect.html"""
CONNECT_TURN = 0x636F6E6E
DATABASE_DOWN = (
    OperationalError, InternalError, InterfaceError, NotSupportedError, PoolTimeout,
)  # fmt: skip
"""The errors of a database that cannot take a write: away, full, read-only, or cutting us off."""
_OURS = (IntegrityError, DataError, ProgrammingError)
"""The errors for a wrong statement, even if the database is well."""
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"
SPACE = 64 * 1024
"""Bytes that must fit on the disk next to a SQLite database."""

Done = TypeVar("Done")
Open = TypeVar("Open")


class Store:
    """Sessions on one database. Writes are short; no call to the outside happens within one."""

    def __init__(self, url: str, at_once: int = 0) -> None:
        """Open nothing yet. Raises ValueError with a sentence if the address cannot be read.

        `at_once`: how many accounts are worked on at once, each with a connection to the database.
        """
        self.engine = _make_engine(url, at_once)
        self.schema = Schema(self.engine)
        self._immediate = self.engine.execution_options(begin="IMMEDIATE")
        # SQLite allows one writer and lets the others poll with growing pauses; the threads of one
        # process queue up here instead.
        sqlite = self.engine.dialect.name == "sqlite"
        self._turn: AbstractContextManager[object] = threading.Lock() if sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; changes made in it are not kept."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: on disk when the block ends, undone if the block raises."""
        with (
            self._turn,
            Session(self._immediate, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def write_plain(self) -> Iterator[Connection]:
        """A transaction like that of `write`, without the objects of a session: for few, fast rows."""
        with self._turn, self._immediate.connect() as connection, connection.begin():
            yield connection

    def attempt(self, action: Callable[[Session], Done]) -> Done:
        """Run an action in one transaction of `write`, and again if a deadlock undid it.

        If two transactions wait for each other's rows, PostgreSQL ends one; the other goes on.
        """
        return _attempt(self.write, action)

    def attempt_plain(self, action: Callable[[Connection], Done]) -> Done:
        """The same in one transaction of `write_plain`."""
        return _attempt(self.write_plain, action)

    def check(self) -> None:
        """Raise an error for which is_away is true if the database takes no write."""
        with self._turn, self._immediate.connect() as connection:
            # Never committed; a PostgreSQL standby refuses it as it would refuse a webhook.
            connection.execute(
                text("INSERT INTO encryption_keys (key_id, first_used_at) VALUES (:id, :at)"),
                {"id": uuid.uuid4().hex[:16], "at": "2000-01-01 00:00:00"},
            )
            connection.rollback()
        name = self.engine.url.database
        if self.engine.dialect.name == "sqlite" and name:
            # SQLite notices a full disk only when it commits.
            with tempfile.TemporaryFile(dir=Path(name).parent) as probe:
                probe.write(b"\0" * SPACE)
                probe.flush()

    def open_to_others(self) -> list[str]:
        """Return the files of a SQLite database that other users of this machine may read or write."""
        path = self.engine.url.database
        return open_to_others(path) if path and self.engine.dialect.name == "sqlite" else []

    def migrate(self, cipher: Cipher | None = None) -> None:
        """Bring the schema up to date. Raises UnfitSchema if the database is newer than the code."""
        self.schema.upgrade(cipher)

    def compact(self) -> bool:
        """Remove what the files still hold of deleted rows; False if other processes prevent it.

        https://www.sqlite.org/lang_vacuum.html, https://www.postgresql.org/docs/current/sql-vacuum.html
        """
        if self.engine.dialect.name == "postgresql":
            with self.engine.connect() as connection:
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                alone.exec_driver_sql("VACUUM")
            return True
        with self._turn:
            raw = self.engine.raw_connection()
            try:
                for step in (CHECKPOINT, "VACUUM", CHECKPOINT):
                    busy = raw.cursor().execute(step).fetchone()
            except sqlite3.OperationalError:
                return False
            finally:
                raw.close()
        return not busy[0]

    def explain(self, error: BaseException) -> str:
        """Return why the database cannot be used, as a sentence without the password."""
        return explain(error, self.engine.url)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _attempt(
    write: Callable[[], AbstractContextManager[Open]], action: Callable[[Open], Done]
) -> Done:
    for _ in range(ATTEMPTS - 1):
        try:
            with write() as opened:
                return action(opened)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != DEADLOCK:
                raise
    with write() as opened:
        return action(opened)


def is_away(error: BaseException) -> bool:
    """Whether an error means that the database cannot be used now, not that we asked wrongly."""
    if isinstance(error, DBAPIError):
        return not isinstance(error, _OURS)
    return isinstance(error, PoolTimeout)


def take_turns(session: Session, turns: Sequence[int]) -> None:
    """Wait, in this order, until no other transaction with one of these numbers is open.

    SQLite has one transaction at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        wait = text("SELECT pg_advisory_xact_lock(turn) FROM unnest(CAST(:turns AS bigint[])) turn")
        session.execute(wait, {"turns": list(turns)})


def utcnow() -> datetime:
    """Now, aware and in UTC."""
    return datetime.now(UTC)


def _make_engine(url: str, at_once: int) -> Engine:
    address = fit_database_url(url)
    try:
        parsed = make_url(address)
    except (ArgumentError, ValueError):
        # SQLAlchemy's own text shows the address, with its password.
        raise ValueError(f"it cannot be read as an address{ENCODE}") from None
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed.set(drivername=DRIVER),
            hide_parameters=True,
            pool_pre_ping=True,
            pool_timeout=BUSY_SECONDS,
            max_overflow=SPARE + at_once,
            connect_args={
                "connect_timeout": BUSY_SECONDS,
                **UNHEARD,
                "options": f"-c lock_timeout={LOCK_SECONDS}s"
                f" -c idle_in_transaction_session_timeout={STILL_SECONDS}s",
            },
        )
    engine = create_engine(
        parsed,
        hide_parameters=True,
        max_overflow=SPARE + at_once,
        connect_args={"timeout": BUSY_SECONDS},
    )
    event.listen(engine, "do_connect", partial(_make_file, str(parsed.database)))
    event.listen(engine, "connect", _tune_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_file(path: str, *_: object) -> None:
    make_private(path)


def _tune_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: this service says BEGIN IMMEDIATE.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


__all__ = [
    "CONNECT_TURN", "DATABASE_DOWN", "DBAPIError", "PoolTimeout", "Store", "is_away", "take_turns",
    "utcnow",
]  # fmt: skip
