"""Pipedrive's errors in the middle of a call."""

from __future__ import annotations

from flask import Response

from sandbox.answers import Record, make


class PipedriveRefused(Exception):
    """An error answer in the middle of a call."""

    def __init__(self, status: int, error: str, code: str = "", more: Record | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.code, self.more = status, error, code, more or {}

    def response(self) -> Response:
        """Return the error as a response."""
        body: Record = {
            "success": False,
            "error": self.error,
            "error_info": "See the documentation.",
            **self.more,
        }
        return make(self.status, {**body, "code": self.code} if self.code else body)


def unfit(what: str) -> PipedriveRefused:
    """Return the error for a body or a query that does not fit v2's schema."""
    return PipedriveRefused(400, f"Validation failed: {what}", "ERR_SCHEMA_VALIDATION_FAILED")
