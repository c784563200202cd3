"""Answers from outside: read up to a limit, parsed, and accepted only in the expected shape."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import urllib3

from app.domain.errors import Unreadable

MOST_BYTES = 8 * 1024 * 1024
"""The most bytes of an answer, decompressed. The largest known valid answer, a schema of
thousands of fields, is a third of that."""
MOST_TOKEN_BYTES = 256 * 1024
"""The same for a token endpoint's answer."""
MOST_SIGNS = 400_000
"""The most brackets and commas in an answer: each may cost a hundred bytes once parsed."""
PIECE = 64 * 1024
LONGEST_WAIT = 86_400.0
"""The most seconds that a header may ask to wait; after that the CRM is called again anyway."""
LONGEST_NUMBER = 9
"""The most digits of a number in a header."""
Json = dict[str, Any]
T = TypeVar("T")


def read_body(raw: urllib3.BaseHTTPResponse, most_bytes: int = MOST_BYTES) -> bytes:
    """The body of an answer, decompressed. Raises Unreadable if it is larger than `most_bytes`."""
    encoding = str(raw.headers.get("content-encoding") or "").strip().lower()
    told = raw.headers.get("content-length") or ""
    if header_number(told) is not None and int(told) > most_bytes:
        raise Unreadable("The answer is too large.")
    whole, size = [], 0
    try:
        for piece in _decoded(raw, encoding, most_bytes):
            size += len(piece)
            if size > most_bytes:
                raise Unreadable("The answer is too large.")
            whole.append(piece)
    except zlib.error:
        raise Unreadable("The answer is compressed in a way that cannot be read.") from None
    raw.release_conn()
    return b"".join(whole)


def _decoded(raw: urllib3.BaseHTTPResponse, encoding: str, most_bytes: int) -> Iterator[bytes]:
    """Pieces of the body; a compressed body is unpacked at most one piece at a time."""
    pieces = _raw_pieces(raw, most_bytes)
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable("The answer has a compression that was not requested.")
    # 32 + MAX_WBITS reads the headers of both gzip and zlib.
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)
    for piece in pieces:
        rest = piece
        while rest:
            yield unpacker.decompress(rest, PIECE)
            rest = unpacker.unconsumed_tail
            if unpacker.eof:
                return
    if not unpacker.eof:
        raise Unreadable("The answer ends in the middle.")


def _raw_pieces(raw: urllib3.BaseHTTPResponse, most_bytes: int) -> Iterator[bytes]:
    taken = 0
    while piece := raw.read(PIECE, decode_content=False):
        taken += len(piece)
        if taken > most_bytes:
            raise Unreadable("The answer is too large.")
        yield piece


@dataclass(frozen=True)
class Reply:
    """An answer that was read completely."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        """The body's first characters, for people, in whatever encoding it is."""
        return self.body[:4000].decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises Unreadable if it is none, or is too large once parsed."""
        return parse(self.body)


def reply_of(raw: urllib3.BaseHTTPResponse, most_bytes: int = MOST_BYTES) -> Reply:
    """Read an answer completely. Raises Unreadable."""
    return Reply(raw.status, lowered(raw.headers), read_body(raw, most_bytes))


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by lower-case name, with each value cut to a limit."""
    return {str(name).lower(): str(value)[:1000] for name, value in headers.items()}


def parse(body: bytes) -> Any:
    """Parse JSON at a limited cost. Raises Unreadable; NaN and the like are no JSON."""
    if sum(body.count(sign) for sign in (b"[", b"{", b",")) > MOST_SIGNS:
        raise Unreadable("The answer has too many parts.")
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Unreadable("The answer is not JSON.") from None


def _refuse(name: str) -> None:
    raise ValueError(name)


def an_object(value: Any, what: str = "The answer") -> Json:
    """Return a value that must be an object. Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is not an object.")
    return value


def a_list(value: Any, what: str = "The answer") -> list[Any]:
    """Return a value that must be a list. Raises Unreadable."""
    if not isinstance(value, list):
        raise Unreadable(f"{what} is not a list.")
    return value


def objects(value: Any, what: str = "The answer") -> list[Json]:
    """Return a value that must be a list of objects. Raises Unreadable."""
    return [an_object(item, f"An entry of {what}") for item in a_list(value, what)]


def part(value: Any, key: str) -> Any:
    """The value of a key that must exist and must not be null. Raises Unreadable."""
    found = an_object(value).get(key)
    if found is None:
        raise Unreadable(f"The answer has no {key}.")
    return found


def rows(value: Any, key: str) -> list[Json]:
    """The list of objects of a key that must exist. Raises Unreadable."""
    return objects(part(value, key), key)


def an_id(value: Any, key: str = "id") -> str:
    """A record's id, a number or a text, as text. Raises Unreadable."""
    found = part(value, key)
    plain = isinstance(found, (str, int)) and not isinstance(found, bool)
    text = str(found).strip() if plain else ""
    if not text or len(text) > 64:
        raise Unreadable(f"The answer's {key} is none.")
    return text


def a_text(value: Any, key: str) -> str:
    """The text of a key that must exist; numbers count as text. Raises Unreadable."""
    found = part(value, key)
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        raise Unreadable(f"The answer's {key} is not a text.")
    return str(found)


def some_text(value: Mapping[str, Any], key: str) -> str:
    """The text of a key that may be missing; empty if it is no text."""
    found = value.get(key)
    plain = isinstance(found, (str, int, float)) and not isinstance(found, bool)
    return str(found) if plain else ""


def some_object(value: Any, key: str) -> Json:
    """The object of a key that may be missing; empty if it is no object."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def some_objects(value: Any, key: str) -> list[Json]:
    """The objects in the list of a key that may be missing."""
    found = value.get(key) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def header_number(text: object) -> int | None:
    """A whole number in a header: ASCII digits, at most nine; None for everything else."""
    digits = str(text).strip() if isinstance(text, (str, int)) else ""
    good = digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER
    return int(digits) if good else None


def seconds_asked(text: object) -> float | None:
    """The seconds that a Retry-After asks for, as a number or a date: 0 to LONGEST_WAIT, or None."""
    value = str(text or "").strip()[:100]
    number = header_number(value)
    if number is not None:
        return min(float(number), LONGEST_WAIT)
    if value.isdigit():
        return LONGEST_WAIT if value.isascii() else None
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    try:
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        left = (moment - datetime.now(UTC)).total_seconds()
    except (OverflowError, ValueError):
        return None
    return min(max(0.0, left), LONGEST_WAIT) if math.isfinite(left) else None
