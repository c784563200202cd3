"""The states of webhooks, connections, deliveries and sources, as they are stored."""

from __future__ import annotations

from enum import StrEnum


class EventStatus(StrEnum):
    """What became of a webhook."""

    RECEIVED = "received"
    APPLIED = "applied"
    IGNORED = "ignored"
    QUARANTINED = "quarantined"


class ConnectionStatus(StrEnum):
    """Whether a CRM account can be written to."""

    ACTIVE = "active"
    EXPIRING = "expiring"
    """Still used, but its access cannot be renewed at present."""
    EXPIRED = "expired"
    """The grant is dead: a person has to connect again."""
    ERROR = "error"
    """The grant lives, but the account may not be worked on: a scope or the set-up is missing."""
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
    """Nothing is to be done yet: a form is given time to be followed by a booking."""
    SKIPPED = "skipped"
    """The mapping says that this booking is none of this CRM's business."""
    DISCARDED = "discarded"
    """Parked work that a person let go of when disconnecting."""


class SourceStatus(StrEnum):
    """Whether meetergo answers what is asked with a source's key."""

    WORKS = "works"
    KEY_REFUSED = "key_refused"
    SETUP_WRONG = "setup_wrong"
    UNREACHABLE = "unreachable"
