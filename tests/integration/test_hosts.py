"""Several hosts with one PostgreSQL and one Redis; one of them is cut off in the middle of its work."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.outbound.wire import UNHEARD_SECONDS
from tests.bridge import PROVIDERS, wait_for
from tests.chaos.history import make
from tests.chaos.run import Verdict, compare, oracle, outlast, settle
from tests.chaos.system import ROOT, SWEEP
from tests.hosts import Host, Hosts, needed, open_postgres

BOOKINGS = 150


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_a_host_that_is_cut_off_costs_no_booking(tmp_path: Path, seed: int) -> None:
    """Three hosts work; the cable of one is pulled while it writes, and plugged in again once the
    others have done the work: nothing is lost, doubled or stale, and nothing is written afterwards."""
    needed()
    history = make(seed, BOOKINGS)
    expected, verdict = oracle(tmp_path, history), Verdict()
    with open_postgres() as url:
        system = Hosts(tmp_path, url, 3)
        try:
            with ThreadPoolExecutor(4) as pool:
                posted = [pool.submit(system.post, payload) for payload in history.posts]
                some = BOOKINGS * len(PROVIDERS) // 5
                wait_for(lambda: system.states().get("synced", 0) >= some, 120)
                system.cut("1")
                for post in posted:
                    post.result()
            for state in history.last:
                system.post(state)
            settle(system, history, verdict)
            system.mend("1")
            # What the cut host's network still held arrives now, if ever.
            outlast(system, verdict, "the cut host is back", lambda: time.sleep(3 * SWEEP))
            for provider in PROVIDERS:
                verdict.wrong += compare(system, provider, expected[provider], history)
        finally:
            system.stop()
    assert verdict.wrong == []


SENDER = """
import sys
from ipaddress import ip_network
from app.outbound.addresses import REACH
from app.outbound.deadline import Call
from app.outbound.wire import bounded_session

REACH.allow([ip_network("10.0.0.0/8")])
session, address = bounded_session(), sys.argv[1]
session.get(address, timeout=5)
print("connected", flush=True)
sys.stdin.readline()
try:
    with Call(2):
        session.post(address, data=b"x", timeout=2)
except Exception as error:
    print(type(error).__name__, flush=True)
sys.stdin.readline()
"""
"""Makes one call, waits for a line, and makes another one on the same connection."""
RETRIED = 26.0
"""Seconds within which the kernel sends again what was sent while the cable was out."""


@pytest.mark.long
def test_a_call_that_has_ended_does_not_arrive_later() -> None:
    """A host sends a request while its cable is out, and gives up; when the cable is back, the
    request does not arrive, since another host has made it by then."""
    needed()
    host, arrived = Host(9), list[str]()
    server = _server(arrived)
    host.begin()
    address = f"http://{host.machine}:{server.server_port}/"
    sender = subprocess.Popen(
        ["ip", "netns", "exec", host.space, sys.executable, "-c", SENDER, address],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert sender.stdin and sender.stdout
        assert sender.stdout.readline() == "connected\n"
        host.cut()
        began = time.monotonic()
        print(file=sender.stdin, flush=True)
        assert sender.stdout.readline() in ("ReadTimeout\n", "ConnectionError\n")
        wait_for(lambda: time.monotonic() - began > UNHEARD_SECONDS + 1, 60)
        host.cut(whole=False)
        wait_for(lambda: time.monotonic() - began > RETRIED or "POST" in arrived, 60)
        assert arrived == ["GET"]
    finally:
        sender.kill()
        server.shutdown()
        host.end()


def _server(arrived: list[str]) -> ThreadingHTTPServer:
    """Return a running server that notes the methods of the calls that arrive."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            arrived.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("0.0.0.0", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
