"""Columns of text that take the same on SQLite as on PostgreSQL.

SQLite looks at no length and takes NUL and half characters, PostgreSQL refuses all three. Here every text
is looked at before it reaches either.
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
    """A text that is only looked for: it may be of any length, but must be text."""

    impl = sqlalchemy.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse what PostgreSQL would refuse."""
        if value is not None and value != _cleaned(value):
            raise UnfitText("a text holds NUL or half a character")
        return value


class _Kept(TypeDecorator[str]):
    impl = sqlalchemy.String
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """What is compared with a column is not kept in it."""
        return _Compared()


class String(_Kept):
    """A text that is kept exactly: an id, a key, a state. What does not fit raises UnfitText."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse what is too long or no text."""
        if value is None:
            return None
        length = getattr(self.impl, "length", None)
        if length is not None and len(value) > length:
            raise UnfitText(f"a text is longer than {length} characters")
        if value != _cleaned(value):
            raise UnfitText("a text holds NUL or half a character")
        return value


class Label(_Kept):
    """A text for people, of a bounded length: the end of a longer one is cut off with a mark."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean and cut."""
        length = getattr(self.impl, "length", None)
        return value if value is None else cut(_cleaned(value), length or len(value))


class Link(_Kept):
    """A web address; one that is too long is not kept, since half of one leads nowhere."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Drop what is too long."""
        length = getattr(self.impl, "length", None)
        return "" if value and length and len(value) > length else value and _cleaned(value)


class Text(_Kept):
    """A text of any length, cleaned of what no database takes."""

    impl = sqlalchemy.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean."""
        return None if value is None else _cleaned(value)


def is_unfit(error: BaseException) -> bool:
    """Whether a statement failed for a value that a column cannot hold, on either database."""
    return isinstance(error, DataError | UnfitText | OverflowError) or (
        isinstance(error, StatementError) and isinstance(error.orig, UnfitText | OverflowError)
    )


def _cleaned(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()
