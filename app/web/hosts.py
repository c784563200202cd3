"""Refuses a Host header that names no host, before Flask tries to make an address of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_LABEL = r"[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(
    rf"(?=.{{0,255}}$)(?:(?:{_LABEL}\.)*{_LABEL}\.?|\[[0-9A-Fa-f:.]{{2,45}}\])?(?::[0-9]{{1,5}})?"
)
_ANSWER = json.dumps(
    {"error": {"code": "bad_request", "message": "The Host header names no host."}}
).encode()


def with_fit_host(application: WSGIApplication) -> WSGIApplication:
    """Return a WSGI application that refuses an invalid host name or address (RFC 9112, 3.2)."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _HOST.fullmatch(environ.get("HTTP_HOST", "")):
            return application(environ, start_response)
        length = ("Content-Length", str(len(_ANSWER)))
        start_response("400 Bad Request", [("Content-Type", "application/json"), length])
        return [_ANSWER]

    return guarded
