"""The part of SOQL that the sandbox understands; anything else is MALFORMED_QUERY."""

from __future__ import annotations

import re
from typing import Any

Record = dict[str, Any]
_QUERY = re.compile(
    r"SELECT (?P<fields>.+?) FROM (?P<object>\w+)(?: WHERE (?P<where>.+?))?"
    r"(?: ORDER BY (?P<order>\w+))?(?: LIMIT (?P<limit>\d+))?",
    re.S,
)
_STRING = r"'(?:[^'\\]|\\.)*'"
_CONDITION = re.compile(
    rf"(\w+)\s*(?:=\s*({_STRING}|true|false|null)|IN\s*\(({_STRING}(?:,\s*{_STRING})*)\)"
    rf"|LIKE\s*({_STRING}))",
    re.S,
)


class Malformed(Exception):
    """The query cannot be read."""


class NoField(Exception):
    """The query names a field that the object does not have."""


def run(
    query: str, tables: dict[str, dict[str, Record]], fields: dict[str, set[str]]
) -> list[Record]:
    """The rows of a query. Raises Malformed or NoField."""
    match = _QUERY.fullmatch(query.strip())
    if not match or match["object"] not in tables:
        raise Malformed(query[:80])
    names = [name.strip() for name in match["fields"].split(",")]
    known = fields[match["object"]] | {"Id", "CreatedDate"}
    rows = list(tables[match["object"]].values())
    if match["where"]:
        groups = [
            [_condition(part, known) for part in re.split(r"\s+AND\s+", group)]
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


def _condition(text: str, known: set[str]) -> Any:
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
    values = {_unquote(item) for item in re.findall(_STRING, one or many)}
    return lambda row: str(row.get(name) or "").lower() in values


def _shape(text: str) -> str:
    r"""The regular expression for a quoted text of LIKE: % and _ are wild, \% and \_ are not.

    https://developer.salesforce.com/docs/platform/salesforce-soql-sosl/guide/sforce-api-calls-soql-select-quotedstringescapes.html
    """
    wild = {"%": ".*", "_": "."}
    signs = re.findall(r"\\.|.", text[1:-1].lower(), re.S)
    return "".join(wild.get(sign, re.escape(sign.removeprefix("\\") or sign)) for sign in signs)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]).lower()
