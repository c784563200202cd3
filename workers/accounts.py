"""The adapters of a worker, kept warm: what was read of an account, and the mapping it goes by."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import structlog

from app.bootstrap import Services
from app.domain.records import Directory
from app.mapping.check import check_against
from app.mapping.mapping import Mapping
from app.store.models import ConnectionRow
from crm_adapters.base import Adapter, CallMeter

log = structlog.get_logger(__name__)
KEPT = "The one before it stays in use until this is mended"
TAKEN = "It is in use all the same, since this worker knows none before it; bookings fail on it"
DIRECTORY_TTL = 600.0
"""Seconds that owners, pipelines and fields of an account are taken to stay as they are."""


@dataclass
class Account:
    """A connection's adapter with what it has read of the account."""

    adapter: Adapter
    directory: Directory
    mapping: Mapping
    read_at: float
    status_since: datetime
    account_id: str

    @property
    def meter(self) -> CallMeter:
        """The adapter's count of calls."""
        return self.adapter.access.meter


class Accounts:
    """Every account that this worker has worked on."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._warm: dict[int, Account] = {}
        self._refused: dict[int, str] = {}
        """Connection -> version of a mapping that its CRM's schema speaks against."""

    def get(self, connection_id: int) -> Account:
        """The account of a connection; read anew after a while, a reconnect or a new mapping.

        Raises the CRM's errors.
        """
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        latest = self._services.mappings[row.provider]
        known = self._warm.get(connection_id)
        if known and self._is_fresh(connection_id, known, row, latest):
            return known
        adapter = self._services.adapter(connection_id)
        if known:
            # Who drains is the same as before.
            adapter.access.gate.may_go_on = known.adapter.access.gate.may_go_on
        directory = adapter.directory()
        # What fits one account's schema may not fit another one's.
        before = known if known and known.account_id == row.account_id else None
        mapping = self._chosen(connection_id, before, latest, adapter, directory)
        account = Account(
            adapter, directory, mapping, time.monotonic(), row.status_since, row.account_id
        )
        self._warm[connection_id] = account
        return account

    def _is_fresh(
        self, connection_id: int, known: Account, row: ConnectionRow, latest: Mapping
    ) -> bool:
        return (
            (known.status_since, known.account_id, known.adapter.access.api_base)
            == (row.status_since, row.account_id, row.api_base)
            and time.monotonic() - known.read_at < DIRECTORY_TTL
            # One that was refused is not looked at again; where the old file is back, that is said.
            and latest.version == self._refused.get(connection_id, known.mapping.version)
        )

    def _chosen(
        self,
        connection_id: int,
        known: Account | None,
        latest: Mapping,
        adapter: Adapter,
        directory: Directory,
    ) -> Mapping:
        """The mapping to go by: the newest, unless the CRM's own schema says that it cannot work.

        Where there is none before it, it has to do: each booking then fails on its own, in words.
        """
        if known and latest.version == known.mapping.version:
            self._refused.pop(connection_id, None)
            self._say(connection_id, None)
            return latest
        mistakes = check_against(latest, adapter.shape, directory)
        if not mistakes:
            self._refused.pop(connection_id, None)
            self._say(connection_id, None)
            log.info("mapping_taken", connection_id=connection_id, version=latest.version)
            return latest
        words = "; ".join(f"{mistake.key}: {mistake.message}" for mistake in mistakes)
        in_use = known.mapping if known else latest
        self._refused[connection_id] = latest.version
        self._say(connection_id, f"{KEPT if known else TAKEN}; {words}")
        log.error("mapping_refused", connection_id=connection_id, problem=words,
                  version_in_use=in_use.version)  # fmt: skip
        return in_use

    def _say(self, connection_id: int, problem: str | None) -> None:
        """Show on the connection's page that a changed mapping file is not in use."""
        with self._store.read() as session:
            if session.get_one(ConnectionRow, connection_id).mapping_problem == problem:
                return
        with self._store.write() as session:
            session.get_one(ConnectionRow, connection_id).mapping_problem = problem
