"""Text columns that accept the same values on SQLite as on PostgreSQL.

SQLite checks no length and accepts NUL and half characters; PostgreSQL refuses all three. Here
every text is checked before it reaches either database.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Dialect, TypeDecorator
from sqlalchemy.exc import DataError, StatementError
from sqlalchemy.types import TypeEngine

from app.domain.text import cut


class UnfitText(ValueError):
    """A text that its column cannot hold."""


class _Compared(TypeDecorator[str]):
    """A text in a comparison: it may be of any length, but must be valid text."""

    impl = sqlalchemy.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse a text that PostgreSQL would refuse."""
        if value is not None and value != _cleaned(value):
            raise UnfitText("a text holds NUL or half a character")
        return value


class _Kept(TypeDecorator[str]):
    impl = sqlalchemy.String
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Use _Compared for a text that is compared with the column, since it is not stored there."""
        return _Compared()


class String(_Kept):
    """A text that is stored exactly: an id, a key, a state. Raises UnfitText if it does not fit."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse a text that is too long or invalid."""
        if value is None:
            return None
        length = getattr(self.impl, "length", None)
        if length is not None and len(value) > length:
            raise UnfitText(f"a text is longer than {length} characters")
        if value != _cleaned(value):
            raise UnfitText("a text holds NUL or half a character")
        return value


class Label(_Kept):
    """A text for people, of limited length: a longer one is cut, and a mark shows that."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean the text and cut it to the column's length."""
        length = getattr(self.impl, "length", None)
        return value if value is None else cut(_cleaned(value), length or len(value))


class Link(_Kept):
    """A web address; one that is too long is not stored, since half an address leads nowhere."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Store nothing if the address is too long."""
        length = getattr(self.impl, "length", None)
        return "" if value and length and len(value) > length else value and _cleaned(value)


class Text(_Kept):
    """A text of any length, without the characters that no database accepts."""

    impl = sqlalchemy.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Remove the characters that no database accepts."""
        return None if value is None else _cleaned(value)


def is_unfit(error: BaseException) -> bool:
    """Whether a statement failed because a column cannot hold a value, on either database."""
    return isinstance(error, DataError | UnfitText | OverflowError) or (
        isinstance(error, StatementError) and isinstance(error.orig, UnfitText | OverflowError)
    )


def _cleaned(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()
