"""The things that a person may do about bookings, besides saying how a meeting went."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from app.store import audit
from app.store.delivery_marking import mark_due, mark_replanned_due, retry_failed
from app.store.engine import Store, utcnow
from app.store.models import BookingRow


def sync_again(store: Store, key: str, actor: str) -> list[int]:
    """Sync a booking to every CRM once more; return the connections to wake.

    Values that are in a CRM already are not written again. Raises LookupError for an unknown key.
    """
    now = utcnow()
    with store.write() as session:
        query = select(BookingRow).where(BookingRow.key == key).with_for_update()
        row = session.scalars(query).first()
        if row is None:
            raise LookupError(f"there is no booking {key!r}")
        audit.note(session, actor, "sync_again", row.key, now)
        return mark_due(session, [row], now)


def retry_all(
    store: Store, connection_id: int | None, delivery_ids: Sequence[int], actor: str
) -> list[int]:
    """Give failed deliveries new tries: the given ones, all, or all of a connection.

    Return the connection of each.
    """
    now = utcnow()
    with store.write() as session:
        taken = retry_failed(session, now, connection_id, delivery_ids)
        subject = ", ".join(map(str, delivery_ids[:20])) or "all"
        audit.note(session, actor, "retry", subject, now)
    return list(taken)


def resync_all(store: Store, connection_id: int, mapping_version: str, actor: str) -> int:
    """Sync again the bookings that another mapping file has planned; return their number."""
    now = utcnow()
    with store.write() as session:
        number = mark_replanned_due(session, connection_id, mapping_version, now)
        audit.note(session, actor, "resync", str(connection_id), now)
    return number


def note_act(store: Store, actor: str, action: str, subject: str) -> None:
    """Add a person's act to the audit log if no other row is changed with it."""
    with store.write() as session:
        audit.note(session, actor, action, subject, utcnow())
