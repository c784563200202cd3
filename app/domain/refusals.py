"""Why a CRM refused a record, as data, and the plain sentences that people read about it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_OPTIONS = 8
"""Options that a sentence lists."""
MOST_VALUE, MOST_WORDS, MOST_SENTENCE = 80, 300, 600
"""Most characters of a value, of the CRM's own words, and of a whole sentence."""
MOST_RAW = 2000
"""Most characters that are kept of the CRM's answer."""
_QUOTED_SECRET = re.compile(r"[A-Za-z0-9_\-.!]{40,}")
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+")


class RefusalReason(StrEnum):
    """The kinds of refusal that all CRMs share."""

    OPTION = "option"
    """The value is none of the field's options."""
    TYPE = "type"
    """The value has the wrong type or form: a number, date, address."""
    LENGTH = "length"
    REQUIRED = "required"
    TAKEN = "taken"
    """Another record has the unique value."""
    DUPLICATE = "duplicate"
    """A duplicate rule takes the record for one that exists."""
    UNKNOWN_FIELD = "unknown_field"
    READ_ONLY = "read_only"
    PERMISSION = "permission"
    """The connected user may not write this field or record."""
    OWNER = "owner"
    """The owner is unknown or inactive."""
    STAGE = "stage"
    """The stage or the pipeline is unknown."""
    RULE = "rule"
    """A rule that an admin made."""
    AUTOMATION = "automation"
    """A trigger or flow of the account failed."""
    LOCKED = "locked"
    DELETED = "deleted"
    """The record, or one that it links to, is deleted or was never there."""
    LIMIT = "limit"
    """A limit of the account: storage, records, links."""
    OTHER = "other"


@dataclass(frozen=True)
class Refusal:
    """Why a CRM refused a record. The adapter fills what the answer says, the worker the rest."""

    reason: RefusalReason
    crm: str = "The CRM"
    """The CRM's name for people."""
    noun: str = "field"
    """What the CRM calls a field."""
    object: str = ""
    field: str = ""
    """The field's name in the CRM; empty if the answer names none."""
    label: str = ""
    """The field's name for people."""
    value: str = ""
    """The refused value: it may be a person's data."""
    options: tuple[str, ...] = ()
    """The values that the field accepts."""
    limit: int | None = None
    """The most characters that the field accepts."""
    expected: str = ""
    """The type that the field wants, in words: a number."""
    record_id: str = ""
    """The record that is in the way."""
    words: str = ""
    """The CRM's own words about this one field or record."""
    also: tuple[str, ...] = ()
    """Other fields that the same answer refuses."""
    raw: str = ""
    """The CRM's whole answer, shortened."""

    @property
    def sentence(self) -> str:
        """What happened, in one plain sentence."""
        more = f" It refuses also: {', '.join(self.also[:MOST_OPTIONS])}." if self.also else ""
        named = self.field or self.value or self.record_id
        if self.reason in _SAYS_LITTLE and not named and self.words:
            more = f" It says{_quoted(self)}"
        return clipped(_SENTENCES[self.reason](self) + more, MOST_SENTENCE)

    @property
    def general(self) -> str:
        """The sentence without the value, which differs from booking to booking."""
        return Refusal(
            self.reason, self.crm, self.noun, self.object, self.field, self.label,
            options=self.options, limit=self.limit, expected=self.expected,
        ).sentence  # fmt: skip

    def mend(self, file: str = "") -> str:
        """What a person can do; `file`: the name of the mapping file."""
        named = f"the mapping file {file}" if file else "the mapping file"
        words = _MENDS[self.reason].format(crm=self.crm, noun=self.noun, file=named)
        return f"{words}, then sync again."


def cause_key(
    provider: str,
    connection_id: int,
    code: str,
    reason: str = "",
    object_: str = "",
    field: str = "",
) -> str:
    """Return the key that all deliveries of one cause share; no value is in it."""
    parts = (provider, str(connection_id), code, reason, object_, field)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def redacted(text: str) -> str:
    """Return a text on one line, without what looks like a credential or an e-mail address."""
    plain = _EMAIL.sub("[e-mail]", _QUOTED_SECRET.sub("[hidden]", " ".join(text.split())))
    return "".join(char for char in plain if char.isprintable())


def clipped(text: str, most: int) -> str:
    """Return a text, with `…` for what is more than so many characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def listed(items: Sequence[str]) -> str:
    """Return options as a list for people, the first of them."""
    shown = [clipped(redacted(item), 40) for item in items[:MOST_OPTIONS]]
    more = len(items) - len(shown)
    return f"{', '.join(shown)} and {more} more" if more else ", ".join(shown)


def _name(refusal: Refusal) -> str:
    """The field by the name for people and the name that mapping files use."""
    field, label = refusal.field, refusal.label
    return f"{label} ({field})" if label and label.casefold() != field.casefold() else field


def _place(refusal: Refusal) -> str:
    """What is refused: the field, or the record if no field is named."""
    of = f" of the {refusal.object}" if refusal.object else ""
    if refusal.field:
        return f"the {refusal.noun} {_name(refusal)}{of}"
    return f"a value{of or ' of the record'}"


def _record(refusal: Refusal) -> str:
    return f"the {refusal.object}" if refusal.object else "the record"


def _its(refusal: Refusal) -> str:
    """The field of the record that a sentence has named."""
    return f"the {refusal.noun} {_name(refusal)}" if refusal.field else f"a {refusal.noun}"


def _value(refusal: Refusal) -> str:
    value = clipped(redacted(refusal.value), MOST_VALUE)
    return f'"{value}"' if value else "the value"


def _quoted(refusal: Refusal) -> str:
    words = clipped(redacted(refusal.words), MOST_WORDS)
    return f': "{words}"' if words else "."


def _option(refusal: Refusal) -> str:
    options = f" {listed(refusal.options)}" if refusal.options else ""
    start = f"{refusal.crm} refuses {_place(refusal)}"
    return f"{start}: {_value(refusal)} is none of its options{options}."


def _type(refusal: Refusal) -> str:
    wrong = f"is not {refusal.expected}" if refusal.expected else "has the wrong form"
    return f"{refusal.crm} refuses {_place(refusal)}: {_value(refusal)} {wrong}."


def _length(refusal: Refusal) -> str:
    most = f"longer than {refusal.limit:,} characters" if refusal.limit else "too long"
    return f"{refusal.crm} refuses {_place(refusal)}: {_value(refusal)} is {most}."


def _required(refusal: Refusal) -> str:
    return f"{refusal.crm} refuses {_record(refusal)}: {_its(refusal)} is required and empty."


def _taken(refusal: Refusal) -> str:
    whose = f"the record {refusal.record_id}" if refusal.record_id else "another record"
    if refusal.field:
        return f"{refusal.crm} refuses {_place(refusal)}: {whose} already has {_value(refusal)}."
    return (
        f"{refusal.crm} refuses {_record(refusal)}: {whose} already has one of its unique values."
    )


def _duplicate(refusal: Refusal) -> str:
    like = f"the record {refusal.record_id}" if refusal.record_id else "an existing record"
    return f"{refusal.crm} refuses {_record(refusal)}: a duplicate rule takes it for {like}."


def _unknown_field(refusal: Refusal) -> str:
    name = f" {_name(refusal)}" if refusal.field else " of that name"
    return f"{refusal.crm} refuses {_record(refusal)}: it has no {refusal.noun}{name}."


def _read_only(refusal: Refusal) -> str:
    return f"{refusal.crm} refuses {_record(refusal)}: {_its(refusal)} is read-only."


def _permission(refusal: Refusal) -> str:
    what = _its(refusal) if refusal.field else "it"
    return f"{refusal.crm} refuses {_record(refusal)}: the connected user may not write {what}."


def _owner(refusal: Refusal) -> str:
    who = f" {_value(refusal)}" if refusal.value else ""
    start = f"{refusal.crm} refuses the owner of {_record(refusal)}"
    return f"{start}: the user{who} is unknown, inactive, or may own no such record."


def _stage(refusal: Refusal) -> str:
    options = f" {listed(refusal.options)}" if refusal.options else ""
    start = f"{refusal.crm} refuses {_place(refusal)}"
    return f"{start}: {_value(refusal)} is none of the account's stages and pipelines{options}."


def _rule(refusal: Refusal) -> str:
    field = f", for {_its(refusal)}" if refusal.field else ""
    start = f"A rule of the {refusal.crm} account refuses {_record(refusal)}{field}"
    return f"{start}{_quoted(refusal)}"


def _automation(refusal: Refusal) -> str:
    start = f"An automation of the {refusal.crm} account refuses {_record(refusal)}"
    return f"{start}{_quoted(refusal)}"


def _locked(refusal: Refusal) -> str:
    return f"{refusal.crm} refuses {_record(refusal)}: it is locked."


def _deleted(refusal: Refusal) -> str:
    which = f"The record {refusal.record_id}" if refusal.record_id else "A record that it needs"
    start = f"{refusal.crm} refuses {_record(refusal)}"
    return f"{start}. {which} is deleted, or hidden from the connected user."


def _limit(refusal: Refusal) -> str:
    start = f"{refusal.crm} refuses {_record(refusal)}: a limit of the account is reached"
    return f"{start}{_quoted(refusal)}"


def _other(refusal: Refusal) -> str:
    field = f", for {_its(refusal)}" if refusal.field else ""
    return f"{refusal.crm} refuses {_record(refusal)}{field}{_quoted(refusal)}"


_SAYS_LITTLE = (
    RefusalReason.OPTION, RefusalReason.TYPE, RefusalReason.LENGTH, RefusalReason.REQUIRED,
    RefusalReason.UNKNOWN_FIELD, RefusalReason.READ_ONLY, RefusalReason.PERMISSION,
    RefusalReason.DELETED,
)  # fmt: skip
"""Reasons that say little if neither field, value nor record is named: the CRM's words follow."""
_SENTENCES = {
    RefusalReason.OPTION: _option, RefusalReason.TYPE: _type, RefusalReason.LENGTH: _length,
    RefusalReason.REQUIRED: _required, RefusalReason.TAKEN: _taken,
    RefusalReason.DUPLICATE: _duplicate, RefusalReason.UNKNOWN_FIELD: _unknown_field,
    RefusalReason.READ_ONLY: _read_only, RefusalReason.PERMISSION: _permission,
    RefusalReason.OWNER: _owner, RefusalReason.STAGE: _stage, RefusalReason.RULE: _rule,
    RefusalReason.AUTOMATION: _automation, RefusalReason.LOCKED: _locked,
    RefusalReason.DELETED: _deleted, RefusalReason.LIMIT: _limit, RefusalReason.OTHER: _other,
}  # fmt: skip
_MENDS = {
    RefusalReason.OPTION: "Add the option in {crm}, or map the value in {file}",
    RefusalReason.TYPE: "Map the value to the form that the {noun} wants in {file}",
    RefusalReason.LENGTH: "Shorten the value in {file} (as: truncate), or allow more in {crm}",
    RefusalReason.REQUIRED: "Fill the {noun} in {file}, or make it optional in {crm}",
    RefusalReason.TAKEN: "Merge the two records in {crm}, or change the value there",
    RefusalReason.DUPLICATE: "Merge the records in {crm}, or let its duplicate rule allow the record",
    RefusalReason.UNKNOWN_FIELD: "Create the {noun} in {crm}, or remove it from {file}",
    RefusalReason.READ_ONLY: "Remove the {noun} from {file}, or make it writable in {crm}",
    RefusalReason.PERMISSION: "Let the connected user write it in {crm}, or remove it from {file}",
    RefusalReason.OWNER: "Activate the user in {crm}, or name another owner in {file}",
    RefusalReason.STAGE: "Name a stage and pipeline that {crm} has in {file}",
    RefusalReason.RULE: "Fill the record as the rule wants in {file}, or change the rule in {crm}",
    RefusalReason.AUTOMATION: "Ask an admin of {crm} to mend the trigger or flow",
    RefusalReason.LOCKED: "Unlock the record in {crm}",
    RefusalReason.DELETED: "Restore the record in {crm}, or let the connected user see it",
    RefusalReason.LIMIT: "Free space in {crm}, or raise the limit of its plan",
    RefusalReason.OTHER: "Change the {noun} in {file} or the rule in {crm}",
}
