"""Data of an account that rarely changes: fields, pipelines, users; and properties of a CRM."""

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
    """The kind of value that a field holds, in words that all CRMs share."""

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
    """Amount and currency in one value; an amount alone is a number."""
    ADDRESS = "an address"
    DATES = "two dates"
    TIMES = "two times"
    USER = "a user"
    REFERENCE = "another record"
    OTHER = "other"


APPENDABLE = frozenset({FieldKind.TEXT, FieldKind.CHOICES})
"""The kinds of field that a value can be added to."""


@dataclass(frozen=True)
class FieldOption:
    """An option of a field: the value that is sent and the label that people see."""

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
    """For a list: the allowed values. For a user field: the users."""
    currency: str = ""
    """For an amount: the currency if the value has none (ISO 4217)."""
    form: str = ""
    """For a reference: the form of the ids that it accepts, as a regular expression."""
    most: float | None = None
    """For a number: the largest value that the CRM accepts."""
    empties: bool = True
    """Whether the field can be emptied once it has a value."""
    length: int | None = None
    """The most characters that it accepts; None: unknown."""
    custom: bool = False
    searchable: bool = True
    """Whether records can be searched by the field's value."""
    key: str = ""
    """The CRM's own name for the field, if people use another one."""
    also: tuple[str, ...] = ()
    """The keys of all fields that people call by this name, if there are several."""


@dataclass(frozen=True)
class NewField:
    """A custom field to create."""

    object: ObjectName
    name: str
    kind: FieldKind = FieldKind.TEXT
    label: str = ""
    options: tuple[str, ...] = ()
    """For a list: the allowed values, in the words that people see."""
    why: str = field(default="", compare=False)
    """For people: what the type was taken from."""


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline in the CRM."""

    id: str
    label: str
    closed: bool = False
    """The deal is won or lost, so it is not open any more."""


@dataclass(frozen=True)
class CrmAccount:
    """An account at a CRM."""

    id: str
    """The account's own id in the CRM, which never changes."""
    name: str
    """The name that its users know, with the id if the name alone says little."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline with its stages in order."""

    id: str
    label: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Directory:
    """Data of an account that rarely changes: read once, kept for minutes."""

    owners: Mapping[str, str] = field(default_factory=dict)
    """E-mail in lower case -> user id."""
    pipelines: tuple[Pipeline, ...] = ()
    booking_fields: Mapping[ObjectName, str] = field(default_factory=dict)
    """The booking-id field of each object whose account has one."""
    schema: Mapping[ObjectName, Mapping[str, CrmField]] = field(default_factory=dict)
    """The fields of each object by name; an object that is missing here was not read."""
    notes: tuple[str, ...] = ()
    """Optional features that the account lacks, in sentences that say what to switch on."""
    own_user: str | None = None
    """Id of the user that the connection acts as: records without an owner get this one."""
    unread: bool = False
    """No account was read: owners are given by their e-mail addresses, with their fallbacks."""

    def owner(self, email: str) -> str | None:
        """Return the id of the user with an address, in any spelling of its domain, or None."""
        key = address_key(email)
        if key in self.owners or "xn--" not in key:
            return self.owners.get(key)
        users = self.owners.items()
        return next((user for known, user in users if address_key(known) == key), None)

    def field(self, name: ObjectName, field: str) -> CrmField | None:
        """Return what is known of a field."""
        return self.schema.get(name, {}).get(field)


@dataclass(frozen=True)
class CrmShape:
    """Properties that are the same for every account of a CRM; an adapter declares them."""

    owner_fields: Mapping[ObjectName, str]
    pipeline_field: str | None
    stage_field: str
    stage_by_label: bool
    """Whether a stage is written by its label instead of its id."""
    text_limits: Mapping[str, int]
    """`object.field` -> the longest text that it accepts, in `text_unit`."""
    html_fields: frozenset[str] = frozenset()
    """`object.field` of fields that display HTML."""
    objects: tuple[ObjectName, ...] = USUAL
    """The objects that the adapter writes."""
    listed: frozenset[str] = frozenset()
    """`object.field` of fields that take values of the account's lists; the schema says text."""
    native_keys: Mapping[ObjectName, MatchKey] = field(default_factory=dict)
    """The key that no two records share in the CRM: a create by it needs no lookup."""
    match_keys: Mapping[ObjectName, tuple[MatchKey, ...]] = field(default_factory=dict)
    """The other keys by which records of an object can be found."""
    lag: Mapping[ObjectName, float] = field(default_factory=dict)
    """Seconds after which a search shows a new record, for objects that only a search can find."""
    needs: Mapping[ObjectName, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """A new record needs at least one field of each of these groups; the schema does not say so."""
    new_fields: Mapping[ObjectName, str] = field(default_factory=dict)
    """Objects that take custom fields -> the form of the fields' names, as a regular expression."""
    inbox_ids: str = ""
    """The form of the ids of inbox leads that stand for deals, as a regular expression; empty if
    the CRM has none."""
    not_of_inbox: frozenset[str] = frozenset()
    """Fields of a deal that such a lead does not have."""
    text_unit: Unit = Unit.UTF16
    """The unit in which the CRM counts text, also in the lengths of its schema. Salesforce and
    HubSpot run on Java; a CRM that counts code points accepts all text that fits in UTF-16."""

    def is_in_inbox(self, name: ObjectName, record_id: str | None) -> bool:
        """Whether a deal exists as a lead of the CRM's inbox."""
        if name is not ObjectName.DEAL or not self.inbox_ids:
            return False
        return bool(re.fullmatch(self.inbox_ids, record_id or ""))
