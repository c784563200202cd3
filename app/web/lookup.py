"""Finds what a request's address names, or answers 404."""

from __future__ import annotations

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import NotFound

from app.domain.limits import BOOKING_KEY, LARGEST_ID
from app.services.overview import BookingDetail, Overview
from app.store.models import ConnectionRow
from app.store.states import ConnectionStatus
from app.web.access import services


def overview() -> Overview:
    """The reader of the store for pages and API."""
    return Overview(services().store, services().cipher)


def find_booking(key: str) -> BookingDetail:
    """A booking by its key, or by its id in the default source. Raises NotFound."""
    usable = len(key) <= BOOKING_KEY and key.isprintable()
    found = overview().detail(key) if usable else None
    if found is None:
        raise NotFound("There is no such booking.")
    return found


def find_connection(connection_id: int) -> ConnectionRow:
    """A connection by its number. Raises NotFound."""
    usable = 0 < connection_id <= LARGEST_ID
    row = overview().connection(connection_id) if usable else None
    if row is None:
        raise NotFound("There is no such connection.")
    return row


def asked_connection(values: MultiDict[str, str]) -> int | None:
    """The number in a parameter `connection`; None if there is none. Raises NotFound."""
    number = values.get("connection", type=int)
    if number is not None and not 0 < number <= LARGEST_ID:
        raise NotFound("There is no such connection.")
    return number


def connected() -> list[ConnectionRow]:
    """The connections that are not disconnected."""
    return [row for row in overview().connections() if row.status != ConnectionStatus.DISCONNECTED]
