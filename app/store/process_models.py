"""The table of the processes that are at work."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.store.columns import String
from app.store.tables import Base


class Heartbeat(Base):
    """A worker process, and when it last reported that it is at work."""

    __tablename__ = "heartbeats"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    """Host and process id."""
    started_at: Mapped[datetime]
    beat_at: Mapped[datetime]
