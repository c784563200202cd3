"""INSERT statements that skip or change the rows that are there already, on both databases."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def insert_into(session: Session, model: Any) -> postgresql.Insert | sqlite.Insert:
    """An INSERT into a model's table; its values, of one row or many, are given on execution."""
    table = cast(Table, model.__table__)
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_unless_there(
    session: Session, model: Any, unique: list[str]
) -> postgresql.Insert | sqlite.Insert:
    """The same, skipping the rows whose unique columns are taken."""
    return insert_into(session, model).on_conflict_do_nothing(index_elements=unique)
