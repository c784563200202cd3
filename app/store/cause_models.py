"""The tables of causes: why deliveries are not synced, and the retries of all that share one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from app.store.columns import Label, String, Text
from app.store.tables import Base, Id


class CauseRow(Base):
    """What keeps deliveries of a connection from being synced; no booking's value is in it.

    A cause is mended if no delivery has its key any more.
    """

    __tablename__ = "causes"
    __table_args__ = (Index("ix_causes_last_seen", "last_seen"),)
    key: Mapped[str] = mapped_column(String(16), primary_key=True)
    connection_id: Mapped[int] = mapped_column(Id, ForeignKey("connections.id"), index=True)
    error_code: Mapped[str] = mapped_column(String(32))
    """The stable code of the error; `connection`: the connection does not work."""
    reason: Mapped[str] = mapped_column(String(32))
    """The reason of the CRM's refusal; empty: it is no refusal of a record."""
    object: Mapped[str] = mapped_column(String(16))
    field: Mapped[str] = mapped_column(Label(200))
    sentence: Mapped[str | None] = mapped_column(Text)
    """What happened, without a booking's value; None: only the deliveries' own sentences say it."""
    advice: Mapped[str | None] = mapped_column(Text)
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]
    mended_at: Mapped[datetime | None]
    """When the last delivery with this cause went through."""
    came_back_at: Mapped[datetime | None]
    """When it struck again after it had been mended."""
    ignored_for: Mapped[str | None] = mapped_column(String(12))
    """The version of the mapping file for which a person ignores it; None: nobody does."""


class RetryRow(Base):
    """A person's order to try all deliveries of a cause again."""

    __tablename__ = "cause_retries"
    __table_args__ = (Index("ix_cause_retries_cause", "cause_key", "id"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    cause_key: Mapped[str] = mapped_column(String(16))
    connection_id: Mapped[int] = mapped_column(Id, ForeignKey("connections.id"))
    planned: Mapped[int] = mapped_column(Integer)
    """Deliveries that were to be tried again when it began."""
    started_by: Mapped[str] = mapped_column(Label(100))
    started_at: Mapped[datetime]
    marked_at: Mapped[datetime | None] = mapped_column(index=True)
    """When the last of them was marked as due; None: there is more to mark."""
    stopped_at: Mapped[datetime | None]
