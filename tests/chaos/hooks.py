"""What the worker processes of a chaos run do beside their work: they let an account grow old on demand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import structlog

from app.store.engine import utcnow
from app.store.models import ConnectionRow
from workers.accounts import Accounts, OpenAccount

log = structlog.get_logger(__name__)
READ_ANEW = "account_read_anew"
"""The event that a worker tells once it has read an account that it knew."""


def install() -> None:
    """Hook in where the environment names the file of a chaos run: touching it is the passing of
    DIRECTORY_TTL."""
    named = os.environ.get("CHAOS_READ_ANEW")
    if named:
        _let_grow_old(Path(named))


def _let_grow_old(file: Path) -> None:
    age, get = Accounts._age, Accounts.get

    def aged(accounts: Accounts, known: OpenAccount) -> float:
        asked = file.stat().st_mtime if file.exists() else 0.0
        return float("inf") if known.read_at.timestamp() < asked else age(accounts, known)

    def got(
        accounts: Accounts, row: ConnectionRow, ensure_lease: Callable[[], None]
    ) -> OpenAccount:
        connection_id = row.id
        before, begun = accounts._warm.get(connection_id), utcnow()
        account = get(accounts, row, ensure_lease)
        if account is not before:
            # What changed while it was read may not be in it.
            account.read_at = begun
            if before is not None:
                log.info(READ_ANEW, connection_id=connection_id)
        return account

    Accounts._age = aged  # type: ignore[method-assign]
    Accounts.get = got  # type: ignore[method-assign]
