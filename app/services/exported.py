"""All that is held on one person, as plain data: the answer to a request for access."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.security.encryption import Cipher
from app.store.bookings import as_plain
from app.store.erasure import Traces
from app.store.inbox import read_event_row
from app.store.models import ConnectionRow, DeliveryRow, EventRow


def export(session: Session, cipher: Cipher, traces: Traces) -> dict[str, Any]:
    """The person's bookings, webhooks and records; other people of a booking are left out."""
    bookings = []
    alone = set()
    for number, booking in sorted(traces.bookings.items()):
        if {person.identity for person in booking.attendees} <= {traces.identity}:
            alone.add(booking.key)
        bookings.append(
            {
                **as_plain(_only(booking, traces.identity)),
                "deliveries": _deliveries(session, number),
            }
        )
    return {
        "person": {"identity": traces.identity, "told_by": sorted(traces.words)},
        "bookings": bookings,
        "webhooks": _webhooks(session, cipher, traces, alone),
        "crm_records": [asdict(record) for record in traces.records],
    }


def _only(booking: Booking, identity: str) -> Booking:
    """A booking with what it holds on one person."""
    others = any(person.identity != identity for person in booking.attendees)
    return replace(
        booking,
        attendees=tuple(p for p in booking.attendees if p.identity == identity),
        companions=tuple(p for p in booking.companions if p.identity == identity),
        former_attendees=tuple(each for each in booking.former_attendees if each == identity),
        payload={} if others else booking.payload,
        payload_from={},
        not_told={},
    )


def _deliveries(session: Session, booking_id: int) -> list[dict[str, Any]]:
    query = (
        select(DeliveryRow, ConnectionRow)
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .where(DeliveryRow.booking_id == booking_id)
        .order_by(ConnectionRow.id)
    )
    return [
        {
            "crm": connection.provider,
            "account": connection.account,
            "state": row.state,
            "notes": row.notes,
            "error": row.error_message,
            "error_fields": row.error_fields,
            "error_raw": row.error_raw,
        }
        for row, connection in session.execute(query)
    ]


def _webhooks(
    session: Session, cipher: Cipher, traces: Traces, alone: set[str]
) -> list[dict[str, Any]]:
    """The webhooks about the person; the content of one about several people is left out."""
    query = select(EventRow).where(EventRow.id.in_(traces.events)).order_by(EventRow.id)
    told = []
    for row in session.scalars(query):
        shown = row.booking_key in alone
        told.append(
            {
                "id": row.id,
                "type": row.type,
                "received_at": row.received_at.isoformat(),
                "status": row.status,
                "content": read_event_row(row, cipher).payload if shown else None,
            }
        )
    return told
