"""Writes values as SOQL compares them with a column of their type.

SOQL refuses a number, a date or a boolean in quotes, and a text without quotes. If a value does not
fit the column's type, no record can hold it, so no query is sent.

https://developer.salesforce.com/docs/platform/salesforce-soql-sosl/guide/sforce-api-calls-soql-select-fieldexpression.html
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from simple_salesforce.format import format_soql

from app.crm.schema import FieldKind
from app.domain.values import number_text, time_text, with_seconds
from crm_adapters.salesforce.ids import full_id

IDS = (FieldKind.REFERENCE, FieldKind.USER)
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_FLAGS = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}


def literal(value: str, kind: FieldKind | None) -> str | None:
    """Return a value as a query writes it; None if no column of this kind can hold it."""
    text = plain(value, kind)
    if text is None or kind in (
        FieldKind.NUMBER,
        FieldKind.WHOLE,
        FieldKind.FLAG,
        FieldKind.DATE,
        FieldKind.MOMENT,
    ):
        return text
    if kind is FieldKind.TIME:
        return f"{with_seconds(text)}.000Z"
    return str(format_soql("{}", text))


def plain(value: Any, kind: FieldKind | None) -> str | None:
    """Return a value of a column, or one to look for, in the form in which the two are compared."""
    text = str(value).strip()
    if kind in IDS:
        return full_id(text) or None
    if kind in (FieldKind.NUMBER, FieldKind.WHOLE):
        return number_text(float(text)) if _NUMBER.fullmatch(text) else None
    if kind is FieldKind.FLAG:
        return _FLAGS.get(text.lower())
    if kind is FieldKind.DATE:
        return text[:10] if _DATE.match(text) and _moment(text) else None
    if kind is FieldKind.MOMENT:
        return _moment(text)
    return time_text(text) if kind is FieldKind.TIME else text


def _moment(text: str) -> str | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
