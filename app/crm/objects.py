"""The objects of a CRM that a booking becomes, their values, and the names of records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

FieldValue = str | int | float | bool | list[str] | None


Fields = Mapping[str, FieldValue]


def content_hash(value: FieldValue) -> str:
    """Return a short fingerprint of a value: the ledger detects changes without storing data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


Fingerprints = tuple[str, ...]
"""Fingerprints of the values that a field may hold: several if a write got no answer."""


UNKNOWN = "?"
"""Stands for a value that has no stored fingerprint."""


def with_unanswered(before: Fingerprints | None, after: str) -> Fingerprints:
    """Return the fingerprints of a field after a write that got no answer."""
    return tuple(dict.fromkeys([*(before or (UNKNOWN,)), after]))


class ObjectName(StrEnum):
    """The objects that a booking becomes, in the order in which they are written."""

    COMPANY = "company"
    CONTACT = "contact"
    LEAD = "lead"
    DEAL = "deal"
    CASE = "case"
    MEETING = "meeting"


WRITE_ORDER = tuple(ObjectName)


USUAL = (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL, ObjectName.MEETING)
"""The objects that every CRM has; only some CRMs have leads and cases of their own."""


PEOPLE = (ObjectName.CONTACT, ObjectName.LEAD)
"""The objects that an attendee may become."""


SHARED = (ObjectName.COMPANY, *PEOPLE)
"""People and companies belong to all apps of a CRM: a record that is found keeps its owner."""


OWN_COMPANY = "id:"
"""The prefix of our key for a company that is known only by its id: the one of a found contact."""


FORGOTTEN = "forgotten:"
"""The prefix of our key for a person whose address was deleted; the keyed hash follows."""


class Ref(NamedTuple):
    """The name of a record before the CRM has given it an id: the object and our key for it."""

    object: ObjectName
    key: str


BOOKING_LINE = "meetergo booking "
"""The start of the last line of a text that this service writes; the booking's number follows. A
record whose create got no answer is found again by this line."""
