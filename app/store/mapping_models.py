"""The table of mapping files that were in force."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from app.store.boxes import box
from app.store.columns import String, Text
from app.store.tables import Base


class MappingVersionRow(Base):
    """The text of a mapping file with which a worker has planned bookings."""

    __tablename__ = "mapping_versions"
    provider: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[str] = mapped_column(String(12), primary_key=True)
    """The beginning of the text's hash, as deliveries name it."""
    text_encrypted: Mapped[str] = mapped_column(
        Text, info=box("mapping_versions.text", "provider", "version")
    )
    size: Mapped[int] = mapped_column(Integer)
    """Characters of the text."""
    first_at: Mapped[datetime]
    """When a worker first used it."""
    first_by: Mapped[str] = mapped_column(String(100))
    """That worker, by host and process id."""
    last_at: Mapped[datetime]
    """When a worker last began to use it."""
