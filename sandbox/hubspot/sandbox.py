"""The sandbox class: its OAuth, and the functions of this package's parts."""

from __future__ import annotations

from typing import ClassVar

from flask import Response

from sandbox.answers import Record, make
from sandbox.hubspot import checks, colleagues, door, dresses, neutral, records, tables
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.routes import VERSION, add_routes
from sandbox.hubspot.state import HubSpotState
from sandbox.oauth import Grant


class HubSpotSandbox(HubSpotState):
    """One portal with its API."""

    name, title, pkce = "hubspot", "HubSpot", True
    token_path = f"/oauth/{VERSION}/token"
    revoke_path = f"/oauth/{VERSION}/token/revoke"
    introspect_path = f"/oauth/{VERSION}/token/introspect"
    api_paths = ("/crm/", "/account-info/")
    account_id, account_name = "4711", "acme.example"
    record_pages: ClassVar = {
        name: f"/contacts/<account>/record/{number}/<record_id>"
        for name, number in (("contact", "0-1"), ("company", "0-2"), ("deal", "0-3"), ("meeting", "0-47"))
    }  # fmt: skip

    dresses = dresses.DRESSES
    guard = door.guard
    view, fields_of = neutral.view, neutral.fields_of
    merge = colleagues.merge
    # The tests' desk uses these.
    _insert, _show = records.insert, records.show
    _erase, _checked = tables.erase, checks.checked_properties
    _connect, _linked = HubSpotState.connect, HubSpotState.linked
    _owner_ids, _owner_rows = HubSpotState.owner_ids, HubSpotState.owner_rows
    _owner_email = neutral.owner_email

    def routes(self) -> None:
        add_routes(self)

    def token_answer(self, answer: Record) -> Record:
        return {**answer, "hub_id": int(self.account_id), "scopes": answer["scope"].split()}

    def introspection(self, grant: Grant, left: float) -> Record:
        return {
            "active": True, "hub_id": int(self.account_id), "hub_domain": self.account_name,
            "scopes": grant.scopes, "expires_in": int(left),
        }  # fmt: skip

    def dead_grant(self) -> Response:
        return make(
            400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"}
        )

    def refuse_token(self) -> Response:
        return HubSpotRefused(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired").response()  # fmt: skip

    def delete_meetings(self) -> None:
        for record_id in list(self.records["meetings"]):
            tables.erase(self, "meetings", record_id)

    def _after(self, response: Response) -> Response:
        door.tell_limits(self, response)
        return super()._after(response)
