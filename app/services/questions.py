"""The questions that stored bookings answer, and the names in a mapping file that none has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.domain.booking import Booking
from app.domain.text import cut
from app.mapping.load import MappingText
from app.mapping.mapping import Mapping as FieldMapping
from app.mapping.paths import plain_label
from app.mapping.provision import Seen as Answers
from app.mapping.questions import KnownQuestions, doubts, labels_used
from app.security.encryption import Cipher
from app.store.bookings import Answered, newest_answers
from app.store.engine import Store
from app.store.meeting_types import known_slugs

MOST_LOOKED_AT = 1_000
"""The most bookings to read, those that changed last: each has to be decrypted."""
MOST_QUESTIONS = 500
"""The most questions to show, those that most bookings answer."""
LONGEST = 300
"""The most characters of a question to show."""
FORM = "(a form)"
NO_TYPE = "(no meeting type)"


@dataclass(frozen=True)
class FormQuestion:
    """A question, how many of the bookings read answer it, and their meeting types."""

    label: str
    bookings: int
    meeting_types: tuple[str, ...]
    by_type: Mapping[str, int] = field(default_factory=dict)
    """Meeting type -> how many of its bookings answer it; most first, as in `meeting_types`."""
    used_by: tuple[str, ...] = ()
    """The CRMs whose mapping file names the question."""


@dataclass(frozen=True)
class Seen:
    """What the newest bookings have answered."""

    bookings: int
    """How many bookings were read."""
    every: bool
    """Whether these are all the bookings there are."""
    questions: tuple[FormQuestion, ...]
    slugs: tuple[str, ...]
    """Slugs of all meeting types known from meetergo, not only those of these bookings."""


def questions_seen(
    store: Store,
    cipher: Cipher,
    newest: int = MOST_LOOKED_AT,
    files: Mapping[str, FieldMapping] | None = None,
) -> Seen:
    """The questions that the newest bookings answer, most answered first. Raises UnreadableSecret.

    `files`: CRM -> its mapping, to say which of them names a question.
    """
    named = {crm: labels_used(mapping) for crm, mapping in (files or {}).items()}
    with store.read() as session:
        answered = newest_answers(session, cipher, newest + 1)
        slugs = known_slugs(session)
    every, answered = len(answered) <= newest, answered[:newest]
    found: dict[str, _Count] = {}
    for booking in answered:
        for label in booking.labels:
            count = found.setdefault(plain_label(label), _Count(label))
            count.bookings += 1
            count.types[_type_of(booking, slugs)] += 1
    counted = sorted(found.items(), key=lambda item: (-item[1].bookings, item[1].label))
    questions = [
        count.told(tuple(crm for crm, labels in named.items() if label in labels))
        for label, count in counted[:MOST_QUESTIONS]
    ]
    every_slug = {booking.slug for booking in answered if booking.slug} | set(slugs.values())
    return Seen(len(answered), every, tuple(questions), tuple(sorted(every_slug)))


def answers_seen(store: Store, cipher: Cipher, newest: int = MOST_LOOKED_AT) -> Answers:
    """The answers of the newest bookings to each question. Raises UnreadableSecret."""
    with store.read() as session:
        answered = newest_answers(session, cipher, newest)
    found: dict[str, list[str | list[str]]] = {}
    for booking in answered:
        for label, answer in booking.answers:
            found.setdefault(plain_label(label), []).append(answer)
    return found


def warn(text: MappingText, seen: Seen, shown: Iterable[Booking] = ()) -> list[str]:
    """Note the names in a file that no booking has; return them as lines. `shown`: more bookings."""
    shown = list(shown)
    labels = {question.label for question in seen.questions}
    labels |= {label for b in shown for person in b.attendees for label in person.answers}
    slugs = {*seen.slugs, *(b.meeting_type.slug for b in shown if b.meeting_type.slug)}
    known = KnownQuestions(seen.bookings, seen.every, tuple(sorted(labels)), tuple(sorted(slugs)))
    for doubt in doubts(text.mapping, known) if text.mapping else ():
        text.warn(doubt.location, doubt.message)
    return text.warning_lines()


@dataclass
class _Count:
    label: str
    bookings: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def told(self, used_by: tuple[str, ...]) -> FormQuestion:
        """The question as lists show it."""
        label, by_type = cut(self.label, LONGEST), dict(self.types.most_common())
        return FormQuestion(label, self.bookings, tuple(by_type), by_type, used_by)


def _type_of(booking: Answered, slugs: dict[tuple[str, str], str]) -> str:
    if booking.form:
        return FORM
    kept = slugs.get((booking.source, booking.type_id or ""))
    return booking.slug or kept or booking.type_name or NO_TYPE
