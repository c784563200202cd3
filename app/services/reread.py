"""Asks meetergo what only it knows: about unsigned webhooks, and answers that webhooks lack.

One process at a time reads a source, so that no appointment is read twice. Nothing here delays a
CRM: a booking that meetergo has not confirmed, or an answer still missing, is written later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from app.domain.booking import Booking, MeetingType
from app.domain.errors import (
    CrmError,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
    UnfitPayload,
)
from app.domain.events import Event, kind_of, read_booking, read_meeting_type, without_secret
from app.meetergo.client import MeetergoClient
from app.services.intake import FOREIGN_COMPANY, Intake
from app.services.sources import Sources
from app.store.bookings import (
    details_due,
    end_details,
    postpone_details,
    sources_with_details,
)
from app.store.engine import Store, utcnow
from app.store.inbox import next_waiting, postpone, sources_waiting
from app.store.meeting_types import lacks_type, note_type
from app.store.models import EventRow
from app.store.sources import end_reader, keep_reader, take_reader

log = structlog.get_logger(__name__)
BELIEVED_AFTER = timedelta(minutes=5)
"""How long meetergo must say that there is no such appointment before this is believed."""
LEAST_MISSES = 4
"""How often meetergo must say so."""
GIVEN_UP_AFTER = timedelta(days=7)
"""How long to ask for an appointment that meetergo cannot show, though it shows others."""
MOST_FAILURES = 3
"""After this many appointments in a row that meetergo does not show, it is asked later."""
PAUSES = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds until an appointment is asked for again, by the number of tries; then the last one."""
DETAIL_PAUSES = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0, 24 * 3600.0)
"""The same for answers that a webhook lacked; after the last one they are given up."""


class Rereader:
    """Reads the appointments that wait for meetergo's answer."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        sources: Sources,
        wake: Callable[[list[int]], object],
    ) -> None:
        self._store, self._intake, self._sources, self._wake = store, intake, sources, wake

    def sources_with_work(self) -> set[str]:
        """Sources with something waiting, or that were out of order and may work again by now."""
        now = utcnow()
        with self._store.read() as session:
            found = sources_waiting(session, now) | sources_with_details(session, now)
        found |= set(self._sources.in_trouble())
        if not found:
            return found
        return {name for name in found & set(self._sources.names()) if self._sources.may_ask(name)}

    def run(self, source: str, stopping: Callable[[], bool] = lambda: False) -> None:
        """Read until nothing waits, meetergo does not answer, or another process reads the source."""
        if not self._sources.rules(source).api_key or not self._sources.may_ask(source):
            return
        with self._store.write() as session:
            fence = take_reader(session, source, utcnow())
        if fence is None:
            return
        try:
            if self._sources.is_in_trouble(source) and not self._sources.probe(
                source, by_page=True
            ):
                return
            client, failures = self._sources.client(source), 0
            details = self._sources.client(source, old_news=True)
            while not stopping() and self._go_on(source, fence):
                rows = self._waiting(source)
                if rows:
                    outcome = self._read(source, client, rows)
                elif (wanted := self._wanted(source)) is not None:
                    outcome = self._read_details(source, details, *wanted)
                else:
                    break
                failures = 0 if outcome else failures + 1
                if outcome is None:
                    return
                if failures == MOST_FAILURES:
                    break
            if failures:
                # Can only these appointments not be shown, or none?
                self._sources.probe(source)
        finally:
            with self._store.write() as session:
                end_reader(session, source, fence, utcnow())

    def _go_on(self, source: str, fence: int) -> bool:
        with self._store.write() as session:
            return keep_reader(session, source, fence, utcnow())

    def _waiting(self, source: str) -> list[EventRow]:
        with self._store.read() as session:
            return next_waiting(session, source, utcnow())

    def _wanted(self, source: str) -> tuple[int, str, int] | None:
        with self._store.read() as session:
            return details_due(session, source, utcnow())

    def _read(self, source: str, client: MeetergoClient, rows: Sequence[EventRow]) -> bool | None:
        """Settle all webhooks about one appointment with one read.

        True if meetergo answered about it, False if it could not be read, None if meetergo must not
        be asked any more for now.
        """
        ids = [row.id for row in rows]
        asked_at = utcnow()
        try:
            appointment = client.appointment(_id_of(rows[0]))
            event, booking = self._understand(source, client, appointment, rows[-1].type, asked_at)
        except Gone as error:
            self._sources.heard(source)
            self._miss(rows, error.message)
            return True
        except (InvalidRecord, MissingScope) as error:
            # Is only this appointment refused, or everything?
            if not self._sources.probe(source, by_page=True):
                return None
            self._postpone(rows, error.message)
            return True
        except CrmError as error:
            return self._failed(source, error, partial(self._postpone, rows, error.message))
        self._sources.heard(source)
        companies = self._sources.rules(source).company_ids
        if companies and booking.company_id and booking.company_id not in companies:
            self._intake.set_aside(ids, FOREIGN_COMPANY)
            return True
        self._wake(self._intake.believe(ids, event, booking))
        return True

    def _understand(
        self,
        source: str,
        client: MeetergoClient,
        appointment: Mapping[str, Any],
        kind: str,
        asked_at: datetime,
    ) -> tuple[Event, Booking]:
        """The event and booking of an appointment. Raises RetryLater if it holds no booking."""
        safe = without_secret(appointment)
        if "isCancelled" in safe or "cancel" in safe:
            kind = kind_of(safe)
        event = Event(source, kind, safe, asked_at)
        try:
            booking = read_booking(event)
        except UnfitPayload as error:
            raise RetryLater(f"meetergo's answer holds no appointment: {error}.") from None
        self.learn_type(client, booking)
        return event, booking

    def learn_type(self, client: MeetergoClient, booking: Booking) -> None:
        """Ask meetergo for a booking's meeting type if it is not known. Raises its errors."""
        now = utcnow()
        with self._store.read() as session:
            if not lacks_type(session, booking, now):
                return
        type_id = str(booking.meeting_type.id)
        try:
            kind = read_meeting_type(client.meeting_type(type_id))
        except (Gone, InvalidRecord, MissingScope) as error:
            # It was deleted, or belongs to another user: the booking matters more than its slug.
            log.warning("meeting_type_unknown", source=booking.source, reason=error.message)
            names = dict.fromkeys(("slug", "name", "metadata"))
            kind = MeetingType(id=type_id, not_told=names)
        with self._store.write() as session:
            note_type(session, booking.source, kind, now, asked=True)

    def _failed(self, source: str, error: CrmError, then: Callable[[], object]) -> bool | None:
        """Note that there was no answer; None if the error concerns the whole source."""
        if isinstance(error, RetryLater) and not isinstance(error, RateLimited):
            then()
            return False
        self._sources.heard(source, error)
        return None

    def _miss(self, rows: Sequence[EventRow], why: str) -> None:
        """Note that there is no such appointment: believed once meetergo repeats it over minutes."""
        now = utcnow()
        settled = [
            row
            for row in rows
            if row.missing_since
            and now - row.missing_since >= BELIEVED_AFTER
            and row.tries + 1 >= LEAST_MISSES
        ]
        if settled:
            words = f"meetergo did not confirm it: {why}"
            self._intake.set_aside([row.id for row in settled], words)
        self._postpone([row for row in rows if row not in settled], why, missing=now)

    def _postpone(
        self, rows: Sequence[EventRow], why: str, missing: datetime | None = None
    ) -> None:
        now = utcnow()
        old = [row.id for row in rows if now - row.received_at > GIVEN_UP_AFTER]
        if old:
            days = GIVEN_UP_AFTER.days
            self._intake.set_aside(old, f"meetergo did not confirm it within {days} days: {why}")
        left = [row for row in rows if row.id not in old]
        if not left:
            return
        tries = min(max(row.tries for row in left), len(PAUSES) - 1)
        until = now + timedelta(seconds=PAUSES[tries])
        with self._store.write() as session:
            postpone(session, [row.id for row in left], why, until, missing)

    def _read_details(
        self, source: str, client: MeetergoClient, row_id: int, key: str, tries: int
    ) -> bool | None:
        """Ask for the answers of a booking that was written without them."""
        try:
            appointment = client.appointment(key.partition(":")[2])
            booking = self._understand(source, client, appointment, "", utcnow())[1]
        except (Gone, InvalidRecord, MissingScope) as error:
            if not isinstance(error, Gone) and not self._sources.probe(source, by_page=True):
                return None
            log.warning("details_lacking", booking_id=row_id, reason=error.message)
            self._no_details(row_id, tries)
            return True
        except CrmError as error:
            return self._failed(source, error, partial(self._no_details, row_id, tries))
        self._sources.heard(source)
        companies = self._sources.rules(source).company_ids
        wrong = companies and booking.company_id and booking.company_id not in companies
        wake = None if wrong else self._intake.adopt(source, appointment, backlog=False)
        with self._store.write() as session:
            end_details(session, row_id, utcnow())
        self._wake(wake or [])
        return True

    def _no_details(self, row_id: int, tries: int) -> None:
        now = utcnow()
        with self._store.write() as session:
            if tries >= len(DETAIL_PAUSES):
                end_details(session, row_id, now)
                return
            postpone_details(session, row_id, now + timedelta(seconds=DETAIL_PAUSES[tries]))


def _id_of(row: EventRow) -> str:
    return (row.booking_key or "").removeprefix(f"{row.source}:")
