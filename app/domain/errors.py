"""The errors of the service. The drainer decides only by the class of an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from app.domain.refusals import Refusal


class UnfitPayload(ValueError):
    """An authentic webhook that does not describe a booking; the message says what is missing."""


class ContentDeleted(UnfitPayload):
    """A webhook whose content was deleted after RETENTION_DAYS, or because a person was erased."""


class MappingError(Exception):
    """A mapping file cannot be used; the message names file, line and key."""


class CrmError(Exception):
    """A CRM did not do what was asked. `code` is stable, the message says in a sentence what happened."""

    code = "crm_error"
    advice = "Read the CRM's message."
    refusal: Refusal | None = None
    """Why the CRM refused a record, as the adapter read it from the answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def because(self, refusal: Refusal | None) -> Self:
        """Tell this error's reason by a refusal, and return it."""
        if refusal is not None:
            self.refusal, self.message = refusal, refusal.sentence
        return self


class RetryLater(CrmError):
    """The CRM is down or unreachable; the same call may succeed after `after` seconds."""

    code = "unavailable"
    outage = "The CRM does not answer, or only with an error of its own."
    """What the log says while it lasts; the CRM's own words are on the connection's page."""
    advice = "Nothing to do: the service tries again by itself."

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class RateLimited(RetryLater):
    """The CRM's rate limit is used up until `after` seconds from now."""

    code = "rate_limited"
    advice = "Nothing to do: the service continues when the CRM's rate limit allows it."


class Unreadable(RetryLater):
    """The answer is not what the call asked for: another shape, status, size or pace.

    A CRM that answers like this is out of order: the answer says nothing about a booking.
    """

    code = "unreadable"
    outage = "The CRM's answers do not fit the calls."


class AccountRefused(CrmError):
    """The CRM refuses all calls of the account, or an object that the mapping needs."""

    code = "account_refused"
    advice = "Fix in the CRM what the message names; the service then syncs the bookings by itself."


class AccountMoved(AccountRefused):
    """The account has another address than the one called."""

    code = "account_moved"
    advice = 'Press "Connect again" on the account\'s page; the waiting bookings are then synced.'


class Unauthorized(CrmError):
    """The access token is refused, also after a refresh."""

    code = "unauthorized"
    advice = 'Press "Connect again" on the account\'s page.'


class FreshTokenRefused(Unauthorized):
    """The CRM refuses tokens that it has just issued: the grant is alive, so this may pass by itself."""

    code = "fresh_token_refused"
    advice = "Check in the CRM that the app is still allowed and that its user may sign in."


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
        """`listed`: the refused value comes from the account's own lists, which may be out of date."""
        super().__init__(message)
        self.fields = dict(fields or {})
        self.listed = listed


class Conflict(CrmError):
    """The record exists already; `record_id` is its id if the CRM reports it."""

    code = "conflict"
    advice = "Merge the two records in the CRM, then replay the booking."

    def __init__(self, message: str, record_id: str | None = None) -> None:
        super().__init__(message)
        self.record_id = record_id


class Ambiguous(CrmError):
    """Several records match, and the mapping says that a person has to decide."""

    code = "ambiguous"
    advice = "Merge the records in the CRM, then replay the booking."


class Gone(CrmError):
    """A record that this service knew no longer exists."""

    code = "gone"
    advice = "Nothing to do: the service creates the record again."

    def __init__(self, message: str, record_id: str = "") -> None:
        super().__init__(message)
        self.record_id = record_id


class ThereAlready(CrmError):
    """A create was refused because the record exists: it has to be read before it is written."""

    code = "there_already"
    advice = "Nothing to do: the service reads and uses the existing record."

    def __init__(self, message: str, record_id: str) -> None:
        super().__init__(message)
        self.record_id = record_id


class Blocked(CrmError):
    """A record could not be written because another one that it needs was not written."""

    code = "blocked"
    advice = "Fix the problem of the record that it names; this record is then written too."


class Unforeseen(CrmError):
    """This service has a bug that this booking reveals; the message gives the place."""

    code = "unforeseen"
    advice = "Report the place in the message as a bug; the booking's next change starts a new try."


class KilledWorker(CrmError):
    """The process that synced a booking was killed during the sync, more than once."""

    code = "killed_worker"
    advice = "Read the worker's log, then retry the delivery; other bookings do not wait for it."


class AllowanceUsed(RateLimited):
    """This service's share of the CRM's rate limit is used up; the rest is left to other apps."""

    code = "allowance_used"
    advice = "Nothing to do: the service continues when the CRM renews the limit."

    def __init__(self, message: str, after: float, backlog: bool) -> None:
        """`backlog`: the share is used up only for the backlog."""
        super().__init__(message, after)
        self.backlog = backlog
