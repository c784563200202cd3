"""The OAuth endpoints, and the pages to make, repair and end a connection."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.errors import CrmError
from app.domain.limits import LOGIN_HOST
from app.domain.roles import Permission
from app.oauth.flow import ConnectRequest, FlowError, own_path
from app.services.connect import OtherAccount, UnfitGrant
from app.services.overview import Overview
from app.store.engine import utcnow
from app.web.access import me, needs, services
from app.web.lookup import asked_connection, find_connection
from config.providers import Provider

log = structlog.get_logger(__name__)
blueprint = Blueprint("connections", __name__)
Answer = WerkzeugResponse | str | tuple[str, int]


@blueprint.post("/oauth/<name>/start")
@needs(Permission.CHANGE_SETUP)
def start(name: str) -> Answer:
    """Send the browser to the provider's consent page, in the same window: no pop-up to block."""
    provider = _provider(name)
    if not provider.configured:
        message = (
            f"{provider.title} is not set up yet: set {name.upper()}_CLIENT_ID and"
            f" {name.upper()}_CLIENT_SECRET and restart. The README says where to get them."
        )
        return _message("Not set up", message, 409)
    host = request.form.get("host", "").strip().lower()
    if len(host) > LOGIN_HOST:
        words = f"A login host has at most {LOGIN_HOST} characters. Go back and correct it."
        return _message(f"{provider.title} is not connected", words, 400)
    wish = ConnectRequest(
        connection_id=asked_connection(request.form),
        other_account="other_account" in request.form,
        login_host=host or None,
        next_path=own_path(request.form.get("next")),
    )
    try:
        address = services().flow.start(provider, _session_id(), wish)
    except ValueError as error:
        return _message(
            f"{provider.title} is not connected", f"{error} Go back and correct it.", 400
        )
    # Not a redirect: Chromium holds a form's redirects to form-action, which names this site alone.
    page = make_response(render_template("onward.html", provider=provider, address=address))
    page.headers["Refresh"] = f"0; url={address}"
    return page


@blueprint.get("/oauth/<name>/callback")
@needs(Permission.CHANGE_SETUP)
def callback(name: str) -> Answer:
    """Take the browser back from the consent page and connect."""
    provider = _provider(name)
    wish = ConnectRequest()
    try:
        token, wish = services().flow.finish(provider, _answer(), _session_id())
        number = services().connector.connect(provider, token, me().name, wish)
    except (FlowError, CrmError, UnfitGrant, OtherAccount) as error:
        return _not_connected(provider, error, wish)
    services().waker.wake([number])
    there = url_for("dashboard.index")
    if wish.connection_id is not None:
        there = url_for("connections.show", connection_id=number)
    return redirect(wish.next_path or there, 303)


@blueprint.get("/connections/more")
@needs(Permission.CHANGE_SETUP)
def more() -> Answer:
    """Show the rarer ways to connect: hand-made keys, sandbox orgs and a customer's login hosts."""
    return render_template("more.html", providers=services().providers, csrf=me().csrf)


@blueprint.get("/connections/host/<name>")
@needs(Permission.CHANGE_SETUP)
def ask_host(name: str) -> Answer:
    """Ask for a customer's own login host, and check it before the person goes there."""
    provider = _provider(name)
    host, problem = request.args.get("host", "").strip().lower(), None
    try:
        provider.at(host)
    except ValueError as error:
        host, problem = "", str(error)
    return render_template(
        "host.html", provider=provider, host=host, problem=problem, csrf=me().csrf
    )


@blueprint.get("/connections/<int:connection_id>")
@needs(Permission.SEE_SETUP)
def show(connection_id: int) -> Answer:
    """One connection: its state, its scopes, and what to do next."""
    return _page(connection_id)


@blueprint.post("/connections/<int:connection_id>/check")
@needs(Permission.CHANGE_SETUP)
def check(connection_id: int) -> Answer:
    """Examine a connection end to end and show what to fix."""
    row = find_connection(connection_id)
    return _page(connection_id, findings=list(services().doctor.examine_connection(row)))


@blueprint.post("/connections/<int:connection_id>/resume")
@needs(Permission.CHANGE_SETUP)
def resume(connection_id: int) -> Answer:
    """Renew the access of a connection and resume its work."""
    row = find_connection(connection_id)
    try:
        services().connector.resume(row.id, me().name)
    except CrmError as error:
        return _page(connection_id, problem=f"It does not work yet: {error.message}", status=409)
    services().waker.wake([row.id])
    return redirect(url_for("connections.show", connection_id=row.id), 303)


@blueprint.get("/connections/<int:connection_id>/disconnect")
@needs(Permission.CHANGE_SETUP)
def ask_disconnect(connection_id: int) -> Answer:
    """Ask what to do with the bookings that wait."""
    row = find_connection(connection_id)
    return render_template(
        "disconnect.html", row=row, provider=_provider(row.provider), csrf=me().csrf,
        parked=_overview().parked(row.id),
    )  # fmt: skip


@blueprint.post("/connections/<int:connection_id>/disconnect")
@needs(Permission.CHANGE_SETUP)
def disconnect(connection_id: int) -> Answer:
    """Erase the tokens and notify the provider."""
    row = find_connection(connection_id)
    discard = request.form.get("parked") == "discard"
    services().connector.disconnect(row.id, me().name, discard)
    return redirect(url_for("connections.show", connection_id=row.id), 303)


@blueprint.get("/connections/key/<name>")
@needs(Permission.CHANGE_SETUP)
def ask_key(name: str) -> Answer:
    """Ask for a key that a person made by hand."""
    return _key_page(_provider(name))


@blueprint.post("/connections/key/<name>")
@needs(Permission.CHANGE_SETUP)
def add_key(name: str) -> Answer:
    """Check a key at the CRM and connect with it; it is never shown again."""
    provider = _provider(name)
    number = asked_connection(request.form)
    wish = ConnectRequest(connection_id=number, other_account="other_account" in request.form)
    key = request.form.get("key", "").strip()
    try:
        number = services().connector.add_key(provider, key, me().name, wish)
    except (CrmError, UnfitGrant, OtherAccount) as error:
        return _key_page(provider, str(error), 400)
    services().waker.wake([number])
    return redirect(url_for("connections.show", connection_id=number), 303)


def _provider(name: str) -> Provider:
    provider = services().providers.get(name)
    if provider is None:
        raise NotFound(f"There is no CRM {name!r} here.")
    return provider


def _answer() -> dict[str, str]:
    """The parameters from the consent page; an issuer that is no address belongs to no provider."""
    answer = request.args.to_dict()
    try:
        urlsplit(answer.get("iss", ""))
    except ValueError:
        answer["iss"] = "no address"
    return answer


def _session_id() -> str:
    """The browser session and the person, to whom a connect is bound."""
    return f"{me().session_id} {me().name}"


def _overview() -> Overview:
    return Overview(services().store, services().cipher)


def _message(title: str, message: str, status: int) -> tuple[str, int]:
    return render_template("message.html", title=title, message=message), status


def _not_connected(provider: Provider, error: Exception, wish: ConnectRequest) -> tuple[str, int]:
    log.warning("connect_failed", provider=provider.name, kind=type(error).__name__)
    page = render_template(
        "not_connected.html",
        provider=provider,
        message=error.message if isinstance(error, CrmError) else str(error),
        advice=error.advice if isinstance(error, CrmError) else "",
        wish=wish,
        other=isinstance(error, OtherAccount),
        csrf=me().csrf,
    )
    return page, 400


def _page(
    connection_id: int, findings: Any = None, problem: str | None = None, status: int = 200
) -> tuple[str, int]:
    row = find_connection(connection_id)
    provider = _provider(row.provider)
    page = render_template(
        "connection.html",
        row=row,
        provider=provider,
        lacking=provider.lacking(row.scopes),
        parked=_overview().parked(row.id),
        waiting=_overview().waiting(row.id),
        now=utcnow(),
        findings=findings,
        problem=problem,
        csrf=me().csrf,
    )
    return page, status


def _key_page(provider: Provider, problem: str | None = None, status: int = 200) -> Answer:
    if provider.key is None:
        raise NotFound(f"{provider.title} has no keys; connect it through its consent page.")
    number = asked_connection(request.values)
    page = render_template(
        "key.html", provider=provider, problem=problem, connection=number, csrf=me().csrf
    )
    return page, status
