"""The JSON API under /api/v1, for scripts with a key."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from app.domain.booking import MeetingOutcome
from app.domain.json_text import NotJson, TooDeep, parse_json
from app.store.states import DeliveryState
from app.web.access import bearer, services
from app.web.lookup import asked_connection, connected, find_booking, find_connection, overview

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
MAX_LIMIT = 200
MAX_OFFSET = 10_000_000
ACTOR = "api"
"""Who the audit log says it was."""


@blueprint.get("/bookings")
@bearer
def bookings() -> Response:
    """The bookings that changed last, all or those in one state, with deliveries and records."""
    limit = min(max(request.args.get("limit", 50, type=int), 1), MAX_LIMIT)
    offset = min(max(request.args.get("offset", 0, type=int), 0), MAX_OFFSET)
    asked = request.args.get("state")
    if asked is not None and asked not in list(DeliveryState):
        known = ", ".join(DeliveryState)
        raise BadRequest(f"state is one of: {known}.")
    state = DeliveryState(asked) if asked else None
    return jsonify(bookings=[item.as_json() for item in overview().bookings(limit, offset, state)])


@blueprint.get("/bookings/<path:key>")
@bearer
def booking(key: str) -> Response:
    """One booking."""
    return jsonify(find_booking(key).view.as_json())


@blueprint.get("/bookings/<path:key>/preview")
@bearer
def preview(key: str) -> Response:
    """What would be created, changed or left alone in one CRM, or in all; nothing is written."""
    found = find_booking(key)
    rows = [find_connection(_connection())] if "connection" in request.args else connected()
    accounts = [services().trial.preview_account(row, [found.booking]) for row in rows]
    return jsonify(key=found.view.key, accounts=[account.as_json() for account in accounts])


@blueprint.post("/bookings/<path:key>/outcome")
@bearer
def outcome(key: str) -> Response:
    """Say how the meeting went, or take it back with null; the CRMs follow."""
    found = find_booking(key).booking
    body = _json()
    said = body.get("outcome", "") if isinstance(body, dict) else ""
    if said is not None and said not in list(MeetingOutcome):
        known = ", ".join(f'"{item}"' for item in MeetingOutcome)
        raise BadRequest(f'Send {{"outcome": …}} with one of: {known}, null.')
    if found.form:
        raise BadRequest("This is a form: there was no meeting.")
    meant = MeetingOutcome(said) if said else None
    services().waker.wake(services().intake.say_outcome(found.key, meant, ACTOR))
    return jsonify(key=found.key, outcome=said)


@blueprint.get("/sources")
@bearer
def sources() -> Response:
    """The meetergo workspaces and how they are."""
    return jsonify(sources=[view.as_json() for view in services().sources.views()])


@blueprint.get("/connections")
@bearer
def connections() -> Response:
    """The CRM accounts and how they are."""
    return jsonify(
        connections=[
            {
                "id": row.id,
                "provider": row.provider,
                "account": row.account,
                "account_id": row.account_id,
                "status": row.status,
                "since": row.status_since.isoformat(),
                "problem": row.problem,
                "error": row.last_error,
                "next_step": row.next_step,
                "mapping_problem": row.mapping_problem,
                "access": row.auth,
                "expires_at": row.expires_at.isoformat() if row.expires_at else None,
                "scopes": row.scopes,
                "scopes_lacking": sorted(services().providers[row.provider].lacking(row.scopes)),
                "parked": overview().parked(row.id),
            }
            for row in overview().connections()
        ]
    )


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """This API in OpenAPI 3.1."""
    return jsonify(_OPENAPI)


def _json() -> Any:
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        return parse_json(request.get_data())
    except (NotJson, TooDeep) as error:
        raise BadRequest(f"The body was not taken: {error}.") from None


def _connection() -> int:
    number = asked_connection(request.args)
    if number is None:
        raise BadRequest("connection takes the number of a connection.")
    return number


def _answer(words: str, schema: str | None = None) -> dict[str, Any]:
    body = {"schema": {"$ref": f"#/components/schemas/{schema}"}} if schema else {}
    return {"description": words, "content": {"application/json": body}}


def _operation(
    summary: str, *parameters: dict[str, Any], answer: str | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": list(parameters),
        "security": [{"key": []}],
        "responses": {
            "200": _answer("As asked", answer),
            "400": _answer("Not understood", "Error"),
            "401": _answer("No valid key", "Error"),
            "404": _answer("Not there", "Error"),
            **({"415": _answer("Not sent as JSON", "Error")} if "requestBody" in more else {}),
        },
        **more,
    }


_STATE: dict[str, Any] = {
    "name": "state",
    "in": "query",
    "description": "Only bookings that stand so in some CRM",
    "schema": {"type": "string", "enum": [state.value for state in DeliveryState]},
}


def _number(name: str, most: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": 0}
    if most:
        schema["maximum"] = most
    return {"name": name, "in": "query", "schema": schema}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_KEY = {
    "name": "key",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The booking's key (source:id), or its id in the default source",
}
_TEXT, _MAYBE = {"type": "string"}, {"type": ["string", "null"]}
_OUTCOME = {"enum": [*[item.value for item in MeetingOutcome], None]}
_ANY: dict[str, Any] = {}
_SCHEMAS = {
    "Error": _object(error=_object(code=_TEXT, message=_TEXT)),
    "Delivery": _object(
        connection_id={"type": "integer"}, provider=_TEXT, account=_TEXT, state=_TEXT,
        calls={"type": "integer"}, attempts={"type": "integer"}, error=_MAYBE, advice=_MAYBE,
        error_fields={"type": "object", "additionalProperties": _TEXT},
        next_attempt_at=_MAYBE, mapping_version=_MAYBE, notes=_list(_TEXT),
        links=_list(_object(object=_TEXT, record_id=_TEXT, url=_TEXT)),
    ),
    "Booking": _object(
        key=_TEXT, title=_TEXT, who=_TEXT, start=_TEXT, timezone=_TEXT, status=_TEXT,
        outcome=_OUTCOME, deliveries=_list({"$ref": "#/components/schemas/Delivery"}),
    ),
    "Record": _object(
        object=_TEXT, action={"enum": ["create", "change", "delete", "leave", "problem"]},
        record_id=_MAYBE, url=_TEXT,
        fields=_list(_object(name=_TEXT, old=_ANY, new=_ANY, now=_ANY, then=_ANY)),
        links=_list(_TEXT), notes=_list(_TEXT),
    ),
    "Preview": _object(
        key=_TEXT,
        accounts=_list(
            _object(
                connection={"type": "integer"}, provider=_TEXT, account=_TEXT,
                mapping_version=_MAYBE, problem=_MAYBE, advice=_MAYBE,
                bookings=_list(
                    _object(
                        key=_TEXT, title=_TEXT, who=_TEXT, skipped=_TEXT, problem=_TEXT,
                        notes=_list(_TEXT),
                        records=_list({"$ref": "#/components/schemas/Record"}),
                    )
                ),
            )
        ),
    ),
    "Outcome": _object(key=_TEXT, outcome=_OUTCOME),
}  # fmt: skip
_OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "meetergo CRM bridge", "version": "1"},
    "components": {
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        "schemas": _SCHEMAS,
    },
    "paths": {
        "/api/v1/bookings": {
            "get": _operation(
                "Bookings that changed last", _number("limit", MAX_LIMIT), _number("offset"), _STATE
            )
        },
        "/api/v1/bookings/{key}": {"get": _operation("One booking", _KEY, answer="Booking")},
        "/api/v1/bookings/{key}/preview": {
            "get": _operation(
                "What would be created, changed or left alone in one CRM, or in all of them",
                _KEY,
                _number("connection"),
                answer="Preview",
            )
        },
        "/api/v1/bookings/{key}/outcome": {
            "post": _operation(
                "Say how the meeting went, or take it back with null",
                _KEY,
                answer="Outcome",
                requestBody={
                    "required": True,
                    "content": {"application/json": {"schema": _object(outcome=_OUTCOME)}},
                },
            )
        },
        "/api/v1/sources": {"get": _operation("meetergo workspaces and how they are")},
        "/api/v1/connections": {"get": _operation("CRM accounts")},
    },
}
