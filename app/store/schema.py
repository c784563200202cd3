"""The schema of the database and its revisions: where it stands, and the way up and down."""

from __future__ import annotations

import fcntl
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from app.security.encryption import Cipher, UnreadableSecret
from app.store.private_files import make_private

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x6D656574


class SchemaFit(StrEnum):
    """How the schema of a database and this version of the service go together."""

    FITS = "fits"
    EMPTY = "empty"
    OLDER = "older"
    """The database lacks revisions that the code has."""
    NEWER = "newer"
    """The database has a revision that the code does not know."""


class UnfitSchema(Exception):
    """The schema cannot be brought where it should be; the message says why and what to do."""


@dataclass(frozen=True)
class SchemaState:
    """The revision of a database, None if it is empty, and the newest revision of the code."""

    database: str | None
    code: str

    @property
    def fit(self) -> SchemaFit:
        """How the two go together."""
        if self.database is None:
            return SchemaFit.EMPTY
        if self.database not in revisions():
            return SchemaFit.NEWER
        return SchemaFit.FITS if self.database == self.code else SchemaFit.OLDER

    @property
    def advice(self) -> str:
        """What the state means and what to do, in sentences."""
        if self.fit is SchemaFit.NEWER:
            return (
                f"The database is at revision {self.database}, which this version of the service"
                f" does not know: a newer version has changed the database. Install that version"
                f" again, or step back with it: `bridge db downgrade {self.code}`."
            )
        if self.fit is SchemaFit.FITS:
            return "The database fits this version of the service."
        lacks = "is empty" if self.fit is SchemaFit.EMPTY else f"lacks what {self.code} has"
        return (
            f"The database {lacks}. Run `bridge db upgrade`, or start the service: each"
            " process upgrades the database when it starts."
        )


class Schema:
    """The schema of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def state(self) -> SchemaState:
        """Return where the database and the code stand."""
        with self._engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return SchemaState(current, revisions()[-1])

    def upgrade(self, cipher: Cipher | None = None) -> SchemaState:
        """Bring the schema to the code's revision; return the state before.

        Processes that start together wait for one another. Raises UnfitSchema if the database is
        newer than the code, or if its data cannot be read. `cipher`: an empty database needs none.
        """
        state = self.state()
        if state.fit is SchemaFit.FITS:
            return state
        if state.fit is SchemaFit.NEWER:
            raise UnfitSchema(state.advice)
        with self._migration_lock():
            # Another process, perhaps of another version, may have been first.
            if self.state().fit is SchemaFit.NEWER:
                raise UnfitSchema(self.state().advice)
            self._move("head", up=True, cipher=cipher)
        return state

    def downgrade(self, revision: str, cipher: Cipher | None = None) -> SchemaState:
        """Take the schema back to an older revision; return the state before.

        Tables and columns that the older revision lacks are lost. Raises UnfitSchema if the
        revision is unknown, or not older than that of the database.
        """
        with self._migration_lock():
            state = self.state()
            self.check_downgrade(revision, state)
            if revision != state.database:
                self._move(revision, up=False, cipher=cipher)
        return state

    def check_downgrade(self, revision: str, state: SchemaState) -> None:
        """Raise UnfitSchema if a database in this state cannot go back to a revision."""
        known = revisions()
        if state.database is None or state.fit is SchemaFit.NEWER:
            raise UnfitSchema(state.advice)
        if revision not in known:
            raise UnfitSchema(
                f"There is no revision {revision!r}: they go from {known[0]} to {known[-1]}."
            )
        if known.index(revision) > known.index(state.database):
            raise UnfitSchema(
                f"Revision {revision} is newer than the database, which is at {state.database}."
                " Use `bridge db upgrade`."
            )

    def _move(self, revision: str, up: bool, cipher: Cipher | None) -> None:
        """Migrate in one transaction: it is done as a whole or not at all."""
        with self._engine.connect() as connection, _without_foreign_keys(connection):
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            config.attributes["cipher"] = cipher
            try:
                (command.upgrade if up else command.downgrade)(config, revision)
            except UnreadableSecret as error:
                raise UnfitSchema(str(error)) from None
            _check_foreign_keys(connection)
            connection.commit()

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if self._engine.dialect.name == "postgresql":
            with self._engine.connect() as connection:
                # A migration of a large database takes longer than a statement waits for a lock.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
                # The lock is the session's, not the transaction's, which would be ended as idle.
                connection.commit()
                try:
                    yield
                finally:
                    unlock = text("SELECT pg_advisory_unlock(:key)")
                    connection.execute(unlock, {"key": MIGRATION_LOCK})
            return
        path = f"{self._engine.url.database}.lock"
        make_private(path)
        with Path(path).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@functools.cache
def revisions() -> tuple[str, ...]:
    """Return the code's revisions, oldest first."""
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return tuple(reversed([script.revision for script in scripts]))


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Let SQLite copy a table that others refer to; it would delete their rows, or refuse.

    Step 1 and 12 of https://www.sqlite.org/lang_altertable.html#making_other_kinds_of_table_schema_changes
    """
    driver = connection.connection.driver_connection
    if connection.dialect.name != "sqlite" or driver is None:
        yield
        return
    # Not by SQLAlchemy, which would begin a transaction first: within one, this has no effect.
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        connection.rollback()
        driver.execute("PRAGMA foreign_keys=ON")


def _check_foreign_keys(connection: Connection) -> None:
    """Raise UnfitSchema if a row refers to one that is not there (step 10 of the same page)."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchone()
        if broken:
            raise UnfitSchema(
                f"A row of the table {broken[0]} refers to a row of {broken[2]} that does not exist."
                " Nothing was changed. Restore a backup."
            )
