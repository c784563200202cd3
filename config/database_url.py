"""Checks DATABASE_URL before anything is opened; no message shows the address or its password."""

from __future__ import annotations

import re

FORMS = "sqlite:///path/of/the/file or postgresql://user:password@host:5432/database"
ENCODE = "; in a user name or password, write / as %2F, @ as %40, : as %3A and # as %23"
DRIVER = "postgresql+psycopg"
"""The one driver for PostgreSQL: https://docs.sqlalchemy.org/en/20/dialects/postgresql.html"""


def fit_database_url(value: str) -> str:
    """Return the address with a scheme that SQLAlchemy knows. Raises ValueError with a sentence.

    `postgres://` is accepted: Heroku and others hand it out, and SQLAlchemy knows only `postgresql`.
    """
    scheme, separator, rest = value.strip().partition("://")
    dialect = scheme.lower().partition("+")[0]
    if not separator:
        raise ValueError(f"it is no address of a database; write {FORMS}")
    if dialect in ("postgres", "postgresql"):
        return f"{DRIVER}://{rest}"
    if dialect != "sqlite":
        # The text before :// is shown only if it is a plain word: it may be part of a password.
        named = f"{scheme}:// is" if re.fullmatch(r"[A-Za-z][\w+]{0,30}", scheme) else "it is"
        raise ValueError(f"{named} not a database that this service can use; write {FORMS}")
    path = rest.partition("?")[0]
    if path in ("", "/", "/:memory:"):
        raise ValueError("it names no file: each process would have a database of its own")
    if not path.startswith("/"):
        raise ValueError("a SQLite address has three slashes before the path: sqlite:///bridge.db")
    return f"{scheme.lower()}://{rest}"
