"""The words by which people find a booking: of its people, its meeting type and its id."""

from __future__ import annotations

import re
import unicodedata

from app.domain.booking import Booking

SHORTEST, LONGEST = 2, 12
"""Characters of the beginnings by which a word is found; longer ones are compared afterwards."""
MOST_WORDS = 24
"""Words of one booking; more than that no person types."""
MOST_ASKED = 6
"""Words of one search."""
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_WORD = re.compile(r"[^\W_]+")


def words_in(text: str) -> list[str]:
    """The words of a text in small letters without accents, each once, in their order."""
    small = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(c for c in unicodedata.normalize("NFKD", small) if not unicodedata.combining(c))
    # Müller is found as muller and as mueller.
    both = f"{plain} {small.translate(_GERMAN)}" if small != plain else plain
    return list(dict.fromkeys(_WORD.findall(both)))


def words_of(booking: Booking) -> list[str]:
    """The words by which a booking is found."""
    texts = [booking.meeting_type.name or "", booking.id]
    for person in (*booking.attendees, *booking.companions):
        texts += [person.display_name or "", person.full_name or "", person.email or ""]
    found = dict.fromkeys(word for text in texts for word in words_in(text))
    return [word for word in found if len(word) >= SHORTEST][:MOST_WORDS]


def asked_words(text: str) -> list[str]:
    """The words of a search, as they are compared; a single letter is no word."""
    small = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(c for c in unicodedata.normalize("NFKD", small) if not unicodedata.combining(c))
    found = dict.fromkeys(word for word in _WORD.findall(plain) if len(word) >= SHORTEST)
    return list(found)[:MOST_ASKED]


def beginnings(word: str) -> list[str]:
    """The beginnings by which a word is found."""
    return [word[:length] for length in range(SHORTEST, min(len(word), LONGEST) + 1)]


def fits(booking: Booking, asked: list[str]) -> bool:
    """Whether each asked word begins a word of the booking."""
    words = words_of(booking)
    return all(any(word.startswith(each) for word in words) for each in asked)
