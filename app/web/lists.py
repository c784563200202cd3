"""Lists: their address is a saved view, and each has a twin in JSON and one in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response, request, url_for

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is run as a formula by spreadsheets: https://owasp.org/www-community/attacks/CSV_Injection"""


def view_with(**changes: str | None) -> str:
    """The address of this list with other filters; None or an empty text takes one away."""
    given = {name: value for name, value in request.args.items() if name not in ("after", "seen")}
    wanted = {name: value for name, value in (given | changes).items() if value}
    values: dict[str, Any] = {**(request.view_args or {}), **wanted}
    return url_for(str(request.endpoint), **values)


def as_csv(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """Rows as a file for a spreadsheet."""
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])
    response = Response(made.getvalue(), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
