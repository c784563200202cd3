"""The states of webhooks, connections, deliveries and sources, as they are stored."""

from __future__ import annotations

from enum import StrEnum


class EventStatus(StrEnum):
    """What became of a webhook."""

    STORED = "stored"
    """On disk; a worker has yet to process it."""
    RECEIVED = "received"
    """Waits until meetergo confirms it."""
    APPLIED = "applied"
    IGNORED = "ignored"
    QUARANTINED = "quarantined"


class ConnectionStatus(StrEnum):
    """Whether a CRM account can be written to."""

    ACTIVE = "active"
    EXPIRING = "expiring"
    """Still in use, but its access cannot be renewed at present."""
    EXPIRED = "expired"
    """The grant is dead: a person has to connect again."""
    ERROR = "error"
    """The grant lives, but the account refuses the work: a scope or some set-up is missing."""
    DISCONNECTED = "disconnected"


WORKING = (ConnectionStatus.ACTIVE, ConnectionStatus.EXPIRING)
"""The statuses in which bookings are synced; in all others they are parked."""


class DeliveryState(StrEnum):
    """Where a booking stands on its way into one CRM."""

    DUE = "due"
    SYNCED = "synced"
    RETRYING = "retrying"
    FAILED = "failed"
    PARKED = "parked"
    WAITING = "waiting"
    """Nothing to do yet: a form waits some time for a booking to follow it."""
    SKIPPED = "skipped"
    """The mapping says that this booking does not go into this CRM."""
    DISCARDED = "discarded"
    """Parked work that a person discarded while disconnecting."""


TIMED = (DeliveryState.RETRYING, DeliveryState.WAITING)
"""The states of a delivery that is due at a certain time."""


class SourceStatus(StrEnum):
    """Whether meetergo answers when it is called with a source's key."""

    WORKS = "works"
    KEY_REFUSED = "key_refused"
    SETUP_WRONG = "setup_wrong"
    UNREACHABLE = "unreachable"
