"""Each request has an id: in its answer, and in each line of the log that is about it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from structlog.contextvars import bind_contextvars, clear_contextvars

from app.outbound.tracing import span

HEADER = "X-Request-Id"
REQUEST_ID, ROUTE = "bridge.request_id", "bridge.route"
"""Where the WSGI environment has the id, and the pattern of the address."""
_WELL_FORMED = re.compile(r"[0-9A-Fa-f-]{16,64}")
"""An id as proxies make them, a UUID for example; no word and no name looks like this."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_request_id(application: Application) -> Application:
    """Give every request an id; the caller's own counts if it is well-formed."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _WELL_FORMED.fullmatch(given) else os.urandom(8).hex()
        environ[REQUEST_ID] = request_id
        # The thread has answered other requests before.
        clear_contextvars()
        bind_contextvars(request_id=request_id)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if current is not None:
                current.set_attribute("http.response.status_code", int(status[:3]))
            return start_response(status, [*headers, (HEADER, request_id)], *more)

        method = environ.get("REQUEST_METHOD", "")
        with span("request", http__request__method=method, request_id=request_id) as current:
            body = application(environ, start)
            if current is not None:
                route = environ.get(ROUTE, "")
                current.update_name(f"{method} {route}")
                current.set_attribute("http.route", route)
            return body

    return answer
