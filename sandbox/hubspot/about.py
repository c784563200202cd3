"""Answers beside records: pipelines, owners, the portal itself."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import make
from sandbox.hubspot.state import HubSpotState
from sandbox.hubspot.tables import table_of


def list_pipelines(crm: HubSpotState) -> Response:
    """Return the pipelines of deals."""
    table_of(crm, "deals")
    times = {"archived": False, "createdAt": "2026-01-01T00:00:00Z",
             "updatedAt": "2026-01-01T00:00:00Z"}  # fmt: skip
    results = [
        {
            **p,
            **times,
            "stages": [
                {**s, **times, "metadata": {"isClosed": s.get("closed", "false")}}
                for s in p["stages"]
            ],
        }
        for p in crm.pipelines
    ]
    return make(200, {"results": results})


def list_owners(crm: HubSpotState) -> Response:
    """Return the owners, or the archived ones."""
    times = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
    archived = request.args.get("archived") == "true"
    results = [
        {"id": user.id, "email": user.email, "type": "PERSON", "archived": archived, **times}
        for user in crm.owner_rows()
        if user.active is not archived
    ]
    return make(200, {"results": results})


def show_details(crm: HubSpotState) -> Response:
    """Return the portal's account details."""
    return make(
        200,
        {
            "portalId": int(crm.account_id),
            "accountType": "SANDBOX",
            "uiDomain": "app.hubspot.com",
            "timeZone": crm.portal.time_zone,
        },
    )
