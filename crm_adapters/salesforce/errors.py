"""Sorts Salesforce's refusals: a list of [{errorCode, message, fields}].

Codes: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
(ExceptionCode for a whole call, StatusCode for one record) and
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from app.domain.errors import (
    AccountRefused,
    Conflict,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
)
from app.outbound.reply import Json, some_text
from crm_adapters.codes import Sort
from crm_adapters.http import RefusedToken, shorten
from crm_adapters.salesforce.reasons import refusal_in

LIMIT_PAUSE = 900.0
"""Seconds to wait after the day's calls are used up: the limit covers a rolling 24 hours."""
BUSY_PAUSE = 2.0
MAINTENANCE_PAUSE = 60.0
CODES = {
    **dict.fromkeys((
        "API_CURRENTLY_DISABLED", "API_DISABLED_FOR_ORG", "CLIENT_NOT_ACCESSIBLE_FOR_USER",
        "CLIENT_REQUIRE_UPDATE_FOR_USER", "FORBIDDEN", "FUNCTIONALITY_NOT_ENABLED",
        "INACTIVE_ORGANIZATION", "INSUFFICIENT_ACCESS", "INSUFFICIENT_SCOPE", "INVALID_CLIENT",
        "INVALID_LOGIN", "INVALID_OPERATION_WITH_EXPIRED_PASSWORD", "INVALID_TYPE",
        "LOGIN_DURING_RESTRICTED_DOMAIN", "LOGIN_DURING_RESTRICTED_TIME", "ORG_IN_PROVISIONING",
        "ORG_LOCKED", "PASSWORD_LOCKOUT", "TRIAL_EXPIRED",
        "UNSUPPORTED_API_VERSION", "UNSUPPORTED_CLIENT", "USER_INACTIVE",
    ), Sort.ACCOUNT),
    **dict.fromkeys((
        "INVALID_SESSION_ID", "INVALID_AUTH_HEADER", "INVALID_ACCESS_TOKEN", "SESSION_EXPIRED",
    ), Sort.TOKEN),
    **dict.fromkeys((
        "REQUEST_LIMIT_EXCEEDED", "EXCEEDED_RATE_LIMIT", "EXCEEDED_QUOTA",
    ), Sort.BUDGET),
    **dict.fromkeys((
        "UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "REQUEST_RUNNING_TOO_LONG", "QUERY_TIMEOUT",
        "UNKNOWN_EXCEPTION", "INTERNAL_ERROR", "INVALID_QUERY_LOCATOR", "TRANSACTION_HALTED",
        "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "ORG_BEING_MIGRATED",
        "READ_ONLY_MODE", "SYSTEM_UNDER_MAINTENANCE",
    ), Sort.PASSING),
    **dict.fromkeys((
        "INACTIVE_OWNER_OR_USER", "OP_WITH_INVALID_USER_TYPE_EXCEPTION", "INVALID_ASSIGNEE_TYPE",
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "INVALID_FIELD", "INVALID_CURRENCY_ISO",
        "INVALID_FIELD_FOR_INSERT_UPDATE", "INVALID_CROSS_REFERENCE_TYPE_FOR_FIELD",
        "FIELD_NOT_UPDATABLE", "INVALID_RECORD_TYPE", "INACTIVE_USER", "TRANSFER_REQUIRES_READ",
    ), Sort.LISTED),
    **dict.fromkeys((
        "ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY",
    ), Sort.GONE),
    **dict.fromkeys((
        "DUPLICATE_VALUE", "DUPLICATES_DETECTED", "DUPLICATE_EXTERNAL_ID",
    ), Sort.CONFLICT),
    **dict.fromkeys((
        "ALREADY_IN_PROCESS", "APEX_ERROR", "BAD_CUSTOM_ENTITY_PARENT_DOMAIN",
        "CANNOT_EXECUTE_FLOW_TRIGGER", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "CANNOT_UPDATE_CONVERTED_LEAD", "CIRCULAR_DEPENDENCY", "DELETE_FAILED",
        "DEPENDENCY_EXISTS", "ENTITY_IS_LOCKED", "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "FIELD_FILTER_VALIDATION_EXCEPTION", "FIELD_INTEGRITY_EXCEPTION",
        "FILTERED_LOOKUP_LIMIT_EXCEEDED", "FLOW_EXCEPTION", "ILLEGAL_QUERY_PARAMETER_VALUE",
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "INSUFFICIENT_ACCESS_OR_READONLY",
        "INVALID_ARGUMENT_TYPE", "INVALID_EMAIL_ADDRESS", "INVALID_ID_FIELD",
        "INVALID_PERSON_ACCOUNT_OPERATION", "INVALID_QUERY_FILTER_OPERATOR", "INVALID_STATUS",
        "JSON_PARSER_ERROR", "LIMIT_EXCEEDED", "MALFORMED_ID", "MALFORMED_QUERY",
        "MANAGER_NOT_DEFINED", "MISSING_ARGUMENT", "NUMBER_OUTSIDE_VALID_RANGE",
        "PROCESSING_HALTED", "REQUIRED_FIELD_MISSING", "STORAGE_LIMIT_EXCEEDED",
        "STRING_TOO_LONG", "TOO_MANY_ENUM_VALUE",
        "TXN_SECURITY_APEX_ERROR", "TXN_SECURITY_METERING_ERROR", "TXN_SECURITY_NO_ACCESS",
        "UNAVAILABLE_RECORDTYPE_EXCEPTION", "UNDELETE_FAILED",
    ), Sort.RECORD),
}  # fmt: skip
WRAPPERS = {
    "APEX_ERROR", "CANNOT_EXECUTE_FLOW_TRIGGER", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
    "FLOW_EXCEPTION",
}  # fmt: skip
"""Codes of the org's triggers and flows, whose message contains the actual error."""
_BY_STATUS = {401: Sort.TOKEN, 403: Sort.ACCOUNT, 404: Sort.GONE}
_WORDLESS = {400, 405, 409, 412, 414, 415, 428}
"""More statuses of https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm"""
_OWNER_CODES = {
    "INACTIVE_OWNER_OR_USER", "INACTIVE_USER", "INVALID_ASSIGNEE_TYPE",
    "OP_WITH_INVALID_USER_TYPE_EXCEPTION", "TRANSFER_REQUIRES_READ",
}  # fmt: skip
"""Codes that are about the owner, even if they name no field."""
_ID = re.compile(r"\b[a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?\b")
_DEEPEST = 12
"""Levels of an error's body that are searched for a conflicting record."""


def entries_of(content: Any) -> list[Json]:
    """Return the errors of an answer."""
    entries = content if isinstance(content, list) else [content]
    return [entry for entry in entries if isinstance(entry, dict)]


def cannot_be_asked(content: Any) -> bool:
    """Whether a query was refused because it cannot be parsed or the org does not show its object."""
    codes = {some_text(entry, "errorCode") for entry in entries_of(content)}
    return bool(codes & {"MALFORMED_QUERY", "INVALID_TYPE"})


def only_warned(content: Any) -> bool:
    """Whether a duplicate rule refused a record that it would accept with allowSave=true.

    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_duplicaterules.htm
    """
    entries = entries_of(content)
    found = [some_text(entry, "errorCode") == "DUPLICATES_DETECTED" for entry in entries]
    # The key around `allowSave` has two spellings.
    results = [value for entry in entries for value in entry.values() if isinstance(value, dict)]
    return any(found) and any(result.get("allowSave") is True for result in results)


def error_of(status: int, content: Any, sobject: str = "") -> Exception:  # noqa: PLR0911
    """Return our error for the refusal of one record (of `sobject`), or of a whole call."""
    entries = entries_of(content)
    first = entries[0] if entries else {}
    code = some_text(first, "errorCode") or some_text(first, "error")
    told = some_text(first, "message") or some_text(first, "error_description")
    words = shorten(told or str(content)[:500])
    message = f"{code}: {words}" if code else words
    fields = {str(name): words for name in first.get("fields") or () if isinstance(name, str)}
    if code in WRAPPERS and "UNABLE_TO_LOCK_ROW" in told:
        code = "UNABLE_TO_LOCK_ROW"
    # An unknown code is still Salesforce's own; a status without a code may come from another
    # system.
    unknown = Sort.RECORD if code or status in _WORDLESS else Sort.PASSING
    sort = CODES.get(code) or _BY_STATUS.get(status, unknown)
    if sort is Sort.TOKEN:
        return RefusedToken(message)
    if sort is Sort.BUDGET:
        # Errors that begin with Concurrent pass in seconds; TotalRequests is the limit of the day.
        busy = told.lstrip().startswith("Concurrent")
        return RetryLater(message, BUSY_PAUSE) if busy else RateLimited(message, LIMIT_PAUSE)
    if sort is Sort.PASSING or status >= 500:
        long = "MAINTENANCE" in code or "READ_ONLY" in code
        return RetryLater(message, MAINTENANCE_PAUSE if long else None)
    if sort is Sort.GONE and not fields:
        return Gone(message).because(refusal_in(entries, code, ()))
    if sort is Sort.CONFLICT:
        found = _in_the_way(entries, sobject)
        conflict = Conflict(message + _named(entries), found)
        return conflict.because(refusal_in(entries, code, tuple(fields), found))
    if sort is Sort.ACCOUNT:
        return MissingScope(message) if code == "INSUFFICIENT_SCOPE" else AccountRefused(message)
    if code in _OWNER_CODES and not fields:
        fields = {"OwnerId": words}
    refused = InvalidRecord(message, fields, listed=sort in (Sort.LISTED, Sort.GONE))
    return refused.because(refusal_in(entries, code, tuple(fields)))


def _in_the_way(entries: list[Json], sobject: str) -> str | None:
    """Return the only record of the object that an error names; None for several."""
    found = [
        text for kind, text in _records_in(entries, 0) if not kind or not sobject or kind == sobject
    ]
    if not found:
        texts = " ".join(some_text(entry, "message") for entry in entries)
        match = re.search(r"\bid: (\w{15,18})", texts)
        found = [match[1]] if match else []
    by_short = {record_id[:15]: record_id for record_id in found}
    return next(iter(by_short.values())) if len(by_short) == 1 else None


def _records_in(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Give type and id of every record in an error's body."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for item in value[:50]:
            yield from _records_in(item, depth + 1)
    elif isinstance(value, dict):
        record_id = some_text(value, "Id")
        if _ID.fullmatch(record_id):
            attributes = value.get("attributes")
            kind = some_text(attributes, "type") if isinstance(attributes, dict) else ""
            yield kind, record_id
        for item in list(value.values())[:50]:
            yield from _records_in(item, depth + 1)


def _named(entries: Iterable[Json]) -> str:
    """Return the conflicting records as text, so that a person can look at them."""
    ids = list(dict.fromkeys(record_id for _, record_id in _records_in(list(entries), 0)))
    return f" In the way: {', '.join(ids[:5])}." if ids else ""
