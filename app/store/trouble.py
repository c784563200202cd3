"""What is wrong with the database, as a sentence: never with the password, the SQL or a row."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

STATES = {
    "42501": "The user of DATABASE_URL may not create or change tables: make it the owner of the"
    " database, or GRANT CREATE ON SCHEMA public to it.",
    "25006": "PostgreSQL takes no writes: DATABASE_URL names a standby, or the database is read-only.",
    "53100": "The disk of PostgreSQL is full.",
    "53300": "PostgreSQL has no connection left for this service: raise max_connections.",
    "55P03": "Another process holds a lock in PostgreSQL for too long. Before a migration, stop web,"
    " workers and scheduler.",
    "57P01": "PostgreSQL is being shut down.",
}
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""
TEXTS = (
    ("password authentication failed", "PostgreSQL refuses the password of the user {user}."),
    ("no password supplied", "PostgreSQL wants a password for the user {user}; DATABASE_URL has none."),
    ("role .* does not exist", "PostgreSQL at {place} has no user {user}."),
    ("database .* does not exist", "PostgreSQL at {place} has no database {name}: create it."),
    (
        "pg_hba.conf",
        "PostgreSQL at {place} does not let the user {user} in from this machine: its pg_hba.conf"
        " has no line that allows it, or only with TLS (sslmode=require in DATABASE_URL).",
    ),
    ("failed to resolve host", "The host {host} of DATABASE_URL has no address: its name is wrong, or"
     " DNS is away."),
    ("Connection refused", "Nothing listens at {place}: PostgreSQL is not running there, or DATABASE_URL"
     " has the wrong port."),
    ("No such file or directory", "There is no socket of PostgreSQL at {place}: it is not running, or"
     " has another folder."),
    ("timeout expired|timed out", "PostgreSQL at {place} does not answer in time."),
    ("No route to host|Network is unreachable", "No network leads to {place}."),
    ("does not support SSL", "PostgreSQL at {place} speaks no TLS, and DATABASE_URL demands it."),
    ("certificate", "The certificate of PostgreSQL at {place} is not trusted: check sslmode and"
     " sslrootcert in DATABASE_URL."),
    ("too many clients|remaining connection slots", STATES["53300"]),
    ("starting up|shutting down|recovery mode", "PostgreSQL at {place} is starting or stopping."),
    ("invalid .* value|invalid (URI|connection)", "DATABASE_URL has an option after the ? that"
     " PostgreSQL's client does not know."),
)  # fmt: skip
"""A part of libpq's text -> the sentence: a failed login has no SQLSTATE here. libpq translates its
own texts only if LC_MESSAGES is set; PostgreSQL translates with lc_messages."""
BUSY = "Another process has been writing to the database for seconds: try again."


def explain(error: BaseException, url: URL) -> str:
    """Return why the database at this URL cannot be used, as a sentence."""
    if isinstance(error, PoolTimeout):
        return "All connections of this process to the database are in use."
    if url.get_backend_name() == "sqlite":
        return _sqlite(error, Path(url.database or ""))
    return _postgresql(error, url)


def _postgresql(error: BaseException, url: URL) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    known = STATES.get(str(getattr(cause, "sqlstate", None)))
    if known:
        return known
    host = url.host or str(url.query.get("host", "")) or "this machine"
    words = {
        "host": host,
        "place": f"{host}, port {url.port or 5432}" if url.host else host,
        "user": url.username or "of this process",
        "name": url.database or url.username or "",
    }
    for pattern, sentence in TEXTS:
        if re.search(pattern, str(cause)):
            return sentence.format(**words)
    return f"PostgreSQL at {words['place']} does not answer ({type(cause).__name__})."


def _sqlite(error: BaseException, file: Path) -> str:
    text, file = str(error), file.absolute()
    if re.search("unable to open|readonly database|Permission denied|No such file", text):
        return _file_trouble(file)
    if re.search("database is locked|table is locked", text):
        return BUSY
    if re.search("disk is full|No space left", text):
        return f"The disk is full on which {file} lies."
    if re.search("not a database|malformed", text):
        return f"The file {file} of DATABASE_URL is no SQLite database, or is damaged."
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"SQLite cannot use {file} ({type(cause).__name__})."


def _file_trouble(file: Path) -> str:
    """Why SQLite cannot open or write a file; it also writes files beside it."""
    folder = file.parent
    if os.path.isdir(file):
        return f"DATABASE_URL names the folder {file}: give the path of a file in it."
    if not os.path.isdir(folder):
        if os.access(folder.parent, os.X_OK, effective_ids=True):
            return f"The folder {folder} of DATABASE_URL does not exist: create it."
        return f"This user may not enter the folder {folder.parent} of DATABASE_URL."
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return f"This user may not write in the folder {folder} of DATABASE_URL."
    if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK, effective_ids=True):
        return f"This user may not write the file {file} of DATABASE_URL."
    return f"SQLite cannot open or write {file}: its file system may be read-only."
