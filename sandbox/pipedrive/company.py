"""The company and its users: v1."""

from __future__ import annotations

from flask import Response

from sandbox.answers import make
from sandbox.pipedrive.state import PipedriveState


def list_users(crm: PipedriveState) -> Response:
    """Return all present and former users."""
    rows = [{"id": user.id, "name": user.name, "email": user.email, "active_flag": user.active}
            for user in crm.user_rows()]  # fmt: skip
    return make(200, {"success": True, "data": rows})


def show_me(crm: PipedriveState) -> Response:
    """Return the token's user, with the company."""
    me = {
        "id": 1, "company_id": int(crm.account_id), "company_name": crm.account_name,
        "company_domain": crm.account_name.lower(), "default_currency": "EUR",
        "company_country": crm.company_country, "timezone_name": "Europe/Tallinn",
    }  # fmt: skip
    return make(200, {"success": True, "data": me})
