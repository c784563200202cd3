"""The adapters of a worker, kept warm: what was read of an account, and the mapping it goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from app.bootstrap import Services
from app.domain.records import Directory, ObjectName
from app.mapping.check import check_against
from app.mapping.mapping import Mapping
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from crm_adapters.base import Adapter, CallMeter
from workers.lease import LeaseLost

log = structlog.get_logger(__name__)
KEPT = "The one before it stays in use until this is mended"
TAKEN = "It is in use all the same, since this worker knows none before it; bookings fail on it"
DIRECTORY_TTL = 600.0
"""Seconds that owners, pipelines and fields of an account are taken to stay as they are."""
LEAST_BETWEEN = 5.0
"""Seconds for which what was just read is not read again, whatever was refused meanwhile."""


@dataclass
class Account:
    """A connection's adapter with what it has read of the account."""

    adapter: Adapter
    directory: Directory
    mapping: Mapping
    read_at: datetime
    status_since: datetime
    account_id: str
    second_looks: dict[tuple[int, int], int]
    """(delivery, revision) that a value of the account's lists was refused for -> how often."""
    left_out: dict[tuple[int, int], set[tuple[ObjectName, str]]]
    """Likewise -> the fields that are left out, since their value is refused all the same."""
    refused_owners: set[str] = field(default_factory=set)
    """User ids that the CRM refuses as owners although its list has them: not tried again until the
    list is read anew."""
    stale: bool = False
    """What was read is old news: something of it was refused."""

    def is_new(self, now: datetime) -> bool:
        """Whether it was read a moment ago, so that reading it again would tell nothing new."""
        return abs((now - self.read_at).total_seconds()) < LEAST_BETWEEN

    @property
    def meter(self) -> CallMeter:
        """The adapter's count of calls."""
        return self.adapter.access.meter


class Accounts:
    """Every account that this worker has worked on."""

    def __init__(self, services: Services, now: Callable[[], datetime] = utcnow) -> None:
        self._services = services
        self._store = services.store
        self._now = now
        self._warm: dict[int, Account] = {}
        self._refused: dict[int, str] = {}
        """Connection -> version of a mapping that its CRM's schema speaks against."""

    def get(self, connection_id: int, may_go_on: Callable[[], None]) -> Account:
        """The account of a connection; read anew after a while, a reconnect or a new mapping.

        `may_go_on` is the present drain's: it is asked before every call from now on, those that read
        the account included, until `release`. Raises the CRM's errors.
        """
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        latest = self._services.mappings[row.provider]
        known = self._warm.get(connection_id)
        if known and self._is_fresh(connection_id, known, row, latest):
            known.adapter.access.gate.may_go_on = may_go_on
            return known
        adapter = self._services.adapter(connection_id)
        adapter.access.gate.may_go_on = may_go_on
        # A mapping that is refused leaves the one before in use, which may need more.
        needed = latest.needed() | (known.mapping.needed() if known else frozenset())
        directory = adapter.directory(needed)
        self._note(connection_id, directory)
        # What fits one account's schema may not fit another one's.
        before = known if known and known.account_id == row.account_id else None
        mapping = self._chosen(connection_id, before, latest, adapter, directory)
        account = Account(
            adapter,
            directory,
            mapping,
            self._now(),
            row.status_since,
            row.account_id,
            known.second_looks if known else {},
            known.left_out if known else {},
        )
        self._warm[connection_id] = account
        return account

    def release(self, connection_id: int) -> None:
        """Let nobody call with a drain's leave once that drain has ended."""
        known = self._warm.get(connection_id)
        if known:
            known.adapter.access.gate.may_go_on = _nobody_drains

    def forget(self, connection_id: int) -> None:
        """Have an account read anew before it is used next."""
        known = self._warm.get(connection_id)
        if known:
            known.stale = True

    def api_base(self, connection_id: int) -> str | None:
        """The address under which the account was called last."""
        known = self._warm.get(connection_id)
        return known.adapter.access.api_base if known else None

    def _age(self, known: Account) -> float:
        """Seconds since an account was read; a clock that was set back makes it old."""
        return abs((self._now() - known.read_at).total_seconds())

    def _note(self, connection_id: int, directory: Directory) -> None:
        """Keep with the connection what the account lacks, for people to see."""
        told = list(directory.notes)
        with self._store.read() as session:
            if session.get_one(ConnectionRow, connection_id).account_notes == told:
                return
        with self._store.write() as session:
            session.get_one(ConnectionRow, connection_id).account_notes = told

    def _is_fresh(
        self, connection_id: int, known: Account, row: ConnectionRow, latest: Mapping
    ) -> bool:
        return (
            (known.status_since, known.account_id, known.adapter.access.api_base)
            == (row.status_since, row.account_id, row.api_base)
            and self._age(known) < DIRECTORY_TTL
            and not known.stale
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


def _nobody_drains() -> None:
    raise LeaseLost
