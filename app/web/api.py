"""The JSON API under /api/v1, for scripts with a key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest, ServiceUnavailable, UnsupportedMediaType

from app.domain.booking import MeetingOutcome
from app.domain.json_text import NotJson, TooDeep, parse_json
from app.domain.roles import Permission
from app.security.encryption import UnreadableSecret
from app.services.erasure import Busy
from app.store.states import DeliveryState
from app.web.access import bearer, services
from app.web.api_description import describe
from app.web.lookup import asked_connection, connected, find_booking, find_connection, overview

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
MAX_LIMIT = 200
MAX_OFFSET = 10_000_000
ACTOR = "api"
"""The actor in the audit log."""


@blueprint.get("/bookings")
@bearer(Permission.SEE_BOOKINGS)
def bookings() -> Response:
    """The bookings that changed last, all or those in one state, with deliveries and records."""
    limit = min(max(_number("limit", 50), 1), MAX_LIMIT)
    offset = min(_number("offset", 0), MAX_OFFSET)
    asked = request.args.get("state")
    if asked is not None and asked not in list(DeliveryState):
        known = ", ".join(DeliveryState)
        raise BadRequest(f"state is one of: {known}.")
    state = DeliveryState(asked) if asked else None
    return jsonify(bookings=[item.as_json() for item in overview().bookings(limit, offset, state)])


@blueprint.get("/bookings/<path:key>")
@bearer(Permission.SEE_BOOKINGS)
def booking(key: str) -> Response:
    """One booking."""
    return jsonify(find_booking(key).view.as_json())


@blueprint.get("/bookings/<path:key>/preview")
@bearer(Permission.SEE_BOOKINGS)
def preview(key: str) -> Response:
    """What would be created, changed or left alone in one CRM, or in all; nothing is written."""
    found = find_booking(key)
    rows = [find_connection(_connection())] if "connection" in request.args else connected()
    accounts = [services().trial.preview_account(row, [found.booking]) for row in rows]
    return jsonify(key=found.view.key, accounts=[account.as_json() for account in accounts])


@blueprint.post("/bookings/<path:key>/outcome")
@bearer(Permission.SAY_OUTCOMES)
def outcome(key: str) -> Response:
    """Note how the meeting went, or take that back with null; the CRMs follow."""
    found = find_booking(key).booking
    body = _json()
    said = body.get("outcome", "") if isinstance(body, dict) else ""
    if said is not None and said not in list(MeetingOutcome):
        known = ", ".join(f'"{item}"' for item in MeetingOutcome)
        raise BadRequest(f'Send {{"outcome": …}} with one of: {known}, null.')
    if found.form:
        raise BadRequest("This is a form without a meeting, so it has no outcome.")
    meant = MeetingOutcome(said) if said else None
    services().waker.wake(services().intake.say_outcome(found.key, meant, ACTOR))
    return jsonify(key=found.key, outcome=said)


@blueprint.get("/sources")
@bearer(Permission.SEE_SETUP)
def sources() -> Response:
    """The meetergo workspaces and their states."""
    return jsonify(sources=[view.as_json() for view in services().sources.views()])


@blueprint.get("/connections")
@bearer(Permission.SEE_SETUP)
def connections() -> Response:
    """The CRM accounts and their states."""
    every = overview().connections()
    views = (overview().connection_view(row, services().providers[row.provider]) for row in every)
    return jsonify(connections=[asdict(view) for view in views])


@blueprint.post("/privacy/erase")
@bearer(Permission.ANSWER_REQUESTS)
def erase() -> Response:
    """Erase a person, given by e-mail address; list or delete their records in the CRMs."""
    body = _person()
    wanted = body.get("crm_records", "list")
    if wanted not in ("list", "delete"):
        raise BadRequest('crm_records is "list" or "delete".')
    try:
        done = services().erasure.erase(body["email"], wanted == "delete", ACTOR)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    except (Busy, UnreadableSecret) as error:
        raise ServiceUnavailable(str(error)) from None
    return jsonify(done.as_json())


@blueprint.post("/privacy/export")
@bearer(Permission.ANSWER_REQUESTS)
def export() -> Response:
    """All that is held on a person, given by e-mail address: in the body, not in a URL."""
    try:
        return jsonify(services().erasure.export(_person()["email"]))
    except ValueError as error:
        raise BadRequest(str(error)) from None
    except UnreadableSecret as error:
        raise ServiceUnavailable(str(error)) from None


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """This API in OpenAPI 3.1."""
    return jsonify(describe(MAX_LIMIT))


def _person() -> dict[str, Any]:
    body = _json()
    if not isinstance(body, dict) or not isinstance(body.get("email"), str):
        raise BadRequest('Send {"email": …} with the address of a person.')
    return body


def _json() -> Any:
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        return parse_json(request.get_data())
    except (NotJson, TooDeep) as error:
        raise BadRequest(f"The body was not accepted: {error}.") from None


def _number(name: str, default: int) -> int:
    """A whole number in the query; the default if there is none. Raises BadRequest for anything else."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise BadRequest(f"{name} takes a whole number.")
    # More than nine digits are over any limit.
    return max(0, int(text[:10]))


def _connection() -> int:
    number = asked_connection(request.args)
    if number is None:
        raise BadRequest("connection takes the number of a connection.")
    return number
