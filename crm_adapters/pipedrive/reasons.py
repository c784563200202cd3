"""Reads from Pipedrive's answers why it refuses a record. It has no codes: the words tell.

https://pipedrive.readme.io/docs/core-api-concepts-responses
"""

from __future__ import annotations

import re
from typing import NamedTuple

from app.domain.refusals import MOST_RAW, Refusal, RefusalReason
from app.outbound.reply import Json, some_text
from crm_adapters.http import shorten
from crm_adapters.reasons import expected_in, limit_in, options_in, reason_in

OWNERS = ("owner_id", "user_id")
STAGES = ("stage_id", "pipeline_id")
_PART = re.compile(r"(?:^|;\s*)([A-Za-z_][\w.]*): ([^;]+)")
_CUSTOM = re.compile(
    r"(?:(?P<kind>Expected object as value for \w+ field) )?(?P<name>.+?)"
    r"(?:\.\w+)?(?P<rest> must be | has the wrong | is not allowed|$)"
)
"""What v2 says of a custom field behind `custom_fields: `."""
_KEY = re.compile(r"\b[0-9a-f]{40}\b")
"""The key of a custom field."""
_NATIVE = re.compile(
    r"\b(owner_id|user_id|stage_id|pipeline_id|person_id|org_id|label_ids|type|title|name)\b"
)
_NUMBER = re.compile(r"\b(?:user|persons|organizations|deals|leads?) (\d{1,18})\b", re.IGNORECASE)
_TITLE = re.compile(r"\b(title|name|subject) (?:must|should|is|cannot)\b", re.IGNORECASE)
_UNKNOWN = re.compile(r"^(is not allowed|unknown)")


class _Told(NamedTuple):
    """What an answer tells about one field."""

    field: str
    words: str


def refusal_in(body: Json, text: str, default: RefusalReason | None = None) -> Refusal:
    """Return why Pipedrive refuses a record; `text`: the answer, `default`: if it tells nothing."""
    words = some_text(body, "error") or text
    found = _told(words)
    first = found[0]
    reason = _reason(first)
    if reason is RefusalReason.OTHER and default is not None:
        reason = default
    info = some_text(body, "error_info")
    number = _NUMBER.search(first.words)
    others = dict.fromkeys(told.field for told in found if told.field not in ("", first.field))
    return Refusal(
        reason,
        crm="Pipedrive",
        field=first.field or ("owner_id" if reason is RefusalReason.OWNER else ""),
        value=number[1] if number and reason is RefusalReason.OWNER else "",
        options=options_in(first.words) if reason is RefusalReason.OPTION else (),
        limit=limit_in(first.words),
        expected=_expected(first.words) if reason is RefusalReason.TYPE else "",
        record_id=number[1] if number and reason is RefusalReason.DELETED else "",
        words=shorten(first.words),
        also=tuple(others),
        raw=shorten(f"{words} {info}".strip(), MOST_RAW),
    )


def _told(words: str) -> list[_Told]:
    """Return what the words tell of each field; at least one entry, perhaps of none."""
    _, failed, rest = words.partition("failed: ")
    found = [_of_part(name, told.strip()) for name, told in _PART.findall(rest if failed else "")]
    if found:
        return found
    key, native, title = _KEY.search(words), _NATIVE.search(words), _TITLE.search(words)
    name = key[0] if key else native[1] if native else title[1].lower() if title else ""
    return [_Told(name, words)]


def _of_part(name: str, told: str) -> _Told:
    first, _, rest = name.partition(".")
    if first != "custom_fields":
        return _Told(first, told)
    if rest:
        return _Told(rest.partition(".")[0], told)
    if told.endswith(" is not allowed"):
        return _Told(told.removesuffix(" is not allowed"), "is not allowed")
    found = _CUSTOM.match(told)
    if not found:
        return _Told("", told)
    words = "must be of type dict" if found["kind"] else told
    return _Told(found["name"], words)


def _reason(told: _Told) -> RefusalReason:
    if _UNKNOWN.match(told.words):
        return RefusalReason.UNKNOWN_FIELD
    by_words = reason_in(told.words)
    if by_words in (RefusalReason.REQUIRED, RefusalReason.READ_ONLY, RefusalReason.RULE):
        return by_words
    if told.field in OWNERS:
        return RefusalReason.OWNER
    if told.field in STAGES:
        return RefusalReason.STAGE
    if re.search(r"must be of type (enum|set)\b", told.words):
        return RefusalReason.OPTION
    return by_words


def _expected(words: str) -> str:
    kind = re.search(r"must be (?:of type )?(?:an? )?(\w+)", words)
    named = {"str": "a text", "string": "a text", "varchar": "a text of at most 255 characters",
             "dict": "a structured value", "list": "a list", "array": "a list"}  # fmt: skip
    if kind and kind[1] in named:
        return named[kind[1]]
    return expected_in(kind[1] if kind else words)
