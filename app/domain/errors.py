"""What can go wrong, in the words of the trade. The drainer decides from the class alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class UnfitPayload(ValueError):
    """An authentic webhook that does not describe a booking; the message says what is missing."""


class MappingError(Exception):
    """A mapping file cannot be used; the message names file, line and key."""


class CrmError(Exception):
    """A CRM did not do what was asked. `code` is stable, the message keeps the CRM's own words."""

    code = "crm_error"
    advice = "Look at the message of the CRM."

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RetryLater(CrmError):
    """The CRM is out of order or unreachable; the same call may pass after `after` seconds."""

    code = "unavailable"
    advice = "Nothing to do: it is tried again by itself."

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class RateLimited(RetryLater):
    """The CRM's allowance is used up until `after` seconds from now."""

    code = "rate_limited"
    advice = "Nothing to do: it goes on when the CRM's window opens again."


class Unreadable(RetryLater):
    """There was an answer, but not one that was asked for: another shape, status, size or pace.

    Whoever answers so is out of order: it is no word on any booking.
    """

    code = "unreadable"


class AccountRefused(CrmError):
    """The CRM refuses everything of the account, or an object that the mapping needs."""

    code = "account_refused"
    advice = "Mend what the message names in the CRM; the bookings are then synced by themselves."


class AccountMoved(AccountRefused):
    """The account has another address than the one that was called."""

    code = "account_moved"
    advice = "Connect it again on the connections page; what waits is then synced by itself."


class Unauthorized(CrmError):
    """The access token is refused, also after a refresh."""

    code = "unauthorized"
    advice = "Connect the CRM again on the connections page."


class FreshTokenRefused(Unauthorized):
    """Tokens are refused that the CRM has just given: the grant lives, so it may pass by itself."""

    code = "fresh_token_refused"
    advice = "See in the CRM whether the app is allowed still and its user may sign in."


class MissingScope(AccountRefused):
    """The connection lacks a permission."""

    code = "missing_scope"
    advice = "Grant the named scopes to the app and connect again."

    def __init__(self, message: str, scopes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.scopes = tuple(scopes)


class InvalidRecord(CrmError):
    """The CRM refuses a value; `fields` says which and why."""

    code = "invalid_record"
    advice = "Change the field in the mapping file or the rule in the CRM, then replay the booking."

    def __init__(
        self, message: str, fields: Mapping[str, str] | None = None, listed: bool = False
    ) -> None:
        """`listed`: what was refused was taken from the account's own lists, which may be old news."""
        super().__init__(message)
        self.fields = dict(fields or {})
        self.listed = listed


class Conflict(CrmError):
    """The record exists already; `record_id` names it where the CRM says so."""

    code = "conflict"
    advice = "Merge the two records in the CRM, then replay the booking."

    def __init__(self, message: str, record_id: str | None = None) -> None:
        super().__init__(message)
        self.record_id = record_id


class Ambiguous(CrmError):
    """Several records match where the mapping says that a person has to look."""

    code = "ambiguous"
    advice = "Merge the records in the CRM, then replay the booking."


class Gone(CrmError):
    """A record that this service knew is no longer there."""

    code = "gone"
    advice = "Nothing to do: the record is made again."

    def __init__(self, message: str, record_id: str = "") -> None:
        super().__init__(message)
        self.record_id = record_id


class ThereAlready(CrmError):
    """A create was refused since the record is there: it has to be read before it is written."""

    code = "there_already"
    advice = "Nothing to do: the record that is there is read, and taken."

    def __init__(self, message: str, record_id: str) -> None:
        super().__init__(message)
        self.record_id = record_id


class Blocked(CrmError):
    """A record could not be written because one that it needs could not."""

    code = "blocked"
    advice = "Mend the record that it names; this one follows."


class Unforeseen(CrmError):
    """This service itself has a fault that this booking brings to light; the message says where."""

    code = "unforeseen"
    advice = "Report the place that it names; the booking is tried again with its next change."


class KilledWorker(CrmError):
    """The process that synced a booking ended in the middle of it, more than once."""

    code = "killed_worker"
    advice = "Look at the worker's log, then retry the delivery; other bookings are not held up."


class AllowanceUsed(RateLimited):
    """What may be used of the CRM's allowance is used up; the rest is left to other apps."""

    code = "allowance_used"
    advice = "Nothing to do: it goes on when the CRM's allowance is renewed."

    def __init__(self, message: str, after: float, backlog: bool) -> None:
        """`backlog`: it is used up for what is old news only."""
        super().__init__(message, after)
        self.backlog = backlog
