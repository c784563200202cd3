"""HubSpot's errors in the middle of a call."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask import Response

from sandbox.answers import Record, make


class HubSpotRefused(Exception):
    """An error answer in the middle of a call."""

    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.category, self.message, self.more = status, category, message, more

    def response(self) -> Response:
        """Return the error as a response."""
        body = {
            "status": "error", "message": self.message, "correlationId": "c0ffee",
            "category": self.category, **self.more,
        }  # fmt: skip
        return make(self.status, body)


def invalid(name: str, why: str, code: str, more: Record | None = None) -> NoReturn:
    """Raise the error for a wrong property value."""
    detail = json.dumps([{"isValid": False, "message": why, "error": code, "name": name}])
    raise HubSpotRefused(
        400, "VALIDATION_ERROR", f"Property values were not valid: {detail}",
        errors=[{"message": why, "code": code, "context": {"propertyName": [name]}}],
        **(more or {}),
    )  # fmt: skip
