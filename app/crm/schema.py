"""What an account holds that changes rarely: fields, pipelines, users; and what a CRM is like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.crm.lookup import MatchKey
from app.crm.objects import USUAL, ObjectName
from app.domain.people import address_key
from app.domain.text import Unit


class FieldKind(StrEnum):
    """What a field holds, in words that all CRMs share."""

    TEXT = "text"
    NUMBER = "number"
    WHOLE = "whole number"
    FLAG = "yes or no"
    DATE = "date"
    MOMENT = "date and time"
    TIME = "time"
    CHOICE = "one of a list"
    CHOICES = "some of a list"
    MONEY = "an amount with its currency"
    """Where the two are one value; an amount alone is a number."""
    ADDRESS = "an address"
    DATES = "two dates"
    TIMES = "two times"
    USER = "a user"
    REFERENCE = "another record"
    OTHER = "other"


APPENDABLE = frozenset({FieldKind.TEXT, FieldKind.CHOICES})
"""The kinds of field to which something can be added."""


@dataclass(frozen=True)
class FieldOption:
    """An option of a field: what is sent and what people see."""

    value: str
    label: str


@dataclass(frozen=True)
class CrmField:
    """A field of a CRM object as its schema describes it."""

    name: str
    label: str
    kind: FieldKind = FieldKind.TEXT
    required: bool = False
    unique: bool = False
    writable: bool = True
    options: tuple[FieldOption, ...] = ()
    """Of a list: what may stand there. Of a field for users: who they are."""
    currency: str = ""
    """Of an amount: the currency where none is said (ISO 4217)."""
    form: str = ""
    """Of a reference: how the ids look that it takes, as a regular expression."""
    most: float | None = None
    """Of a number: above this the CRM takes none."""
    empties: bool = True
    """Whether it can be emptied once something stands in it."""
    length: int | None = None
    """The most characters that it takes; None: not told."""
    custom: bool = False
    searchable: bool = True
    """Whether records can be looked for by what stands in it."""
    key: str = ""
    """What the CRM itself calls it, where people call it otherwise."""
    also: tuple[str, ...] = ()
    """The keys of all fields that people call by this name, where there are several."""


@dataclass(frozen=True)
class NewField:
    """A custom field to be made."""

    object: ObjectName
    name: str
    kind: FieldKind = FieldKind.TEXT
    label: str = ""
    options: tuple[str, ...] = ()
    """Of a list: what may stand there, in the words that people see."""


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline as the CRM has it."""

    id: str
    label: str
    closed: bool = False
    """Won or lost: nothing is open any more."""


@dataclass(frozen=True)
class CrmAccount:
    """An account at a CRM."""

    id: str
    """Its own id there, which never changes."""
    name: str
    """What its users call it, with the id where the name alone says little."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline with its stages in order."""

    id: str
    label: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Directory:
    """What an account holds that changes rarely: read once, kept for minutes."""

    owners: Mapping[str, str] = field(default_factory=dict)
    """E-mail in lower case -> user id."""
    pipelines: tuple[Pipeline, ...] = ()
    booking_fields: Mapping[ObjectName, str] = field(default_factory=dict)
    """The booking-id field of an object, only where the account has it."""
    schema: Mapping[ObjectName, Mapping[str, CrmField]] = field(default_factory=dict)
    """The fields of each object by name; an object that is not in it was not read."""
    notes: tuple[str, ...] = ()
    """What the account lacks and is done without, in sentences with what to switch on."""
    own_user: str | None = None
    """Id of the user whom the connection acts as: what is made without an owner is theirs."""
    unread: bool = False
    """Nobody was asked: an owner is named by e-mail, with whom stands in for whom."""

    def owner(self, email: str) -> str | None:
        """The id of the user with an address, whichever way its domain is spelt; None for nobody."""
        key = address_key(email)
        if key in self.owners or "xn--" not in key:
            return self.owners.get(key)
        users = self.owners.items()
        return next((user for known, user in users if address_key(known) == key), None)

    def field(self, name: ObjectName, field: str) -> CrmField | None:
        """What is known of a field."""
        return self.schema.get(name, {}).get(field)


@dataclass(frozen=True)
class CrmShape:
    """What is the same for every account of a CRM; an adapter declares it."""

    owner_fields: Mapping[ObjectName, str]
    pipeline_field: str | None
    stage_field: str
    stage_by_label: bool
    """Whether a stage is written by its label instead of its id."""
    text_limits: Mapping[str, int]
    """`object.field` -> the most that it takes, in `text_unit`."""
    html_fields: frozenset[str] = frozenset()
    """`object.field` of fields that show HTML."""
    objects: tuple[ObjectName, ...] = USUAL
    """What the adapter writes."""
    listed: frozenset[str] = frozenset()
    """`object.field` of fields that take values of the account's lists though its schema says text."""
    native_keys: Mapping[ObjectName, MatchKey] = field(default_factory=dict)
    """The key that the CRM itself lets no two records share: a create by it needs no look."""
    match_keys: Mapping[ObjectName, tuple[MatchKey, ...]] = field(default_factory=dict)
    """By what else the records of an object can be found."""
    lag: Mapping[ObjectName, float] = field(default_factory=dict)
    """Seconds after which a search shows a new record, where only a search can find it."""
    needs: Mapping[ObjectName, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Of each of these groups one field must be written of every new record, which the schema does
    not tell."""
    new_fields: Mapping[ObjectName, str] = field(default_factory=dict)
    """Objects that take custom fields -> how the names of those look, as a regular expression."""
    inbox_ids: str = ""
    """How the ids of leads look that stand in the place of deals, as a regular expression; empty
    where there are none."""
    not_of_inbox: frozenset[str] = frozenset()
    """Fields of a deal that such a lead does not have."""
    text_unit: Unit = Unit.UTF16
    """In what it counts text, schema lengths too. Salesforce and HubSpot run on Java; a CRM that
    counts code points takes whatever fits in UTF-16, so nobody has to say so."""

    def is_in_inbox(self, name: ObjectName, record_id: str | None) -> bool:
        """Whether a deal stands there as a lead of the CRM's inbox."""
        if name is not ObjectName.DEAL or not self.inbox_ids:
            return False
        return bool(re.fullmatch(self.inbox_ids, record_id or ""))
