"""Deletes the content of webhooks; the rows stay, so that a repeated webhook is recognised."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.store.models import EventRow
from app.store.states import EventStatus

UNPROCESSED = (EventStatus.STORED, EventStatus.RECEIVED)


def forget_payloads(session: Session, booking_keys: Collection[str]) -> int:
    """Delete the content of the processed webhooks of some bookings; return their number."""
    gone = (
        update(EventRow)
        .where(
            EventRow.booking_key.in_(booking_keys),
            EventRow.payload_encrypted.is_not(None),
            EventRow.status.not_in(UNPROCESSED),
        )
        .values(payload_encrypted=None, error=None)
        .execution_options(synchronize_session=False)
    )
    return len(session.scalars(gone.returning(EventRow.id)).all()) if booking_keys else 0
