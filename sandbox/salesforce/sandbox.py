"""The sandbox class: its OAuth, and the functions of this package's parts."""

from __future__ import annotations

from typing import ClassVar

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.salesforce import colleagues, door, dresses, neutral, records
from sandbox.salesforce.paths import DATA
from sandbox.salesforce.routes import add_routes
from sandbox.salesforce.state import SalesforceState


class SalesforceSandbox(SalesforceState):
    """One org with its API."""

    name, title, pkce, rotates = "salesforce", "Salesforce", True, True
    lifetime = 7200.0
    authorize_path = "/services/oauth2/authorize"
    token_path = "/services/oauth2/token"
    revoke_path = "/services/oauth2/revoke"
    introspect_path = "/services/oauth2/introspect"
    revoke_needs_client = False
    api_paths = ("/services/data",)
    record_pages: ClassVar = {
        name: f"/lightning/r/{sobject}/<record_id>/view"
        for name, sobject in neutral.SOBJECTS.items()
    }

    dresses = dresses.DRESSES
    guard = door.guard
    view, fields_of = neutral.view, neutral.fields_of
    convert = colleagues.convert
    merge = colleagues.merge
    # The tests' desk uses these.
    _do = records.do
    _store, _names = SalesforceState.store, SalesforceState.names

    def routes(self) -> None:
        add_routes(self)

    def token_answer(self, answer: Record) -> Record:
        # There is no expires_in: the lifetime is the org's session setting.
        answer.pop("expires_in", None)
        base = self.org.moved_to or request.host_url.rstrip("/")
        return {**answer, "instance_url": base, "id": f"{base}/id/00D/005", "issued_at": "0"}

    def refuse_token(self) -> Response:
        body = [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]
        return make(401, body)

    def dead_grant(self) -> Response:
        body = {"error": "invalid_grant", "error_description": "expired access/refresh token"}
        return make(400, body)

    def _before(self) -> Response | None:
        moved = self.org.moved_to
        if moved and request.path.startswith(DATA) and request.host_url.rstrip("/") != moved:
            page = f'<html><body>The URL has moved <a href="{moved}{request.path}">here</a></body></html>'
            headers = {"Location": f"{moved}{request.full_path}"}
            return Response(page, 302, headers, mimetype="text/html")
        return super()._before()

    def _after(self, response: Response) -> Response:
        response.headers["Sforce-Limit-Info"] = f"api-usage={self.total_calls}/{self.daily_limit}"
        return super()._after(response)
