"""The first checks of a call: limits and scopes."""

from __future__ import annotations

from flask import Response

from sandbox.answers import make
from sandbox.salesforce.state import SalesforceState


def guard(crm: SalesforceState, scopes: list[str]) -> Response | None:
    """Refuse a call by limits and scopes; return None to let it pass."""
    if crm.total_calls > crm.daily_limit:
        body = [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]
        return make(403, body)
    if "api" not in scopes:
        return make(403, [{"errorCode": "INSUFFICIENT_SCOPE", "message": "api is missing"}])
    return None
