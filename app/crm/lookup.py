"""What is asked of a CRM before anything is written, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from app.crm.objects import Fields, Fingerprints, Ref
from app.domain.people import normalise_email


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
