"""Shared setup for thousands of short tests, made once: connected CRMs and compiled SQL statements.

Half of the tests' time went into consent pages and into compiling the same SQL for each new
database. A connection is copied only in the usual case: SQLite, default settings, unchanged
sandboxes. A tenth of the remaining time went into URL builders of routes that are never used.
"""

from __future__ import annotations

import copy
import functools
import sqlite3
import time
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from app.mapping.mapping import Mapping
from app.services import mappings
from app.store import engine
from sandbox.core import Sandbox
from sandbox.serve import load_sandbox

FRESH = 60.0
"""The seconds for which a copy may be used: its tokens and times grow old."""
OWN = ("_sandbox", "app", "lock")
"""Attributes that each sandbox has for itself and that are not its contents."""


@dataclass(frozen=True)
class Connected:
    """A database, and the contents of the sandboxes."""

    database: bytes
    states: MappingType[str, dict[str, Any]]
    urls: MappingType[str, str]
    at: datetime
    ticks: float

    @property
    def fresh(self) -> bool:
        """Whether the copy is recent, by the test's clock and by the elapsed time."""
        age = (datetime.now(UTC) - self.at).total_seconds()
        return 0 <= age < FRESH and 0 <= time.monotonic() - self.ticks < FRESH


_made: dict[tuple[str, ...], Connected] = {}


def get(providers: tuple[str, ...]) -> Connected | None:
    """Return the copy for these CRMs, if there is a recent one."""
    made = _made.get(providers)
    return made if made and made.fresh else None


def keep(
    providers: tuple[str, ...], path: Path, sandboxes: MappingType[str, tuple[Sandbox, str]]
) -> None:
    """Save the current state as a copy. `sandboxes`: name -> the sandbox and its address."""
    with sqlite3.connect(path) as source, sqlite3.connect(":memory:") as target:
        source.backup(target)
        # Each test signs in by itself.
        target.execute("DELETE FROM web_sessions")
        target.execute("DELETE FROM api_keys")
        target.commit()
        database = target.serialize()
    states = {name: _state(sandbox) for name, (sandbox, _) in sandboxes.items()}
    urls = {name: url for name, (_, url) in sandboxes.items()}
    now = datetime.now(UTC)
    _made[providers] = Connected(database, states, urls, now, time.monotonic())


def put(made: Connected, path: Path, sandboxes: MappingType[str, tuple[Sandbox, str]]) -> None:
    """Restore the copy into the sandboxes and into a database that nobody has open."""
    for file in path.parent.glob(f"{path.name}-*"):
        file.unlink()
    path.write_bytes(made.database)
    with sqlite3.connect(path) as database:
        for name, (sandbox, url) in sandboxes.items():
            vars(sandbox).update(copy.deepcopy(made.states[name]))
            database.execute(
                "UPDATE connections SET api_base = replace(api_base, ?, ?)", (made.urls[name], url)
            )
    database.close()


def share_statements() -> None:
    """Share compiled statements among all SQLite databases of this process."""
    shared: LRUCache[Any, Any] = LRUCache(2000)
    make = engine._make_engine

    def made(url: str, at_once: int) -> Engine:
        found = make(url, at_once)
        if found.dialect.name == "sqlite":
            found._compiled_cache = shared
        return found

    # The cache's key includes the dialect, and each engine has its own.
    dialect: Any = SQLiteDialect_pysqlite
    dialect.__hash__ = lambda one: hash(SQLiteDialect_pysqlite)
    dialect.__eq__ = lambda one, other: type(one) is type(other)
    engine._make_engine = made


def read_mappings_once() -> None:
    """Parse each text of a mapping file once for all services of this process."""
    read = mappings.load_mapping

    @functools.lru_cache(maxsize=100)
    def of_text(text: bytes, path: Path, provider: str) -> Mapping:
        return read(path, provider)

    def load(path: Path, provider: str) -> Mapping:
        # Each service stores its settings in its own copy.
        return (
            copy.copy(of_text(path.read_bytes(), path, provider))
            if path.is_file()
            else read(path, provider)
        )

    mappings.load_mapping = load


class LateRule(Rule):
    """A route that creates its URL builder on first use: most routes never need one."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        make = super()._compile_builder

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            made = make(append_unknown).__get__(rule, None)
            setattr(rule, "_build_unknown" if append_unknown else "_build", made)
            built: tuple[str, str] = made(**values)
            return built

        return build


def build_addresses_late() -> None:
    """Use these routes in every Flask app of this process."""
    Flask.url_rule_class = LateRule


def is_untouched(sandbox: Sandbox) -> bool:
    """Whether a sandbox is unchanged since its creation."""
    return _all_of(sandbox) == _all_of(_fresh(sandbox.name))


@functools.cache
def _fresh(name: str) -> Sandbox:
    return load_sandbox(name)()


def _state(sandbox: Sandbox) -> dict[str, Any]:
    return {
        name: copy.deepcopy(value)
        for name, value in vars(sandbox).items()
        if name not in sandbox.no_state
    }


def _all_of(thing: Any) -> Any:
    """Return an object's contents, including the objects in it, for a comparison."""
    if hasattr(thing, "__dict__") and not isinstance(thing, type):
        return {k: _all_of(v) for k, v in vars(thing).items() if k not in OWN}
    if isinstance(thing, MappingType):
        return {k: _all_of(v) for k, v in thing.items()}
    return [_all_of(v) for v in thing] if isinstance(thing, (list, tuple)) else thing
