"""Finds what an address names, or answers 404."""

from __future__ import annotations

from werkzeug.exceptions import NotFound

from app.services.overview import BookingDetail, Overview
from app.store.models import ConnectionRow
from app.web.access import services

MAX_KEY = 400
"""Characters of a booking's key: no more fit into its column."""
MAX_ID = 2**31 - 1


def overview() -> Overview:
    """What reads the store for pages and API."""
    return Overview(services().store, services().cipher)


def find_booking(key: str) -> BookingDetail:
    """A booking by its key, or by its id in the default source. Raises NotFound."""
    usable = len(key) <= MAX_KEY and key.isprintable()
    found = overview().detail(key) if usable else None
    if found is None:
        raise NotFound("There is no such booking.")
    return found


def find_connection(connection_id: int) -> ConnectionRow:
    """A connection by its number. Raises NotFound."""
    row = None
    if 0 < connection_id <= MAX_ID:
        with services().store.read() as db:
            row = db.get(ConnectionRow, connection_id)
    if row is None:
        raise NotFound("There is no such connection.")
    return row


def connected() -> list[ConnectionRow]:
    """The connections that nobody has ended."""
    return [row for row in overview().connections() if row.status != "disconnected"]
