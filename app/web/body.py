"""Reads a request's body: all of it or none, up to a limit; a bad one is the sender's fault."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from app.web.arrival import MAX_BODY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TOO_LARGE = f"The body is larger than {MAX_BODY // 1024} KiB."
BROKEN = "The body is incomplete: check Content-Length or Transfer-Encoding."


class Body(io.RawIOBase):
    """A request's body, read completely when its first byte is asked for.

    Raises RequestEntityTooLarge for a body over MAX_BODY, and BadRequest for one that breaks off or
    has invalid chunks.
    """

    def __init__(self, stream: Any, length: str | None, terminated: bool) -> None:
        """`terminated`: whether the server ends the stream where the body ends."""
        self._stream, self._length, self._terminated = stream, length, terminated
        self._held: io.BytesIO | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; return their number."""
        if self._held is None:
            self._held = io.BytesIO(self._read())
        return self._held.readinto(buffer)

    def _read(self) -> bytes:
        if self._length is None:
            return self._up_to(MAX_BODY + 1) if self._terminated else b""
        if not (self._length.isascii() and self._length.isdigit()):
            raise BadRequest(BROKEN)
        # More than twelve digits are no length that any sender means.
        wanted = int(self._length[-12:]) if len(self._length) <= 12 else MAX_BODY + 1
        if wanted > MAX_BODY:
            raise RequestEntityTooLarge(TOO_LARGE)
        body = self._up_to(wanted)
        if len(body) < wanted:
            raise BadRequest(BROKEN)
        return body

    def _up_to(self, most: int) -> bytes:
        parts, read = [], 0
        while read < most:
            try:
                part = self._stream.read(most - read)
            except Exception:
                # The server's reader has its own errors for each kind of broken chunk.
                raise BadRequest(BROKEN) from None
            if not part:
                break
            parts.append(part)
            read += len(part)
        if read > MAX_BODY:
            raise RequestEntityTooLarge(TOO_LARGE)
        return b"".join(parts)


def bounded(application: WSGIApplication) -> WSGIApplication:
    """Return a WSGI application in which every view reads bodies as Body does."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or None
        terminated = bool(environ.get("wsgi.input_terminated"))
        environ["wsgi.input"] = Body(environ["wsgi.input"], length, terminated)
        environ["wsgi.input_terminated"] = True
        return application(environ, start_response)

    return guarded
