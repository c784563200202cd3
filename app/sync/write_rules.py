"""When a field of a record may be written: write rules, names and owners that stay others'."""

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
    """Decides field by field what of a record may be written; what stays is noted in the diff."""

    shape: CrmShape
    directory: Directory
    diff: Diff
    stages: Mapping[Ref, Fingerprints]
    """Deal -> fingerprints of the stages that this service wrote to it for other bookings."""

    def emptied(
        self, record: DesiredRecord, changed: Mapping[str, FieldValue]
    ) -> dict[str, FieldValue]:
        """Without what cannot be emptied: a check box is unchecked, everything else stays."""
        kept = dict(changed)
        for name, value in changed.items():
            known = self.directory.field(record.ref.object, name)
            if not blank(value) or known is None or known.empties:
                continue
            if known.kind is FieldKind.FLAG:
                kept[name] = False
                continue
            del kept[name]
            words = f"{record.ref.object}.{name} cannot be emptied in the CRM and stays."
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
        """What may be written to a record that was there already.

        `begun`: a create or an update of it got no answer, so that it may be this service's own.
        `own`: this service made it and never heard the answer, so that what stands there is its own.
        `mine`: it was known before, and merged into this one.

        A found person keeps the name that stands there, unless an e-mail says that it is the same
        person and the booking has a whole name: half of one and half of another is nobody's.
        """

        def ours(name: str) -> bool:
            now = found.values.get(name) if found else None
            return begun is not None and is_ours(now, begun.fingerprints.get(name))

        same_person = mine or _is_same_person(record, found)
        stands = {f for f in record.atomic_fields if found and not blank(found.values.get(f))}
        # A name that stands there as it was written is this service's own.
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
            # Of the contact that a lead has become nothing has been read.
            was_read = found.became is None
            allowed = self.allowed(record, name, value, found.values, begun, was_read)
            if allowed is not None and not same(found.values.get(name), allowed.value):
                kept[name] = allowed.value
        if found is not None and is_mixed(record, kept, filled, found.values):
            kept = {name: value for name, value in kept.items() if name not in record.atomic_fields}
        return kept

    def _stays(self, record: DesiredRecord, name: str, found: CrmRecord | None, ours: bool) -> bool:
        """Whether others' owner, or the address by which others know a record, is left as it is."""
        if record.rules.get(name) is not WriteRule.NEVER_BLANK or ours:
            return False
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        keeps_owner = record.ref.object in SHARED or record.not_ours
        return (is_owner and keeps_owner) or _is_kept_address(record, name, found)

    def _note_kept(
        self, record: DesiredRecord, name: str, value: FieldValue, found: CrmRecord | None
    ) -> None:
        """Say of a person who was found by something else than the e-mail that name or address stays."""
        now = found.values.get(name) if found else None
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        if record.ref.object not in PEOPLE or is_owner or blank(now) or same(now, value):
            return
        # An address that stands in for a name is none.
        if name in record.atomic_fields and str(now).casefold() == _address(record).casefold():
            return
        if str(value).casefold() not in [entry.casefold() for entry in as_list(now)]:
            words = f"{record.ref.object}.{name} was filled already and stays."
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
        """The value to write under a field's rule, or None where what stands there stays."""
        rule = rule_of(record, name, known, self.shape)
        if rule not in READING:
            return Written(value)
        if not was_read:
            return None
        now = present.get(name)
        if name in record.atomic_fields and str(now).casefold() == _address(record).casefold():
            now = None  # An address that stands in for a name is none.
        if self._is_default_owner(record, name, now, known):
            now = None
        ours = known is not None and name not in known.filled_by_others
        ours = ours and known is not None and is_ours(now, known.fingerprints.get(name))
        if rule is WriteRule.FORWARD and is_ours(now, self.stages.get(record.ref)):
            ours = True  # It was set for another booking of the same deal.
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
            self.diff.note(record.ref, f"{record.ref.object}.{name} {words} and stays.")
        return None

    def _added(
        self, record: DesiredRecord, name: str, now: FieldValue, value: FieldValue
    ) -> Written | None:
        """What stands there with a value added; None where it has that already, or no room."""
        html = f"{record.ref.object}.{name}" in self.shape.html_fields
        more = appended(now, value, "<br>" if html else "\n")
        if self._is_too_long(record, name, more):
            self.diff.note(record.ref, f"{record.ref.object}.{name} is full and stays.")
            return None
        return None if same(now, more) else Written(more)

    def _is_too_long(self, record: DesiredRecord, name: str, value: FieldValue) -> bool:
        """Whether a text has grown over what its field takes."""
        known = self.directory.field(record.ref.object, name)
        place = f"{record.ref.object}.{name}"
        limit = (known.length if known else None) or self.shape.text_limits.get(place)
        long = isinstance(value, str) and limit is not None
        return long and measure(str(value), self.shape.text_unit) > (limit or 0)

    def _is_default_owner(
        self, record: DesiredRecord, name: str, now: FieldValue, known: LedgerEntry | None
    ) -> bool:
        """Whether nobody chose an owner: the CRM put our own user there when the record was made."""
        if known is None or record.not_ours or record.ref.object in SHARED:
            return False
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        never_written = name not in known.fingerprints and name not in known.filled_by_others
        own = self.directory.own_user
        return is_owner and never_written and own is not None and same(now, own)


@dataclass(frozen=True)
class Written:
    """A value to write, which may be nothing."""

    value: FieldValue


def is_mixed(
    record: DesiredRecord,
    fields: Mapping[str, FieldValue],
    said: Mapping[str, FieldValue],
    present: Mapping[str, FieldValue],
) -> bool:
    """Whether some of what is written as one would be written, and other parts of it stay others'."""
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
    """Whether an e-mail says so: the CRM's own key, what it was found by, or what stands there."""
    address = _address(record)
    if not address:
        return False
    if found is None or found.became or found.by.is_email:
        return True
    names = [name for name, value in record.fields.items() if value == address]
    there = [entry.lower() for name in names for entry in as_list(found.values.get(name) or "")]
    return address in there


def _is_kept_address(record: DesiredRecord, name: str, found: CrmRecord | None) -> bool:
    """A found person keeps the address that stands there, and a found company its domain: it is
    known by another one as well."""
    company = record.ref.object is ObjectName.COMPANY and not is_own_company(record.ref)
    address = record.ref.key if company else _address(record)
    if not address or record.fields[name] != address:
        return False
    return found is None or found.became is not None or not blank(found.values.get(name))


def _address(record: DesiredRecord) -> str:
    """The e-mail address that a person goes by here; empty for a phone number."""
    kind, _, address = record.ref.key.partition(":")
    return address if record.ref.object in PEOPLE and kind == "email" else ""
