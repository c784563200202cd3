"""A database that cannot be used is a sentence, and `flask db` works where the schema does not fit."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from app.store.engine import DBAPIError, Store
from app.store.schema import revisions
from tests.bridge import KEY, Bridge, wait_for
from tests.postgres import postgres_url
from tests.processes import ROOT

PASSWORD = "pass-of-a-role"
NOBODY = 65534
NEWEST = revisions()[-1]


def trouble(url: str) -> str:
    """Return why the database of an address cannot be used; an empty text if it can."""
    store = Store(url)
    try:
        store.migrate()
    except (DBAPIError, OSError) as error:
        return store.explain(error)
    finally:
        store.close()
    return ""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL in which the role `wary` needs a password and may make no tables."""
    with postgres_url() as url, psycopg.connect(url, autocommit=True) as connection:
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute(f"CREATE ROLE wary LOGIN PASSWORD '{PASSWORD}'")
        rules = Path(str(connection.execute("SHOW hba_file").fetchone()[0]))  # type: ignore[index]
        if os.access(rules, os.W_OK):
            before = rules.read_text(encoding="utf-8")
            rules.write_text(
                f"host all wary 127.0.0.1/32 scram-sha-256\n"
                f"host all banned 127.0.0.1/32 reject\n{before}"
            )
            connection.execute("SELECT pg_reload_conf()")
        wait_for(lambda: "refuses the password" in trouble(changed(url, "wary", "wrong")), 20)
        yield url


def changed(url: str, user: str, password: str | None = None) -> str:
    """Return the address with another user."""
    parts = make_url(url).set(username=user, password=password)
    return parts.render_as_string(hide_password=False)


def test_troubles_of_postgresql_are_told_apart(server: str) -> None:
    """Password, user, database, host, port and rights each have a sentence, without the password."""
    wrong = PASSWORD[::-1]
    place = f"127.0.0.1, port {make_url(server).port}"
    told = {
        trouble(changed(server, "wary", wrong)): "PostgreSQL refuses the password of the user wary.",
        trouble(changed(server, "wary")): "PostgreSQL wants a password for the user wary;",
        trouble(changed(server, "wary", PASSWORD)): "may not create or change tables",
        trouble(changed(server, "nobody_here")): f"PostgreSQL at {place} has no user nobody_here.",
        trouble(changed(server, "banned")): f"{place} does not let the user banned in",
        trouble(f"{server}_not"): f"PostgreSQL at {place} has no database {make_url(server).database}_not",
        trouble("postgres://x@127.0.0.1:1/x"): "Nothing listens at 127.0.0.1, port 1:",
        trouble("postgres://x@nowhere.invalid/x"): "The host nowhere.invalid of DATABASE_URL has no address",
        trouble("postgres:///x?host=/nowhere"): "There is no socket of PostgreSQL at /nowhere",
        trouble(f"{server}?sslmode=require"): "speaks no TLS, and DATABASE_URL demands it",
        trouble(f"{server}?colour=red"): "an option after the ? that PostgreSQL's client does not know",
    }  # fmt: skip
    assert len(told) == 11
    for sentence, words in told.items():
        assert words in sentence
        assert PASSWORD not in sentence and wrong not in sentence and "\n" not in sentence
    with psycopg.connect(server, autocommit=True) as connection:
        name = make_url(server).database
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        assert "PostgreSQL takes no writes" in trouble(server)
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert trouble(server) == ""


def test_troubles_of_sqlite_are_told_apart(tmp_path: Path) -> None:
    """A folder that is missing, a folder in place of a file and a file of another kind are told apart."""
    assert f"The folder {tmp_path}/none of DATABASE_URL does not exist: create it." in trouble(
        f"sqlite:///{tmp_path}/none/a.db"
    )
    assert f"DATABASE_URL names the folder {tmp_path}" in trouble(f"sqlite:///{tmp_path}")
    (tmp_path / "photo.db").write_bytes(b"\xff\xd8\xff" * 1000)
    assert "is no SQLite database" in trouble(f"sqlite:///{tmp_path}/photo.db")
    assert trouble(f"sqlite:///{tmp_path}/a.db") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
def test_a_folder_or_file_of_another_user() -> None:
    """A folder or a file that this user may not write has a sentence."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        store = Store(f"sqlite:///{folder}/a.db")
        store.migrate()
        store.close()
        os.seteuid(NOBODY)
        try:
            new, old = trouble(f"sqlite:///{folder}/b.db"), trouble(f"sqlite:///{folder}/a.db")
        finally:
            os.seteuid(0)
        assert f"This user may not write in the folder {folder} of DATABASE_URL." in new
        assert f"This user may not write in the folder {folder} of DATABASE_URL." in old


def run(url: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the service with a database."""
    environment = {
        "PATH": os.environ["PATH"], "DATABASE_URL": url, "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True,
        input=given, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.long
def test_the_commands_of_the_schema(database_url: str) -> None:
    """`flask db` goes up and down, asks before it loses data, and never migrates unasked."""
    db = ("flask", "--app", "app", "db")
    new = run(database_url, *db, "current")
    assert (new.returncode, new.stdout) == (1, f"Database: empty. Code: {NEWEST}.\n")
    assert "db upgrade" in new.stderr
    assert (
        run(database_url, *db, "upgrade").stdout == f"The database went from empty to {NEWEST}.\n"
    )
    fits = run(database_url, *db, "current")
    assert fits.returncode == 0 and fits.stdout.startswith(f"Database: {NEWEST}. Code: {NEWEST}.\n")
    asked = run(database_url, *db, "downgrade", "0010", given="n\n")
    assert asked.returncode == 1 and "workers and scheduler must be stopped" in asked.stderr
    assert f"Take the database from {NEWEST} to 0010?" in asked.stderr
    assert run(database_url, *db, "current").returncode == 0
    down = run(database_url, *db, "downgrade", "0009", "--yes")
    assert down.stdout.endswith(f"The database went from {NEWEST} to 0009.\n")
    old = run(database_url, *db, "current")
    assert (old.returncode, old.stdout) == (1, f"Database: 0009. Code: {NEWEST}.\n")
    wrong = run(database_url, *db, "downgrade", "0010", "--yes")
    assert "Error: Revision 0010 is newer than the database" in wrong.stderr
    # Any other command brings the schema up to date first.
    assert run(database_url, "flask", "--app", "app", "keys", "list").returncode == 0
    assert run(database_url, *db, "current").returncode == 0


@pytest.mark.long
def test_a_database_that_is_newer_than_the_code_is_a_sentence(database_url: str) -> None:
    """Every program names the revision and what to do, and changes nothing."""
    store = Store(database_url)
    store.migrate()
    with store.write_plain() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    programs = (
        ("workers.worker",),
        ("flask", "--app", "app", "doctor"),
        ("flask", "--app", "app", "run", "--port", "1"),
        ("flask", "--app", "app", "db", "current"),
        ("flask", "--app", "app", "db", "upgrade"),
        ("flask", "--app", "app", "db", "downgrade", "0001", "--yes"),
    )
    for program in programs:
        ended = run(database_url, *program)
        assert ended.returncode == 1 and "Traceback" not in ended.stderr, program
        assert "The database is at revision 0099, which this version" in ended.stderr
        assert f"db downgrade {NEWEST}" in ended.stderr
    assert store.schema.state().database == "0099"
    store.close()


def test_doctor_names_the_schema_and_stops_at_a_database_that_is_away(tmp_path: Path) -> None:
    """The schema is a finding; if the database cannot be used, that is the one finding."""
    path = tmp_path / "a.sqlite3"
    bridge = Bridge(f"sqlite:///{path}", ("hubspot",))
    found = {f.check: f for f in bridge.services.doctor.examine()}
    assert found["database"].verdict == found["schema"].verdict == "good"
    bridge.services.store.schema.downgrade("0010", bridge.services.cipher)
    (schema,) = bridge.services.doctor.examine()
    assert (schema.check, schema.verdict, schema.detail) == ("schema", "bad", "It is at 0010.")
    assert "db upgrade" in schema.fix
    bridge.services.store.close()
    for file in tmp_path.glob("a.sqlite3*"):
        file.unlink()
    tmp_path.rmdir()
    (away,) = bridge.services.doctor.examine()
    assert away.detail == f"The folder {tmp_path} of DATABASE_URL does not exist: create it."
    ready = bridge.app.test_client().get("/readyz")
    assert ready.status_code == 503
    assert str(tmp_path) not in json.dumps(ready.json) and "doctor" in ready.get_data(as_text=True)
    tmp_path.mkdir()
    bridge.close()


def test_only_its_owner_may_read_the_database(tmp_path: Path) -> None:
    """The files of a SQLite database are made with mode 0600 whatever the umask; `doctor` names a file
    that was opened to others.
    """
    usual = os.umask(0o000)
    try:
        store = Store(f"sqlite:///{tmp_path}/a.db")
        store.migrate()
        with store.write() as session:
            session.execute(text("DELETE FROM audit_log"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(usual)
    assert {"a.db", "a.db-wal", "a.db-shm", "a.db.lock"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert store.open_to_others() == []
    (tmp_path / "a.db").chmod(0o640)
    assert store.open_to_others() == [f"{tmp_path}/a.db"]
    store.close()


def test_an_error_of_the_database_shows_no_values(database_url: str) -> None:
    """The text of a database error has no value of a row, whoever logs it."""
    store = Store(database_url)
    store.migrate()
    with pytest.raises(DBAPIError) as caught, store.write() as session:
        session.execute(
            text("SELECT nothing FROM bookings WHERE key = :key"), {"key": "jane@x.example"}
        )
    store.close()
    assert "jane@x.example" not in str(caught.value)
