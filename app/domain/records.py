"""What a CRM should hold for a booking, and what has to change for that: the adapters' language."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from app.domain.errors import CrmError
from app.domain.people import address_key, normalise_email
from app.domain.text import Unit

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


class WriteRule(StrEnum):
    """When a field may be overwritten."""

    ALWAYS = "always"
    """Whenever the booking's value changes, also by nothing."""
    NEVER_BLANK = "never_blank"
    """Like always, but an empty value wipes nothing."""
    ON_CREATE = "on_create"
    """Only into a record that is being made."""
    IF_EMPTY = "if_empty"
    """Only where nothing stands in the CRM."""
    APPEND = "append"
    """Added to what stands there, unless it stands there already."""
    UNTOUCHED = "untouched"
    """Only while what stands there is what this service wrote: a person's choice stays."""
    FORWARD = "forward"
    """A stage: only to a later one of the same pipeline, and never out of a closed one."""


READING = frozenset({WriteRule.IF_EMPTY, WriteRule.APPEND, WriteRule.UNTOUCHED, WriteRule.FORWARD})
"""The rules for which the CRM's present value has to be read first."""


OWN_COMPANY = "id:"
"""Begins our key for a company that is known by its id alone: a found contact belongs to it."""


class OnSeveral(StrEnum):
    """Which record is taken where several match."""

    NEWEST = "newest"
    OLDEST = "oldest"
    FLAG = "flag"
    """None of them: the booking fails and says so, since a person has to merge them."""


class OnLost(StrEnum):
    """What is done about a record that the CRM no longer has."""

    RECREATE = "recreate"
    LEAVE = "leave"


class Ref(NamedTuple):
    """Names a record before the CRM has given it an id: the object and our key for it."""

    object: ObjectName
    key: str


class MatchKey(StrEnum):
    """By what a record that this service has not made may be recognised."""

    RECORD_ID = "record_id"
    """An id or an address that somebody typed or pasted: each CRM reads its own."""
    EMAIL = "email"
    SECONDARY_EMAIL = "secondary_email"
    PHONE = "phone"
    DOMAIN = "domain"
    FIELD = "field"
    """A field of the CRM that holds what the mapping says."""
    OPEN_DEAL = "open_deal"
    """An open deal of the booking's first contact, in the pipeline."""
    BOOKING = "booking"
    """The booking-id field, or where there is none the records that it is linked to."""


class Whose(NamedTuple):
    """The attendee whose record one that was named by hand has to be."""

    email: str = ""
    domain: str = ""
    """The domain of the attendee's company; empty where the address says nothing of one."""

    def owns(self, addresses: Iterable[object] = (), domains: Iterable[str] = ()) -> bool:
        """Whether a record with these e-mail addresses and company domains is the attendee's."""
        emails = {normalise_email(address) for address in addresses}
        there = {email.rpartition("@")[2] for email in emails if email} | {*domains}
        return bool(self.email in emails or (self.domain and self.domain in there))


class LookupKey(NamedTuple):
    """One thing to look for: the kind, the value, and what else the kind needs.

    `field` names the CRM's field for FIELD, the pipeline (by id) for OPEN_DEAL, and for PHONE the
    country (ISO) of the booking, where time zone or language tell one.
    """

    kind: MatchKey
    value: str
    field: str = ""
    of: Whose | None = None
    """For RECORD_ID: whose record counts alone; None: anybody's."""


@dataclass(frozen=True)
class Match:
    """How a record is recognised: keys in order, the first that finds something counts."""

    keys: tuple[LookupKey, ...] = ()
    several: OnSeveral = OnSeveral.OLDEST
    create: bool = True
    """Whether one is made where none is found."""
    asked: bool = False
    """The mapping says more than the CRM's own key does: the keys have to be looked for first."""
    lost: OnLost = OnLost.RECREATE

    def value(self, kind: MatchKey) -> str | None:
        """What is looked for under a kind of key."""
        return next((key.value for key in self.keys if key.kind is kind), None)

    @property
    def email(self) -> str | None:
        """The e-mail address that it is recognised by."""
        return self.value(MatchKey.EMAIL)

    @property
    def phone(self) -> str | None:
        """The phone number, in E.164."""
        return self.value(MatchKey.PHONE)

    @property
    def domain(self) -> str | None:
        """The company's domain."""
        return self.value(MatchKey.DOMAIN)

    @property
    def booking_id(self) -> str | None:
        """What stands in the booking-id field."""
        return self.value(MatchKey.BOOKING)


@dataclass(frozen=True)
class DesiredRecord:
    """A record as the booking calls for it, whatever the CRM holds now."""

    ref: Ref
    fields: Fields
    rules: Mapping[str, WriteRule]
    links: tuple[Ref, ...] = ()
    match: Match = field(default_factory=Match)
    atomic_fields: frozenset[str] = frozenset()
    """Fields that are written as one, so that two people's names never mix."""
    person_summary_fields: frozenset[str] = frozenset()
    """Fields that tell of all bookings of a person, so that no booking is too old to write them."""
    delete: bool = False
    """The record is to be taken out of the CRM."""
    cancelled: bool = False
    """Its booking was cancelled."""
    not_ours: bool = False
    """A deal or case that may be others': it keeps its owner, its links and what is filled."""
    inbox: bool = False
    """A deal that is made as a lead of the CRM's inbox, until a person converts it into a deal."""
    fill_only: bool = False
    """It says what stands in a record that is there, and is no reason to make, find or judge one."""
    with_company: bool = False
    """Of a person: deal and meeting hang on the company that the person belongs to in the CRM."""
    links_to_drop: frozenset[Ref] | None = None
    """Only kept current: it keeps the links that it has but these. None: it has those of `links`."""
    person: str = ""
    """Contact and lead of one attendee carry the same: only one of the two is wanted."""


@dataclass(frozen=True)
class DesiredBooking:
    """Every record that one booking calls for, and which state of it that is."""

    booking_key: str
    version: datetime
    records: tuple[DesiredRecord, ...] = ()
    skipped: str = ""
    """Why nothing is wanted of this booking."""
    wait_until: datetime | None = None
    """Nothing is to be done before (UTC)."""
    recheck_at: datetime | None = None
    """When to look again although nothing changed: links and summaries ripen (UTC)."""
    notes: tuple[str, ...] = ()
    """What a person should know: a field that was left out, and why."""
    mapping_section: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    """Object -> the rules and which of their sections its record goes by, and our key for it."""
    group: str = ""
    """Bookings with the same may fall on the same deal: one of them a batch."""
    problems: Mapping[Ref, CrmError] = field(default_factory=dict, compare=False)
    """Why a record cannot be made at all, by the mapping and the account's lists; the others can."""


@dataclass(frozen=True)
class LedgerEntry:
    """What the ledger knows of a record: its id (None: a create was begun), and what was written."""

    record_id: str | None
    fingerprints: Mapping[str, Fingerprints] = field(default_factory=dict)
    """Field -> of the value that was written last."""
    links: tuple[Ref, ...] = ()
    version: datetime | None = None
    url: str = ""
    lost: bool = False
    """The CRM said that it no longer has the record: look what became of it."""
    age: float | None = None
    """Seconds since it was written last, or since its create was begun; None where nobody asked."""
    versions: Mapping[str, datetime] = field(default_factory=dict)
    """Fields whose value is an older booking's: the newest one left them empty."""
    filled_by_others: frozenset[str] = frozenset()
    """Fields that others had filled when the record was found: never this service's own, even where
    a booking says the same."""
    links_in_doubt: bool = False
    """The answer to a write never came: nobody knows which links there are."""
    erase_begun: bool = False
    """The answer to taking it out never came: it may be gone, and not by a person."""

    def version_of(self, name: str) -> datetime | None:
        """Which state of a booking a field's value is from."""
        return self.versions.get(name, self.version)

    @property
    def unfilled(self) -> bool:
        """Whether nothing was ever written to it: it is there for others to be linked to."""
        unanswered = self.links_in_doubt or self.erase_begun
        return self.live and not self.fingerprints and not unanswered

    @property
    def live(self) -> bool:
        """Whether there is a record to write to."""
        return bool(self.record_id) and not self.lost


@dataclass(frozen=True)
class Change:
    """One record to bring about, reduced to what has to be written."""

    ref: Ref
    record_id: str | None
    fields: Fields
    """What to write: all of it for a create, what differs for an update."""
    on_match: Fields
    """What to write instead where the record turns out to exist already."""
    links_after: tuple[Ref, ...] = ()
    """All that it is to be linked to in the end, in order; the first contact is the main one."""
    links: tuple[Ref, ...] = ()
    """Links to make."""
    links_to_remove: tuple[Ref, ...] = ()
    """Links to take away."""
    primary_changed: bool = False
    """Another contact or company than before comes first among the targets."""
    match: Match = field(default_factory=Match)
    maybe_created: bool = False
    """A create was begun before and its answer is not known: look before creating."""
    delete: bool = False
    """Take it out of the CRM."""
    found_in_crm: bool = False
    """It was found in the CRM: nothing is known of its links, a person's own come first."""
    present: Fields = field(default_factory=dict)
    """What was read of it just now."""
    not_taken: str | None = None
    """Of what is to be made: the id of a record that is not it, though the CRM may name that one."""
    inbox: bool = False
    """Of a deal that is to be made: it is made as a lead of the CRM's inbox."""
    converted: bool = False
    """The CRM itself has made another record of it, with all that it held: it goes by that id now."""

    @property
    def empty(self) -> bool:
        """Whether the CRM has to be told nothing."""
        nothing = not (self.fields or self.relinked or self.delete)
        return bool(self.record_id) and nothing and not self.found_in_crm and not self.converted

    @property
    def relinked(self) -> bool:
        """Whether anything about its links is to be written."""
        return bool(self.links or self.links_to_remove or self.primary_changed)


@dataclass(frozen=True)
class Plan:
    """A batch of changes, several bookings at once; every link's target is in `changes` or `ids`."""

    changes: tuple[Change, ...]
    ids: Mapping[Ref, str] = field(default_factory=dict)
    """Record ids that are known already."""
    assign: bool = False
    """Whether the CRM's own rules may give new leads and cases to other owners."""

    def known_ids(self) -> dict[Ref, str]:
        """The ids of all records that are there already, those that are to be changed included."""
        return {**self.ids, **{c.ref: c.record_id for c in self.changes if c.record_id}}

    def of(self, name: ObjectName) -> list[Change]:
        """The changes to one kind of object, in order."""
        return [change for change in self.changes if change.ref.object is name]


class WriteOutcome(StrEnum):
    """What was done to a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True)
class WriteResult:
    """How a change ended well."""

    record_id: str
    outcome: WriteOutcome


@dataclass(frozen=True)
class Lookup:
    """What has to be known of a record before it can be written."""

    ref: Ref
    record_id: str | None
    """Which one to read; None: find it by `keys`, the first that finds something counts."""
    keys: tuple[LookupKey, ...] = ()
    fields: frozenset[str] = frozenset()
    """The fields whose present values are wanted."""
    anchors: tuple[Ref, ...] = ()
    """What it would be linked to: records without a key of their own are found through these."""
    content: Fields = field(default_factory=dict)
    """What it would be made of."""
    lost_create: Mapping[str, Fingerprints] = field(default_factory=dict)
    """Field -> what a create was sent with whose answer never came."""
    inbox: bool = False
    """Of a deal: it may stand there as a lead of the CRM's inbox."""


class FoundBy(StrEnum):
    """What a record was found by, in the words that people read."""

    NOT_TOLD = ""
    RECORD_ID = "record id"
    EMAIL = "email"
    SECONDARY_EMAIL = "secondary email"
    PHONE = "phone"
    DOMAIN = "domain"
    FURTHER_DOMAIN = "further domain"
    FIELD = "field"
    OPEN_DEAL = "open deal"
    BOOKING_FIELD = "booking-id field"
    BOOKING_NUMBER = "booking id"
    """The record of a create without an answer, told by the booking's number: for certain."""
    TITLE = "title"
    """The record of a create without an answer, told by nothing but its title."""
    CONVERSION = "conversion"
    """The CRM says that it has made this record of the one that was known."""

    @classmethod
    def of(cls, kind: MatchKey) -> FoundBy:
        """What is found by a kind of key."""
        return _FOUND_BY[kind]

    @property
    def is_email(self) -> bool:
        """Whether an e-mail address says that it is the same person."""
        return self in (FoundBy.EMAIL, FoundBy.SECONDARY_EMAIL)


_FOUND_BY = {
    MatchKey.RECORD_ID: FoundBy.RECORD_ID,
    MatchKey.EMAIL: FoundBy.EMAIL,
    MatchKey.SECONDARY_EMAIL: FoundBy.SECONDARY_EMAIL,
    MatchKey.PHONE: FoundBy.PHONE,
    MatchKey.DOMAIN: FoundBy.DOMAIN,
    MatchKey.FIELD: FoundBy.FIELD,
    MatchKey.OPEN_DEAL: FoundBy.OPEN_DEAL,
    MatchKey.BOOKING: FoundBy.BOOKING_FIELD,
}
BOOKING_LINE = "meetergo booking "
"""Begins the last line of a text that this service writes; the booking's number follows. By it the
record of a create without an answer is found again."""


@dataclass(frozen=True)
class CrmRecord:
    """A record as it stands in the CRM."""

    record_id: str
    values: Fields = field(default_factory=dict)
    """Present values of the fields asked for, as the CRM's own text, numbers and lists."""
    by: FoundBy = FoundBy.NOT_TOLD
    became: Ref | None = None
    """The ref whose record it has become: a converted lead is a contact."""
    made_at: str = ""
    """When the CRM made it, in a form that sorts."""
    company: str = ""
    """Of a contact: the id of the company that it belongs to."""
    read_only: bool = False
    """It may be linked to, but nothing may be written to it."""
    was: str = ""
    """The id of the record of which the CRM itself has made this one: a lead that is a deal now."""


@dataclass
class LookupResults:
    """What the CRM holds of what was asked: oldest first; nothing under a ref means none."""

    found: dict[Ref, list[CrmRecord]] = field(default_factory=dict)
    asked: frozenset[Ref] = frozenset()
    notes: dict[Ref, list[str]] = field(default_factory=dict)
    """What was named by hand and is not taken, in sentences."""

    def refuse(self, ref: Ref, record_id: str) -> None:
        """Note that a record which was named by hand is not the attendee's, and so not taken."""
        words = f"The {ref.object} {record_id} is named but not the attendee's: it is not taken."
        if words not in self.notes.setdefault(ref, []):
            self.notes[ref].append(words)

    def add(self, ref: Ref, item: CrmRecord) -> None:
        """Note a record that answers a question; each once."""
        there = self.found.setdefault(ref, [])
        if all(other.record_id != item.record_id for other in there):
            there.append(item)

    def first(self, ref: Ref) -> str | None:
        """Id of the oldest record found."""
        there = self.found.get(ref)
        return there[0].record_id if there else None


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
