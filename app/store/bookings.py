"""The bookings as they are stored: their states, people, answers and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.crm.objects import FORGOTTEN
from app.domain.booking import Booking, MeetingOutcome
from app.domain.history import History, tell
from app.domain.text import reworded
from app.security.encryption import Cipher
from app.store.boxes import seal, unseal
from app.store.models import BookingPerson, BookingRow

MOST_BOOKINGS = 500
"""The most bookings of one person that a summary reads, newest first."""
NAMES = frozenset(["source", "id", "continues", "hosts", "former_attendees", "story"])
"""Fields of a booking that name it or its people: no texts."""
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


def seal_state(booking: Booking, cipher: Cipher) -> str:
    """A booking as its row holds it."""
    text = _codec.dump_json(booking).decode()
    return seal(cipher, BookingRow.state_encrypted, {"key": booking.key}, text)


def state_text(row: BookingRow, cipher: Cipher) -> str:
    """The state of a row as JSON. Raises UnreadableSecret."""
    return unseal(cipher, BookingRow.state_encrypted, row)


def as_plain(booking: Booking) -> dict[str, Any]:
    """A booking as plain data."""
    plain: dict[str, Any] = _codec.dump_python(booking, mode="json")
    return plain


def with_texts(booking: Booking, change: Callable[[str], str]) -> Booking:
    """A booking with changed texts: answers, notes and the like, but no names of its people."""
    plain = as_plain(booking)
    for name, value in plain.items():
        if name in ("attendees", "companions"):
            for person in value:
                person |= {part: reworded(person[part], change) for part in ("answers", "choices")}
        elif name not in NAMES:
            plain[name] = reworded(value, change)
    return _codec.validate_python(plain)


def stored_state(row: BookingRow, cipher: Cipher) -> Booking:
    """The booking of a row as its messages describe it. Raises UnreadableSecret."""
    return _codec.validate_json(unseal(cipher, BookingRow.state_encrypted, row))


def read_state(row: BookingRow, cipher: Cipher) -> Booking:
    """The booking of a row, with the outcome if a person gave one. Raises UnreadableSecret."""
    booking = replace(stored_state(row, cipher), story=row.story, reduced_at=row.reduced_at)
    if row.outcome and row.outcome_start == booking.start:
        return replace(booking, outcome=MeetingOutcome(row.outcome))
    return booking


def newest_answers(session: Session, cipher: Cipher, most: int) -> list[Answered]:
    """The questions of the `most` bookings that changed last. Raises UnreadableSecret."""
    query = (
        select(BookingRow.key, BookingRow.state_encrypted)
        .order_by(BookingRow.updated_at.desc(), BookingRow.id.desc())
        .limit(most)
    )
    found = []
    for row in session.execute(query):
        part = _part.validate_json(unseal(cipher, BookingRow.state_encrypted, row))
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
    row.outcome_start = stored_state(row, cipher).start
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
            .where(BookingPerson.person_hash == hash_of(cipher, identity))
            .order_by(BookingRow.start.desc())
            .limit(MOST_BOOKINGS)
        )
        found[identity] = tell((read_state(r, cipher) for r in session.scalars(query)), now)
    return found


def take_part(session: Session, cipher: Cipher, identities: Iterable[str]) -> bool:
    """Whether any of these people takes part in a booking."""
    wanted = list(identities)
    if any(identity.startswith(FORGOTTEN) for identity in wanted):
        # Somebody whose address was deleted after their meetings took part in one.
        return True
    hashes = [hash_of(cipher, identity) for identity in wanted]
    query = select(BookingPerson.booking_id).where(BookingPerson.person_hash.in_(hashes))
    return session.scalars(query.limit(1)).first() is not None


def has_booked_since(session: Session, cipher: Cipher, identity: str, since: datetime) -> bool:
    """Whether a person has made a booking since a moment (UTC); moving an older one is none."""
    query = (
        select(BookingRow)
        .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
        .where(BookingPerson.person_hash == hash_of(cipher, identity), BookingRow.version >= since)
    )
    found = (stored_state(row, cipher) for row in session.scalars(query))
    return any(not b.form and (b.created_at or b.version) >= since for b in found)


def hash_of(cipher: Cipher, identity: str) -> str:
    """The hash that stands for a person in the tables."""
    return cipher.keyed_hash(f"person\0{identity}")
