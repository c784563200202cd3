"""Compares what a batch of bookings calls for with the ledger: the fewest changes, pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain.records import (
    WRITE_ORDER,
    Change,
    CrmShape,
    DesiredBooking,
    DesiredRecord,
    FieldValue,
    Known,
    ObjectName,
    Plan,
    Ref,
    WriteRule,
)

Ledger = Mapping[Ref, Known]
# The people and companies of a CRM belong to all its apps: what is found there keeps its owner.
_SHARED = (ObjectName.CONTACT, ObjectName.COMPANY)


@dataclass(frozen=True)
class Wanted:
    """A record over all bookings of a batch: the newest booking says what stands in it."""

    record: DesiredRecord
    version: datetime


def merge(bookings: Iterable[DesiredBooking]) -> dict[Ref, Wanted]:
    """One entry a record: fields of the newest booking, links of all."""
    merged: dict[Ref, Wanted] = {}
    for booking in bookings:
        for record in booking.records:
            other = merged.get(record.ref)
            if other is None:
                merged[record.ref] = Wanted(record, booking.version)
                continue
            links = tuple(dict.fromkeys(other.record.links + record.links))
            newest = Wanted(record, booking.version) if booking.version >= other.version else other
            merged[record.ref] = replace(newest, record=replace(newest.record, links=links))
    return merged


def build_plan(wanted: Mapping[Ref, Wanted], ledger: Ledger, shape: CrmShape) -> Plan:
    """The changes that bring a CRM from what the ledger says to what is wanted, in write order."""
    ids = {ref: known.record_id for ref, known in ledger.items() if known.record_id}
    changes = [
        _change(item, ledger.get(ref), shape)
        for ref, item in sorted(wanted.items(), key=lambda pair: WRITE_ORDER.index(pair[0].object))
    ]
    return Plan(tuple(change for change in changes if not change.empty), ids)


def _change(item: Wanted, known: Known | None, shape: CrmShape) -> Change:
    record = item.record
    if known and known.record_id:
        stale = known.version is not None and known.version > item.version
        gone = () if record.ref.object in _SHARED else known.links
        return Change(
            record.ref,
            known.record_id,
            fields={} if stale else _changed(record, known),
            on_match={},
            targets=record.links,
            links=tuple(ref for ref in record.links if ref not in known.links),
            unlinks=tuple(ref for ref in gone if ref not in record.links),
            main_changed=bool(gone) and _mains(record.links) != _mains(known.links),
            match=record.match,
        )
    filled = {field: value for field, value in record.fields.items() if not blank(value)}
    owner = shape.owner_fields.get(record.ref.object) if record.ref.object in _SHARED else None
    # A found person keeps the name that stands there, unless an e-mail says that it is the same
    # person and the booking has a whole name: half of one and half of another is nobody's.
    whole = record.match.email and not any(blank(record.fields[f]) for f in record.together)
    kept = {
        field: value
        for field, value in filled.items()
        if record.rules.get(field) is not WriteRule.ON_CREATE
        and field != owner
        and (whole or field not in record.together)
    }
    return Change(
        record.ref,
        None,
        fields=filled,
        on_match=kept,
        targets=record.links,
        links=record.links,
        match=record.match,
        uncertain=known is not None,
    )


def _mains(links: tuple[Ref, ...]) -> list[Ref | None]:
    """The contact and the company that come first: most CRMs have a place for one of each."""
    return [next((ref for ref in links if ref.object is name), None) for name in _SHARED]


def _changed(record: DesiredRecord, known: Known) -> dict[str, FieldValue]:
    """The fields whose value differs from what was written last and may be overwritten."""
    changed = {}
    for field, value in record.fields.items():
        rule = record.rules.get(field, WriteRule.NEVER_BLANK)
        if rule is WriteRule.ON_CREATE or known.hashes.get(field) == content_hash(value):
            continue
        if not blank(value) or (rule is WriteRule.ALWAYS and field in known.hashes):
            changed[field] = value
    if record.together & set(changed):
        changed.update({field: record.fields[field] for field in record.together})
    return changed


def written(record: DesiredRecord, known: Known | None) -> dict[str, str]:
    """The ledger's hashes after a change went through: of all that the record calls for."""
    before = dict(known.hashes) if known else {}
    for field, value in record.fields.items():
        if not blank(value):
            before[field] = content_hash(value)
        elif field in before and (
            record.rules.get(field) is WriteRule.ALWAYS or field in record.together
        ):
            del before[field]
    return before


def blank(value: FieldValue) -> bool:
    """Whether a value is empty: nothing, empty text or an empty list."""
    return value is None or value in ("", [])


def content_hash(value: FieldValue) -> str:
    """A short fingerprint of a value: the ledger tells changes apart without holding data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
