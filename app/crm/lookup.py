"""The questions to a CRM before anything is written, and its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from app.crm.objects import Fields, Fingerprints, Ref
from app.domain.people import normalise_email


class OnSeveral(StrEnum):
    """Which record to use if several match."""

    NEWEST = "newest"
    OLDEST = "oldest"
    FLAG = "flag"
    """None of them: the booking fails and reports it, since a person has to merge the records."""


class OnLost(StrEnum):
    """What to do if the CRM no longer has the record."""

    RECREATE = "recreate"
    LEAVE = "leave"


class MatchKey(StrEnum):
    """The keys by which a record that this service has not created may be recognised."""

    RECORD_ID = "record_id"
    """An id or a URL that somebody typed or pasted: each CRM reads its own form."""
    EMAIL = "email"
    SECONDARY_EMAIL = "secondary_email"
    PHONE = "phone"
    DOMAIN = "domain"
    FIELD = "field"
    """A field of the CRM that holds the value given in the mapping."""
    OPEN_DEAL = "open_deal"
    """An open deal of the booking's first contact, in the given pipeline."""
    BOOKING = "booking"
    """The booking-id field or, if the CRM has none, the records that it is linked to."""


class Whose(NamedTuple):
    """The attendee that a record named by hand has to belong to."""

    email: str = ""
    domain: str = ""
    """The domain of the attendee's company; empty if the address belongs to no company."""

    def owns(self, addresses: Iterable[object] = (), domains: Iterable[str] = ()) -> bool:
        """Whether a record with these e-mail addresses and domains belongs to the attendee."""
        emails = {normalise_email(address) for address in addresses}
        there = {email.rpartition("@")[2] for email in emails if email} | {*domains}
        return bool(self.email in emails or (self.domain and self.domain in there))


class LookupKey(NamedTuple):
    """One key to look for: its kind, its value, and what else the kind needs.

    `field` names the CRM's field for FIELD, the pipeline (by id) for OPEN_DEAL, and for PHONE the
    country (ISO) of the booking, if its time zone or language indicates one.
    """

    kind: MatchKey
    value: str
    field: str = ""
    of: Whose | None = None
    """For RECORD_ID: the attendee that the record must belong to; None: any record counts."""


@dataclass(frozen=True)
class Match:
    """How a record is recognised: by these keys, in order, until one has a result."""

    keys: tuple[LookupKey, ...] = ()
    several: OnSeveral = OnSeveral.OLDEST
    create: bool = True
    """Whether a record is created if none is found."""
    asked: bool = False
    """The mapping uses more than the CRM's own key, so a lookup by the keys must come first."""
    lost: OnLost = OnLost.RECREATE

    def value(self, kind: MatchKey) -> str | None:
        """Return the value to look for under a kind of key."""
        return next((key.value for key in self.keys if key.kind is kind), None)

    @property
    def email(self) -> str | None:
        """The e-mail address by which the record is recognised."""
        return self.value(MatchKey.EMAIL)

    @property
    def phone(self) -> str | None:
        """The phone number to look for, in E.164."""
        return self.value(MatchKey.PHONE)

    @property
    def domain(self) -> str | None:
        """The company domain to look for."""
        return self.value(MatchKey.DOMAIN)

    @property
    def booking_id(self) -> str | None:
        """The value of the booking-id field."""
        return self.value(MatchKey.BOOKING)


@dataclass(frozen=True)
class Lookup:
    """What has to be known of a record before it is written."""

    ref: Ref
    record_id: str | None
    """The record to read; None: find it by `keys`, in order, until one has a result."""
    keys: tuple[LookupKey, ...] = ()
    fields: frozenset[str] = frozenset()
    """The fields whose present values are needed."""
    anchors: tuple[Ref, ...] = ()
    """The records that it would be linked to: a record without a key is found through them."""
    content: Fields = field(default_factory=dict)
    """The fields that it would be created with."""
    lost_create: Mapping[str, Fingerprints] = field(default_factory=dict)
    """Field -> the value that was sent in a create without an answer."""
    inbox: bool = False
    """For a deal: it may exist as a lead of the CRM's inbox."""


class FoundBy(StrEnum):
    """The key that found a record, in the words that people read."""

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
    """The record of a create without an answer, recognised for certain by the booking's number."""
    TITLE = "title"
    """The record of a create without an answer, recognised only by its title."""
    CONVERSION = "conversion"
    """The CRM reports that it converted the known record into this one."""

    @classmethod
    def of(cls, kind: MatchKey) -> FoundBy:
        """Return what a record is found by under a kind of key."""
        return _FOUND_BY[kind]

    @property
    def is_email(self) -> bool:
        """Whether an e-mail address shows that it is the same person."""
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
    """A record as the CRM holds it."""

    record_id: str
    values: Fields = field(default_factory=dict)
    """Present values of the requested fields, as the CRM's own text, numbers and lists."""
    by: FoundBy = FoundBy.NOT_TOLD
    became: Ref | None = None
    """The ref of the record that it has become: a converted lead is a contact."""
    made_at: str = ""
    """The time when the CRM created it, in a form that sorts."""
    company: str = ""
    """For a contact: the id of the company that it belongs to."""
    read_only: bool = False
    """The record may be linked to, but nothing may be written to it."""
    was: str = ""
    """The id of the record that the CRM converted into this one: a lead that is a deal now."""


@dataclass
class LookupResults:
    """The records that a CRM holds for each ref, oldest first; no entry for a ref means none."""

    found: dict[Ref, list[CrmRecord]] = field(default_factory=dict)
    asked: frozenset[Ref] = frozenset()
    notes: dict[Ref, list[str]] = field(default_factory=dict)
    """Records that were named by hand and are not used, in sentences."""

    def refuse(self, ref: Ref, record_id: str) -> None:
        """Note that a record named by hand is not the attendee's, and so is not used."""
        words = (
            f"The {ref.object} {record_id} is named but is not the attendee's own: it is not used."
        )
        if words not in self.notes.setdefault(ref, []):
            self.notes[ref].append(words)

    def add(self, ref: Ref, item: CrmRecord) -> None:
        """Note a record as an answer to a lookup; each record once."""
        there = self.found.setdefault(ref, [])
        if all(other.record_id != item.record_id for other in there):
            there.append(item)

    def first(self, ref: Ref) -> str | None:
        """Return the id of the oldest record found."""
        there = self.found.get(ref)
        return there[0].record_id if there else None
