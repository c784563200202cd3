"""The JSON API under /api/v1, for scripts with a key."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import NotFound

from app.services.overview import Overview
from app.web.access import bearer, services

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
MAX_LIMIT = 200


def _overview() -> Overview:
    return Overview(services().store, services().cipher)


@blueprint.get("/bookings")
@bearer
def bookings() -> Response:
    """The bookings that changed last, with their deliveries and records."""
    limit = min(max(request.args.get("limit", 50, type=int), 1), MAX_LIMIT)
    offset = max(request.args.get("offset", 0, type=int), 0)
    return jsonify(bookings=[item.as_json() for item in _overview().bookings(limit, offset)])


@blueprint.get("/bookings/<key>")
@bearer
def booking(key: str) -> Response:
    """One booking."""
    found = _overview().booking(key)
    if found is None:
        raise NotFound("There is no such booking.")
    return jsonify(found.as_json())


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
                "access": row.auth,
                "expires_at": row.expires_at.isoformat() if row.expires_at else None,
                "scopes": row.scopes,
                "scopes_lacking": sorted(services().providers[row.provider].lacking(row.scopes)),
                "parked": _overview().parked(row.id),
            }
            for row in _overview().connections()
        ]
    )


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """This API in OpenAPI 3.1."""
    return jsonify(_OPENAPI)


def _operation(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "parameters": list(parameters),
            "security": [{"key": []}],
            "responses": {
                "200": {"description": "As asked", "content": {"application/json": {}}},
                "401": {"description": "No valid key"},
                "404": {"description": "Not there"},
            },
        }
    }


def _number(name: str, most: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": 0}
    if most:
        schema["maximum"] = most
    return {"name": name, "in": "query", "schema": schema}


_OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "meetergo CRM bridge", "version": "1"},
    "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    "paths": {
        "/api/v1/bookings": _operation(
            "Bookings that changed last", _number("limit", MAX_LIMIT), _number("offset")
        ),
        "/api/v1/bookings/{key}": _operation(
            "One booking",
            {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}},
        ),
        "/api/v1/connections": _operation("CRM accounts"),
    },
}
