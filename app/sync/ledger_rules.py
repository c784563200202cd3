"""What the ledger keeps of a record, and which part of a booking is new to it: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.crm.changes import Change
from app.crm.objects import SHARED, FieldValue, Fingerprints, content_hash
from app.sync.desired import DesiredRecord, WriteRule
from app.sync.ledger_entry import LedgerEntry
from app.sync.merge import MergedRecord
from app.sync.values import blank, forms_of

FILLING = frozenset({WriteRule.NEVER_BLANK, WriteRule.IF_EMPTY, WriteRule.UNTOUCHED})
"""The rules under which an older booking fills a field that a newer one left empty."""


def changed_fields(record: DesiredRecord, known: LedgerEntry) -> dict[str, FieldValue]:
    """Return the fields whose value differs from the last one written and may be overwritten."""
    changed = {}
    for name, value in record.fields.items():
        rule = record.rules.get(name, WriteRule.NEVER_BLANK)
        if rule is WriteRule.ON_CREATE or known.fingerprints.get(name) == (content_hash(value),):
            continue
        if record.fill_only and name not in known.fingerprints:
            continue
        if not blank(value) or (rule is WriteRule.ALWAYS and name in known.fingerprints):
            changed[name] = value
    if record.atomic_fields & set(changed):
        changed.update({name: record.fields[name] for name in record.atomic_fields})
    return changed


def as_begun(record: DesiredRecord) -> LedgerEntry:
    """Return the ledger entry of a create that may have been sent: the record is looked for first."""
    sent = {n: (content_hash(value),) for n, value in record.fields.items() if not blank(value)}
    return LedgerEntry(None, sent, record.links)


def known_after(
    item: MergedRecord,
    known: LedgerEntry | None,
    record_id: str | None,
    url: str,
    change: Change | None = None,
) -> LedgerEntry:
    """Return the ledger entry after a record was written; `change` is what was sent."""
    record = item.record
    shared = record.ref.object in SHARED or record.not_ours
    links = tuple(dict.fromkeys((known.links if known and shared else ()) + record.links))
    said = still_said(item, known) if known else record
    fingerprints = written(said, known)
    # A record that only fills fields in does not change the version of the record itself.
    own = [] if record.fill_only else [item.version]
    newest = max([*own, *([known.version] if known and known.version else [])], default=None)
    versions = {}
    for name in fingerprints:
        moments = [item.version_of(name)] if not blank(said.fields.get(name)) else []
        if known and name in known.fingerprints:
            moments += [moment for moment in [known.version_of(name)] if moment]
        if newest and moments and max(moments) < newest:
            versions[name] = max(moments)
    theirs = known.filled_by_others if known and known.record_id == record_id else frozenset()
    if change:
        filled = {name for name in record.fields if not blank(change.present.get(name))}
        theirs = (theirs | (filled if change.found_in_crm else frozenset())) - set(change.fields)
    return LedgerEntry(
        record_id, fingerprints, links, newest, url, versions=versions, filled_by_others=theirs
    )


def still_said(item: MergedRecord, known: LedgerEntry) -> DesiredRecord:
    """Return the part of a booking that still counts if a newer booking was written already.

    Of an older booking, only summaries of all bookings and fields that no newer booking has filled
    still count: the result is the same as if the bookings had come in their order.
    """
    record = item.record
    named = record.atomic_fields & set(known.fingerprints)
    # A whole name fills up the half of it that a newer booking has written.
    fits = all(
        known.fingerprints[name] == (content_hash(record.fields.get(name)),) for name in named
    )

    def says(name: str) -> bool:
        if name in record.person_summary_fields:
            return True
        there = (named if name in record.atomic_fields else set()) or {name} & set(
            known.fingerprints
        )
        if there:
            moments = [known.version_of(other) for other in there]
            newest = all(m is None or m <= item.version_of(name) for m in moments)
            return newest or (name in record.atomic_fields and fits)
        rule = record.rules.get(name, WriteRule.NEVER_BLANK)
        late = known.version is not None and known.version > item.version
        return not late or rule in FILLING

    fields = {name: value for name, value in record.fields.items() if says(name)}
    return replace(record, fields=fields, atomic_fields=record.atomic_fields & set(fields))


def written(record: DesiredRecord, known: LedgerEntry | None) -> dict[str, Fingerprints]:
    """Return the ledger's fingerprints after a change was written: of all fields of the record."""
    before = dict(known.fingerprints) if known else {}
    # A booking without any name removes nothing; one with half a name removes the other half.
    named = any(not blank(record.fields.get(name)) for name in record.atomic_fields)
    for name, value in record.fields.items():
        if name in record.atomic_fields and record.rules.get(name) is WriteRule.ON_CREATE:
            # A placeholder is not a name: any booking that has a name replaces it.
            if before.get(name) == (content_hash(value),):
                del before[name]
        elif not blank(value):
            before[name] = (content_hash(value),)
        elif name in before and (
            record.rules.get(name) is WriteRule.ALWAYS or (named and name in record.atomic_fields)
        ):
            del before[name]
    return before


def fingerprints_of(fields: Mapping[str, FieldValue]) -> dict[str, str]:
    """Return the fingerprints that show later whether a record was created with these fields."""
    return {name: content_hash(value) for name, value in fields.items()}


def is_ours(now: FieldValue, written_last: Fingerprints | None) -> bool:
    """Whether the CRM holds what this service wrote last; types may differ.

    If the last write got no answer, the value before it and the value sent both count.
    """
    if written_last is None:
        return False
    return any(content_hash(form) in written_last for form in forms_of(now))
