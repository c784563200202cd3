"""Runs sandboxes: each has its own port, is loaded by the provider's name, and tells its address."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.core import Sandbox
from sandbox.oauth import CLIENT_ID, CLIENT_SECRET

HOST = "127.0.0.1"


def load_sandbox(provider: str) -> type[Sandbox]:
    """Return the sandbox class of a provider, from the file or the package sandbox/<provider>."""
    module = import_module(f"sandbox.{provider}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Sandbox) and value.name == provider:
            return value
    raise LookupError(f"sandbox.{provider} has no Sandbox named {provider!r}")


class Handler(WSGIRequestHandler):
    """One connection that stays open between calls, as the CRMs' connections do."""

    protocol_version = "HTTP/1.1"
    served: Served
    began: float

    def setup(self) -> None:
        """Set up a new connection."""
        super().setup()
        # Headers and body are two writes: without this the second waits for an acknowledgement.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.served.connections.add(self.connection)

    def finish(self) -> None:
        """Close the connection."""
        self.served.connections.discard(self.connection)
        super().finish()

    def parse_request(self) -> bool:
        """Read a call after its first line has arrived."""
        self.began = time.monotonic()
        return super().parse_request()

    def run_wsgi(self) -> None:
        """Answer a call, and record its time."""
        super().run_wsgi()
        if not self.path.startswith("/_"):
            self.served.times.append((self.began, time.monotonic()))
        # The sandbox has closed the connection: the answer is lost, and it carries no further call.
        self.close_connection = self.close_connection or self.connection.fileno() < 0


class Served:
    """A sandbox with a running server."""

    def __init__(self, sandbox: Any, port: int = 0, own_pages: bool = False) -> None:
        """`own_pages`: links to records lead to this sandbox, not to the CRM's usual host."""
        self._own_pages = own_pages
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.sandbox = sandbox
        self.connections: set[socket.socket] = set()
        self.times: list[tuple[float, float]] = []
        """The start and end of the work on each call, in seconds of this machine's monotonic clock."""
        handler = type("Handler", (Handler,), {"served": self})
        self._server = make_server(HOST, port, sandbox.app, threaded=True, request_handler=handler)
        self.url = f"http://{HOST}:{self._server.server_port}"
        # stop() waits for this interval: half a second per sandbox is a lot in a test run.
        serve = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        serve.start()

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point the service at this sandbox."""
        name = self.sandbox.name.upper()
        if not isinstance(self.sandbox, Sandbox):
            return {f"{name}_API_BASE": self.url}
        revoke, introspect = self.sandbox.revoke_path, self.sandbox.introspect_path
        return {
            f"{name}_CLIENT_ID": CLIENT_ID,
            f"{name}_CLIENT_SECRET": CLIENT_SECRET,
            f"{name}_AUTHORIZE_URL": self.url + self.sandbox.authorize_path,
            f"{name}_TOKEN_URL": self.url + self.sandbox.token_path,
            f"{name}_API_BASE": self.url,
            **({f"{name}_WEB_BASE": self.url} if self._own_pages else {}),
            **({f"{name}_REVOKE_URL": self.url + revoke} if revoke else {}),
            **({f"{name}_INTROSPECT_URL": self.url + introspect} if introspect else {}),
        }

    def stop(self) -> None:
        """Stop the server and close all open connections."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
