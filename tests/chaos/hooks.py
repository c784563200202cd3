"""An addition to the worker processes of a chaos run: it makes an account's data expire on demand."""

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
"""The event that a worker logs after it has read a known account again."""


def install() -> None:
    """Install the hook if the environment names a chaos run's file: touching it acts like the end
    of DIRECTORY_TTL.
    """
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
            # The account may have changed during the read: count from its start.
            account.read_at = begun
            if before is not None:
                log.info(READ_ANEW, connection_id=connection_id)
        return account

    Accounts._age = aged  # type: ignore[method-assign]
    Accounts.get = got  # type: ignore[method-assign]
