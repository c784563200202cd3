"""Lists and search results in pages."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.pipedrive.refused import unfit


def page_of_rows(rows: list[Record]) -> Response:
    """Return a page of a list: 100 rows by default, 500 at most."""
    start = int(request.args.get("cursor", 0))
    limit = min(int(request.args.get("limit", 100)), 500)
    cursor = str(start + limit) if len(rows) > start + limit else None
    body = {"success": True, "data": rows[start : start + limit]}
    return make(200, {**body, "additional_data": {"next_cursor": cursor}})


def page_of_hits(items: list[Record]) -> Response:
    """Return a page of a search: 100 results by default, 500 at most.

    https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons
    """
    start, limit = int(request.args.get("cursor", 0)), int(request.args.get("limit", 100))
    if not 0 < limit <= 500:
        raise unfit("limit: must be between 1 and 500")
    cursor = str(start + limit) if len(items) > start + limit else None
    return make(200, {"success": True, "data": {"items": items[start : start + limit]},
                      "additional_data": {"next_cursor": cursor}})  # fmt: skip
