"""Running totals of each connection's work, for the metrics: written with what they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from sqlalchemy import Float, ForeignKey, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.store.columns import String
from app.store.models import ConnectionRow
from app.store.tables import Base, Id
from app.store.upsert import insert_into

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
"""Seconds: the upper bounds in which the times to sync are counted; longer ones come after."""
LONGER = "+Inf"


class TotalKind(StrEnum):
    """What is counted."""

    ATTEMPTS = "attempts"
    """Deliveries by how an attempt ended."""
    CALLS = "calls"
    """Calls to the CRM by their result."""
    BATCHES = "batches"
    REFRESHES = "refreshes"
    """Renewals of the access token by their result."""
    SYNC_TIMES = "sync_times"
    """Live deliveries by the bound that their time from due to synced is within."""
    SYNC_SECONDS = "sync_seconds"
    """The sum of these times."""


class Total(Base):
    """A number that only grows."""

    __tablename__ = "totals"
    connection_id: Mapped[int] = mapped_column(Id, ForeignKey("connections.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    label: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The result, or the bound; empty if there is only one number of this kind."""
    value: Mapped[float] = mapped_column(Float)


Counts = Mapping[tuple[TotalKind, str], float]
"""Kind and label -> number to add."""


@dataclass(frozen=True)
class KnownTotal:
    """A total with its connection."""

    provider: str
    connection_id: int
    kind: TotalKind
    label: str
    value: float


def bound_of(seconds: float) -> str:
    """The bound that a time is within, as text."""
    return next((f"{bound:g}" for bound in BOUNDS if seconds <= bound), LONGER)


def add(session: Session, connection_id: int, counts: Counts) -> None:
    """Add to the totals of a connection; its row is locked by the caller, so nobody else adds."""
    rows = [
        {"connection_id": connection_id, "kind": kind.value, "label": label, "value": value}
        for (kind, label), value in sorted(counts.items())
        if value
    ]
    if rows:
        session.execute(_adding(session.get_bind().dialect.name), rows)


def add_one(session: Session, connection_id: int, kind: TotalKind, label: str) -> None:
    """Add one to a total of a connection, whose row is locked by the caller."""
    add(session, connection_id, {(kind, label): 1})


@cache
def _adding(dialect: str) -> postgresql.Insert | sqlite.Insert:
    insert = insert_into(dialect, Total)
    unique = ["connection_id", "kind", "label"]
    more = {"value": Total.value + insert.excluded.value}
    return insert.on_conflict_do_update(index_elements=unique, set_=more)


def read(session: Session) -> list[KnownTotal]:
    """Every total."""
    query = select(Total, ConnectionRow.provider).join(
        ConnectionRow, ConnectionRow.id == Total.connection_id
    )
    rows = session.execute(query.order_by(Total.connection_id, Total.kind, Total.label))
    known = {kind.value for kind in TotalKind}
    return [
        KnownTotal(provider, row.connection_id, TotalKind(row.kind), row.label, row.value)
        for row, provider in rows
        if row.kind in known
    ]
