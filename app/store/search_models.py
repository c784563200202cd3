"""The table by which bookings are searched: keyed hashes of words, never a word."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables import Base


class BookingTerm(Base):
    """The beginning of a word of a booking, or a whole value that it is listed by, as a keyed hash."""

    __tablename__ = "booking_terms"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012
    term: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """The first 64 bits of the hash; what is found is compared with the booking itself."""
    booking_id: Mapped[int] = mapped_column(
        ForeignKey("bookings.id"), primary_key=True, autoincrement=False, index=True
    )
