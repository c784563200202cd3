"""What came back from the outside: read up to a bound, parsed, and taken only in the shape asked for."""

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
"""Bytes of an answer, decompressed. The largest that is known to be right, a schema of thousands of
fields, is a third of that."""
MOST_TOKEN_BYTES = 256 * 1024
"""Likewise of a token endpoint's answer."""
MOST_SIGNS = 400_000
"""Brackets and commas in an answer: each may cost a hundred bytes once it is parsed."""
PIECE = 64 * 1024
LONGEST_WAIT = 86_400.0
"""Seconds that a header may ask to wait; more is no sensible answer, and is looked at again then."""
LONGEST_NUMBER = 9
"""Digits of a number in a header."""
Json = dict[str, Any]
T = TypeVar("T")


def read_body(raw: urllib3.BaseHTTPResponse, most_bytes: int = MOST_BYTES) -> bytes:
    """The body of an answer, decompressed. Raises Unreadable where it is larger than `most_bytes`."""
    encoding = str(raw.headers.get("content-encoding") or "").strip().lower()
    told = raw.headers.get("content-length") or ""
    if header_number(told) is not None and int(told) > most_bytes:
        raise Unreadable("The answer is larger than any answer should be.")
    whole, size = [], 0
    try:
        for piece in _decoded(raw, encoding, most_bytes):
            size += len(piece)
            if size > most_bytes:
                raise Unreadable("The answer is larger than any answer should be.")
            whole.append(piece)
    except zlib.error:
        raise Unreadable("The answer is compressed in a way that cannot be read.") from None
    raw.release_conn()
    return b"".join(whole)


def _decoded(raw: urllib3.BaseHTTPResponse, encoding: str, most_bytes: int) -> Iterator[bytes]:
    """Pieces of the body; of what is compressed never more than a piece is unpacked at a time."""
    pieces = _raw_pieces(raw, most_bytes)
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable("The answer is compressed in a way that was not asked for.")
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
            raise Unreadable("The answer is larger than any answer should be.")
        yield piece


@dataclass(frozen=True)
class Reply:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        """The body's first characters, for people: whatever its encoding."""
        return self.body[:4000].decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises Unreadable where it is none, or too large once it is parsed."""
        return parse(self.body)


def reply_of(raw: urllib3.BaseHTTPResponse, most_bytes: int = MOST_BYTES) -> Reply:
    """Read an answer whole. Raises Unreadable."""
    return Reply(raw.status, lowered(raw.headers), read_body(raw, most_bytes))


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by their names in lower case, the values bounded."""
    return {str(name).lower(): str(value)[:1000] for name, value in headers.items()}


def parse(body: bytes) -> Any:
    """Parse JSON of bounded cost. Raises Unreadable; NaN and the like are no JSON."""
    if sum(body.count(sign) for sign in (b"[", b"{", b",")) > MOST_SIGNS:
        raise Unreadable("The answer has more parts than any answer should have.")
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Unreadable("The answer is not JSON.") from None


def _refuse(name: str) -> None:
    raise ValueError(name)


def an_object(value: Any, what: str = "The answer") -> Json:
    """A value that has to be an object. Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is not an object.")
    return value


def a_list(value: Any, what: str = "The answer") -> list[Any]:
    """A value that has to be a list. Raises Unreadable."""
    if not isinstance(value, list):
        raise Unreadable(f"{what} is not a list.")
    return value


def objects(value: Any, what: str = "The answer") -> list[Json]:
    """A value that has to be a list of objects. Raises Unreadable."""
    return [an_object(item, f"An entry of {what}") for item in a_list(value, what)]


def part(value: Any, key: str) -> Any:
    """What stands under a key that has to be there, and be something. Raises Unreadable."""
    found = an_object(value).get(key)
    if found is None:
        raise Unreadable(f"The answer has no {key}.")
    return found


def rows(value: Any, key: str) -> list[Json]:
    """The list of objects under a key that has to be there. Raises Unreadable."""
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
    """The text under a key that has to be there; numbers count as text. Raises Unreadable."""
    found = part(value, key)
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        raise Unreadable(f"The answer's {key} is no text.")
    return str(found)


def some_text(value: Mapping[str, Any], key: str) -> str:
    """The text under a key that may be missing; empty for what is none."""
    found = value.get(key)
    plain = isinstance(found, (str, int, float)) and not isinstance(found, bool)
    return str(found) if plain else ""


def some_object(value: Any, key: str) -> Json:
    """The object under a key that may be missing; empty for what is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def some_objects(value: Any, key: str) -> list[Json]:
    """The objects of a list under a key that may be missing."""
    found = value.get(key) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def header_number(text: object) -> int | None:
    """A whole number in a header: ASCII digits, at most nine; None for everything else."""
    digits = str(text).strip() if isinstance(text, (str, int)) else ""
    good = digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER
    return int(digits) if good else None


def seconds_asked(text: object) -> float | None:
    """Seconds that a Retry-After asks for, as a number or a date: 0 to LONGEST_WAIT, or None."""
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
