"""The sandbox class: its OAuth, and the functions of this package's parts."""

from __future__ import annotations

from typing import ClassVar

from flask import Response

from sandbox.answers import Record
from sandbox.pipedrive import colleagues, door, dresses, fields, leads, neutral, presence, records
from sandbox.pipedrive.refused import PipedriveRefused
from sandbox.pipedrive.routes import add_routes
from sandbox.pipedrive.state import PipedriveState


class PipedriveSandbox(PipedriveState):
    """One company account with its API."""

    name, title = "pipedrive", "Pipedrive"
    client_auth = "basic"
    api_paths = ("/api/v2/", "/v1/")
    key_header, key_prefix = "x-api-token", ""
    account_id = "77"
    record_pages: ClassVar = {
        "contact": "/person/<record_id>", "company": "/organization/<record_id>",
        "deal": "/deal/<record_id>",
        "meeting": "/activities/list/user/everyone#dialog/activity/edit/<record_id>",
    }  # fmt: skip
    scope_separator = ","
    lifetime = 3600.0
    fixed_scopes = ("base", "deals:full", "contacts:full", "activities:full", "users:read",
                    "search:read", "deal-fields:full", "leads:full")  # fmt: skip

    dresses = dresses.DRESSES
    guard = door.guard
    view, fields_of = neutral.view, neutral.fields_of
    merge = colleagues.merge
    convert = colleagues.convert
    # The tests' desk uses these.
    _many, _one = records.many_records, records.one_record
    _leads, _lead = leads.many_leads, leads.one_lead
    _fields, _types = fields.serve_fields, presence.types_of
    _user_ids, _user_rows = PipedriveState.user_ids, PipedriveState.user_rows

    def routes(self) -> None:
        add_routes(self)

    def token_answer(self, answer: Record) -> Record:
        return {**answer, "api_domain": "https://acme.pipedrive.com"}

    def refuse_token(self) -> Response:
        return PipedriveRefused(401, "Invalid token: access token is invalid").response()

    def _after(self, response: Response) -> Response:
        door.tell_limits(self, response)
        return super()._after(response)
