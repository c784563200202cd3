"""The first checks of a call: limits and scopes."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import make
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.state import HubSpotState

SCOPE_OF = {
    "contacts": "contacts",
    "companies": "companies",
    "deals": "deals",
    "meetings": "contacts",
}


def guard(crm: HubSpotState, scopes: list[str]) -> Response | None:
    """Refuse a call by limits and scopes; return None to let it pass."""
    crm.portal.makes_companies()
    searching = request.path.endswith("/search")
    window = crm.search_window if searching else crm.window
    if not window.take():
        body = {
            "status": "error", "message": "You have reached your limit.", "errorType":
            "RATE_LIMIT", "correlationId": "c0ffee",
            "policyName": "SECONDLY" if searching else "TEN_SECONDLY_ROLLING",
        }  # fmt: skip
        return make(429, body)
    needed = _needed_scope(crm)
    if needed and needed not in scopes:
        more = {"errors": [{"message": "missing", "context": {"requiredGranularScopes": [needed]}}]}
        message = "This app hasn't been granted all required scopes to make this call."
        return HubSpotRefused(403, "MISSING_SCOPES", message, **more).response()
    return None


def _needed_scope(crm: HubSpotState) -> str | None:
    parts = request.path.strip("/").split("/")
    if parts[1:2] == ["owners"]:
        return "crm.objects.owners.read"
    if parts[1:2] == ["properties"]:
        kind = SCOPE_OF.get(parts[3], parts[3])
        return f"crm.schemas.{kind}.{'read' if request.method == 'GET' else 'write'}"
    if parts[1:2] == ["objects"] and parts[3] in SCOPE_OF:
        read = request.method == "GET" or parts[-1] in ("read", "search")
        return f"crm.objects.{SCOPE_OF[parts[3]]}.{'read' if read else 'write'}"
    return None


def tell_limits(crm: HubSpotState, response: Response) -> None:
    """Write the remaining calls into the headers of an answer."""
    # Search has its own limit and no headers.
    if request.path.startswith("/crm") and not request.path.endswith("/search"):
        response.headers["X-HubSpot-RateLimit-Max"] = str(crm.window.limit)
        response.headers["X-HubSpot-RateLimit-Remaining"] = str(crm.window.left)
        response.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = "10000"
