"""The kinds of CRM errors: each adapter has one table of all error codes that its API documents."""

from __future__ import annotations

from enum import Enum, auto


class Sort(Enum):
    """The subject of an error, which decides how the service reacts."""

    ACCOUNT = auto()
    """The account or one of its objects: bookings wait, none fails, and the account is probed."""
    RECORD = auto()
    """One record, or a value in it: the booking fails once, with the CRM's message."""
    LISTED = auto()
    """A value from the account's lists (an owner, a stage, an option): the lists are read again
    once before the booking counts as failed."""
    PASSING = auto()
    """No lasting problem: the same call may succeed in seconds."""
    BUDGET = auto()
    """The number of calls that the account may make."""
    TOKEN = auto()
    """The access token."""
    GONE = auto()
    """A record that does not exist."""
    CONFLICT = auto()
    """A record that exists already."""
