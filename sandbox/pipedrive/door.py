"""The first checks of a call: limits, parameters, scopes."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import make
from sandbox.pipedrive.refused import PipedriveRefused, unfit
from sandbox.pipedrive.state import PipedriveState

QUERIES = {
    "status",
    "ids",
    "limit",
    "cursor",
    "term",
    "fields",
    "exact_match",
    "person_id",
    "deal_id",
    "lead_id",
    "org_id",
    "organization_id",
    "include_fields",
}
LEAD_QUERIES = {"limit", "start", "owner_id", "person_id", "organization_id", "filter_id", "sort",
                "updated_since"}  # fmt: skip
COSTS = {"GET": 1, "POST": 5, "PATCH": 5, "DELETE": 3}
FIELD_SCOPES = {
    "personFields": {"contacts:read", "contacts:full", "admin"},
    "organizationFields": {"contacts:read", "contacts:full", "admin"},
    "dealFields": {"deals:read", "deals:full", "admin"},
}
"""Each of these scopes allows reading an object's fields, by the published specification of v2."""


def guard(crm: PipedriveState, scopes: list[str]) -> Response | None:
    """Refuse a call by limits, parameters and scopes; return None to let it pass."""
    searching = request.path.endswith("/search")
    cost = 20 if searching else COSTS[request.method]
    crm.spent += cost * (2 if request.path.startswith("/v1") else 1)
    window = crm.search_burst if searching else crm.burst
    if not window.take() or crm.spent > crm.daily_budget:
        return make(429, {"success": False, "error": "request over limit", "code": 429})
    for end, status in crm.gone_v1.items():
        if request.path.startswith("/v1/") and request.path.endswith(end):
            return PipedriveRefused(status, "This endpoint has been removed").response()
    if request.path.startswith("/v1/leads") and request.method != "DELETE":
        wrong = set(request.args) - (LEAD_QUERIES if request.method == "GET" else set())
        if wrong or (request.method != "GET" and not request.is_json):
            return PipedriveRefused(400, f"{wrong or 'the body'} is not allowed").response()
    if not _scopes(crm) & set(scopes):
        return PipedriveRefused(403, "Scope and URL mismatch").response()
    unknown = set(request.args) - QUERIES
    if request.path.startswith("/api/v2") and unknown:
        return unfit(f"{unknown.pop()}: unknown query parameter").response()
    return None


def _scopes(crm: PipedriveState) -> set[str]:
    path, kind = request.path, request.path.rpartition("/")[2]
    if path.endswith("/leads/search"):
        return {"leads:read", "leads:full", "search:read"}
    if path.startswith("/v1/leads"):
        return {"leads:full"} | ({"leads:read"} if request.method == "GET" else set())
    if path.endswith("/search"):
        return {"search:read"}
    if "Fields" in path and request.method == "POST":
        return {"deal-fields:full"}
    if kind == "activityFields":
        return {"admin"} if crm.activity_fields_need_admin else {"base"}
    if kind in FIELD_SCOPES:
        return FIELD_SCOPES[kind]
    for part, scope in (("/users", "users:read"), ("/persons", "contacts:full"),
                        ("/organizations", "contacts:full"), ("/activities", "activities:full"),
                        ("/deals", "deals:full")):  # fmt: skip
        if part in path and path != "/v1/users/me":
            return {scope}
    return {"base"}


def tell_limits(crm: PipedriveState, response: Response) -> None:
    """Write the remaining calls into the headers of an answer."""
    if request.path.startswith(("/api/", "/v1/")):
        left = max(0, crm.daily_budget - crm.spent)
        response.headers["x-ratelimit-limit"] = str(crm.burst.limit)
        response.headers["x-ratelimit-remaining"] = str(crm.burst.left)
        response.headers["x-ratelimit-reset"] = "2"
        response.headers["x-daily-ratelimit-token-remaining"] = str(left)
