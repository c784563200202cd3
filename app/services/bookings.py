"""What a person may do about one booking beside saying how it went."""

from __future__ import annotations

from sqlalchemy import select

from app.store.access_models import AuditLog
from app.store.delivery_marking import mark_due
from app.store.engine import Store, utcnow
from app.store.models import BookingRow


def sync_again(store: Store, key: str, actor: str) -> list[int]:
    """Bring a booking into every CRM once more; give the connections to wake.

    What is there already is not written again. Raises LookupError where there is no such booking.
    """
    now = utcnow()
    with store.write() as session:
        query = select(BookingRow).where(BookingRow.key == key).with_for_update()
        row = session.scalars(query).first()
        if row is None:
            raise LookupError(f"there is no booking {key!r}")
        session.add(AuditLog(actor=actor, action="sync_again", subject=row.key, at=now))
        return mark_due(session, row, now)
