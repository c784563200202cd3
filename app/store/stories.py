"""Which bookings continue one another: a story, in which each booking replaces the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.domain.story import is_continued, tell
from app.security.encryption import Cipher
from app.store.bookings import hash_of, read_state, seal_state, stored_state
from app.store.engine import take_turns
from app.store.models import BookingPerson, BookingRow

NEAR, MOST_NEAR = timedelta(days=1), 20
"""A moved booking is looked for among this many bookings of the person, this near in time."""


@dataclass
class Kin:
    """What is known of the other bookings of new ones, so that most need no query of their own."""

    busy_people: set[str]
    """Hashes of the people with more than one booking."""
    continued: set[str]
    """Keys of bookings that another one continues."""

    def add(self, more: Kin) -> None:
        """Add what has become known meanwhile."""
        self.busy_people |= more.busy_people
        self.continued |= more.continued


def wait_for_kin(session: Session, cipher: Cipher, bookings: Iterable[Booking]) -> None:
    """Wait until no other process stores a booking of the same stories.

    On PostgreSQL, two bookings stored at the same moment would not see each other, and each would
    be taken for a story of its own.
    """
    kin = set()
    for booking in bookings:
        person = _first_person(cipher, booking)
        kin |= {booking.key, person or booking.key}
        if booking.continues:
            kin.add(f"{booking.source}:{booking.continues}")
    turns = (hashlib.sha256(mark.encode()).digest()[:8] for mark in kin)
    # Always in the same order, so that two processes with several turns in common cannot deadlock.
    take_turns(session, sorted(int.from_bytes(turn, "big", signed=True) for turn in turns))


def look_for_kin(session: Session, cipher: Cipher, bookings: Collection[Booking]) -> Kin:
    """Look up the other bookings of some that have just been stored, for all of them together."""
    hashes = {person for booking in bookings if (person := _first_person(cipher, booking))}
    busy = (
        select(BookingPerson.person_hash)
        .where(BookingPerson.person_hash.in_(hashes))
        .group_by(BookingPerson.person_hash)
        .having(func.count() > 1)
    )
    continued = select(BookingRow.story).where(BookingRow.story.in_([b.key for b in bookings]))
    stories = {key for key in session.scalars(continued) if key}
    return Kin(set(session.scalars(busy)) if hashes else set(), stories)


def join_story(
    session: Session,
    cipher: Cipher,
    row: BookingRow,
    booking: Booking,
    now: datetime,
    kin: Kin,
) -> list[BookingRow]:
    """Note which bookings continue one another, in whatever order they arrived.

    Return the other bookings whose state this changes.
    """
    changed: list[BookingRow] = []
    if booking.form:
        return changed
    others = _of_same_person(session, cipher, booking, kin) if not booking.continues else ()
    for other, state in others:
        if is_continued(state, booking) and state.continues != booking.id:
            booking = replace(booking, continues=state.id)
            row.state_encrypted = seal_state(booking, cipher)
            break
        if not state.continues and is_continued(booking, state):
            told = replace(state, continues=booking.id)
            other.state_encrypted = seal_state(told, cipher)
            other.story, other.updated_at = row.story or row.key, now
            other.revision += 1
            kin.continued.add(other.story)
            _move_story(session, other)
            changed.append(other)
    if booking.continues:
        before = f"{booking.source}:{booking.continues}"
        found = session.scalars(select(BookingRow).where(BookingRow.key == before)).first()
        row.story = (found.story if found else None) or before
        kin.continued.add(row.story)
    if row.key in kin.continued:
        _move_story(session, row)
    return changed


def _move_story(session: Session, row: BookingRow) -> None:
    """Take the bookings that continue a booking along into its story."""
    session.execute(
        update(BookingRow)
        .where(BookingRow.story == row.key, BookingRow.id != row.id)
        .values(story=row.story or row.key)
    )


def _first_person(cipher: Cipher, booking: Booking) -> str | None:
    """The hash of the first attendee."""
    identity = booking.attendees[0].identity if booking.attendees else None
    return hash_of(cipher, identity) if identity else None


def _of_same_person(
    session: Session, cipher: Cipher, booking: Booking, kin: Kin
) -> Iterable[tuple[BookingRow, Booking]]:
    """The newest other bookings of the first attendee, each with its state."""
    first = _first_person(cipher, booking)
    if first is None or first not in kin.busy_people:
        return []
    query = (
        select(BookingRow)
        .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
        .where(
            BookingPerson.person_hash == first,
            BookingRow.key != booking.key,
            BookingRow.version.between(booking.version - NEAR, booking.version + NEAR),
        )
        .order_by(BookingRow.version.desc())
        .limit(MOST_NEAR)
    )
    return [(row, stored_state(row, cipher)) for row in session.scalars(query)]


def story_mates(session: Session, rows: Sequence[BookingRow]) -> list[BookingRow]:
    """The other bookings of the stories of some: the records of all of them may change."""
    roots = {row.story or row.key for row in rows}
    query = select(BookingRow).where(
        or_(BookingRow.key.in_(roots), BookingRow.story.in_(roots)),
        BookingRow.id.not_in([row.id for row in rows]),
    )
    return list(session.scalars(query.order_by(BookingRow.id)))


def in_stories(session: Session, cipher: Cipher, rows: Iterable[BookingRow]) -> dict[int, Booking]:
    """Return, by the id of each row, its booking as part of its story."""
    rows = list(rows)
    roots = sorted({row.story or row.key for row in rows})
    query = select(BookingRow).where(BookingRow.story.in_(roots))
    later = list(session.scalars(query)) if roots else []
    told = {row.story for row in later}
    firsts = session.scalars(select(BookingRow).where(BookingRow.key.in_(told))) if told else ()
    members: dict[str, dict[int, Booking]] = {}
    for row in (*firsts, *later):
        members.setdefault(row.story or row.key, {})[row.id] = read_state(row, cipher)
    found = {}
    for row in rows:
        root, booking = row.story or row.key, read_state(row, cipher)
        others = members.get(root, {})
        mine = [*(b for number, b in others.items() if number != row.id), booking]
        found[row.id] = tell(root, booking, mine) if others else booking
    return found
