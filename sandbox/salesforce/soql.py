"""The part of SOQL that the sandbox supports; all other queries are MALFORMED_QUERY."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from sandbox.answers import Record

_QUERY = re.compile(
    r"SELECT (?P<fields>.+?) FROM (?P<object>\w+)(?: WHERE (?P<where>.+?))?"
    r"(?: ORDER BY (?P<order>\w+))?(?: LIMIT (?P<limit>\d+))?",
    re.S,
)
_STRING = r"'(?:[^'\\]|\\.)*'"
_VALUE = rf"(?:{_STRING}|[\w.:+-]+)"
"""A text in quotes; or a number, a date, a time or a yes-or-no value without quotes."""
_CONDITION = re.compile(
    rf"(\w+)\s*(?:=\s*({_STRING}|true|false|null)|IN\s*\(({_VALUE}(?:,\s*{_VALUE})*)\)"
    rf"|LIKE\s*({_STRING}))",
    re.S,
)


class Malformed(Exception):
    """The query is malformed."""


class NoField(Exception):
    """The query names a field that the object lacks."""


class WrongType(Exception):
    """The query compares a column with a value of another type."""


class NoId(Exception):
    """The query compares an id column with a text that is no id."""


def checked_id(text: str) -> str:
    """Return an id with 18 characters: each of the last three encodes which of five are capitals.

    Raises NoId for other texts.
    https://salesforce.stackexchange.com/questions/1653/what-are-salesforce-ids-composed-of
    """
    short, end = text[:15], text[15:]
    if not re.fullmatch("[A-Za-z0-9]{15}", short):
        raise NoId(text)
    whole = short
    for five in (short[:5], short[5:10], short[10:]):
        place = sum(2**number for number, sign in enumerate(five) if "A" <= sign <= "Z")
        whole += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[place]
    if end and text != whole:
        raise NoId(text)
    return whole


def run(
    query: str,
    tables: dict[str, dict[str, Record]],
    fields: dict[str, set[str]],
    holds_ids: Callable[[str, str], bool],
    type_of: Callable[[str, str], str] = lambda _object, _column: "string",
) -> list[Record]:
    """Return the rows of a query. `holds_ids` tells whether a column of an object holds ids,
    `type_of` any other type.

    Raises Malformed, NoField, NoId or WrongType.
    """
    match = _QUERY.fullmatch(query.strip())
    if not match or match["object"] not in tables:
        raise Malformed(query[:80])
    names = [name.strip() for name in match["fields"].split(",")]
    known = fields[match["object"]] | {"Id", "CreatedDate"}
    ids = {"Id", *(name for name in known if holds_ids(match["object"], name))}
    rows = list(tables[match["object"]].values())
    if match["where"]:
        groups = [
            [
                _condition(part, known, ids, partial(type_of, match["object"]))
                for part in re.split(r"\s+AND\s+", group)
            ]
            for group in _split_or(match["where"])
        ]
        rows = [row for row in rows if any(all(c(row) for c in group) for group in groups)]
    for name in names + ([match["order"]] if match["order"] else []):
        if name not in known:
            raise NoField(name)
    if match["order"]:
        rows.sort(key=lambda row: row.get(match["order"]) or 0)
    if match["limit"]:
        rows = rows[: int(match["limit"])]
    kind = match["object"]
    return [{"attributes": {"type": kind}, **{n: row.get(n) for n in names}} for row in rows]


def _split_or(where: str) -> list[str]:
    return re.split(r"\s+OR\s+", where)


def _condition(text: str, known: set[str], ids: set[str], type_of: Callable[[str], str]) -> Any:
    match = _CONDITION.fullmatch(text.strip())
    if not match:
        raise Malformed(text[:80])
    name, one, many, like = match.groups()
    if name not in known:
        raise NoField(name)
    if one in ("true", "false"):
        return lambda row: bool(row.get(name)) is (one == "true")
    if one == "null":
        return lambda row: row.get(name) is None
    if like:
        shape = _shape(like)
        return lambda row: bool(re.fullmatch(shape, str(row.get(name) or "").lower(), re.S))
    texts = re.findall(_VALUE, one or many)
    bare = type_of(name) in UNQUOTED
    if any((item[:1] != "'") is not bare for item in texts):
        raise WrongType(name)
    if bare:
        values = {_as_text(item) for item in texts}
        return lambda row: row.get(name) is not None and _as_text(row[name]) in values
    if name in ids:
        wanted = {checked_id(_plain(item)) for item in texts}
        return lambda row: row.get(name) in wanted
    values = {_unquote(item) for item in texts}
    return lambda row: str(row.get(name) or "").lower() in values


UNQUOTED = frozenset(
    ("double", "currency", "percent", "int", "boolean", "date", "datetime", "time")
)


def _as_text(value: Any) -> str:
    """Return a value as text, with equal forms made the same: 5 and 5.0, Z and +0000."""
    text = str(value).lower().replace(".000+0000", "z")
    return str(float(text)) if re.fullmatch(r"-?\d+(\.\d+)?", text) else text


def _shape(text: str) -> str:
    r"""Return the regular expression for LIKE's quoted text: % and _ are wild, \% and \_ are not.

    https://developer.salesforce.com/docs/platform/salesforce-soql-sosl/guide/sforce-api-calls-soql-select-quotedstringescapes.html
    """
    wild = {"%": ".*", "_": "."}
    signs = re.findall(r"\\.|.", text[1:-1].lower(), re.S)
    return "".join(wild.get(sign, re.escape(sign.removeprefix("\\") or sign)) for sign in signs)


def _unquote(text: str) -> str:
    return _plain(text).lower()


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
