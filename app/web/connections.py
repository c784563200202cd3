"""The OAuth endpoints and the buttons of the connections on the dashboard."""

from __future__ import annotations

import structlog
from flask import Blueprint, Response, redirect, render_template, request, session, url_for
from sqlalchemy.exc import NoResultFound
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.errors import CrmError
from app.oauth.flow import FlowError
from app.web.access import services, signed_in
from config.providers import Provider

log = structlog.get_logger(__name__)
blueprint = Blueprint("connections", __name__)


def _provider(name: str) -> Provider:
    provider = services().providers.get(name)
    if provider is None:
        raise NotFound(f"There is no CRM {name!r} here.")
    return provider


@blueprint.get("/oauth/<name>/start")
@signed_in
def start(name: str) -> WerkzeugResponse | tuple[str, int]:
    """Send the browser to the provider's consent page."""
    provider = _provider(name)
    if not provider.configured:
        message = (
            f"{provider.title} is not set up yet: set {name.upper()}_CLIENT_ID and"
            f" {name.upper()}_CLIENT_SECRET and restart. The README says where to get them."
        )
        return render_template("message.html", title="Not set up", message=message), 409
    return redirect(services().flow.start(provider, str(session["id"])), 303)


@blueprint.get("/oauth/<name>/callback")
@signed_in
def callback(name: str) -> WerkzeugResponse | tuple[str, int]:
    """Take the browser back from the consent page and connect."""
    provider = _provider(name)
    try:
        token = services().flow.finish(provider, request.args, str(session["id"]))
        connection_id = services().connector.connect(provider, token, str(session["user"]))
    except (FlowError, CrmError, ValueError) as error:
        log.warning("connect_failed", provider=name, reason=type(error).__name__)
        title = f"{provider.title} is not connected"
        return render_template("message.html", title=title, message=str(error)), 400
    services().waker.wake([connection_id])
    return redirect(url_for("dashboard.index"), 303)


@blueprint.post("/connections/<int:connection_id>/disconnect")
@signed_in
def disconnect(connection_id: int) -> WerkzeugResponse | Response | str:
    """Erase the tokens and tell the provider."""
    try:
        problem = services().connector.disconnect(connection_id, str(session["user"]))
    except NoResultFound:
        raise NotFound("There is no such connection.") from None
    if problem:
        return render_template("message.html", title="Disconnected", message=problem)
    return redirect(url_for("dashboard.index"), 303)
