"""Keeps the newest state of every booking; the order in which events arrive makes no difference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter
from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.domain.booking import Booking, MeetingOutcome
from app.domain.history import History, tell
from app.domain.merge import fill, identities, is_more_than_said, merge
from app.domain.story import is_continued
from app.domain.story import tell as tell_story
from app.security.encryption import Cipher
from app.store.engine import take_turns
from app.store.models import BookingPerson, BookingRow

PURPOSE = "bookings.state"
NEAR, MOST_NEAR = timedelta(days=1), 20
"""A moved booking is looked for among this many bookings of the person, this near in time."""
MOST_BOOKINGS = 500
"""The most bookings of one person that a summary reads, newest first."""
FORMER_NAMES = {"earlier": "previous_starts", "left": "former_attendees"}
"""Field names of a stored booking in an older release -> the names now."""


def _renamed(stored: Any) -> Any:
    """A stored state, with the field names of today."""
    if not isinstance(stored, dict) or not FORMER_NAMES.keys() & stored.keys():
        return stored
    return {FORMER_NAMES.get(name, name): value for name, value in stored.items()}


_codec: TypeAdapter[Booking] = TypeAdapter(Annotated[Booking, BeforeValidator(_renamed)])


@dataclass(frozen=True)
class Answered:
    """The questions that a booking answers, and the booking's meeting type."""

    source: str
    type_id: str | None
    slug: str | None
    type_name: str | None
    form: bool
    labels: tuple[str, ...]
    answers: tuple[tuple[str, str | list[str]], ...] = ()
    """Question and answer; the answer to a multiple choice is a list."""


@dataclass(frozen=True)
class _Type:
    id: str | None = None
    slug: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class _Person:
    answers: dict[str, str] = field(default_factory=dict)
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """The part of a state that its questions need: several times as fast to read as the whole."""

    source: str
    form: bool = False
    meeting_type: _Type = field(default_factory=_Type)
    attendees: tuple[_Person, ...] = ()


_part = TypeAdapter(_Part)


def keep_newest(
    session: Session, cipher: Cipher, booking: Booking, now: datetime
) -> BookingRow | None:
    """Store a state if it is the newest; return the row, or None if the state is no news."""
    _wait_for_kin(session, booking)
    values = {
        "key": booking.key,
        "status": booking.status.value,
        "start": booking.start,
        "version": booking.version,
        "revision": 1,
        "state_encrypted": cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE),
        "updated_at": now,
    }
    fresh = session.scalar(
        insert_ignoring(session, BookingRow, values, ["key"]).returning(BookingRow.id)
    )
    row = session.scalars(
        select(BookingRow).where(BookingRow.key == booking.key).with_for_update()
    ).one()
    if fresh is not None:
        _note_people(session, row.id, booking)
        _join_story(session, cipher, row, booking, now)
        return row
    known = _stored(row, cipher)
    if not is_more_than_said(known, booking):
        if _fills(known, booking):
            kept = fill(known, booking)
            row.state_encrypted = cipher.encrypt(_codec.dump_json(kept).decode(), PURPOSE)
        return None
    kept = merge(known, booking)
    _store(session, cipher, row, kept, now)
    _note_people(session, row.id, kept)
    row.revision += 1
    session.flush()
    _join_story(session, cipher, row, kept, now)
    return row


def is_old_news(session: Session, cipher: Cipher, booking: Booking) -> bool:
    """Whether storing a state that meetergo's API shows would change nothing."""
    row = session.scalars(select(BookingRow).where(BookingRow.key == booking.key)).first()
    if row is None or row.details_at is None:
        return False
    known = _stored(row, cipher)
    return not is_more_than_said(known, booking) and not _fills(known, booking)


def _fills(known: Booking, booking: Booking) -> bool:
    kept = fill(known, booking)
    return kept.conference != known.conference or kept.payload != known.payload


def _wait_for_kin(session: Session, booking: Booking) -> None:
    """Wait until no other process stores a booking that continues this one, or that it continues.

    On PostgreSQL, two bookings stored at the same moment would not see each other, and each would
    be taken for a story of its own.
    """
    person = booking.attendees[0].identity if booking.attendees else None
    kin = {booking.key, hash_of(person) if person else booking.key}
    if booking.continues:
        kin.add(f"{booking.source}:{booking.continues}")
    turns = (hashlib.sha256(mark.encode()).digest()[:8] for mark in kin)
    # Always in the same order, so that two processes with several turns in common cannot deadlock.
    for turn in sorted(int.from_bytes(turn, "big", signed=True) for turn in turns):
        take_turns(session, turn)


def _join_story(
    session: Session, cipher: Cipher, row: BookingRow, booking: Booking, now: datetime
) -> None:
    """Note which bookings continue one another, in whatever order they arrived."""
    if booking.form:
        return
    for other, state in _of_same_person(session, cipher, booking) if not booking.continues else ():
        if is_continued(state, booking):
            booking = replace(booking, continues=state.id)
            row.state_encrypted = cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE)
            break
        if not state.continues and is_continued(booking, state):
            told = replace(state, continues=booking.id)
            other.state_encrypted = cipher.encrypt(_codec.dump_json(told).decode(), PURPOSE)
            other.story, other.updated_at = row.story or row.key, now
            other.revision += 1
    if booking.continues:
        before = f"{booking.source}:{booking.continues}"
        found = session.scalars(select(BookingRow).where(BookingRow.key == before)).first()
        row.story = (found.story if found else None) or before
    # A booking that came before this one and continues it belongs to the same story.
    session.execute(
        update(BookingRow)
        .where(BookingRow.story == row.key, BookingRow.id != row.id)
        .values(story=row.story or row.key)
    )
    session.flush()


def _of_same_person(
    session: Session, cipher: Cipher, booking: Booking
) -> Iterable[tuple[BookingRow, Booking]]:
    """The newest other bookings of the first attendee, each with its state."""
    first = booking.attendees[0].identity if booking.attendees else None
    if first is None:
        return []
    query = (
        select(BookingRow)
        .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
        .where(
            BookingPerson.person_hash == hash_of(first),
            BookingRow.key != booking.key,
            BookingRow.version.between(booking.version - NEAR, booking.version + NEAR),
        )
        .order_by(BookingRow.version.desc())
        .limit(MOST_NEAR)
    )
    return [(row, _stored(row, cipher)) for row in session.scalars(query)]


def story_mates(session: Session, row: BookingRow) -> list[BookingRow]:
    """The other bookings of a booking's story: the records of all of them may change with it."""
    root = row.story or row.key
    query = select(BookingRow).where(
        or_(BookingRow.key == root, BookingRow.story == root), BookingRow.id != row.id
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
        found[row.id] = tell_story(root, booking, mine) if others else booking
    return found


def _store(
    session: Session, cipher: Cipher, row: BookingRow, booking: Booking, now: datetime
) -> None:
    row.status, row.start, row.version = booking.status.value, booking.start, booking.version
    row.state_encrypted = cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE)
    row.updated_at = now


def want_details(session: Session, booking_ids: Iterable[int], now: datetime) -> bool:
    """Note that a mapping wants answers that these bookings lack; return whether that is news."""
    wanted = (
        update(BookingRow)
        .where(
            BookingRow.id.in_(list(booking_ids)),
            BookingRow.details_at.is_(None),
            BookingRow.details_due_at.is_(None),
        )
        .values(details_due_at=now, details_tries=0)
    )
    return bool(session.execute(wanted.returning(BookingRow.id)).all())


def details_due(session: Session, source: str, now: datetime) -> tuple[int, str, int] | None:
    """The next booking to ask meetergo about, by fewest tries, then newest: id, key, tries."""
    query = (
        select(BookingRow.id, BookingRow.key, BookingRow.details_tries)
        .where(
            BookingRow.details_due_at <= now,
            BookingRow.key.startswith(f"{source}:", autoescape=True),
        )
        .order_by(BookingRow.details_tries, BookingRow.id.desc())
        .limit(1)
    )
    row = session.execute(query).first()
    return (row[0], row[1], row[2]) if row else None


def sources_with_details(session: Session, now: datetime) -> set[str]:
    """Sources with a booking whose answers are wanted now."""
    keys = session.scalars(
        select(BookingRow.key).where(BookingRow.details_due_at <= now).limit(MOST_BOOKINGS)
    )
    return {key.partition(":")[0] for key in keys}


def note_details(session: Session, key: str, now: datetime) -> None:
    """Note that meetergo's API has just shown all of a booking: there is nothing more to ask."""
    done = {"details_at": now, "details_due_at": None}
    missing = (BookingRow.key == key, BookingRow.details_at.is_(None))
    session.execute(update(BookingRow).where(*missing).values(done))


def end_details(session: Session, row_id: int, now: datetime) -> None:
    """Stop asking about a booking: meetergo has given its answers, or cannot."""
    done = {"details_at": now, "details_due_at": None}
    session.execute(update(BookingRow).where(BookingRow.id == row_id).values(done))


def postpone_details(session: Session, row_id: int, until: datetime) -> None:
    """Ask for a booking's answers again at `until`."""
    later = {"details_due_at": until, "details_tries": BookingRow.details_tries + 1}
    session.execute(update(BookingRow).where(BookingRow.id == row_id).values(later))


def _stored(row: BookingRow, cipher: Cipher) -> Booking:
    return _codec.validate_json(cipher.decrypt(row.state_encrypted, PURPOSE))


def read_state(row: BookingRow, cipher: Cipher) -> Booking:
    """The booking of a row, with the outcome if a person gave one. Raises UnreadableSecret."""
    booking = replace(_stored(row, cipher), story=row.story)
    if row.outcome and row.outcome_start == booking.start:
        return replace(booking, outcome=MeetingOutcome(row.outcome))
    return booking


def newest_answers(session: Session, cipher: Cipher, most: int) -> list[Answered]:
    """The questions of the `most` bookings that changed last. Raises UnreadableSecret."""
    query = (
        select(BookingRow.state_encrypted)
        .order_by(BookingRow.updated_at.desc(), BookingRow.id.desc())
        .limit(most)
    )
    found = []
    for box in session.scalars(query):
        part = _part.validate_json(cipher.decrypt(box, PURPOSE))
        kind = part.meeting_type
        labels = dict.fromkeys(label for person in part.attendees for label in person.answers)
        told = (part.source, kind.id, kind.slug, kind.name, part.form)
        answers = tuple(
            (label, list(person.choices.get(label, ())) or text)
            for person in part.attendees
            for label, text in person.answers.items()
        )
        found.append(Answered(*told, tuple(labels), answers))
    return found


def set_outcome(
    session: Session, cipher: Cipher, row: BookingRow, outcome: MeetingOutcome | None, now: datetime
) -> None:
    """Note how the meeting at its present start went; None takes that back."""
    row.outcome = outcome.value if outcome else None
    row.outcome_start = _stored(row, cipher).start
    row.revision += 1
    row.updated_at = now
    session.flush()


def histories(
    session: Session, cipher: Cipher, identities: Iterable[str], now: datetime
) -> dict[str, History]:
    """The summary of all bookings of each person."""
    found = {}
    for identity in dict.fromkeys(identities):
        query = (
            select(BookingRow)
            .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
            .where(BookingPerson.person_hash == hash_of(identity))
            .order_by(BookingRow.start.desc())
            .limit(MOST_BOOKINGS)
        )
        found[identity] = tell((read_state(r, cipher) for r in session.scalars(query)), now)
    return found


def take_part(session: Session, identities: Iterable[str]) -> bool:
    """Whether any of these people takes part in a booking."""
    hashes = [hash_of(identity) for identity in identities]
    query = select(BookingPerson.booking_id).where(BookingPerson.person_hash.in_(hashes))
    return session.scalars(query.limit(1)).first() is not None


def has_booked_since(session: Session, cipher: Cipher, identity: str, since: datetime) -> bool:
    """Whether a person has made a booking since a moment (UTC); moving an older one is none."""
    query = (
        select(BookingRow)
        .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
        .where(BookingPerson.person_hash == hash_of(identity), BookingRow.version >= since)
    )
    found = (_stored(row, cipher) for row in session.scalars(query))
    return any(not b.form and (b.created_at or b.version) >= since for b in found)


def _note_people(session: Session, booking_id: int, booking: Booking) -> None:
    hashes = {hash_of(identity) for identity in identities(booking)}
    session.execute(
        delete(BookingPerson).where(
            BookingPerson.booking_id == booking_id, BookingPerson.person_hash.not_in(hashes)
        )
    )
    for person_hash in sorted(hashes):
        values: Mapping[str, Any] = {"booking_id": booking_id, "person_hash": person_hash}
        unique = ["booking_id", "person_hash"]
        session.execute(insert_ignoring(session, BookingPerson, dict(values), unique))


def hash_of(identity: str) -> str:
    """The hash that stands for a person in the tables."""
    return hashlib.sha256(f"person\0{identity}".encode()).hexdigest()


def insert_ignoring(
    session: Session,
    model: Any,
    values: dict[str, Any] | list[dict[str, Any]],
    unique: list[str],
) -> postgresql.Insert | sqlite.Insert:
    """An INSERT of one or several rows that skips rows whose unique columns are taken."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(model).values(values).on_conflict_do_nothing(index_elements=unique)
    return sqlite.insert(model).values(values).on_conflict_do_nothing(index_elements=unique)
