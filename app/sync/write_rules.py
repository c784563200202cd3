"""Decides when a field may be written: write rules, and names and owners that others chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.crm.lookup import CrmRecord
from app.crm.objects import (
    PEOPLE,
    SHARED,
    FieldValue,
    Fingerprints,
    ObjectName,
    Ref,
)
from app.crm.schema import CrmShape, Directory, FieldKind
from app.domain.text import measure
from app.sync.desired import READING, DesiredRecord, WriteRule
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import is_ours
from app.sync.lookups import (
    is_own_company,
    rule_of,
)
from app.sync.values import appended, as_list, blank, is_later_stage, same


@dataclass(frozen=True)
class FieldRules:
    """Decides for each field of a record whether to write it, and notes in the diff what stays."""

    shape: CrmShape
    directory: Directory
    diff: Diff
    stages: Mapping[Ref, Fingerprints]
    """Deal -> fingerprints of the stages that this service wrote to it for other bookings."""

    def emptied(
        self, record: DesiredRecord, changed: Mapping[str, FieldValue]
    ) -> dict[str, FieldValue]:
        """Leave out fields that cannot be emptied; a check box is unchecked instead."""
        kept = dict(changed)
        for name, value in changed.items():
            known = self.directory.field(record.ref.object, name)
            if not blank(value) or known is None or known.empties:
                continue
            if known.kind is FieldKind.FLAG:
                kept[name] = False
                continue
            del kept[name]
            words = f"{record.ref.object}.{name} cannot be emptied in the CRM and keeps its value."
            self.diff.note(record.ref, words)
        return kept

    def adopted(
        self,
        record: DesiredRecord,
        found: CrmRecord | None,
        filled: Mapping[str, FieldValue],
        begun: LedgerEntry | None = None,
        own: bool = False,
        mine: bool = False,
    ) -> dict[str, FieldValue]:
        """Return the fields that may be written to a record that exists already.

        `begun`: a create or an update of it got no answer, so its values may be this service's own.
        `own`: this service created it and never got the answer, so its values are this service's own.
        `mine`: the ledger knew it before, and it was merged into this one.

        A person who was found keeps the present name, unless an e-mail address shows that it is the
        same person and the booking has a whole name: halves of two names are never mixed.
        """

        def ours(name: str) -> bool:
            now = found.values.get(name) if found else None
            return begun is not None and is_ours(now, begun.fingerprints.get(name))

        same_person = mine or _is_same_person(record, found)
        stands = {f for f in record.atomic_fields if found and not blank(found.values.get(f))}
        # If the name is still as this service wrote it, the name is this service's own.
        same_person = same_person or (bool(stands) and all(map(ours, stands)))
        whole = same_person and not any(blank(record.fields[f]) for f in record.atomic_fields)
        kept = {}
        for name, value in filled.items():
            rule = record.rules.get(name)
            half = name in record.atomic_fields and not whole
            if rule is WriteRule.ON_CREATE or half or self._stays(record, name, found, ours(name)):
                if rule is not WriteRule.ON_CREATE and not (same_person or own):
                    self._note_kept(record, name, value, found)
                continue
            if found is None:
                if rule not in READING:
                    kept[name] = value
                continue
            if own and rule is WriteRule.UNTOUCHED:
                if not same(found.values.get(name), value):
                    kept[name] = value
                continue
            # No fields were read of a contact that a lead has become.
            was_read = found.became is None
            allowed = self.allowed(record, name, value, found.values, begun, was_read)
            if allowed is not None and not same(found.values.get(name), allowed.value):
                kept[name] = allowed.value
        if found is not None and is_mixed(record, kept, filled, found.values):
            kept = {name: value for name, value in kept.items() if name not in record.atomic_fields}
        return kept

    def _stays(self, record: DesiredRecord, name: str, found: CrmRecord | None, ours: bool) -> bool:
        """Whether a field stays: others' owner, or the address by which others know the record."""
        if record.rules.get(name) is not WriteRule.NEVER_BLANK or ours:
            return False
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        keeps_owner = record.ref.object in SHARED or record.not_ours
        return (is_owner and keeps_owner) or _is_kept_address(record, name, found)

    def _note_kept(
        self, record: DesiredRecord, name: str, value: FieldValue, found: CrmRecord | None
    ) -> None:
        """Note that name or address stays, for a person who was not found by e-mail."""
        now = found.values.get(name) if found else None
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        if record.ref.object not in PEOPLE or is_owner or blank(now) or same(now, value):
            return
        # An address in place of a name does not count as a name.
        if name in record.atomic_fields and str(now).casefold() == _address(record).casefold():
            return
        if str(value).casefold() not in [entry.casefold() for entry in as_list(now)]:
            words = f"{record.ref.object}.{name} was filled already and keeps its value."
            self.diff.note(record.ref, words)

    def allowed(
        self,
        record: DesiredRecord,
        name: str,
        value: FieldValue,
        present: Mapping[str, FieldValue],
        known: LedgerEntry | None,
        was_read: bool,
    ) -> Written | None:
        """Return the value to write under a field's rule, or None if the present value stays."""
        rule = rule_of(record, name, known, self.shape)
        if rule not in READING:
            return Written(value)
        if not was_read:
            return None
        now = present.get(name)
        if name in record.atomic_fields and str(now).casefold() == _address(record).casefold():
            now = None  # An address in place of a name does not count.
        if self._is_default_owner(record, name, now, known):
            now = None
        ours = known is not None and name not in known.filled_by_others
        ours = ours and known is not None and is_ours(now, known.fingerprints.get(name))
        if rule is WriteRule.FORWARD and is_ours(now, self.stages.get(record.ref)):
            ours = True  # This service set it for another booking of the same deal.
        if blank(now) or (ours and rule is not WriteRule.APPEND):
            stays = rule is WriteRule.IF_EMPTY and not blank(now)
            return None if stays or (ours and same(now, value)) else Written(value)
        if rule is WriteRule.APPEND:
            return self._added(record, name, now, value)
        if rule is WriteRule.FORWARD and is_later_stage(now, value, self.directory):
            return Written(value)
        if not same(now, value):
            found = rule is WriteRule.IF_EMPTY or known is None or name in known.filled_by_others
            words = "was filled already" if found else "was changed by others"
            self.diff.note(record.ref, f"{record.ref.object}.{name} {words} and keeps its value.")
        return None

    def _added(
        self, record: DesiredRecord, name: str, now: FieldValue, value: FieldValue
    ) -> Written | None:
        """Add a value to the present one; None if the field has it already or has no room."""
        html = f"{record.ref.object}.{name}" in self.shape.html_fields
        more = appended(now, value, "<br>" if html else "\n")
        if self._is_too_long(record, name, more):
            self.diff.note(record.ref, f"{record.ref.object}.{name} is full and keeps its value.")
            return None
        return None if same(now, more) else Written(more)

    def _is_too_long(self, record: DesiredRecord, name: str, value: FieldValue) -> bool:
        """Whether a text is longer than its field allows."""
        known = self.directory.field(record.ref.object, name)
        place = f"{record.ref.object}.{name}"
        limit = (known.length if known else None) or self.shape.text_limits.get(place)
        long = isinstance(value, str) and limit is not None
        return long and measure(str(value), self.shape.text_unit) > (limit or 0)

    def _is_default_owner(
        self, record: DesiredRecord, name: str, now: FieldValue, known: LedgerEntry | None
    ) -> bool:
        """Whether nobody chose the owner: the CRM set our own user when the record was created."""
        if known is None or record.not_ours or record.ref.object in SHARED:
            return False
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        never_written = name not in known.fingerprints and name not in known.filled_by_others
        own = self.directory.own_user
        return is_owner and never_written and own is not None and same(now, own)


@dataclass(frozen=True)
class Written:
    """A value to write; it may be None."""

    value: FieldValue


def is_mixed(
    record: DesiredRecord,
    fields: Mapping[str, FieldValue],
    said: Mapping[str, FieldValue],
    present: Mapping[str, FieldValue],
) -> bool:
    """Whether only some of the fields that are written together would be written."""
    stays = [
        name
        for name in record.atomic_fields
        if name not in fields
        and not blank(present.get(name))
        and not blank(said.get(name))
        and not same(present.get(name), said[name])
    ]
    return bool(stays) and bool(record.atomic_fields & set(fields))


def _is_same_person(record: DesiredRecord, found: CrmRecord | None) -> bool:
    """Whether an e-mail address shows the same person: as the CRM's key, as the key that found the
    record, or as a value in the record."""
    address = _address(record)
    if not address:
        return False
    if found is None or found.became or found.by.is_email:
        return True
    names = [name for name, value in record.fields.items() if value == address]
    there = [entry.lower() for name in names for entry in as_list(found.values.get(name) or "")]
    return address in there


def _is_kept_address(record: DesiredRecord, name: str, found: CrmRecord | None) -> bool:
    """Whether a person who was found keeps the present address, or a company the present domain:
    the record is known by another one as well."""
    company = record.ref.object is ObjectName.COMPANY and not is_own_company(record.ref)
    address = record.ref.key if company else _address(record)
    if not address or record.fields[name] != address:
        return False
    return found is None or found.became is not None or not blank(found.values.get(name))


def _address(record: DesiredRecord) -> str:
    """Return the e-mail address that the person is known by here; empty if it is a phone number."""
    kind, _, address = record.ref.key.partition(":")
    return address if record.ref.object in PEOPLE and kind == "email" else ""
