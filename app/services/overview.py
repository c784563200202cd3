"""Reads what was synced and what was not, for the dashboard, the API and the CLI."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.crm.objects import ObjectName, Ref
from app.domain.booking import Booking, MeetingOutcome
from app.domain.events import Event
from app.security.encryption import Cipher
from app.services.broken import why_parked
from app.services.watch import Waiting, number_waiting, waiting
from app.store.bookings import read_state
from app.store.deliveries import connections_with_work
from app.store.delivery_marking import count_parked
from app.store.engine import Store, utcnow
from app.store.inbox import read_event_row
from app.store.ledger import Ledger
from app.store.models import BookingRow, ConnectionRow, DeliveryRow, EventRow, SyncLog
from app.store.states import TIMED, DeliveryState, EventStatus
from app.sync.ledger_entry import LedgerEntry
from app.sync.lookups import is_own_company
from config.providers import Provider

MOST_LOG = 50
"""Lines of the sync log on a booking's page, the newest ones."""
MOST_OUTDATED = 1000


@dataclass(frozen=True)
class LinkView:
    """A record in the CRM that belongs to a booking."""

    object: str
    record_id: str
    url: str


@dataclass(frozen=True)
class DeliveryView:
    """The state of a booking in one CRM."""

    connection_id: int
    provider: str
    account: str
    state: str
    calls: int
    attempts: int
    error: str | None
    error_fields: Mapping[str, str]
    """Field of the CRM -> what the CRM says is wrong with it."""
    error_raw: str | None
    """The CRM's own answer, shortened."""
    cause: str | None
    """Key of the cause for which it is not synced."""
    advice: str | None
    next_attempt_at: str | None
    mapping_version: str | None
    """Version of the mapping file with which the delivery was last planned."""
    notes: tuple[str, ...]
    """Notes on fields and records that were left unchanged, and why."""
    links: tuple[LinkView, ...]


@dataclass(frozen=True)
class BookingView:
    """A booking and its state in each CRM."""

    key: str
    title: str
    who: str
    start: str
    timezone: str
    status: str
    outcome: MeetingOutcome | None
    """The outcome, if a person has given one."""
    deliveries: tuple[DeliveryView, ...]
    reduced_at: str | None = None
    """When the data of its people was deleted; None: the booking is whole."""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class LogView:
    """What was done to one record, and when."""

    connection_id: int
    at: datetime
    object: str
    record_id: str | None
    outcome: str


@dataclass(frozen=True)
class WebhookView:
    """A webhook about a booking, without its content."""

    id: int
    at: datetime
    type: str
    status: str
    reason: str | None


@dataclass(frozen=True)
class BookingDetail:
    """Everything that a booking's page shows."""

    view: BookingView
    booking: Booking
    log: tuple[LogView, ...]
    webhooks: tuple[WebhookView, ...]
    """The webhooks that came last, the newest first."""


@dataclass(frozen=True)
class ConnectionView:
    """A connected CRM account and its state."""

    id: int
    provider: str
    account: str
    account_id: str
    status: str
    since: str
    problem: str | None
    error: str | None
    next_step: str | None
    mapping_problem: str | None
    access: str
    """oauth, or key if a person entered a key."""
    expires_at: str | None
    scopes: list[str] | None
    scopes_lacking: list[str]
    parked: int
    """Bookings that wait for the connection."""


class Overview:
    """Read-only views on the store."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store = store
        self._cipher = cipher

    def bookings(
        self, limit: int = 50, offset: int = 0, state: DeliveryState | None = None
    ) -> list[BookingView]:
        """The bookings that changed last; `state`: those that came last into it in some CRM."""
        with self._store.read() as session:
            if state is None:
                newest = (BookingRow.updated_at.desc(), BookingRow.id.desc())
                query = select(BookingRow).order_by(*newest).limit(limit).offset(offset)
                rows = list(session.scalars(query))
            else:
                rows = _in_state(session, state, limit, offset)
            return self.views(session, [(row, read_state(row, self._cipher)) for row in rows])

    def booking(self, key: str) -> BookingView | None:
        """One booking by its key (`source:id`), or by its id in the default source."""
        found = self.detail(key)
        return found.view if found else None

    def detail(self, key: str) -> BookingDetail | None:
        """One booking with its details and the log of what was done for it."""
        keys = (key, f"default:{key}")
        with self._store.read() as session:
            row = session.scalars(select(BookingRow).where(BookingRow.key.in_(keys))).first()
            if row is None:
                return None
            booking = read_state(row, self._cipher)
            (view,) = self.views(session, [(row, booking)])
            return BookingDetail(view, booking, _log(session, row.id), _webhooks(session, row.key))

    def outdated(self, connection_id: int, version: str) -> int:
        """How many bookings of a connection were planned by another version of its mapping.

        No more than `MOST_OUTDATED` are counted.
        """
        settled = (DeliveryState.SYNCED, DeliveryState.SKIPPED, DeliveryState.FAILED)
        mine = (DeliveryRow.connection_id == connection_id, DeliveryRow.state.in_(settled))
        planned, found = DeliveryRow.mapping_version, 0
        with self._store.read() as session:
            for other in (planned < version, planned > version, planned.is_(None)):
                some = select(DeliveryRow.id).where(*mine, other).limit(MOST_OUTDATED - found)
                found += session.scalar(select(func.count()).select_from(some.subquery())) or 0
        return found

    def connections(self) -> list[ConnectionRow]:
        """Every connection, oldest first."""
        with self._store.read() as session:
            return list(session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)))

    def connection(self, connection_id: int) -> ConnectionRow | None:
        """A connection by its number."""
        with self._store.read() as session:
            return session.get(ConnectionRow, connection_id)

    def connection_view(self, row: ConnectionRow, provider: Provider) -> ConnectionView:
        """The state of a connection to a provider."""
        return ConnectionView(
            id=row.id,
            provider=row.provider,
            account=row.account,
            account_id=row.account_id,
            status=row.status,
            since=row.status_since.isoformat(),
            problem=row.problem,
            error=row.last_error,
            next_step=row.next_step,
            mapping_problem=row.mapping_problem,
            access=row.auth,
            expires_at=row.expires_at.isoformat() if row.expires_at else None,
            scopes=row.scopes,
            scopes_lacking=sorted(provider.lacking(row.scopes)),
            parked=self.parked(row.id),
        )

    def event(self, event_id: int) -> Event | None:
        """A stored webhook by its number, without the booking's credential."""
        with self._store.read() as session:
            row = session.get(EventRow, event_id)
        return read_event_row(row, self._cipher) if row else None

    def with_work(self) -> list[int]:
        """The connections with due work."""
        with self._store.read() as session:
            return connections_with_work(session, utcnow())

    def parked(self, connection_id: int) -> int:
        """How many bookings wait for a connection."""
        with self._store.read() as session:
            return count_parked(session, connection_id)

    def waiting(self, connection_id: int) -> tuple[Waiting, int] | None:
        """The due work of a working connection, and how many bookings it is; None if there is none."""
        now = utcnow()
        with self._store.read() as session:
            found = waiting(session, now, connection_id).get(connection_id)
            return (found, number_waiting(session, found, now)) if found else None

    def deliveries(
        self, state: DeliveryState, connection_id: int | None = None, limit: int = 50
    ) -> list[tuple[DeliveryRow, str, ConnectionRow]]:
        """Deliveries in a state, the newest first, each with its booking's key and its connection."""
        query = (
            select(DeliveryRow, BookingRow.key, ConnectionRow)
            .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
            .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
            .where(DeliveryRow.state == state)
            .order_by(DeliveryRow.updated_at.desc(), DeliveryRow.id.desc())
            .limit(limit)
        )
        if connection_id is not None:
            query = query.where(DeliveryRow.connection_id == connection_id)
        with self._store.read() as session:
            return [(row, key, connection) for row, key, connection in session.execute(query)]

    def events(
        self, limit: int = 50, status: EventStatus | None = None, before: int | None = None
    ) -> list[EventRow]:
        """The webhooks that came last; `before`: before the one with this number."""
        query = select(EventRow).order_by(EventRow.id.desc()).limit(limit)
        if status is not None:
            query = query.where(EventRow.status == status.value)
        if before is not None:
            query = query.where(EventRow.id < before)
        with self._store.read() as session:
            return list(session.scalars(query))

    def event_counts(self) -> dict[EventStatus, int]:
        """How many webhooks are in each status; more than `MOST_OUTDATED` are not counted."""
        found = {}
        with self._store.read() as session:
            for status in EventStatus:
                some = select(EventRow.id).where(EventRow.status == status.value)
                some_rows = some.limit(MOST_OUTDATED + 1).subquery()
                found[status] = session.scalar(select(func.count()).select_from(some_rows)) or 0
        return found

    def event_row(self, event_id: int) -> EventRow | None:
        """A stored webhook as it is listed, by its number."""
        with self._store.read() as session:
            return session.get(EventRow, event_id)

    def views(
        self, session: Session, rows: Iterable[tuple[BookingRow, Booking]]
    ) -> list[BookingView]:
        """The views of bookings; as many queries for fifty of them as for one."""
        bookings = {row.id: (row, booking) for row, booking in rows}
        pairs = (
            select(DeliveryRow, ConnectionRow)
            .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
            .where(DeliveryRow.booking_id.in_(bookings))
            .order_by(ConnectionRow.id)
        )
        refs = {number: _refs(booking) for number, (_, booking) in bookings.items()}
        found = [(delivery, connection) for delivery, connection in session.execute(pairs)]
        wanted: dict[int, set[Ref]] = defaultdict(set)
        for delivery, connection in found:
            own, shared = refs[delivery.booking_id]
            wanted[connection.id].update(own, shared)
        known = {
            number: Ledger(session, self._cipher, number).read(these)
            for number, these in wanted.items()
        }
        views: dict[int, list[DeliveryView]] = defaultdict(list)
        for delivery, connection in found:
            mine = refs[delivery.booking_id]
            view = _delivery(delivery, connection, *mine, known[connection.id])
            views[delivery.booking_id].append(view)
        return [_booking(*found, views[number]) for number, found in bookings.items()]


def _booking(row: BookingRow, booking: Booking, deliveries: list[DeliveryView]) -> BookingView:
    return BookingView(
        key=booking.key,
        title=booking.meeting_type.name or ("Form" if booking.form else "Meeting"),
        who=", ".join(person.display_name for person in booking.attendees),
        start=booking.start.isoformat(),
        timezone=booking.timezone,
        status=booking.status.value,
        outcome=booking.outcome,
        deliveries=tuple(deliveries),
        reduced_at=row.reduced_at.isoformat() if row.reduced_at else None,
    )


def _delivery(
    row: DeliveryRow,
    connection: ConnectionRow,
    own: list[Ref],
    shared: list[Ref],
    known: Mapping[Ref, LedgerEntry],
) -> DeliveryView:
    """The state of a booking in one CRM; `own`, `shared`: the records that it may have there."""
    mine = [ref for ref in own if ref in known and known[ref].record_id]
    if mine or row.state == DeliveryState.SKIPPED:
        linked = _linked(mine, known)
        # The key of a found person's company is its record id.
        shared = [ref for ref in (*shared, *filter(is_own_company, linked)) if ref in linked]
    error, advice = row.error_message, row.error_advice
    if row.state == DeliveryState.PARKED:
        error, advice = why_parked(connection)
    return DeliveryView(
        connection_id=connection.id,
        provider=connection.provider,
        account=connection.account,
        state=row.state,
        calls=row.calls,
        attempts=row.attempts,
        error=error,
        error_fields={name: str(words) for name, words in (row.error_fields or {}).items()},
        error_raw=row.error_raw,
        cause=row.cause_key,
        advice=advice,
        next_attempt_at=row.next_attempt_at.isoformat() if row.state in TIMED else None,
        mapping_version=row.mapping_version,
        notes=tuple(row.notes or ()),
        links=tuple(
            LinkView(ref.object.value, known[ref].record_id or "", known[ref].url)
            for ref in (*shared, *mine)
            if ref in known and known[ref].record_id
        ),
    )


def _in_state(session: Session, state: DeliveryState, limit: int, offset: int) -> list[BookingRow]:
    """The bookings that came last into a state in some CRM, each once."""
    # A booking stands there once for each CRM in which it is in that state.
    most = (offset + limit) * (session.scalar(select(func.count(ConnectionRow.id))) or 0)
    newest = (DeliveryRow.updated_at.desc(), DeliveryRow.id.desc())
    query = select(DeliveryRow.booking_id).where(DeliveryRow.state == state)
    numbers = list(dict.fromkeys(session.scalars(query.order_by(*newest).limit(most))))
    wanted = numbers[offset : offset + limit]
    found = session.scalars(select(BookingRow).where(BookingRow.id.in_(wanted)))
    rows = {row.id: row for row in found}
    return [rows[number] for number in wanted]


def _refs(booking: Booking) -> tuple[list[Ref], list[Ref]]:
    """The records of a booking alone, and the records that its people and companies may have."""
    own = [Ref(name, booking.record_key) for name in (ObjectName.DEAL, ObjectName.CASE)]
    # If the mapping keeps the history of moves, there is a meeting for each start so far.
    starts = (*booking.previous_starts, booking.start)
    keys = [f"{booking.record_key}@{start:%Y%m%dT%H%M%SZ}" for start in starts]
    own += [Ref(ObjectName.MEETING, key) for key in (*keys, booking.record_key)]
    people = [person.identity for person in booking.attendees if person.identity]
    domains = [person.company_domain for person in booking.attendees if person.company_domain]
    shared = [Ref(name, p) for name in (ObjectName.CONTACT, ObjectName.LEAD) for p in people]
    shared += [Ref(ObjectName.COMPANY, domain) for domain in domains]
    return own, list(dict.fromkeys(shared))


def _linked(mine: list[Ref], known: Mapping[Ref, LedgerEntry]) -> set[Ref]:
    """The records that the booking's own records link to, and the next ones: a contact's company."""
    near = {link for ref in mine for link in known[ref].links}
    return near | {link for ref in near if ref in known for link in known[ref].links}


def _webhooks(session: Session, key: str) -> tuple[WebhookView, ...]:
    query = select(EventRow).where(EventRow.booking_key == key).order_by(EventRow.id.desc())
    return tuple(
        WebhookView(row.id, row.received_at, row.type, row.status, row.error)
        for row in session.scalars(query.limit(MOST_LOG))
    )


def _log(session: Session, booking_id: int) -> tuple[LogView, ...]:
    query = (
        select(SyncLog, DeliveryRow.connection_id)
        .join(DeliveryRow, DeliveryRow.id == SyncLog.delivery_id)
        .where(DeliveryRow.booking_id == booking_id)
        .order_by(SyncLog.id.desc())
        .limit(MOST_LOG)
    )
    return tuple(
        LogView(connection_id, row.at, row.object, row.record_id, row.outcome)
        for row, connection_id in session.execute(query)
    )
