"""What a CRM should hold for a booking, and what has to change for that: the adapters' language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

FieldValue = str | int | float | bool | list[str] | None
Fields = Mapping[str, FieldValue]


class ObjectName(StrEnum):
    """The four things that a booking becomes, in the order in which they are written."""

    COMPANY = "company"
    CONTACT = "contact"
    DEAL = "deal"
    MEETING = "meeting"


WRITE_ORDER = tuple(ObjectName)


class WriteRule(StrEnum):
    """When a field may be overwritten."""

    ALWAYS = "always"
    NEVER_BLANK = "never_blank"
    ON_CREATE = "on_create"


class Ref(NamedTuple):
    """Names a record before the CRM has given it an id: the object and our key for it."""

    object: ObjectName
    key: str


@dataclass(frozen=True)
class Match:
    """By what a record that this service has not made may be recognised."""

    email: str | None = None
    phone: str | None = None
    domain: str | None = None
    booking_id: str | None = None


@dataclass(frozen=True)
class DesiredRecord:
    """A record as the booking calls for it, whatever the CRM holds now."""

    ref: Ref
    fields: Fields
    rules: Mapping[str, WriteRule]
    links: tuple[Ref, ...] = ()
    match: Match = field(default_factory=Match)
    together: frozenset[str] = frozenset()
    """Fields that are written as one, so that two people's names never mix."""


@dataclass(frozen=True)
class DesiredBooking:
    """Every record that one booking calls for, and which state of it that is."""

    booking_key: str
    version: datetime
    records: tuple[DesiredRecord, ...]


@dataclass(frozen=True)
class Known:
    """The ledger's line on a record: its id (None: a create was begun), hashes of what was written."""

    record_id: str | None
    hashes: Mapping[str, str] = field(default_factory=dict)
    links: tuple[Ref, ...] = ()
    version: datetime | None = None
    url: str = ""


@dataclass(frozen=True)
class Change:
    """One record to bring about, reduced to what has to be written."""

    ref: Ref
    record_id: str | None
    fields: Fields
    """What to write: all of it for a create, what differs for an update."""
    on_match: Fields
    """What to write instead where the record turns out to exist already."""
    targets: tuple[Ref, ...] = ()
    """All that it is to be linked to in the end, in order; the first contact is the main one."""
    links: tuple[Ref, ...] = ()
    """Links to make."""
    unlinks: tuple[Ref, ...] = ()
    """Links to take away."""
    main_changed: bool = False
    """Another contact or company than before comes first among the targets."""
    match: Match = field(default_factory=Match)
    uncertain: bool = False
    """A create was begun before and its answer is not known: look before creating."""

    @property
    def empty(self) -> bool:
        """Whether the CRM has to be told nothing."""
        return bool(self.record_id) and not (self.fields or self.relinked)

    @property
    def relinked(self) -> bool:
        """Whether anything about its links is to be written."""
        return bool(self.links or self.unlinks or self.main_changed)


@dataclass(frozen=True)
class Plan:
    """A batch of changes, several bookings at once; every link's target is in `changes` or `ids`."""

    changes: tuple[Change, ...]
    ids: Mapping[Ref, str] = field(default_factory=dict)
    """Record ids that are known already."""

    def of(self, name: ObjectName) -> list[Change]:
        """The changes to one kind of object, in order."""
        return [change for change in self.changes if change.ref.object is name]


class Outcome(StrEnum):
    """What was done to a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Result:
    """How a change ended well."""

    record_id: str
    outcome: Outcome


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline as the CRM has it."""

    id: str
    label: str


@dataclass(frozen=True)
class Account:
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
    field_keys: Mapping[str, str] = field(default_factory=dict)
    """`object.name` -> key, for CRMs whose custom fields have keys of their own."""


@dataclass(frozen=True)
class CrmShape:
    """What is the same for every account of a CRM; an adapter declares it."""

    owner_fields: Mapping[ObjectName, str]
    pipeline_field: str | None
    stage_field: str
    stage_by_label: bool
    """Whether a stage is written by its label instead of its id."""
    text_limits: Mapping[str, int]
    """`object.field` -> the most characters that it takes."""
    html_fields: frozenset[str] = frozenset()
    """`object.field` of fields that show HTML."""
