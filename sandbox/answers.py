"""JSON records, and JSON responses."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify

Record = dict[str, Any]


def make(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    response = jsonify(body)
    response.status_code = status
    response.headers.update(headers or {})
    return response
