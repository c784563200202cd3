"""The service reads meetergo's messages."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.booking import is_newer, rank
from app.domain.errors import UnfitPayload
from app.domain.events import read_booking, read_event, read_time, without_secret
from app.domain.merge import merge
from app.mapping.summary import summarise
from app.mapping.unreadable import unreadable_notes
from tests.bridge import sample

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ENDS = (timezone(timedelta(hours=14)), timezone(-timedelta(hours=12)))
"""The offsets at the two ends of the world."""


def booking(name: str, **changes: Any) -> Any:
    return read_booking(read_event("default", sample(name, **changes), NOW))


def test_created_is_read_whole() -> None:
    """Every documented field of booking_created is read, times in UTC, the e-mail in lower case."""
    made = booking("booking_created")
    person = made.attendees[0]
    assert made.start == datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
    assert (made.minutes, made.timezone, made.cancelled) == (30, "Europe/Berlin", False)
    assert made.link == "https://zoom.us/j/99900011122"
    assert person.email == "jane.van.der.berg@example.com"
    assert (person.first_name, person.last_name) == ("Jane", "van der Berg")
    assert person.phone == "+4915123456789"
    assert made.hosts[0].email == "john@acme.example"
    assert made.meeting_type.slug == "discovery-call"
    assert made.meeting_type.metadata == {"source": "website"}


def test_both_dialects_are_one() -> None:
    """The envelope format gives the same booking and the same dedupe key as the live format."""
    live = read_event("default", sample("booking_created"), NOW)
    envelope = read_event("default", sample("envelope_dialect_created"), NOW)
    assert live.dedupe_key == envelope.dedupe_key
    assert read_booking(live) == read_booking(envelope)


def test_cancelled_with_reason() -> None:
    """`cancel` is also read in the shape of the REST API."""
    made = booking("booking_cancelled")
    assert made.cancelled
    assert (made.cancel_reason, made.cancelled_by) == ("Conflict", "Jane van der Berg")


def test_one_attendee_leaving_is_no_cancel() -> None:
    """booking_cancelled with isCancelled false does not cancel the meeting."""
    assert not booking("group_attendee_removed").cancelled


def test_cancel_without_flag_is_a_cancel() -> None:
    """Without isCancelled the event's name decides."""
    payload = sample("booking_cancelled")
    del payload["isCancelled"]
    assert read_booking(read_event("default", payload, NOW)).cancelled


def test_names_are_never_split() -> None:
    """A full name alone becomes the last name, unsplit; a first name alone stays the first name."""
    person = booking("phone_only_created").attendees[0]
    assert (person.first_name, person.last_name) == (None, "Ελένη Παπαδοπούλου")
    omar = booking("group_booking_created").attendees[1]
    assert (omar.first_name, omar.last_name) == ("Omar", None)


def test_ids_are_text() -> None:
    """The ids 4711 and "4711" are one booking."""
    assert booking("booking_created", id=4711).key == booking("booking_created", id="4711").key


def test_same_person_twice_counts_once() -> None:
    """Two attendees with the same e-mail are one person, with the first one's name."""
    people = [
        {"email": "A@x.example", "firstname": "Ann", "lastname": "One"},
        {"email": "a@X.example", "firstname": "Bob", "lastname": None},
    ]
    made = booking("booking_created", attendees=people)
    assert [p.full_name for p in made.attendees] == ["Ann One"]
    assert [(p.full_name, p.position) for p in made.companions] == [("Bob", 0)]


def test_a_double_who_says_nothing_new_is_dropped() -> None:
    """A second entry of an attendee with the same name and address, or with the number alone, is
    dropped.
    """
    ann = {"email": "a@x.example", "fullname": "Ann", "phone": "+4915123456789",
           "notes": {"Q": "A", "R": "B"}}  # fmt: skip
    people = [
        ann,
        {**ann, "email": "A@X.example", "notes": {"Q": "A"}},
        {"phone": "+49 151 23456789"},
    ]
    made = booking("booking_created", attendees=people)
    assert (len(made.attendees), made.companions) == (1, ())


def test_who_is_known_by_number_alone_goes_with_whom_it_leads_to() -> None:
    """Two people with one number and a person with that number and an address are one contact; all
    are named.
    """
    phone = "+4915123456789"
    people = [
        {"fullname": "Nobody"},
        {"fullname": "Ben", "phone": phone},
        {"fullname": "Cem", "phone": phone},
        {"fullname": "Ann", "phone": phone, "email": "a@x.example"},
        {
            "fullname": "Dan",
            "email": "A@x.example",
            "phone": "12345678",
            "timezone": "Europe/Berlin",
        },
    ]
    made = booking("booking_created", attendees=people)
    assert [(p.full_name, p.position) for p in made.attendees] == [("Nobody", 0), ("Ann", 1)]
    assert [(p.full_name, p.position) for p in made.companions] == [
        ("Ben", 1),
        ("Cem", 1),
        ("Dan", 1),
    ]


person = st.fixed_dictionaries(
    {},
    optional={
        "fullname": st.sampled_from(["Ann", "Bob", "Cem"]),
        "email": st.sampled_from(
            ["a@x.example", "A@X.EXAMPLE", "Ann <a@x.example>", "b@x.example", "b(at)x"]
        ),
        "phone": st.sampled_from(["+4915123456789", "0151 23456789", "+4930123456", "ask"]),
        "timezone": st.sampled_from(["Europe/Berlin", "W. Europe Standard Time", "Mars"]),
        "notes": st.dictionaries(st.sampled_from(["Q", "R"]), st.sampled_from(["yes", "no"])),
    },
)


@given(st.lists(person, max_size=6))
def test_nobody_vanishes(people: list[dict[str, Any]]) -> None:
    """The meeting's text has each name, answer and unreadable text that came in; contacts are unique."""
    made = booking("booking_created", attendees=people)
    identities = [p.identity for p in made.attendees if p.identity]
    assert len(identities) == len(set(identities))
    assert [p.position for p in made.attendees] == list(range(len(made.attendees)))
    text = summarise(made, {})
    for given_ in people:
        assert given_.get("fullname", "") in text
        assert all(f"{label}: {said}" in text for label, said in given_.get("notes", {}).items())
        if given_.get("email") == "b(at)x" and given_.get("fullname"):
            assert "b(at)x" in text


def test_answers_that_the_api_tells_reach_companions_and_no_stranger() -> None:
    """Later answers from the API reach the person who gave them, by name among those with one address."""
    people = [{"email": "a@x.example", "fullname": "Ann"}, {"email": "a@x.example", "fullname": "Ben"},
              {"fullname": "Cem"}, {"fullname": "Dan"}]  # fmt: skip
    told = [{**p, "notes": {"Who": p["fullname"]}} for p in people[:3]]
    made = merge(
        booking("booking_created", attendees=people), booking("booking_created", attendees=told)
    )
    assert [p.answers.get("Who") for p in made.attendees] == ["Ann", "Cem", None]
    assert [p.answers.get("Who") for p in made.companions] == ["Ben"]


def test_what_was_typed_is_kept_and_made_harmless() -> None:
    """Address, number and zone are kept as typed, on one line, without control characters, cut if
    too long.
    """
    typed = {"email": "Jane\n(at)\x00 x", "phone": "ask\u202e me", "timezone": "M" * 5000}
    (jane,) = booking("booking_created", attendees=[typed]).attendees
    assert (jane.email_as_given, jane.phone_as_given) == ("Jane (at) x", "ask me")
    assert jane.timezone_as_given == "M" * 199 + "…"
    assert (jane.email, jane.phone, jane.timezone, jane.identity) == (None, None, None, None)


def test_many_who_cannot_be_read_are_counted() -> None:
    """The notes name ten unreadable attendees and count the rest; the meeting's text names all."""
    people = [{"fullname": f"P{n}", "email": f"e{n}"} for n in range(13)]
    made = booking("booking_created", attendees=people)
    notes = unreadable_notes(made)
    assert len(notes) == 11
    assert "“e9”" in notes[9] and "3 more" in notes[10]
    assert "e12" in summarise(made, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": None}, "id"),
        ({"start": "soon"}, "start"),
        ({"start": None}, "start"),
    ],
)
def test_unfit_payload_names_the_field(changes: dict[str, Any], words: str) -> None:
    """A payload that is no booking gives an error with the name of the wrong field."""
    with pytest.raises(UnfitPayload, match=words):
        booking("booking_created", **changes)


@pytest.mark.parametrize("document", [[], "x", 3, None, {}, {"webhookType": 3}, {"event": "x"}])
def test_unfit_document(document: object) -> None:
    """A document in neither format is refused in words."""
    with pytest.raises(UnfitPayload):
        read_event("default", document, NOW)


def test_secret_is_dropped_at_any_depth() -> None:
    """The stored payload does not contain the booking's credential at any depth."""
    dirty = {"secret": "x", "data": {"secret": "x", "list": [{"secret": "x", "a": 1}]}}
    assert without_secret(dirty) == {"data": {"list": [{"a": 1}]}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
keys = ("attendees", "hosts", "meetingType", "meetingInfo", "cancel", "end", "updatedAt", "id")


@given(st.dictionaries(st.sampled_from(keys), json_values))
def test_any_values_give_a_booking_or_an_unfit_payload(changes: dict[str, Any]) -> None:
    """Any values in a payload give a booking or an UnfitPayload."""
    try:
        made = booking("booking_created", **changes)
    except UnfitPayload:
        return
    assert made.end >= made.start
    assert all(p.email is None or p.email == p.email.lower() for p in made.attendees)


@given(
    st.text()
    | st.datetimes(timezones=st.sampled_from([UTC, *ENDS])).map(datetime.isoformat)
    | st.sampled_from(["1000-01-01T00:00:00+14:00", "9000-12-31T23:59:59-12:00"])
)
def test_any_text_as_time(text: str) -> None:
    """Any text as a time gives an aware time within the years that every zone and CRM has, or none."""
    moment = read_time(text)
    assert moment is None or (moment.tzinfo is UTC and 1000 <= moment.year <= 9000)


def test_newest_state_wins_in_all_orders() -> None:
    """The same state wins in any order of arrival, also without updatedAt."""
    states = [
        booking("booking_created"),
        booking("booking_rescheduled"),
        booking("booking_cancelled"),
        booking("booking_created", updatedAt=None),
    ]
    for order in itertools.permutations(states):
        known = order[0]
        for candidate in order[1:]:
            known = candidate if is_newer(candidate, known) else known
        assert known == max(states, key=rank)
        assert known.cancelled


def test_equal_times_let_the_cancel_win() -> None:
    """Between states of the same time, the cancel wins over a later arrival."""
    cancel = booking("booking_cancelled", updatedAt="2026-11-24T00:00:00Z")
    later = read_event(
        "default",
        sample("booking_rescheduled", updatedAt="2026-11-24T00:00:00Z"),
        NOW + timedelta(hours=1),
    )
    assert not is_newer(read_booking(later), cancel)
    assert is_newer(cancel, read_booking(later))
