"""Keeps the newest state of every booking; whatever order the events come in, it ends the same."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.domain.booking import Booking, is_newer
from app.security.encryption import Cipher
from app.store.models import BookingRow

PURPOSE = "bookings.state"
_codec = TypeAdapter(Booking)


def keep_newest(
    session: Session, cipher: Cipher, booking: Booking, now: datetime
) -> BookingRow | None:
    """Store a state if it is the newest; give the row, or None where a newer one is known."""
    values = {
        "key": booking.key,
        "status": booking.status.value,
        "start": booking.start,
        "version": booking.version,
        "revision": 1,
        "state_box": cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE),
        "updated_at": now,
    }
    fresh = session.scalar(
        insert_ignoring(session, BookingRow, values, ["key"]).returning(BookingRow.id)
    )
    row = session.scalars(
        select(BookingRow).where(BookingRow.key == booking.key).with_for_update()
    ).one()
    if fresh is not None:
        return row
    if not is_newer(booking, read_state(row, cipher)):
        return None
    for name, value in values.items():
        if name not in ("key", "revision"):
            setattr(row, name, value)
    row.revision += 1
    session.flush()
    return row


def read_state(row: BookingRow, cipher: Cipher) -> Booking:
    """The booking that a row holds. Raises UnreadableSecret where the key is gone."""
    return _codec.validate_json(cipher.decrypt(row.state_box, PURPOSE))


def insert_ignoring(
    session: Session, model: Any, values: dict[str, Any], unique: list[str]
) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that does nothing where the unique columns are taken, on either database."""
    if session.get_bind().dialect.name == "postgresql":
        return (
            postgresql.insert(model).values(**values).on_conflict_do_nothing(index_elements=unique)
        )
    return sqlite.insert(model).values(**values).on_conflict_do_nothing(index_elements=unique)
