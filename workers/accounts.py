"""Keeps a worker's adapters warm, each with what it read of the account and the mapping in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from app.bootstrap import Services
from app.crm.objects import ObjectName
from app.crm.port import Adapter, CallMeter
from app.crm.schema import CrmShape, Directory
from app.domain.errors import MappingError
from app.mapping.check import check_against
from app.mapping.load import mapping_of
from app.mapping.mapping import Mapping
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from workers.lease import LeaseLost

log = structlog.get_logger(__name__)
KEPT = "The previous file stays in use until this is corrected"
STAYS = "The file stays in use, since it fitted the account before"
TAKEN = (
    "The file is used all the same, since no earlier file fits the account; bookings fail with it"
)
DIRECTORY_TTL = 600.0
"""Seconds for which the owners, pipelines and fields read from an account are trusted."""
LEAST_BETWEEN = 5.0
"""Seconds before an account is read again, even if the CRM refused something meanwhile."""


@dataclass
class OpenAccount:
    """A connection's adapter with what it has read of the account."""

    adapter: Adapter
    directory: Directory
    mapping: Mapping
    read_at: datetime
    status_since: datetime
    account_id: str
    second_looks: dict[tuple[int, int], int]
    """(delivery, revision) -> how often the CRM refused a value taken from the account's lists."""
    left_out: dict[tuple[int, int], set[tuple[ObjectName, str]]]
    """(delivery, revision) -> the fields left out because the CRM still refuses their value."""
    refused_owners: set[str] = field(default_factory=set)
    """User ids that the CRM refuses as owners although its list has them; not tried again until the
    list is read anew."""
    stale: bool = False
    """Whether the data read is out of date: the CRM refused some of it."""

    def is_new(self, now: datetime) -> bool:
        """Whether the account was read so recently that reading it again would show nothing new."""
        return abs((now - self.read_at).total_seconds()) < LEAST_BETWEEN

    @property
    def meter(self) -> CallMeter:
        """The adapter's count of calls."""
        return self.adapter.access.meter


class Accounts:
    """Every account that this worker has worked on so far."""

    def __init__(self, services: Services, now: Callable[[], datetime] = utcnow) -> None:
        self._services = services
        self._store = services.store
        self._now = now
        self._warm: dict[int, OpenAccount] = {}
        self._refused: dict[int, str] = {}
        """Connection -> version of the newest mapping, which does not fit the CRM's schema."""
        self._noted: dict[int, str] = {}
        """Connection -> version of the mapping whose use here was noted."""

    def get(self, row: ConnectionRow, ensure_lease: Callable[[], None]) -> OpenAccount:
        """The account of a connection; read anew after a while, a reconnect or a new mapping.

        `row`: the connection as it is now. `ensure_lease` belongs to the present drain. From now
        until `release` it is called before every call to the CRM, including those that read the
        account. Raises the CRM's errors.
        """
        connection_id = row.id
        latest = self._services.mappings[row.provider]
        known = self._warm.get(connection_id)
        if known and self._is_fresh(connection_id, known, row, latest):
            known.adapter.access.gate.ensure_lease = ensure_lease
            return known
        adapter = self._services.adapter(connection_id)
        adapter.access.gate.ensure_lease = ensure_lease
        # A mapping that fits one account's schema may not fit that of another account.
        in_use = known.mapping if known and known.account_id == row.account_id else None
        before = in_use or self._fitted_last(row, latest)
        # If the newest mapping is refused, the one before stays in use and may need more.
        needed = latest.needed() | (before.needed() if before else frozenset())
        directory = adapter.directory(needed)
        self._note(connection_id, directory)
        if before is not in_use and before and check_against(before, adapter.shape, directory):
            before = None
        mapping = self._chosen(connection_id, before, latest, adapter.shape, directory)
        if self._noted.get(connection_id) != mapping.version:
            self._services.versions.note(mapping, self._services.processes.name)
            self._noted[connection_id] = mapping.version
        account = OpenAccount(
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

    def known(self, connection_id: int) -> OpenAccount | None:
        """Return the account as last read, however old; None if it was never read."""
        return self._warm.get(connection_id)

    def release(self, connection_id: int) -> None:
        """Stop all calls on behalf of a drain that has ended."""
        known = self._warm.get(connection_id)
        if known:
            gate = known.adapter.access.gate
            gate.ensure_lease, gate.make_way = _nobody_drains, _nobody_waits

    def forget(self, connection_id: int) -> None:
        """Have the account read anew before its next use."""
        known = self._warm.get(connection_id)
        if known:
            known.stale = True

    def api_base(self, connection_id: int) -> str | None:
        """The address at which the account was last called."""
        known = self._warm.get(connection_id)
        return known.adapter.access.api_base if known else None

    def _age(self, known: OpenAccount) -> float:
        """Seconds since an account was read; a clock that was set back makes it old."""
        return abs((self._now() - known.read_at).total_seconds())

    def _note(self, connection_id: int, directory: Directory) -> None:
        """Store with the connection what the account lacks, so that people see it."""
        told = list(directory.notes)
        with self._store.read() as session:
            if session.get_one(ConnectionRow, connection_id).account_notes == told:
                return
        with self._store.write() as session:
            session.get_one(ConnectionRow, connection_id).account_notes = told

    def _is_fresh(
        self, connection_id: int, known: OpenAccount, row: ConnectionRow, latest: Mapping
    ) -> bool:
        return (
            (known.status_since, known.account_id, known.adapter.access.api_base)
            == (row.status_since, row.account_id, row.api_base)
            and self._age(known) < DIRECTORY_TTL
            and not known.stale
            # A refused version is not checked again; if the old file is back, `_chosen` says so.
            and latest.version == self._refused.get(connection_id, known.mapping.version)
        )

    def _fitted_last(self, row: ConnectionRow, latest: Mapping) -> Mapping | None:
        """The mapping that last fitted the account, in any worker; None if there is none or it is
        the newest one."""
        if not row.mapping_text or row.mapping_text == latest.text:
            return None
        try:
            return self._services.mappings.settle(mapping_of(row.mapping_text, row.provider))
        except MappingError:
            return None  # Written by another release, or it breaks a rule that is newer than it.

    def _chosen(
        self,
        connection_id: int,
        before: Mapping | None,
        latest: Mapping,
        shape: CrmShape,
        directory: Directory,
    ) -> Mapping:
        """The mapping to use: the newest, unless the CRM's own schema shows that it cannot work.

        If no earlier mapping works either, the newest is used all the same: each booking then fails
        on its own, with a message.
        """
        mistakes = check_against(latest, shape, directory)
        if not mistakes:
            log.info("mapping_taken", connection_id=connection_id, mapping_version=latest.version)
            return self._take(connection_id, latest)
        words = "; ".join(f"{mistake.key}: {mistake.message}" for mistake in mistakes)
        in_use = before or latest
        stays = before is not None and before.version == latest.version
        self._refused[connection_id] = latest.version
        self._show(connection_id, f"{STAYS if stays else KEPT if before else TAKEN}; {words}")
        log.error("mapping_refused", connection_id=connection_id, problem=words,
                  version_in_use=in_use.version)  # fmt: skip
        return in_use

    def _take(self, connection_id: int, mapping: Mapping) -> Mapping:
        """Use a mapping, and store its text for workers that have none yet."""
        self._refused.pop(connection_id, None)
        self._show(connection_id, None, mapping.text)
        return mapping

    def _show(self, connection_id: int, problem: str | None, text: str | None = None) -> None:
        """Show on the connection's page why a file is not in use; store the text of one that is."""
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
            if row.mapping_problem == problem and text in (None, row.mapping_text):
                return
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id)
            row.mapping_problem, row.mapping_text = problem, text or row.mapping_text


def _nobody_waits() -> None:
    pass


def _nobody_drains() -> None:
    raise LeaseLost
