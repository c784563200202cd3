"""The objects of a CRM that a booking becomes, what they hold, and how one is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

FieldValue = str | int | float | bool | list[str] | None


Fields = Mapping[str, FieldValue]


def content_hash(value: FieldValue) -> str:
    """A short fingerprint of a value: the ledger tells changes apart without holding data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


Fingerprints = tuple[str, ...]
"""Of the values that a field may hold: one, or several where the answer to a write never came."""


UNKNOWN = "?"
"""Stands for a value of which no fingerprint is kept."""


def with_unanswered(before: Fingerprints | None, after: str) -> Fingerprints:
    """The fingerprints of a field that may have been written: the answer to that never came."""
    return tuple(dict.fromkeys([*(before or (UNKNOWN,)), after]))


class ObjectName(StrEnum):
    """What a booking becomes, in the order in which it is written."""

    COMPANY = "company"
    CONTACT = "contact"
    LEAD = "lead"
    DEAL = "deal"
    CASE = "case"
    MEETING = "meeting"


WRITE_ORDER = tuple(ObjectName)


USUAL = (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL, ObjectName.MEETING)
"""What every CRM has; leads and cases are objects of their own in some only."""


PEOPLE = (ObjectName.CONTACT, ObjectName.LEAD)
"""The objects that an attendee may become."""


SHARED = (ObjectName.COMPANY, *PEOPLE)
"""The people and companies of a CRM belong to all its apps: what is found there keeps its owner."""


OWN_COMPANY = "id:"
"""Begins our key for a company that is known by its id alone: a found contact belongs to it."""


class Ref(NamedTuple):
    """Names a record before the CRM has given it an id: the object and our key for it."""

    object: ObjectName
    key: str


BOOKING_LINE = "meetergo booking "
"""Begins the last line of a text that this service writes; the booking's number follows. By it the
record of a create without an answer is found again."""
