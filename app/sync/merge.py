"""What several bookings call for together: one entry for each record, pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.crm.lookup import Match
from app.crm.objects import WRITE_ORDER, ObjectName, Ref
from app.sync.desired import DesiredBooking, DesiredRecord, WriteRule
from app.sync.values import appended, blank


@dataclass(frozen=True)
class MergedRecord:
    """A record over all bookings of a batch: its values come from the newest booking."""

    record: DesiredRecord
    version: datetime
    versions: Mapping[str, datetime] = field(default_factory=dict)
    """Fields whose value comes from an older booking because the newest one had none."""

    def version_of(self, name: str) -> datetime:
        """Return the booking version that a field's value comes from."""
        return self.versions.get(name, self.version)


def merge(bookings: Iterable[DesiredBooking]) -> dict[Ref, MergedRecord]:
    """Return one entry for each record: values of the newest booking, links of all bookings."""
    merged: dict[Ref, MergedRecord] = {}
    for booking in sorted(bookings, key=lambda booking: booking.version):
        for record in booking.records:
            older = merged.get(record.ref)
            if older is None:
                merged[record.ref] = MergedRecord(record, booking.version)
                continue
            if record.fill_only or older.record.fill_only:
                merged[record.ref] = _filled(older, MergedRecord(record, booking.version))
                continue
            links = tuple(dict.fromkeys(older.record.links + record.links))
            whole, taken = _laid_over(older.record, record)
            merged[record.ref] = MergedRecord(
                replace(whole, links=links),
                booking.version,
                {name: older.version_of(name) for name in taken},
            )
    return dict(sorted(merged.items(), key=lambda pair: WRITE_ORDER.index(pair[0].object)))


def _filled(older: MergedRecord, newer: MergedRecord) -> MergedRecord:
    """Merge two entries of which at least one only fills fields in: that one only sets fields."""
    whole, part = (older, newer) if newer.record.fill_only else (newer, older)
    fields = {**older.record.fields, **newer.record.fields}
    rules = {**older.record.rules, **newer.record.rules}
    person_summary_fields = older.record.person_summary_fields | newer.record.person_summary_fields
    record = replace(
        whole.record, fields=fields, rules=rules, person_summary_fields=person_summary_fields
    )
    named = {name: part.version for name in part.record.fields if name not in whole.record.fields}
    return MergedRecord(record, whole.version, {**whole.versions, **named})


def placeholder(ref: Ref) -> DesiredRecord:
    """Return an entry for an existing record that keeps its fields and links: no write."""
    match = Match(create=False)
    return DesiredRecord(ref, {}, {}, match=match, fill_only=True, links_to_drop=frozenset())


def with_lead_contacts(refs: Iterable[Ref]) -> list[Ref]:
    """Return the records and, for each lead, the contact that it may have become."""
    refs = list(refs)
    twins = [Ref(ObjectName.CONTACT, ref.key) for ref in refs if ref.object is ObjectName.LEAD]
    return list(dict.fromkeys([*refs, *twins]))


def _laid_over(older: DesiredRecord, newest: DesiredRecord) -> tuple[DesiredRecord, frozenset[str]]:
    """Merge two bookings as if one were written after the other: an empty value clears nothing.

    The second result is the set of fields whose value comes from the older booking.
    """
    fields, rules = dict(newest.fields), dict(newest.rules)
    taken = set()
    # Half a name that fits counts as the same name in a shorter form.
    fits = all(
        blank(fields.get(name))
        or rules.get(name) is WriteRule.ON_CREATE
        or fields[name] == older.fields.get(name)
        for name in newest.atomic_fields
    )
    for name, value in older.fields.items():
        rule = older.rules.get(name, WriteRule.NEVER_BLANK)
        if name in newest.atomic_fields | older.atomic_fields:
            take = fits and rule is not WriteRule.ON_CREATE
        else:
            take = blank(fields.get(name)) and rules.get(name) is not WriteRule.ALWAYS
        if take and not blank(value):
            if fields.get(name) != value:
                taken.add(name)
            fields[name], rules[name] = value, rule
        elif rule is WriteRule.APPEND and not blank(value):
            fields[name] = appended(value, fields[name], "\n")
    return replace(newest, fields=fields, rules=rules), frozenset(taken)
