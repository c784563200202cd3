"""What meetergo says about its meeting types, stored by id: its API names them by id only."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.booking import Booking, MeetingType
from app.domain.limits import TYPE_ID
from app.store.models import MeetingTypeRow
from app.store.upsert import insert_unless_there

KEPT = timedelta(days=1)
"""After this time meetergo is asked about a meeting type again."""
MOST_TYPES = 2_000
"""The most meeting types that are read together."""
UNKNOWN_KEPT = timedelta(hours=1)
"""After this time meetergo is asked again about a meeting type that it does not show."""


def lacks_type(session: Session, booking: Booking, now: datetime) -> bool:
    """Whether to ask meetergo for a booking's type: neither message nor store knows it."""
    kind = booking.meeting_type
    if not kind.id or len(kind.id) > TYPE_ID or "slug" not in kind.not_told:
        return False
    row = session.get(MeetingTypeRow, (booking.source, kind.id))
    if row is None:
        return True
    told = max((at for at in (row.said_at, row.asked_at) if at), default=None)
    return told is None or now - told > (KEPT if row.slug else UNKNOWN_KEPT)


def note_type(
    session: Session, source: str, kind: MeetingType, said_at: datetime, asked: bool = False
) -> MeetingTypeRow | None:
    """Store what a message, or an answer to our question (`asked`), says about a meeting type.

    Return the row of the type, if there is one.
    """
    if not kind.id or len(kind.id) > TYPE_ID:
        return None
    row = session.get(MeetingTypeRow, (source, kind.id))
    if not asked and "slug" in kind.not_told:
        return row
    if row is None:
        fresh = {"source": source, "type_id": kind.id, "details": {}}
        unique = ["source", "type_id"]
        session.execute(insert_unless_there(session, MeetingTypeRow, unique), fresh)
        row = session.get_one(MeetingTypeRow, (source, kind.id))
    if asked:
        row.asked_at = said_at
    if row.said_at is None or row.said_at < said_at:
        _fill_in(row, kind, said_at)
    return row


def _fill_in(row: MeetingTypeRow, kind: MeetingType, said_at: datetime) -> None:
    told = {name for name in ("slug", "name", "metadata") if name not in kind.not_told}
    same = row.slug == kind.slug and row.name == kind.name and row.details == dict(kind.metadata)
    if same and row.said_at is not None and said_at - row.said_at < KEPT:
        # The row of a busy type is not written with each of its bookings.
        return
    if told:
        row.said_at = said_at
        row.slug = kind.slug if "slug" in told else row.slug
        row.name = kind.name if "name" in told else row.name
        row.details = dict(kind.metadata) if "metadata" in told else row.details


def known_slugs(session: Session) -> dict[tuple[str, str], str]:
    """Source and id of a known meeting type -> its slug; at most MOST_TYPES."""
    query = select(MeetingTypeRow.source, MeetingTypeRow.type_id, MeetingTypeRow.slug).where(
        MeetingTypeRow.slug.is_not(None)
    )
    rows = session.execute(query.limit(MOST_TYPES))
    return {(source, number): slug for source, number, slug in rows if slug}


def with_type(session: Session, booking: Booking) -> Booking:
    """Fill in a booking's meeting type from the store, if its message does not say it."""
    kind = booking.meeting_type
    missing = {"slug", "name", "metadata"} & set(kind.not_told)
    if not missing or not kind.id or len(kind.id) > TYPE_ID:
        return booking
    row = session.get(MeetingTypeRow, (booking.source, kind.id))
    if row is None or row.said_at is None:
        return booking
    kept = {"slug": row.slug, "name": row.name, "metadata": row.details or {}}
    values = {name: kept[name] for name in sorted(missing)}
    times = {**kind.not_told, **dict.fromkeys(values, row.said_at)}
    filled = replace(kind, **values, not_told=times)  # type: ignore[arg-type]
    return replace(booking, meeting_type=filled)
