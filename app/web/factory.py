"""Builds the Flask application: limits, headers, blueprints, error pages, CLI."""

from __future__ import annotations

import uuid
from functools import partial

import structlog
from flask import Flask, Response, current_app, g, jsonify, render_template, request
from sqlalchemy.exc import StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from app.bootstrap import Services
from app.domain.faults import place_of
from app.security.passwords import BusyHashing
from app.services.sessions import LONGEST
from app.store.columns import UnfitText, is_unfit
from app.store.engine import is_away
from app.web import (
    account,
    api,
    audit,
    bookings,
    causes,
    connections,
    dashboard,
    health,
    mapping_file,
    mappings,
    metrics,
    openid,
    people,
    sources,
    webhooks,
)
from app.web.access import Cookies, i_may
from app.web.body import bounded
from app.web.hosts import with_fit_host
from app.web.lists import view_with
from app.web.moments import say_day, say_moment, say_second, viewer_zone
from app.web.request_id import ROUTE, with_request_id
from app.web.tries import MOST_WRONG_ACCOUNT, WrongTries

log = structlog.get_logger(__name__)
USES_DATABASE = frozenset(["webhooks.receive", "health.readyz"])
"""An answer of theirs without an error shows that the database works."""
RETRY_AFTER = 10
"""Seconds after which a sender may try again if the database is away."""
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

HSTS = {"Strict-Transport-Security": "max-age=31536000"}
"""Browsers use https alone for a year (RFC 6797); not for subdomains, which are not ours."""


def build_app(services: Services) -> Flask:
    """Wire services into a Flask application."""
    app = Flask(__name__)
    secure = services.settings.public_url.startswith("https://")
    app.config.update(
        SECRET_KEY=services.settings.secret_key,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=secure,
        PERMANENT_SESSION_LIFETIME=LONGEST,
    )
    if secure:
        # No other host of the domain can set a cookie of this name (RFC 6265bis, 4.1.3.2).
        app.config["SESSION_COOKIE_NAME"] = "__Host-session"
    # Werkzeug would redirect //x to an address made of the Host header.
    app.url_map.merge_slashes = False
    app.wsgi_app = with_fit_host(bounded(app.wsgi_app))  # type: ignore[method-assign,assignment]
    hops = services.settings.trusted_proxies
    if hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, hops, hops, hops)  # type: ignore[method-assign]
    app.wsgi_app = with_request_id(app.wsgi_app)  # type: ignore[method-assign,assignment]
    app.session_interface = Cookies()
    app.extensions["services"] = services
    app.extensions["wrong_tries"] = WrongTries()
    app.extensions["account_tries"] = WrongTries(most=MOST_WRONG_ACCOUNT, name=str)
    for module in (
        webhooks,
        health,
        metrics,
        connections,
        dashboard,
        bookings,
        causes,
        mappings,
        mapping_file,
        sources,
        account,
        openid,
        people,
        audit,
        api,
    ):
        app.register_blueprint(module.blueprint)
    app.after_request(partial(_add_headers, SECURITY_HEADERS | (HSTS if secure else {})))
    app.context_processor(
        lambda: {
            "me": g.get("person"),
            "may": i_may,
            "viewer_zone": viewer_zone,
            "view_with": view_with,
        }
    )
    app.jinja_env.filters |= {"moment": say_moment, "second": say_second, "day": say_day}
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(BusyHashing, _busy)
    app.register_error_handler(Exception, _unexpected)
    for kind in (PoolTimeout, StatementError, UnfitText, OverflowError):
        app.register_error_handler(kind, _database_error)
    return app


def current_services() -> Services:
    """The services of the application that answers."""
    services: Services = current_app.extensions["services"]
    return services


def _add_headers(headers: dict[str, str], response: Response) -> Response:
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    if request.url_rule is not None:
        request.environ[ROUTE] = request.url_rule.rule
    if response.status_code < 300 and request.endpoint in USES_DATABASE:
        current_services().database_outage.over()
    return response


def _wants_json() -> bool:
    return request.path.startswith(("/webhooks", "/api", "/healthz", "/readyz", "/metrics"))


def _answer(status: int, code: str, message: str) -> Response:
    """Give every error one shape: JSON for machines, a page for people."""
    if _wants_json():
        response = jsonify(error={"code": code, "message": message})
    else:
        page = render_template("message.html", title="That did not work", message=message)
        response = Response(page)
    response.status_code = status
    return response


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    response = _answer(status, error.name.lower().replace(" ", "_"), error.description or "")
    if status in (405, 429):
        response.headers.extend(error.get_headers())
        response.content_type = "application/json" if _wants_json() else "text/html"
    return response


def _database_error(error: Exception) -> Response:
    if is_away(error):
        return _database_down(error)
    if is_unfit(error):
        message = "A text or a number in the request is too large to store."
        return _answer(400, "bad_request", message)
    return _unexpected(error)


def _database_down(error: Exception) -> Response:
    services = current_services()
    services.database_outage.note(services.store.explain(error))
    response = _answer(503, "database_unavailable", "The database does not answer. Try again soon.")
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _busy(error: BusyHashing) -> Response:
    return _answer(503, "busy", str(error))


def _unexpected(error: Exception) -> Response:
    error_id = uuid.uuid4().hex[:12]
    log.error("unexpected_error", error_id=error_id, place=place_of(error), exc_info=error)
    message = f"An unexpected error occurred. Its number in the log is {error_id}."
    return _answer(500, "unexpected", message)
