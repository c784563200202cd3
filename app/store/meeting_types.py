"""What meetergo says of its meeting types, kept by their ids: its API names them by nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.booking import Booking, MeetingType
from app.domain.limits import TYPE_ID
from app.store.bookings import insert_ignoring
from app.store.models import MeetingTypeRow

KEPT = timedelta(days=1)
"""After that meetergo is asked for a meeting type anew."""
MOST_TYPES = 2_000
"""Meeting types that are looked at together."""
UNKNOWN_KEPT = timedelta(hours=1)
"""The same for one that it does not show."""


def lacks_type(session: Session, booking: Booking, now: datetime) -> bool:
    """Whether meetergo is to be asked for what was booked: neither the message nor what is kept says."""
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
) -> None:
    """Keep what a message, or an answer to a question of ours (`asked`), says of a meeting type."""
    if not kind.id or len(kind.id) > TYPE_ID:
        return
    if not asked and "slug" in kind.not_told:
        return
    fresh = {"source": source, "type_id": kind.id, "details": {}}
    row = session.get(MeetingTypeRow, (source, kind.id))
    if row is None:
        session.execute(insert_ignoring(session, MeetingTypeRow, fresh, ["source", "type_id"]))
        row = session.get_one(MeetingTypeRow, (source, kind.id))
    if asked:
        row.asked_at = said_at
    if row.said_at is not None and row.said_at >= said_at:
        return
    told = {name for name in ("slug", "name", "metadata") if name not in kind.not_told}
    same = row.slug == kind.slug and row.name == kind.name and row.details == dict(kind.metadata)
    if same and row.said_at is not None and said_at - row.said_at < KEPT:
        # A busy type is not written with each of its bookings.
        return
    if told:
        row.said_at = said_at
        row.slug = kind.slug if "slug" in told else row.slug
        row.name = kind.name if "name" in told else row.name
        row.details = dict(kind.metadata) if "metadata" in told else row.details


def known_slugs(session: Session) -> dict[tuple[str, str], str]:
    """Source and id of the meeting types that were told of -> their slugs; at most MOST_TYPES."""
    query = select(MeetingTypeRow.source, MeetingTypeRow.type_id, MeetingTypeRow.slug).where(
        MeetingTypeRow.slug.is_not(None)
    )
    rows = session.execute(query.limit(MOST_TYPES))
    return {(source, number): slug for source, number, slug in rows if slug}


def with_type(session: Session, booking: Booking) -> Booking:
    """A booking with what is kept of its meeting type, where its message does not say it."""
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
