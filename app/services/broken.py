"""Why the bookings of a connection are parked, in sentences."""

from __future__ import annotations

from app.store.models import ConnectionRow
from app.store.states import ConnectionStatus

AGAIN = 'Press "Connect again" on the account\'s page; the waiting bookings are then synced.'


def why_parked(connection: ConnectionRow) -> tuple[str, str]:
    """Return what is wrong with a connection that does not work, and what to do about it."""
    name = connection.account
    if connection.status == ConnectionStatus.DISCONNECTED:
        return f"The account {name} is disconnected, so the booking waits.", AGAIN
    told = connection.last_error or "its access has ended."
    words = f"The account {name} cannot be written to, so the booking waits: {told}"
    return words, connection.next_step or AGAIN
