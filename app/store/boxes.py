"""Encrypted columns: each value is bound to its table, its column and its row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from app.security.encryption import Cipher, place


def box(purpose: str, *row: str) -> dict[str, Any]:
    """Mark a column as encrypted: `purpose` names it, `row` the columns that identify its row.

    These are columns whose values are known when the row is made, and never change.
    """
    return {"purpose": purpose, "row": row}


def seal(cipher: Cipher, column: InstrumentedAttribute[Any], row: Any, text: str) -> str:
    """Encrypt a value of a column for this row: an object, or a mapping of the row's values."""
    return cipher.encrypt(text, place_in(column.info, row))


def unseal(cipher: Cipher, column: InstrumentedAttribute[Any], row: Any) -> str:
    """Decrypt the value that a row has in a column. Raises UnreadableSecret."""
    return cipher.decrypt(getattr(row, column.key), place_in(column.info, row))


def place_in(info: Mapping[str, Any], row: Any) -> str:
    """The place of a value; `info` is that of its column."""
    values = row if isinstance(row, Mapping) else None
    parts = (values[name] if values is not None else getattr(row, name) for name in info["row"])
    return place(info["purpose"], *map(_text, parts))


def _text(value: object) -> str:
    """A value of a row, the same before and after it went through either database."""
    if value is None:
        raise ValueError("a row is to be identified by a value that is not known yet")
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
