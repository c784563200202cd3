"""Salesforce's errors in the middle of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.answers import Record


class SalesforceRefused(Exception):
    """An error answer in the middle of a call."""

    def __init__(
        self, status: int, code: str, message: str, fields: list[str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields or []
        self.more = more or {}

    @property
    def body(self) -> list[Record]:
        """Return the list that Salesforce sends as an error."""
        error = {"errorCode": self.code, "message": self.message, "fields": self.fields}
        return [{**error, **self.more}]
