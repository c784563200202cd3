"""How a CRM's error codes are sorted: each adapter has one table of all that its API documents."""

from __future__ import annotations

from enum import Enum, auto


class Sort(Enum):
    """Of what an error speaks, which decides on what is done about it."""

    ACCOUNT = auto()
    """All of the account, or an object of it: bookings wait, nothing is failed, it is probed."""
    RECORD = auto()
    """One record, or a value in it: the booking fails in words, once."""
    LISTED = auto()
    """A value that was taken from the account's lists (an owner, a stage, an option): these are read
    anew once before the booking counts as failed."""
    PASSING = auto()
    """Nothing: the same call may pass in seconds."""
    BUDGET = auto()
    """The account's allowance of calls."""
    TOKEN = auto()
    """The access token."""
    GONE = auto()
    """A record that is not there."""
    CONFLICT = auto()
    """A record that is there already."""
