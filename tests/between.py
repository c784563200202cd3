"""A raw server in front of a sandbox: it can send a test's own answer in place of the sandbox's."""

from __future__ import annotations

import http.client
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from flask import Flask
from werkzeug.test import Client

from sandbox.serve import HOST, Served

Right = Callable[[], bytes]
"""Calls the sandbox, which does its work, and returns its answer."""
Speaks = Callable[[socket.socket], None]
"""Sends something on a connection, which is closed afterwards."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    number: int
    """The number of earlier requests since `Between.instead` was set."""
    method: str
    path: str
    """The path with its query."""
    headers: Mapping[str, str]
    body: bytes


Instead = Callable[[Asked, Right], bytes | Speaks | None]
"""Returns the answer: bytes, or a function that sends them; None for the sandbox's own answer."""


class Between(Served):
    """Replaces a sandbox's server: every call passes, except those that `instead` answers."""

    def __init__(self, sandbox: Any) -> None:
        """`sandbox`: one of the sandboxes, or any object with a WSGI app as `app`."""
        self.sandbox, self._own_pages = sandbox, False
        self.instead: Instead = passes
        self.asked: list[Asked] = []
        """Every request since `instead` was set."""
        self.hung_up = threading.Event()
        """Set when the client has closed a connection on which an answer was still being sent."""
        self._lock = threading.Lock()
        self._tcp = _Server((HOST, 0), _Lines)
        self._tcp.between = self
        self.url = f"http://{HOST}:{self._tcp.server_address[1]}"
        threading.Thread(target=self._tcp.serve_forever, args=(0.02,), daemon=True).start()

    @contextmanager
    def answering(self, instead: Instead) -> Iterator[list[Asked]]:
        """Answer in this way while the block runs; yield the list of requests."""
        with self._lock:
            self.asked, self.instead = [], instead
        self.hung_up.clear()
        try:
            yield self.asked
        finally:
            with self._lock:
                self.instead = passes

    def note(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Count a request."""
        with self._lock:
            made = Asked(len(self.asked), method, path, headers, body)
            self.asked.append(made)
            return made

    def right(self, asked: Asked) -> bytes:
        """Return the sandbox's own answer."""
        app: Flask = self.sandbox.app
        answer = Client(app).open(
            asked.path, method=asked.method, headers=dict(asked.headers), data=asked.body,
            base_url=self.url,
        )  # fmt: skip
        return reply(answer.status_code, answer.get_data(), dict(answer.headers))

    def stop(self) -> None:
        """Stop the server."""
        self._tcp.shutdown()
        self._tcp.server_close()


def passes(asked: Asked, right: Right) -> None:
    """Let the sandbox answer."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64
    between: Between


class _Lines(socketserver.StreamRequestHandler):
    """Answers one request after another on a connection, until an answer was not the sandbox's own."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        with suppress(OSError, ValueError):
            while self._one(server.between):
                pass

    def _one(self, between: Between) -> bool:
        first = self.rfile.readline(65_536).decode("latin-1").split()
        if len(first) != 3:
            return False
        fields = http.client.parse_headers(self.rfile)
        body = self.rfile.read(int(fields.get("Content-Length") or 0))
        asked = between.note(first[0], first[1], dict(fields.items()), body)
        answer = between.instead(asked, lambda: between.right(asked))
        if answer is None:
            self.wfile.write(between.right(asked))
            return True
        if callable(answer):
            try:
                answer(self.connection)
            except OSError:
                between.hung_up.set()
                raise
        else:
            self.wfile.write(answer)
        return False


def reply(
    status: int, body: bytes = b"", headers: Mapping[str, str | bytes] | None = None
) -> bytes:
    """Return the bytes of an answer. Content-Length is added unless the headers have one."""
    told = {"Content-Length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Any".encode()]
    lines += [
        name.encode("latin-1") + b": " + (v.encode("latin-1") if isinstance(v, str) else v)
        for name, v in told.items()
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def parted(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case) and body of an answer's bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(": ") for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, _, value in fields}, body


class Speaker:
    """A server that sends the same bytes on every connection, whatever the request, as long as the
    client reads.
    """

    def __init__(self, says: Speaks, listens: bool = True) -> None:
        """`listens`: whether it reads the head of a request first."""

        class Line(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with suppress(OSError):
                    while listens and self.rfile.readline(65_536).strip():
                        pass
                    says(self.connection)

        self._tcp = _Server((HOST, 0), Line)
        self.url = f"http://{HOST}:{self._tcp.server_address[1]}"
        threading.Thread(target=self._tcp.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop the server."""
        self._tcp.shutdown()
        self._tcp.server_close()
