"""A request stops on the wire at the moment the worker loses its lease."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection

from app.domain.rate_limits import RateLimiter
from app.outbound.wire import PIECE, BoundedTransport, bounded_session, watch


class Lost(Exception):
    pass


def closing_after(looks: int) -> RateLimiter:
    """Return a gate that lets this many pieces through."""
    gate, left = RateLimiter(), iter(range(looks))

    def look() -> None:
        if next(left, None) is None:
            raise Lost

    gate.ensure_lease = look
    return gate


def received(gate: RateLimiter, body: bytes) -> bytes:
    """Return the bytes that the other end receives of an interrupted request."""
    pools = PoolManager()
    watch(pools, gate)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = pools.pool_classes_by_scheme["http"].ConnectionCls("crm.example")
        assert isinstance(wire, HTTPConnection)
        wire.sock = ours
        with pytest.raises(Lost):
            wire.request("POST", "/deals", body=body)
        ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: theirs.recv(65536), b""))


@pytest.mark.parametrize("whole_pieces", [0, 1, 2])
def test_a_body_ends_where_the_lease_was_lost(whole_pieces: int) -> None:
    """The head goes out first, then piece after piece; the CRM never receives the whole body."""
    body = b"x" * (3 * PIECE - 1)
    head, _, rest = received(closing_after(1 + whole_pieces), body).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /deals HTTP/1.1")
    assert len(rest) == whole_pieces * PIECE


def test_nothing_goes_out_where_it_was_lost_before() -> None:
    """If the lease is lost before the call, not even the head goes out."""
    assert received(closing_after(0), b"x") == b""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_makes_no_difference(scheme: str) -> None:
    """Connections through a proxy are checked as well."""
    direct = BoundedTransport(RateLimiter()).poolmanager
    through = BoundedTransport(RateLimiter()).proxy_manager_for("http://proxy.example:3128")
    for pools in (direct, through):
        assert "send" in vars(pools.pool_classes_by_scheme[scheme].ConnectionCls)


@contextmanager
def listening() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Start a server; return its port, and the address and authorization of each call."""
    calls: list[tuple[str, str]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append((self.path, self.headers["Authorization"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port, calls
        server.shutdown()


def test_the_environment_names_proxies_and_no_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A call uses the proxy for its host, and never a password from a netrc file."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with listening() as (port, calls), bounded_session() as session:
        here = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("http_proxy", here)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for address in ("http://crm.example/a", f"{here}/b", "http://crm.example/c"):
            answer = session.get(address, headers={"Authorization": "Bearer t"}, timeout=5)
            assert answer.status_code == 204
    assert [address for address, _ in calls] == [
        "http://crm.example/a",
        "/b",
        "http://crm.example/c",
    ]
    assert {authorization for _, authorization in calls} == {"Bearer t"}
