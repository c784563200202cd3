"""Erases a person on request, and exports what is held on a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app.crm.changes import Change, Plan
from app.crm.objects import ObjectName, Ref
from app.crm.port import Adapter, Report
from app.domain.errors import CrmError, Gone
from app.domain.people import normalise_email
from app.security.encryption import Cipher
from app.services.exported import export
from app.services.processing import Processor
from app.store import audit
from app.store.engine import Store, utcnow
from app.store.erased import alone_with_erasure
from app.store.erasure import PersonRecord, Quote, Traces, erase, look_for, quotes_of
from app.store.leases import lock_idle

log = structlog.get_logger(__name__)
WAIT = 60.0
"""Seconds to wait for workers that write to a CRM at the moment: a batch takes ten at most."""
BETWEEN = 0.5


class Busy(Exception):
    """Workers did not pause in time; the message says what to do."""


@dataclass(frozen=True)
class Erased:
    """What was deleted, and what is left to do."""

    bookings: int
    webhooks: int
    records: tuple[PersonRecord, ...]
    """The person's records in the CRMs."""
    deleted: tuple[PersonRecord, ...]
    """Those of them that were deleted there."""
    problems: tuple[str, ...]
    """What could not be done, in sentences."""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Erasure:
    """Erases and exports people, given by their e-mail addresses."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        processor: Processor,
        adapter: Callable[[int], Adapter],
        wake: Callable[[list[int]], object],
    ) -> None:
        self._store, self._cipher, self._processor = store, cipher, processor
        self._adapter, self._wake = adapter, wake

    def look(self, email: str) -> Traces:
        """What is held on a person. Raises ValueError if the text is no e-mail address."""
        with self._store.read() as session:
            return look_for(session, self._cipher, identity_of(email))

    def export(self, email: str) -> dict[str, Any]:
        """All that is held on a person, as plain data. Raises ValueError for no e-mail address."""
        with self._store.read() as session:
            return export(
                session, self._cipher, look_for(session, self._cipher, identity_of(email))
            )

    def erase(self, email: str, delete_records: bool, actor: str) -> Erased:
        """Erase a person here, and by choice in the CRMs.

        Raises ValueError if the text is no e-mail address, and Busy if workers do not pause.
        """
        identity = identity_of(email)
        # What waits would otherwise come to its booking only after this.
        self._processor.run(self._wake)
        with self._store.read() as session:
            traces = look_for(session, self._cipher, identity)
            quotes = quotes_of(session, traces.words)
        deleted, problems = [], []
        # Here last: if this ends half-way, the next run still knows the records.
        for record in traces.records if delete_records else ():
            problem = self._delete(record, identity) if record.alone else None
            if problem:
                problems.append(problem)
            elif record.alone:
                deleted.append(record)
        traces = self._erase_here(identity, quotes, actor)
        problems += self._clean_file()
        if traces.waiting:
            problems.append(
                f"{traces.waiting} webhooks wait to be processed; their content goes then."
            )
        log.info("person_erased", bookings=len(traces.bookings), deleted=len(deleted))
        return Erased(
            len(traces.bookings),
            len(traces.events),
            tuple(traces.records),
            tuple(deleted),
            tuple(problems),
        )

    def _erase_here(self, identity: str, quotes: Sequence[Quote], actor: str) -> Traces:
        """Erase in one short transaction, while no worker has a booking in hand."""
        until = time.monotonic() + WAIT
        while True:
            traces = self._store.attempt(
                lambda session: self._try_to_erase(session, identity, quotes, actor)
            )
            if traces is not None:
                return traces
            if time.monotonic() > until:
                raise Busy(
                    "Workers write to a CRM all the time: nothing was erased. Stop them, or try"
                    " again in a minute."
                )
            time.sleep(BETWEEN)

    def _try_to_erase(
        self, session: Session, identity: str, quotes: Sequence[Quote], actor: str
    ) -> Traces | None:
        """Erase, unless a worker has a booking in hand: then None."""
        alone_with_erasure(session)
        if not lock_idle(session):
            return None
        now = utcnow()
        traces = look_for(session, self._cipher, identity)
        erase(session, self._cipher, traces, quotes, now)
        audit.note(session, actor, "erase", f"a person: {len(traces.bookings)} bookings", now)
        return traces

    def _clean_file(self) -> list[str]:
        """Remove what the database's files still hold of deleted rows."""
        if self._store.compact():
            return []
        return [
            "The database is in use, so its files may still hold deleted rows. Run the command once"
            " more, or stop the processes first."
        ]

    def _delete(self, record: PersonRecord, identity: str) -> str | None:
        """Delete a record in its CRM; return why that was not possible."""
        ref = Ref(ObjectName(record.object), identity)
        report = Report()
        change = Change(ref, record.record_id, {}, {}, delete=True)
        try:
            self._adapter(record.connection_id).apply(Plan((change,)), report)
        except CrmError as error:
            report.problems[ref] = error
        if isinstance(report.problems.get(ref), Gone):
            return None
        problem = report.problems.get(ref)
        if problem is None:
            return None
        told = f"{record.provider}: {record.object} {record.record_id}"
        return f"{told} was not deleted: {problem.message}"


def identity_of(email: str) -> str:
    """The identity of a person with an e-mail address. Raises ValueError if it is none."""
    address = normalise_email(email)
    if address is None:
        raise ValueError("This is no e-mail address.")
    return f"email:{address}"
