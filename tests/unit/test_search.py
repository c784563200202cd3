"""The words of bookings and of searches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import read_booking, read_event
from app.domain.search import (
    LONGEST,
    MOST_ASKED,
    MOST_WORDS,
    SHORTEST,
    asked_words,
    beginnings,
    fits,
    words_in,
    words_of,
)
from app.store.engine import utcnow
from tests.bridge import sample


def booking(**person: str) -> object:
    return read_booking(
        read_event("default", sample("booking_created", attendees=[person]), utcnow())
    )


@pytest.mark.parametrize(
    ("name", "search", "found"),
    [
        ("Anna Müller", "müller", True),
        ("Anna Müller", "MULLER", True),
        ("Anna Müller", "mueller anna", True),
        ("Anna Müller", "mül", True),
        ("Anna Müller", "ller", False),
        ("José Ñandú", "jose nandu", True),
        ("Łukasz O'Brien", "brien", True),
        ("Großmann", "grossmann", True),
        ("李小龍", "李小", True),
        ("Anna Müller", "anna schmidt", False),
        ("Annamaria Kathrineberger-Ostermann", "kathrinebergerin", False),
        ("Annamaria Kathrineberger-Ostermann", "kathrineberger oster", True),
    ],
)
def test_people_are_found_as_they_are_typed(name: str, search: str, found: bool) -> None:
    """Accents, case, umlauts and the order of words do not matter; each word must begin one."""
    assert fits(booking(fullname=name, email="x@corp.example"), asked_words(search)) is found


@pytest.mark.parametrize("search", ["jane.berg@corp.example", "corp", "corp.example", "berg@corp"])
def test_an_address_is_found_by_its_parts(search: str) -> None:
    """The whole address, its domain, and the beginning of each part."""
    assert fits(booking(email="jane.berg@corp.example"), asked_words(search))


@given(st.text(max_size=300))
def test_a_text_is_found_by_itself_and_by_its_beginnings(text: str) -> None:
    """Whatever a word is, its own spelling finds it; sizes stay bounded."""
    for word in words_in(text):
        assert all(part in words_in(word) or len(part) for part in beginnings(word))
        assert all(SHORTEST <= len(part) <= LONGEST for part in beginnings(word))
    assert len(asked_words(text)) <= MOST_ASKED


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_a_booking_has_a_bounded_number_of_words(name: str, title: str) -> None:
    """A stranger's long name costs no more than a long one of a person."""
    made = booking(fullname=name or "x", email="a@b.example")
    if made is not None:
        assert len(words_of(made)) <= MOST_WORDS  # type: ignore[arg-type]
