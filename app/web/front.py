"""The gunicorn worker: a request takes a thread only once it has arrived; an answer holds none.

gunicorn's gthread worker reads a request in one of its few threads, for as long as the client
takes. Here the worker's one loop reads and writes every socket without waiting, each phase has a
time limit, and each connection carries one request.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import structlog
from gunicorn.http import errors
from gunicorn.http.body import ChunkedReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.gthread import ThreadWorker

from app.domain.faults import place_of
from app.web.arrival import MAX_HEAD, Arrival, BodyAhead

log = structlog.get_logger(__name__)
APP_LOAD_ERROR = 4
"""The exit code of a worker at which gunicorn ends (`Arbiter.APP_LOAD_ERROR`)."""
HEAD_SECONDS = 10.0
"""From the start of the connection to the end of its headers."""
BODY_SECONDS = 30.0
"""From the end of the headers to the end of the body."""
ANSWER_SECONDS = 30.0
"""For the client to read the answer."""
LINGER_SECONDS = 2.0
"""For the client to close; whatever it still sends is thrown away (RFC 9112, 9.6)."""
LAST_CALL_SECONDS = 2.0
"""For a connection to begin its request once its worker has been told to stop."""
LINGER_BYTES = 1024 * 1024
MAX_HELD = 32 * 1024 * 1024
"""Bytes of unfinished requests that a process holds; above that the oldest one is ended."""
LOOK_SECONDS = 0.2
"""Between two checks for connections whose time is over."""
RECEIVE = 64 * 1024


class SocketPhase(Enum):
    """What a connection waits for while no thread works on it."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    LINGER = "linger"


class BufferedAnswer:
    """Takes the place of the socket while a thread makes an answer; the loop sends it."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        """Add to the answer."""
        self.data += data

    def send(self, data: bytes) -> int:
        """Accept gunicorn's own `100 Continue` and drop it: the loop has sent it already."""
        return len(data)

    def shutdown(self, _how: int) -> None:
        """Do not shut down: the loop closes the socket."""
        raise OSError(errno.ENOTCONN, "the loop closes it")

    def close(self) -> None:
        """Do nothing, for the same reason."""


@dataclass(eq=False)
class Visit:
    """A connection with its one request and its one answer."""

    wire: socket.socket
    client: Any
    server: Any
    ends: float
    arrival: Arrival = field(default_factory=Arrival)
    request: Request | None = None
    """The request whose head has been read, until a thread takes it."""
    phase: SocketPhase = SocketPhase.HEAD
    sock: BufferedAnswer = field(default_factory=BufferedAnswer)
    """The buffer into which gunicorn writes the answer."""
    continues: bool = False
    """Whether the client waits for `100 Continue` before it sends the body."""
    sent: int = 0
    thrown_away: int = 0


class FrontWorker(ThreadWorker):  # type: ignore[misc]
    """gthread's loop and threads, but the loop itself handles all sockets."""

    def load_wsgi(self) -> None:
        """Load the application; where it cannot start, end all of gunicorn with its sentence.

        gunicorn would start this worker again each second, for ever; a supervisor knows better when.
        """
        try:
            super().load_wsgi()
        except SystemExit as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(APP_LOAD_ERROR) from None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[Visit, None] = {}
        """Connections that no thread works on, the oldest first."""
        self._looked = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse settings that this worker does not support."""
        if cfg.is_ssl:
            raise RuntimeError("TLS ends at the proxy in front: take certfile and keyfile away.")

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection; if there is no room, drop the oldest unfinished one."""
        try:
            wire, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                raise
            return
        wire.setblocking(False)
        self.nr_conns += 1
        visit = Visit(wire, client, listener.getsockname(), time.monotonic() + HEAD_SECONDS)
        self._wait(visit, SocketPhase.HEAD, visit.ends)
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _make_room(self) -> None:
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            self._drop(oldest)

    def _wait(self, visit: Visit, phase: SocketPhase, ends: float) -> None:
        """Leave a connection to the loop until it can be read or, for an answer, written."""
        visit.phase, visit.ends = phase, ends
        writes = phase is SocketPhase.ANSWER
        event = selectors.EVENT_WRITE if writes else selectors.EVENT_READ
        self._forget(visit)
        step = self._write if writes else self._read
        self.poller.register(visit.wire, event, partial(_call, step, visit))
        self._waiting[visit] = None

    def _forget(self, visit: Visit) -> None:
        if visit in self._waiting:
            del self._waiting[visit]
            self.poller.unregister(visit.wire)

    def _drop(self, visit: Visit) -> None:
        self._forget(visit)
        visit.wire.close()
        self.nr_conns -= 1

    def murder_pending(self) -> None:
        """End connections whose time is over; gthread's loop calls this at least once a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for visit in [visit for visit in self._waiting if visit.ends <= now]:
            begun = visit.phase in (SocketPhase.HEAD, SocketPhase.BODY) and visit.arrival.data
            if begun:
                self._refuse(visit, 408, "The request was not complete in time.")
            else:
                self._drop(visit)
        held = sum(len(visit.arrival.data) for visit in self._waiting)
        while held > MAX_HELD and self._waiting:
            held -= len(next(iter(self._waiting)).arrival.data)
            self._make_room()

    def _cap_keepalive(self, _deadline: float) -> None:
        """Give connections that have sent nothing a moment more before the worker stops.

        A request may be on its way: nobody else can answer it, and it would end in a reset.
        """
        soon = time.monotonic() + LAST_CALL_SECONDS
        for visit in self._waiting:
            if not visit.arrival.data:
                visit.ends = min(visit.ends, soon)

    def _read(self, visit: Visit) -> None:
        try:
            data = visit.wire.recv(RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(visit)
            return
        if visit.phase is SocketPhase.LINGER:
            visit.thrown_away += len(data)
            if not data or visit.thrown_away > LINGER_BYTES:
                self._drop(visit)
            return
        visit.arrival.feed(data)
        if not visit.arrival.data:
            self._drop(visit)
        elif visit.phase is SocketPhase.HEAD:
            self._look(visit)
        elif visit.arrival.whole:
            self._forget(visit)
            self.enqueue_req(visit)

    def _look(self, visit: Visit) -> None:
        """Start a thread for the answer once the head is here; most refusals need no body."""
        head = visit.arrival.head
        if head is None:
            return
        try:
            request = Request(self.cfg, IterUnreader(visit.arrival.source()), visit.client)
        except Exception as error:
            too_large = len(head) > MAX_HEAD and isinstance(error, errors.NoMoreData)
            self._refuse(visit, 431 if too_large else _status(error), "This is no HTTP request.")
            return
        reader = request.body.reader
        chunked = isinstance(reader, ChunkedReader)
        visit.arrival.expect(getattr(reader, "length", 0), chunked)
        visit.continues = request._expected_100_continue
        visit.request = request
        self._forget(visit)
        self.enqueue_req(visit)

    def handle(self, visit: Visit) -> bool:
        """Make the answer, in a thread; return True if it needs a body that has not come yet."""
        visit.sock = BufferedAnswer()
        try:
            request, visit.request = visit.request, None
            if request is None:
                # Its body had not come yet when it was read for the first time.
                request = next(RequestParser(self.cfg, visit.arrival.source(), visit.client))
            self.handle_request(request, visit)
        except BodyAhead:
            return True
        except Exception as error:
            status = _status(error)
            if status == 500:
                # Log neither the address, which may hold a token, nor the words of the error.
                log.error("request_failed", kind=type(error).__name__, place=place_of(error))
            visit.sock = _answer(status, "The request could not be answered.")
        return False

    def finish_request(self, visit: Visit, future: Future[bool]) -> None:
        """Go on in the loop after a thread has ended: wait for the body, or send the answer."""
        try:
            body_needed = future.result()
        except BaseException:
            self._drop(visit)
            return
        now = time.monotonic()
        if not body_needed:
            self._wait(visit, SocketPhase.ANSWER, now + ANSWER_SECONDS)
            self._write(visit)
            return
        if visit.continues and not self._say_continue(visit):
            return
        self._wait(visit, SocketPhase.BODY, now + BODY_SECONDS)

    def _say_continue(self, visit: Visit) -> bool:
        try:
            visit.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            self._drop(visit)
            return False
        return True

    def _refuse(self, visit: Visit, status: int, words: str) -> None:
        visit.sock = _answer(status, words)
        self._wait(visit, SocketPhase.ANSWER, time.monotonic() + ANSWER_SECONDS)

    def _write(self, visit: Visit) -> None:
        try:
            with memoryview(visit.sock.data) as data:
                visit.sent += visit.wire.send(data[visit.sent :])
            if visit.sent < len(visit.sock.data):
                return
            visit.wire.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(visit)
            return
        self._wait(visit, SocketPhase.LINGER, time.monotonic() + LINGER_SECONDS)


def _call(step: Any, visit: Visit, _wire: object) -> None:
    step(visit)


_STATUS = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
}
_NAMES = {
    400: "Bad Request", 408: "Request Timeout", 414: "URI Too Long", 417: "Expectation Failed",
    431: "Request Header Fields Too Large", 500: "Internal Server Error",
}  # fmt: skip


def _status(error: Exception) -> int:
    """The status for a request that could not be read; all but 500 are the sender's fault."""
    foreseen = (errors.ParseException, errors.NoMoreData)
    return _STATUS.get(type(error), 400) if isinstance(error, foreseen) else 500


def _answer(status: int, words: str) -> BufferedAnswer:
    name = _NAMES[status]
    code = name.lower().replace(" ", "_")
    body = json.dumps({"error": {"code": code, "message": words}}).encode()
    answer = BufferedAnswer()
    answer.sendall(
        f"HTTP/1.1 {status} {name}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n\r\n".encode()
        + body
    )
    return answer
