"""Reads the people of meetergo's messages: the attendees with their answers, and the hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.domain.booking import Attendee, Host
from app.domain.errors import UnfitPayload
from app.domain.message_json import Json, as_objects
from app.domain.people import normalise_email, normalise_phone, read_email
from app.domain.text import clean_text, cut, one_line
from app.domain.zones import read_zone

LONGEST_TYPED = 200
"""Most characters that are kept of a typed address, number or time zone."""


def check_attendees(data: Json) -> None:
    """Raise UnfitPayload if the attendees are no list of objects."""
    given = data.get("attendees")
    if given is not None and (not isinstance(given, list) or len(as_objects(given)) < len(given)):
        # Reading it as an empty list would unlink all people of a known booking.
        raise UnfitPayload("attendees is not a list of objects")


def read_attendees(data: Json) -> tuple[tuple[Attendee, ...], tuple[Attendee, ...]]:
    """Return the attendees, each person once, and people who share another attendee's identity.

    Raises UnfitPayload if the value is no list of objects.
    """
    check_attendees(data)
    people: dict[str, Attendee] = {}
    doubles: list[tuple[str, Attendee]] = []
    for number, item in enumerate(as_objects(data.get("attendees"))):
        person = read_attendee(number, item)
        key = person.identity or f"nobody:{number}"
        if key in people:
            doubles.append((key, person))
        people.setdefault(key, person)
    # A person with an address is recognised by it, even if a second entry has only the number.
    by_phone = {p.phone: key for key, p in reversed(people.items()) if p.email and p.phone}
    for key, person in list(people.items()):
        if not person.email and person.phone in by_phone:
            doubles.append((by_phone[person.phone], people.pop(key)))
            # People merged into this entry move with it.
            doubles = [(by_phone[person.phone] if k == key else k, d) for k, d in doubles]
    places = {key: place for place, key in enumerate(people)}
    attendees = tuple(replace(p, position=places[key]) for key, p in people.items())
    folded = sorted(doubles, key=lambda double: double[1].position)
    return attendees, tuple(
        replace(double, position=places[key])
        for key, double in folded
        if _says_more(double, people[key])
    )


def _says_more(double: Attendee, person: Attendee) -> bool:
    """Whether an entry merged into another person's has a different name, number, address or answer."""
    named = double.full_name not in (None, person.full_name)
    typed = (double.phone_as_given, double.phone, person.phone_as_given)
    other_phone = bool(typed[0]) and typed[0] != typed[2] and typed[1] != person.phone
    unread = double.email_as_given if not double.email else None
    other_address = bool(unread) and unread != person.email_as_given
    return (
        named
        or other_phone
        or other_address
        or not double.answers.items() <= person.answers.items()
    )


def read_attendee(position: int, item: Json) -> Attendee:
    """Read one attendee from a message."""
    zone = _typed(item.get("timezone"))
    language = one_line(item.get("language"))
    email, beside = read_email(item.get("email"))
    first, last, full = _names(item)
    if beside and not full:
        first, last, full = _names({"fullname": beside})
    given = _typed(item.get("phone"))
    return Attendee(
        position=position,
        id=one_line(item.get("id")),
        email=email,
        email_as_given=_typed(item.get("email")),
        first_name=first,
        last_name=last,
        full_name=full,
        phone=normalise_phone(given, zone, language),
        phone_as_given=given,
        timezone=read_zone(zone),
        timezone_as_given=zone,
        language=language,
        answers=_answers(item.get("notes")),
        choices=_choices(item.get("notes")),
        not_told=_person_lacks(item),
    )


def _person_lacks(item: Json) -> dict[str, None]:
    """Return the fields of an attendee that a message does not mention."""
    fields = {
        ("notes",): ("answers", "choices"),
        ("phone",): ("phone", "phone_as_given"),
        ("timezone",): ("timezone", "timezone_as_given"),
        ("language",): ("language",),
        ("fullname", "firstname", "lastname"): ("first_name", "last_name", "full_name"),
    }
    return {
        name: None
        for keys, names in fields.items()
        if not any(key in item for key in keys)
        for name in names
    }


def _typed(value: object) -> str | None:
    """Return a typed text on one line; only its beginning if it is far too long."""
    text = one_line(value)
    return cut(text, LONGEST_TYPED) if text else None


def _names(item: Json) -> tuple[str | None, str | None, str | None]:
    """Return first, last and full name as meetergo gives them; no name is split at a blank.

    A full name that says more than its parts becomes the last name as a whole: every CRM shows that
    field, and one requires it.
    """
    first, last = one_line(item.get("firstname")), one_line(item.get("lastname"))
    parts = " ".join(filter(None, (first, last))) or None
    full = one_line(item.get("fullname")) or parts
    if full and full != parts and not (first and last):
        first, last = None, full
    return first, last, full


def _answers(notes: object) -> dict[str, str]:
    """Return question label -> answer as text; several choices are joined with commas."""
    if not isinstance(notes, Mapping):
        return {}
    answers = {}
    for label, value in notes.items():
        parts = value if isinstance(value, list) else [value]
        texts = ["yes" if p is True else "no" if p is False else clean_text(p) for p in parts]
        name, text = one_line(label), ", ".join(t for t in texts if t)
        if name and text:
            answers[name] = text
    return answers


def _choices(notes: object) -> dict[str, tuple[str, ...]]:
    """Return question label -> the choices, for answers that are lists."""
    if not isinstance(notes, Mapping):
        return {}
    return {
        name: texts
        for label, value in notes.items()
        if isinstance(value, list)
        and (name := one_line(label))
        and (texts := tuple(text for part in value if (text := clean_text(part))))
    }


def read_hosts(data: Json) -> tuple[Host, ...]:
    """Return the hosts; if a message has only their ids, nothing else is known of them."""
    if data.get("hosts") is not None:
        return tuple(_host(item) for item in as_objects(data["hosts"]))
    ids = data.get("hostIds")
    names = [one_line(item) for item in ids] if isinstance(ids, list) else []
    lacking = dict.fromkeys(("email", "first_name", "last_name", "full_name"))
    return tuple(Host(id=name, not_told=lacking) for name in names if name)


def _host(item: Json) -> Host:
    first, last = one_line(item.get("givenName")), one_line(item.get("familyName"))
    return Host(
        id=one_line(item.get("id")),
        email=normalise_email(item.get("email")),
        first_name=first,
        last_name=last,
        full_name=one_line(item.get("fullName")) or " ".join(filter(None, (first, last))) or None,
        not_told={} if "email" in item else {"email": None},
    )
