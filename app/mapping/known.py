"""What the ledger keeps of a record, and what of a booking is news to it: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.domain.records import (
    DOUBT,
    ERASED,
    SHARED,
    Change,
    DesiredRecord,
    FieldValue,
    LedgerEntry,
    WriteRule,
    content_hash,
)
from app.mapping.present import blank, forms_of
from app.mapping.wanted import MergedRecord

FILLING = frozenset({WriteRule.NEVER_BLANK, WriteRule.IF_EMPTY, WriteRule.UNTOUCHED})
"""The rules under which an older booking fills what a newer one left empty."""


def changed_fields(record: DesiredRecord, known: LedgerEntry) -> dict[str, FieldValue]:
    """The fields whose value differs from what was written last and may be overwritten."""
    changed = {}
    for name, value in record.fields.items():
        rule = record.rules.get(name, WriteRule.NEVER_BLANK)
        if rule is WriteRule.ON_CREATE or known.hashes.get(name) == content_hash(value):
            continue
        if record.partial and name not in known.hashes:
            continue
        if not blank(value) or (rule is WriteRule.ALWAYS and name in known.hashes):
            changed[name] = value
    if record.together & set(changed):
        changed.update({name: record.fields[name] for name in record.together})
    return changed


def known_after(
    item: MergedRecord,
    known: LedgerEntry | None,
    record_id: str | None,
    url: str,
    change: Change | None = None,
) -> LedgerEntry:
    """The ledger's line after a record was brought about; `change` is what was sent."""
    record = item.record
    shared = record.ref.object in SHARED or record.borrowed
    links = tuple(dict.fromkeys((known.links if known and shared else ()) + record.links))
    said = still_said(item, known) if known else record
    hashes = written(said, known)
    # What only fills a record in makes nothing older that bookings say of the record itself.
    own = [] if record.partial else [item.version]
    newest = max([*own, *([known.version] if known and known.version else [])], default=None)
    versions = {}
    for name in hashes:
        moments = [item.version_of(name)] if not blank(said.fields.get(name)) else []
        if known and name in known.hashes:
            moments += [moment for moment in [known.version_of(name)] if moment]
        if newest and moments and max(moments) < newest:
            versions[name] = max(moments)
    theirs = known.theirs if known and known.record_id == record_id else frozenset()
    if change:
        filled = {name for name in record.fields if not blank(change.present.get(name))}
        theirs = (theirs | (filled if change.adopted else frozenset())) - set(change.fields)
    return LedgerEntry(record_id, hashes, links, newest, url, versions=versions, theirs=theirs)


def still_said(item: MergedRecord, known: LedgerEntry) -> DesiredRecord:
    """What a booking says of a record that a newer booking may have written already.

    Of an older one that is what tells of all bookings, and what no newer one has filled: the
    record comes to the same as if the bookings had come in their order.
    """
    record = item.record
    named = record.together & set(known.hashes)
    # Half a name that a newer booking has written is filled by the whole one.
    fits = all(known.hashes[name] == content_hash(record.fields.get(name)) for name in named)

    def says(name: str) -> bool:
        if name in record.timeless:
            return True
        there = (named if name in record.together else set()) or {name} & set(known.hashes)
        if there:
            moments = [known.version_of(other) for other in there]
            newest = all(m is None or m <= item.version_of(name) for m in moments)
            return newest or (name in record.together and fits)
        rule = record.rules.get(name, WriteRule.NEVER_BLANK)
        late = known.version is not None and known.version > item.version
        return not late or rule in FILLING

    fields = {name: value for name, value in record.fields.items() if says(name)}
    return replace(record, fields=fields, together=record.together & set(fields))


def written(record: DesiredRecord, known: LedgerEntry | None) -> dict[str, str]:
    """The ledger's hashes after a change went through: of all that the record calls for."""
    before = dict(known.hashes) if known else {}
    for mark in (DOUBT, ERASED):
        before.pop(mark, None)
    # A name that a booking leaves out whole takes nothing away; half of another one does.
    named = any(not blank(record.fields.get(name)) for name in record.together)
    for name, value in record.fields.items():
        if name in record.together and record.rules.get(name) is WriteRule.ON_CREATE:
            # What stands in for a name is none: whoever says one fills it.
            if before.get(name) == content_hash(value):
                del before[name]
        elif not blank(value):
            before[name] = content_hash(value)
        elif name in before and (
            record.rules.get(name) is WriteRule.ALWAYS or (named and name in record.together)
        ):
            del before[name]
    return before


def fingerprints(fields: Mapping[str, FieldValue]) -> dict[str, str]:
    """What tells later whether a record was made of these fields."""
    return {name: content_hash(value) for name, value in fields.items()}


def is_ours(now: FieldValue, fingerprint: str | None) -> bool:
    """Whether what stands in the CRM is what this service wrote last; types may differ."""
    if fingerprint is None:
        return False
    forms = list(forms_of(now))
    # Where the last answer never came, what stood there before or what was sent.
    return any(content_hash(form) in fingerprint.split("|") for form in forms)
