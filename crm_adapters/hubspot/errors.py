"""Sorts HubSpot's refusals. https://developers.hubspot.com/docs/api-reference/error-handling"""

from __future__ import annotations

import json
import re
from typing import Any

from app.domain.errors import (
    AccountRefused,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
)
from app.domain.refusals import RefusalReason
from app.outbound.reply import Json, Reply, header_number, some_object, some_objects, some_text
from crm_adapters.codes import Sort
from crm_adapters.http import RefusedToken, refusal_of, shorten
from crm_adapters.hubspot.reasons import named_in, refusal_in
from crm_adapters.reasons import json_inside

CATEGORIES = {
    # The values of `category`. A refusal without one, or with another one, is sorted by its status.
    "VALIDATION_ERROR": Sort.RECORD,
    "OBJECT_NOT_FOUND": Sort.GONE,
    "CONFLICT": Sort.CONFLICT,
    "OBJECT_ALREADY_EXISTS": Sort.CONFLICT,
    "MISSING_SCOPES": Sort.ACCOUNT,
    "BANNED": Sort.ACCOUNT,
    "UNAUTHORIZED": Sort.ACCOUNT,
    "AUTHORIZATION_ERROR": Sort.ACCOUNT,
    "USER_DOES_NOT_HAVE_PERMISSIONS": Sort.ACCOUNT,
    "PORTAL_NOT_ENABLED": Sort.ACCOUNT,
    "EXPIRED_AUTHENTICATION": Sort.TOKEN,
    "INVALID_AUTHENTICATION": Sort.TOKEN,
    "RATE_LIMITS": Sort.BUDGET,
    "INTERNAL_ERROR": Sort.PASSING,
    "SERVICE_UNAVAILABLE": Sort.PASSING,
}
STATUSES = {
    400: Sort.RECORD, 401: Sort.TOKEN, 402: Sort.ACCOUNT, 403: Sort.ACCOUNT, 404: Sort.GONE,
    409: Sort.CONFLICT, 410: Sort.GONE, 413: Sort.RECORD, 414: Sort.RECORD, 415: Sort.RECORD,
    421: Sort.PASSING, 422: Sort.RECORD, 451: Sort.ACCOUNT,
}  # fmt: skip
LISTED = {
    # Codes of errors[]: https://developers.hubspot.com/docs/api-reference/error-handling
    "INVALID_OWNER_ID", "INVALID_OPTION", "INVALID_PIPELINE", "INVALID_STAGE",
}  # fmt: skip
_OWNER = re.compile(r"\bowner\b", re.IGNORECASE)
_LISTED_FIELDS = {"hubspot_owner_id", "dealstage", "pipeline"}


def refusal(reply: Reply) -> Exception:
    """Return our error for an answer of 400 to 499. Raises Unreadable if the answer is not JSON."""
    body = refusal_of(reply)
    return _sorted(reply, body if isinstance(body, dict) else {"message": str(body)[:300]})


def _sorted(reply: Reply, body: Json) -> Exception:  # noqa: PLR0911 - one line a sort
    words = some_text(body, "message")
    message = shorten(words)
    existing = re.search(r"Existing ID: (\d{1,20})", words)
    taken = re.search(r"\.\s*(\d{1,20}) already has that value", words)
    # A status that HubSpot does not document comes from a system in between.
    sort = STATUSES.get(reply.status, Sort.PASSING)
    if sort is Sort.RECORD:
        sort = CATEGORIES.get(some_text(body, "category"), sort)
    if taken or sort is Sort.CONFLICT:
        match = taken or existing
        conflict = Conflict(message, match[1] if match else None)
        return conflict.because(refusal_in(words, body, RefusalReason.TAKEN))
    if sort is Sort.TOKEN:
        return RefusedToken(message)
    if sort is Sort.GONE:
        return Gone(message).because(refusal_in(words, body, RefusalReason.DELETED))
    if sort is Sort.PASSING:
        return RetryLater(message)
    if sort is Sort.BUDGET:
        return RateLimited(message, window(reply))
    if sort is Sort.ACCOUNT:
        scopes = sorted(set(re.findall(r"crm\.[\w.]{1,80}", json.dumps(body)[:20_000])))
        lacks = scopes or some_text(body, "category") == "MISSING_SCOPES"
        return MissingScope(message, scopes) if lacks else AccountRefused(message)
    fields = field_errors(words, body) or owner_errors(words)
    refused = InvalidRecord(message, fields, listed=is_listed(fields, body))
    return refused.because(refusal_in(words, body))


def is_listed(fields: Json, body: Json) -> bool:
    """Whether a value of the account's lists was refused: an owner, a stage, an option."""
    codes = {some_text(error, "code") for error in some_objects(body, "errors")}
    # The list of errors may be inside the message.
    codes |= set(re.findall(r'"error"\s*:\s*"(\w{1,60})"', some_text(body, "message")))
    return bool(codes & LISTED or _LISTED_FIELDS & set(fields))


def window(reply: Reply) -> float:
    """Return the seconds until the limit that was hit opens again; Retry-After is not guaranteed."""
    if "DAILY" in reply.text:
        return 3600.0
    interval = header_number(reply.headers.get("x-hubspot-ratelimit-interval-milliseconds"))
    return max(1.0, interval / 1000) if interval is not None else 1.0


def batch_error(error: Json) -> CrmError:
    """Return the error of one input inside a 207."""
    words, existing = some_text(error, "message"), context(error, "existingId")
    category = some_text(error, "category")
    if existing or CATEGORIES.get(category) is Sort.CONFLICT:
        conflict = Conflict(shorten(words), existing[0] if existing else None)
        return conflict.because(refusal_in(words, error, RefusalReason.TAKEN))
    if CATEGORIES.get(category) is Sort.GONE:
        return Gone(shorten(words)).because(refusal_in(words, error, RefusalReason.DELETED))
    named = {name: shorten(words) for name in named_in(error)}
    fields = named | field_errors(words, {}) or owner_errors(words)
    refused = InvalidRecord(shorten(words), fields, listed=is_listed(fields, error))
    return refused.because(refusal_in(words, error))


def owner_errors(words: str) -> dict[str, str]:
    """Return HubSpot's message about an owner, if a refusal names no property."""
    return {"hubspot_owner_id": shorten(words)} if _OWNER.search(words) else {}


def errors_of(answer: Any) -> list[Json]:
    """Return the errors of a 207."""
    return some_objects(answer, "errors")


def context(error: Json, key: str) -> list[str]:
    """Return the values under a key of an error's context, as texts."""
    found = some_object(error, "context").get(key)
    return [str(item) for item in found] if isinstance(found, list) else []


def field_errors(words: str, body: Json) -> dict[str, str]:
    """Return property -> HubSpot's message, from errors[] or from the list inside the message."""
    found: dict[str, str] = {}
    for error in some_objects(body, "errors"):
        names = named_in(error) or [some_text(error, "in")]
        found.update({name: shorten(some_text(error, "message")) for name in names if name})
    for item in json_inside(words):
        if some_text(item, "name"):
            found.setdefault(some_text(item, "name"), shorten(some_text(item, "message")))
    for name in re.findall(r'"name"\s*:\s*"([^"]{1,200})"', words):
        found.setdefault(name, shorten(words))
    return found
