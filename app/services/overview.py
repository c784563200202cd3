"""Reads what was synced and what was not, for the dashboard, the API and the CLI."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.domain.records import ObjectName, Ref
from app.security.encryption import Cipher
from app.store.bookings import read_state
from app.store.deliveries import count_parked
from app.store.engine import Store
from app.store.ledger import Ledger
from app.store.models import BookingRow, ConnectionRow, DeliveryRow, EventRow


@dataclass(frozen=True)
class LinkView:
    """A record of a CRM that stands for a part of a booking."""

    object: str
    record_id: str
    url: str


@dataclass(frozen=True)
class DeliveryView:
    """Where a booking stands in one CRM."""

    provider: str
    account: str
    state: str
    calls: int
    attempts: int
    error: str | None
    advice: str | None
    next_attempt_at: str | None
    links: tuple[LinkView, ...]


@dataclass(frozen=True)
class BookingView:
    """A booking and its deliveries as a sales person wants to see them."""

    key: str
    title: str
    who: str
    start: str
    timezone: str
    status: str
    deliveries: tuple[DeliveryView, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Overview:
    """Read-only views on the store."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store = store
        self._cipher = cipher

    def bookings(self, limit: int = 50, offset: int = 0) -> list[BookingView]:
        """The bookings that changed last."""
        query = select(BookingRow).order_by(BookingRow.updated_at.desc(), BookingRow.id.desc())
        with self._store.read() as session:
            rows = session.scalars(query.limit(limit).offset(offset)).all()
            return [self._booking(session, row) for row in rows]

    def booking(self, key: str) -> BookingView | None:
        """One booking by its key (`source:id`), or by its id in the default source."""
        keys = (key, f"default:{key}")
        with self._store.read() as session:
            row = session.scalars(select(BookingRow).where(BookingRow.key.in_(keys))).first()
            return self._booking(session, row) if row else None

    def connections(self) -> list[ConnectionRow]:
        """Every connection, oldest first."""
        with self._store.read() as session:
            return list(session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)))

    def parked(self, connection_id: int) -> int:
        """How many bookings wait for a connection."""
        with self._store.read() as session:
            return count_parked(session, connection_id)

    def events(self, limit: int = 50) -> list[EventRow]:
        """The webhooks that came last."""
        with self._store.read() as session:
            query = select(EventRow).order_by(EventRow.id.desc()).limit(limit)
            return list(session.scalars(query))

    def _booking(self, session: Session, row: BookingRow) -> BookingView:
        booking = read_state(row, self._cipher)
        pairs = session.execute(
            select(DeliveryRow, ConnectionRow)
            .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
            .where(DeliveryRow.booking_id == row.id)
            .order_by(ConnectionRow.id)
        ).all()
        return BookingView(
            key=booking.key,
            title=booking.meeting_type.name or "Meeting",
            who=", ".join(person.display_name for person in booking.attendees),
            start=booking.start.isoformat(),
            timezone=booking.timezone,
            status=booking.status.value,
            deliveries=tuple(self._delivery(session, booking, d, c) for d, c in pairs),
        )

    def _delivery(
        self, session: Session, booking: Booking, row: DeliveryRow, connection: ConnectionRow
    ) -> DeliveryView:
        refs = [
            Ref(ObjectName.CONTACT, person.identity)
            for person in booking.attendees
            if person.identity
        ]
        refs += [
            Ref(ObjectName.COMPANY, person.company_domain)
            for person in booking.attendees
            if person.company_domain
        ]
        refs += [Ref(ObjectName.DEAL, booking.key), Ref(ObjectName.MEETING, booking.key)]
        known = Ledger(session, self._cipher, connection.id).read(refs)
        return DeliveryView(
            provider=connection.provider,
            account=connection.account,
            state=row.state,
            calls=row.calls,
            attempts=row.attempts,
            error=row.error_message,
            advice=row.error_advice,
            next_attempt_at=row.next_attempt_at.isoformat() if row.state == "retrying" else None,
            links=tuple(
                LinkView(ref.object.value, known[ref].record_id or "", known[ref].url)
                for ref in dict.fromkeys(refs)
                if ref in known and known[ref].record_id
            ),
        )
