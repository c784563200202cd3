"""Converts a value to the type of a CRM's field if that is safe, and refuses it otherwise."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from math import isfinite
from typing import Any

from app.crm.objects import FieldValue
from app.crm.schema import CrmField, FieldKind, FieldOption
from app.domain.people import address_key
from app.domain.text import quoted
from app.domain.values import money_text, range_parts, range_text, time_text
from app.mapping.transforms import MAX_NUMBER, read_flag, read_moment


def plain(value: Any) -> FieldValue:
    """Convert a value without a field's type: times to ISO in UTC, several choices to one text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or None
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if isinstance(value, (int, float, bool)) else None


class NotListed(ValueError):
    """The account's lists, as they were last read, do not have the value."""


def coerce(value: Any, field: CrmField) -> FieldValue:
    """Return the value in the form of the field's type. Raises ValueError if that is impossible."""
    if value is None or value in ("", []):
        return None
    return _BY_KIND.get(field.kind, _text)(value, field)


def _text(value: Any, field: CrmField) -> FieldValue:
    if field.kind is FieldKind.OTHER and isinstance(value, list):
        return [str(item) for item in value]
    if field.kind in (FieldKind.TEXT, FieldKind.ADDRESS) and isinstance(value, (bool, int, float)):
        return ("true" if value else "false") if isinstance(value, bool) else str(value)
    return plain(value)


def _number(value: Any, whole: bool) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = str(value).strip()
        if isinstance(value, (bool, list, datetime)) or not re.fullmatch(
            r"[+-]?\d{1,20}(\.\d{1,20})?", text
        ):
            raise ValueError(f"{quoted(value)} is not a number; `as: number` reads 1.234,50")
        value = float(text) if "." in text else int(text)
    if not abs(value) < MAX_NUMBER:
        raise ValueError(f"{quoted(value)} is not a number that a CRM can hold")
    if whole and value != int(value):
        raise ValueError(f"{quoted(value)} is not a whole number")
    return int(value) if value == int(value) else float(value)


def _flag(value: Any) -> bool:
    flag = read_flag(value)
    if flag is not None:
        return flag
    raise ValueError(f"{quoted(value)} is neither yes nor no")


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = read_moment(value)
        except ValueError:
            raise ValueError(f"{quoted(value)} is not a date") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError(f"{quoted(value)} is not a date")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _choice(value: Any, options: tuple[FieldOption, ...]) -> str:
    said = value
    if isinstance(value, bool):
        value = "true" if value else "false"
    wanted = str(value).strip().casefold()
    found = [option for option in options if option.value.casefold() == wanted]
    found = found or [option for option in options if option.label.casefold() == wanted]
    flag = read_flag(said)
    if flag is not None and all(read_flag(option.label) is not None for option in options):
        # A list may stand in for a check box: yes and no in any words.
        found = found or [option for option in options if read_flag(option.label) is flag]
    if len({option.value for option in found}) > 1:
        values = ", ".join(option.value for option in found)
        raise ValueError(f"{quoted(value)} is the name of several options: {values}")
    if found:
        return found[0].value
    labels = [option.label for option in options]
    near = difflib.get_close_matches(str(value), labels, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(labels[:12]) + (" …" if len(labels) > 12 else "")
    raise NotListed(f"{quoted(value)} is none of the options ({shown}){hint}")


def _choices(value: Any, options: tuple[FieldOption, ...]) -> list[str]:
    if not isinstance(value, list):
        text = str(value)
        try:
            return [_choice(text, options)]  # an option may contain a comma itself
        except ValueError:
            value = [part.strip() for part in re.split(r"[;,\n]", text) if part.strip()]
    return sorted({_choice(item, options) for item in value})


def _time(value: Any) -> str:
    """Return a time of day on the clock of the value's time zone, or as it was typed."""
    if isinstance(value, datetime):
        return value.strftime("%H:%M")
    text = time_text(str(value))
    if text is None:
        raise ValueError(f"{quoted(value)} is not a time of day, as 09:30")
    return text


_SIGNS = {"€": "EUR", "$": "USD", "£": "GBP"}


def _money(value: Any, field: CrmField) -> str:
    """Return an amount with the currency in the value, or else the field's currency."""
    code, text = field.currency, value
    if isinstance(value, str):
        said = re.findall(r"(?<![A-Za-z])([A-Z]{3})(?![A-Za-z])|([€$£])", value)
        if len(said) > 1:
            raise ValueError(f"{quoted(value)} names several currencies")
        for word, sign in said:
            code = word or _SIGNS[sign]
            text = value.replace(word or sign, "")
    number = _number(text, whole=False)
    if not code:
        raise ValueError(f"{quoted(value)} needs a currency, as in 500 EUR")
    return money_text(number, code)


def _range(value: Any, one: Callable[[Any], str], words: str) -> str:
    """Return both ends, from a list of two or a text with a slash between them."""
    ends = value if isinstance(value, list) else range_parts(str(value))
    if ends is None or len(ends) != 2:
        raise ValueError(f"{quoted(value)} is not two {words}, as {_EXAMPLES[words]}")
    start, end = (one(item) for item in ends)
    if words == "dates" and end < start:
        raise ValueError(f"{quoted(value)} ends before it starts")
    return range_text(start, end)


_EXAMPLES = {"dates": "2027-01-14/2027-01-16", "times": "09:00/17:30"}


def _user(value: Any, field: CrmField) -> str:
    """Return the id of a user, who may be given by e-mail address."""
    text = str(value).strip()
    if not field.options and field.form and re.fullmatch(field.form, text):
        return text
    key = address_key(text) if "@" in text else text
    for option in field.options:
        if text == option.value or key == address_key(option.label):
            return option.value
    raise NotListed(f"{quoted(value)} is no user of this account")


def _reference(value: Any, field: CrmField) -> str:
    text = str(_single(value)).strip()
    if field.form and not re.fullmatch(field.form, text):
        raise ValueError(f"{quoted(value)} is not the id of a record")
    return text


def _bounded(number: float | int, field: CrmField) -> float | int:
    if field.most is not None and abs(number) > field.most:
        raise ValueError(f"{number} is more than the field takes ({field.most:g})")
    return number


_BY_KIND: dict[FieldKind, Callable[[Any, CrmField], FieldValue]] = {
    FieldKind.NUMBER: lambda value, field: _bounded(_number(value, whole=False), field),
    FieldKind.WHOLE: lambda value, field: _bounded(_number(value, whole=True), field),
    FieldKind.FLAG: lambda value, _: _flag(value),
    FieldKind.DATE: lambda value, _: _moment(value).strftime("%Y-%m-%d"),
    FieldKind.MOMENT: lambda value, _: plain(_moment(value)),
    FieldKind.CHOICE: lambda value, field: _choice(_single(value), field.options),
    FieldKind.CHOICES: lambda value, field: list(_choices(value, field.options)),
    FieldKind.TIME: lambda value, _: _time(_single(value)),
    FieldKind.MONEY: lambda value, field: _money(_single(value), field),
    FieldKind.DATES: lambda value, _: _range(value, lambda v: f"{_moment(v):%Y-%m-%d}", "dates"),
    FieldKind.TIMES: lambda value, _: _range(value, _time, "times"),
    FieldKind.USER: lambda value, field: _user(_single(value), field),
    FieldKind.REFERENCE: _reference,
}


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value
