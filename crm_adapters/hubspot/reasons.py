"""Reads from HubSpot's answers why it refuses a record, property by property."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.refusals import MOST_RAW, Refusal, RefusalReason
from app.outbound.reply import Json, some_object, some_objects, some_text
from crm_adapters.http import shorten
from crm_adapters.reasons import expected_in, json_inside, limit_in, options_in, reason_in

CODES = {
    # Codes of errors[] and of the list inside the message:
    # https://developers.hubspot.com/docs/api-reference/error-handling
    "INVALID_OPTION": RefusalReason.OPTION,
    "INVALID_OWNER_ID": RefusalReason.OWNER,
    "INVALID_PIPELINE": RefusalReason.STAGE, "INVALID_STAGE": RefusalReason.STAGE,
    "PROPERTY_DOESNT_EXIST": RefusalReason.UNKNOWN_FIELD,
    "READ_ONLY_VALUE": RefusalReason.READ_ONLY,
    "PROPERTY_VALIDATION": RefusalReason.RULE, "FAILED_VALIDATION": RefusalReason.RULE,
    "TOO_LONG": RefusalReason.LENGTH, "VALUE_TOO_LONG": RefusalReason.LENGTH,
    "NOT_UNIQUE": RefusalReason.TAKEN, "DUPLICATE_VALUE": RefusalReason.TAKEN,
}  # fmt: skip
OWNER_FIELD = "hubspot_owner_id"
_OWN_LISTS = {
    OWNER_FIELD: RefusalReason.OWNER, "dealstage": RefusalReason.STAGE,
    "pipeline": RefusalReason.STAGE,
}  # fmt: skip
"""Properties whose options are users, stages and pipelines."""
_VALUE = re.compile(
    r"^\s*(?P<value>.{1,300}?) (?:was|is) not (?:one of the allowed|a valid)|"
    r"^Email address (?P<address>\S{1,300}) is invalid",
    re.DOTALL,
)
_MISSING = re.compile(r"^(?:REQUIRED|MISSING)")
_RECORD = re.compile(r"Existing ID: (\d{1,20})|(?:\. ?|^)(\d{1,20}) already has that value")
_PROPERTY = re.compile(r"propertyName=(\w{1,200})|[Pp]roperty \"(\w{1,200})\" does not exist")


@dataclass(frozen=True)
class _Told:
    """What an answer tells about one property."""

    code: str
    words: str
    name: str


def refusal_in(words: str, body: Json, default: RefusalReason | None = None) -> Refusal:
    """Return why HubSpot refuses a record; `words`: its message, `default`: if they tell nothing."""
    found = list(_told(words, body))
    first = next((told for told in found if told.name), found[0])
    reason = _reason(first)
    if reason is RefusalReason.OTHER and default is not None:
        reason = default
    taken, value = _RECORD.search(words), _VALUE.search(first.words)
    others = dict.fromkeys(told.name for told in found if told.name not in ("", first.name))
    return Refusal(
        reason,
        crm="HubSpot",
        noun="property",
        field=first.name or (OWNER_FIELD if reason is RefusalReason.OWNER else ""),
        value=(value["value"] or value["address"]).strip("\"'") if value else "",
        options=options_in(first.words) if reason in _LISTS else (),
        limit=limit_in(first.words),
        expected=_expected(first) if reason is RefusalReason.TYPE else "",
        record_id=(taken[1] or taken[2]) if taken else "",
        words=shorten(first.words),
        also=tuple(others),
        raw=shorten(words, MOST_RAW),
    )


_LISTS = (RefusalReason.OPTION, RefusalReason.STAGE)


def named_in(error: Json) -> list[str]:
    """Return the properties that an error's context names."""
    context = some_object(error, "context")
    values = [context.get("propertyName"), context.get("properties")]
    lists = [value if isinstance(value, list) else [value] for value in values]
    return [name for names in lists for name in names if isinstance(name, str) and name]


def _told(words: str, body: Json) -> Iterator[_Told]:
    """Give what the answer tells of each property; at least one entry, perhaps of none."""
    inside = json_inside(words)
    for item in inside:
        yield _Told(some_text(item, "error"), some_text(item, "message"), some_text(item, "name"))
    for error in some_objects(body, "errors") if not inside else ():
        told = some_text(error, "message")
        for item in json_inside(told):
            yield _Told(some_text(item, "error"), some_text(item, "message"),
                        some_text(item, "name"))  # fmt: skip
        for name in named_in(error) or [some_text(error, "in")]:
            yield _Told(some_text(error, "code"), told, name)
    found = _PROPERTY.search(words)
    names = named_in(body) or [(found[1] or found[2]) if found else ""]
    for name in names:
        yield _Told(some_text(body, "subCategory"), words, name)


def _reason(told: _Told) -> RefusalReason:
    own = _OWN_LISTS.get(told.name)
    reason = CODES.get(told.code)
    if reason is RefusalReason.OPTION and own:
        return own
    if reason is not None:
        return reason
    if _MISSING.match(told.code):
        return RefusalReason.REQUIRED
    by_words = reason_in(told.words)
    if told.code.startswith("INVALID_") and by_words is not RefusalReason.LENGTH:
        return RefusalReason.TYPE
    return by_words


def _expected(told: _Told) -> str:
    kind = told.code.removeprefix("INVALID_").replace("_", " ")
    return expected_in(kind) or expected_in(told.words.rpartition("valid ")[2])
