"""Takes webhooks in: verified bytes are an event on disk before the answer; a worker does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import Select, select
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from app.domain.booking import Booking, MeetingOutcome
from app.domain.errors import UnfitPayload
from app.domain.events import (
    FORM_EVENT,
    Event,
    Outline,
    kind_of,
    outline,
    read_booking,
    read_event,
    read_form,
    without_secret,
)
from app.domain.json_text import TooDeep, parse_json
from app.security import signatures
from app.security.encryption import Cipher
from app.services.processing import apply, mark_stories_due, typed
from app.services.secrets import WebhookSecrets
from app.services.sources import SourceRules, Sources, UnknownSource
from app.services.together import Together
from app.store import audit
from app.store.bookings import note_details, set_outcome
from app.store.columns import is_unfit
from app.store.delivery_marking import mark_due
from app.store.engine import Store, utcnow
from app.store.erased import without_erased
from app.store.inbox import (
    NewEvent,
    add_event,
    add_events,
    event_values,
    hold_event,
    read_event_row,
)
from app.store.meeting_types import with_type
from app.store.models import BookingRow, EventRow
from app.store.newest import is_old_news, keep_newest
from app.store.payloads import forget_payloads
from app.store.states import EventStatus
from config.settings import SignatureScheme

log = structlog.get_logger(__name__)
TIMESTAMP_HEADER = "x-meetergo-timestamp"
FOREIGN_COMPANY = "companyId is not one of the allowed ones"


class Verdict(StrEnum):
    """The answer to the sender."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class WebhookAnswer:
    """The verdict on one webhook, and what a worker has to do about it."""

    verdict: Verdict
    event_id: int
    process: bool = False
    """Whether a worker has to process it."""
    confirm: bool = False
    """Whether a worker has to read the appointment at meetergo before it is believed."""


class Intake:
    """Brings a request's bytes into the database; it answers only after the commit."""

    def __init__(
        self,
        sources: Sources,
        store: Store,
        cipher: Cipher,
        wants_forms: Callable[[], bool] = lambda: False,
    ) -> None:
        """`wants_forms` says whether any mapping uses submitted forms."""
        self.secrets = WebhookSecrets(store, cipher)
        self.sources = sources
        self._wants_forms = wants_forms
        self._store = store
        self._cipher = cipher
        self._add = Together(self._add_all, _is_of_one)

    def must_claim(self, rules: SourceRules, headers: Mapping[str, str], token: str | None) -> None:
        """Raise BadSignature if no body can make it authentic: no signature, or a wrong token."""
        if rules.scheme is SignatureScheme.URL_TOKEN:
            self.verify(rules, headers, b"", token)
            return
        wanted = {rules.header.lower()}
        if rules.scheme is SignatureScheme.STANDARD_WEBHOOKS:
            wanted = {"webhook-id", "webhook-timestamp", "webhook-signature"}
        elif rules.scheme is SignatureScheme.TIMESTAMPED:
            wanted.add(TIMESTAMP_HEADER)
        if not wanted <= {name.lower() for name, value in headers.items() if value}:
            raise signatures.BadSignature("there is no signature")

    def verify(
        self, rules: SourceRules, headers: Mapping[str, str], body: bytes, token: str | None
    ) -> None:
        """Check the raw bytes. Raises BadSignature."""
        try:
            secret = _verify(rules, self._secrets(rules), headers, body, token)
        except signatures.BadSignature:
            # The webhook may be signed with a secret that was added a moment ago.
            secret = _verify(rules, self._secrets(rules, anew=True), headers, body, token)
        self.secrets.used(rules.name, secret)

    def _secrets(self, rules: SourceRules, anew: bool = False) -> tuple[str, ...]:
        return (*rules.secrets, *self.secrets.of(rules.name, anew))

    def accept(self, rules: SourceRules, body: bytes) -> WebhookAnswer:
        """Store an authentic webhook. Raises NotJson; anything else is stored, at least in quarantine."""
        now = utcnow()
        try:
            document = parse_json(body)
        except TooDeep as error:
            return self._quarantine(rules.name, {"text": error.kept}, now, str(error))
        try:
            event = read_event(rules.name, document, now)
            return self._take(rules, document, event, self._outline(event))
        except UnfitPayload as error:
            return self._quarantine(rules.name, document, now, str(error))
        except (StatementError, OverflowError) as error:
            if not is_unfit(error):
                raise
            # Nothing should come as far as this; if something does, it is stored, whatever it is.
            log.error("webhook_unfit_for_database", kind=type(error).__name__)
            why = "the database cannot hold it: a text or a number in it is too large"
            return self._quarantine(rules.name, document, now, why)

    def _take(
        self, rules: SourceRules, document: Any, event: Event, booking: Outline | None
    ) -> WebhookAnswer:
        now = event.received_at
        if booking is None:
            return self._put(NewEvent(event, EventStatus.IGNORED), Verdict.IGNORED)
        if rules.company_ids and booking.company_id not in rules.company_ids:
            return self._quarantine(rules.name, document, now, FOREIGN_COMPANY)
        confirm = rules.confirms and not booking.form
        status = EventStatus.RECEIVED if confirm else EventStatus.STORED
        answer = self._put(NewEvent(event, status, booking.booking_key), Verdict.ACCEPTED)
        new = answer.verdict is Verdict.ACCEPTED
        return replace(answer, process=new and not confirm, confirm=new and confirm)

    def _put(self, new: NewEvent, verdict: Verdict) -> WebhookAnswer:
        """Store an event; the verdict is for a new one."""
        event_id, is_new = self._add(event_values(self._cipher, new))
        return WebhookAnswer(verdict if is_new else Verdict.DUPLICATE, event_id)

    def _add_all(self, rows: Sequence[dict[str, Any]]) -> list[tuple[int, bool]]:
        """Store the webhooks that came at the same time in one transaction."""
        return self._store.attempt_plain(lambda connection: add_events(connection, rows))

    def _outline(self, event: Event) -> Outline | None:
        if event.concerns_booking:
            return outline(event)
        booking = self.read(event)
        return Outline(booking.key, booking.company_id, True) if booking else None

    def read(self, event: Event) -> Booking | None:
        """The booking that an event describes; None if it is none. Raises UnfitPayload."""
        if event.type == FORM_EVENT and self._wants_forms():
            return read_form(event)
        return read_booking(event) if event.concerns_booking else None

    def believe(self, event_ids: Sequence[int], event: Event, booking: Booking) -> list[int]:
        """Apply what meetergo says about an appointment, to all webhooks that waited for it.

        Return the connections to wake.
        """

        def believe(session: Session) -> list[int]:
            for row in session.scalars(_locked(event_ids)):
                row.status, row.error, row.retry_at = EventStatus.APPLIED, None, None
                row.booking_key, row.missing_since = booking.key, None
            wake = apply(session, self._cipher, [booking], event.received_at, again=True)
            note_details(session, booking.key, event.received_at)
            return wake

        return self._store.attempt(believe)

    def set_aside(self, event_ids: Sequence[int], why: str) -> None:
        """Quarantine webhooks that meetergo did not confirm."""
        with self._store.write() as session:
            for row in session.scalars(_locked(event_ids)):
                row.status, row.error = EventStatus.QUARANTINED, why
        log.warning("webhook_quarantined", event_ids=list(event_ids), reason=why)

    def adopt(
        self, source: str, appointment: Mapping[str, Any], backlog: bool = True
    ) -> list[int] | None:
        """Store an appointment that meetergo's API shows; None if it is no news.

        Return the connections to wake. An appointment that is no booking is quarantined, once.
        """
        now, safe = utcnow(), without_secret(appointment)
        event = Event(source, kind_of(safe), safe, now)
        try:
            booking = read_booking(event)
        except UnfitPayload as error:
            self._quarantine(source, safe, now, str(error))
            return None
        companies = self.sources.rules(source).company_ids
        if companies and booking.company_id and booking.company_id not in companies:
            self._quarantine(source, safe, now, FOREIGN_COMPANY)
            return None

        # A walk sees each appointment again and again: a look does not wait for the one writer.
        with self._store.read() as session:
            if is_old_news(session, self._cipher, with_type(session, booking)):
                return None

        def adopt(session: Session) -> list[int] | None:
            news = keep_newest(session, self._cipher, typed(session, [booking]), now)
            _, cut = without_erased(session, self._cipher, [booking], now)
            note_details(session, booking.key, now)
            if not news:
                return None
            new = NewEvent(event, EventStatus.APPLIED, booking.key)
            add_event(session, self._cipher, new)
            forget_payloads(session, cut)
            return mark_stories_due(session, news, now, backlog)

        return self._store.attempt(adopt)

    def replay(self, event_id: int, backlog: bool = False) -> list[int]:
        """Process a stored event again as if it were new; return the connections to wake.

        Raises LookupError if there is no such event and UnfitPayload if it still does not fit.
        """
        with self._store.read() as session:
            row = session.get(EventRow, event_id)
            if row is None:
                raise LookupError(f"there is no event {event_id}")
            event = read_event_row(row, self._cipher)
        if event.type == "unknown":
            event = read_event(event.source, event.payload, event.received_at)
        booking = self.read(event)
        if booking is None:
            return []
        try:
            rules = self.sources.rules(event.source)
        except UnknownSource as error:
            raise UnfitPayload(str(error)) from None
        aside = row.status == EventStatus.QUARANTINED
        if aside and rules.company_ids and booking.company_id not in rules.company_ids:
            raise UnfitPayload(FOREIGN_COMPANY)
        if not rules.confirms or booking.form:
            return self._settle(event_id, event, backlog)
        # The stored event has no signature: only meetergo's own answer counts.
        if aside:
            self._wait_for_word(event_id, event, booking.key)
            return []
        query = select(BookingRow).where(BookingRow.key == booking.key).with_for_update()

        def want_known(session: Session) -> list[int]:
            known = session.scalars(query).first()
            return mark_due(session, [known], utcnow(), backlog) if known is not None else []

        return self._store.attempt(want_known)

    def _wait_for_word(self, event_id: int, event: Event, booking_key: str) -> None:
        with self._store.write() as session:
            row = session.get_one(EventRow, event_id, with_for_update=True)
            hold_event(self._cipher, row, event, booking_key)

    def say_outcome(self, key: str, outcome: MeetingOutcome | None, actor: str) -> list[int]:
        """Note how a meeting went, or take that back; return the connections to wake.

        Raises LookupError if there is no such booking.
        """
        now = utcnow()

        def say(session: Session) -> list[int]:
            query = select(BookingRow).where(BookingRow.key.in_((key, f"default:{key}")))
            row = session.scalars(query.with_for_update()).first()
            if row is None:
                raise LookupError(f"there is no booking {key!r}")
            set_outcome(session, self._cipher, row, outcome, now)
            said = outcome.value if outcome else "none"
            audit.note(session, actor, f"outcome_{said}", row.key, now)
            return mark_due(session, [row], now)

        return self._store.attempt(say)

    def _settle(self, event_id: int, event: Event, backlog: bool = False) -> list[int]:
        booking = read_form(event) if event.type == FORM_EVENT else read_booking(event)
        if booking is None:
            return []

        def settle(session: Session) -> list[int]:
            row = session.get_one(EventRow, event_id, with_for_update=True)
            row.status, row.error, row.booking_key = EventStatus.APPLIED, None, booking.key
            now = utcnow()
            return apply(session, self._cipher, [booking], now, again=True, backlog=backlog)

        return self._store.attempt(settle)

    def _quarantine(self, source: str, document: Any, now: datetime, why: str) -> WebhookAnswer:
        safe = without_secret(document)
        event = Event(source, "unknown", safe, now)
        new = NewEvent(event, EventStatus.QUARANTINED, error=why)
        answer = self._put(new, Verdict.QUARANTINED)
        log.warning("webhook_quarantined", event_id=answer.event_id, reason=why)
        return answer


def _locked(event_ids: Sequence[int]) -> Select[EventRow]:
    return select(EventRow).where(EventRow.id.in_(event_ids)).with_for_update()


def _is_of_one(error: BaseException) -> bool:
    """Whether one webhook of a group is to blame: it is unfit, or waits for its double.

    A process that stands still may hold the double's row (lock_not_available).
    """
    return is_unfit(error) or getattr(getattr(error, "orig", None), "sqlstate", "") == "55P03"


def _verify(
    rules: SourceRules,
    secrets: tuple[str, ...],
    headers: Mapping[str, str],
    body: bytes,
    token: str | None,
) -> str:
    lowered = {key.lower(): value for key, value in headers.items()}
    header = lowered.get(rules.header.lower())
    if rules.scheme is SignatureScheme.URL_TOKEN:
        return signatures.verify_token(secrets, token)
    if rules.scheme is SignatureScheme.STANDARD_WEBHOOKS:
        return signatures.verify_standard(secrets, lowered, body)
    if rules.scheme is SignatureScheme.TIMESTAMPED:
        stamp = lowered.get(TIMESTAMP_HEADER)
        return signatures.verify_timestamped(secrets, header, stamp, body, utcnow())
    return signatures.verify_body(secrets, header, body)
