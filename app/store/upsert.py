"""INSERT statements that skip or change the rows that are there already, on both databases."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def insert_into(bound: Session | str, model: Any) -> postgresql.Insert | sqlite.Insert:
    """An INSERT into a model's table; its values, of one row or many, are given on execution.

    `bound`: a session, or the name of its database's dialect.
    """
    dialect = bound if isinstance(bound, str) else bound.get_bind().dialect.name
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return make(cast(Table, model.__table__))


def insert_unless_there(
    bound: Session | str, model: Any, unique: list[str]
) -> postgresql.Insert | sqlite.Insert:
    """The same, skipping the rows whose unique columns are taken."""
    dialect = bound if isinstance(bound, str) else bound.get_bind().dialect.name
    return _insert_unless_there(dialect, model, tuple(unique))


@cache
def _insert_unless_there(
    dialect: str, model: Any, unique: tuple[str, ...]
) -> postgresql.Insert | sqlite.Insert:
    """The statement, built once: that takes longer than to run it."""
    return insert_into(dialect, model).on_conflict_do_nothing(index_elements=list(unique))
