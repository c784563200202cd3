"""Sorts Pipedrive's refusals. https://pipedrive.readme.io/docs/core-api-concepts-http-status-codes"""

from __future__ import annotations

import re
from dataclasses import replace

from app.domain.errors import (
    AccountRefused,
    Conflict,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
)
from app.domain.refusals import RefusalReason
from app.outbound.reply import Json, Reply, some_text
from crm_adapters.codes import Sort
from crm_adapters.http import RefusedToken, refusal_of, shorten
from crm_adapters.pipedrive.reasons import refusal_in

STATUSES = {
    400: Sort.RECORD, 401: Sort.TOKEN, 402: Sort.ACCOUNT, 403: Sort.ACCOUNT, 404: Sort.GONE,
    405: Sort.ACCOUNT, 409: Sort.CONFLICT, 410: Sort.GONE, 415: Sort.ACCOUNT, 422: Sort.RECORD,
    # 429, 500, 501 and 503 never get here: see crm_adapters/http.py.
}  # fmt: skip
"""402: the company account is not open. 403: no permission. 415: the feature is not enabled."""
FULL = "feature_capping_"
"""The start of a 403's code if the plan allows no more records of a kind:
https://pipedrive.readme.io/docs/core-api-concepts-responses"""
SHUT_OUT = 300.0
"""Seconds without calls after the API answers with a page: it blocks clients that ignore 429s."""
_FIELD_403 = re.compile(r"\b(job_title|notes|im|birthday|postal_address)\b")
"""Fields of persons that are refused with 403 if Contact Sync is off:
https://developers.pipedrive.com/docs/api/v1/Persons"""
_OWNER = re.compile(r"\b(user|owner)\b", re.IGNORECASE)
"""Words for the owner, for refusals that name no field."""
_LISTED = {"owner_id", "user_id", "stage_id", "pipeline_id", "type", "label_ids"}


def refusal(reply: Reply, one: bool = False) -> Exception:  # noqa: PLR0911 - one line a sort
    """Return our error for an answer of 400 to 499; `one`: the call was about one record."""
    if reply.status == 403 and "<" in reply.text[:200]:
        return RateLimited("Pipedrive blocks this service for a while.", SHUT_OUT)
    found = refusal_of(reply)
    body: Json = found if isinstance(found, dict) else {}
    words = shorten(some_text(body, "error") or reply.text)
    # A status that Pipedrive does not document comes from a system in between.
    sort = STATUSES.get(reply.status, Sort.PASSING)
    if sort is Sort.PASSING:
        return RetryLater(words)
    if sort is Sort.TOKEN:
        return RefusedToken(words)
    if sort is Sort.GONE:
        return Gone(words).because(refusal_in(body, reply.text, RefusalReason.DELETED))
    if sort is Sort.CONFLICT:
        return Conflict(words).because(refusal_in(body, reply.text, RefusalReason.TAKEN))
    if sort is Sort.ACCOUNT:
        field = _FIELD_403.search(words)
        shut_off = refusal_in(body, reply.text, RefusalReason.PERMISSION)
        if field:
            shut_off = replace(shut_off, reason=RefusalReason.PERMISSION, field=field[1])
            return InvalidRecord(words, {field[1]: words}).because(shut_off)
        if reply.status == 403 and some_text(body, "code").startswith(FULL):
            return InvalidRecord(words).because(replace(shut_off, reason=RefusalReason.LIMIT))
        if "scope" in words.lower():
            return MissingScope(words)
        # A refusal for a single record says nothing about the others.
        shut = one and reply.status == 403
        return InvalidRecord(words).because(shut_off) if shut else AccountRefused(words)
    fields = dict(re.findall(r"(\w+): ([^;]+)", words.partition("failed: ")[2]))
    named = {name for name in _LISTED if re.search(rf"\b{name}\b", words)}
    if not fields and not named and _OWNER.search(words):
        named = {"owner_id"}
    refused = InvalidRecord(words, fields or dict.fromkeys(named, words), listed=bool(named))
    return refused.because(refusal_in(body, reply.text))
