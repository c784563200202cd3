"""Endless answers: each outside call ends at its deadline and uses only limited memory."""

from __future__ import annotations

import gzip
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.between import Speaker, reply
from tests.greedy import TIMEOUT
from tests.ports import free_port
from tests.processes import ROOT

MB = 1024 * 1024
MOST_GROWTH = 50.0
"""Megabytes."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def stream(head: bytes, piece: bytes, times: int) -> Callable[[socket.socket], None]:
    """Send a head, then the same piece many times, as fast as the client reads."""

    def says(line: socket.socket) -> None:
        line.sendall(head)
        for _ in range(times):
            line.sendall(piece)

    return says


def drip(head: bytes, pieces: bytes, every: float = 0.1) -> Callable[[socket.socket], None]:
    """Send a head, then the pieces over and over, one byte at a time: no socket read times out."""

    def says(line: socket.socket) -> None:
        line.sendall(head)
        while True:
            for byte in pieces:
                line.sendall(bytes([byte]))
                time.sleep(every)

    return says


def bomb() -> bytes:
    """200 MB of blanks in 200 KB of gzip."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(200):
            file.write(b" " * MB)
    return packed.getvalue()


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, object]]:
    """How every call to every kind of endless answer ended; the calls run in their own process."""
    blanks, packed = b" " * MB, bomb()
    chunk = b"100000\r\n" + b" " * MB + b"\r\n"
    many = b"[" + b"[]," * (8 * MB // 3) + b"[]]"
    encoded = HEAD + b"Content-Encoding: gzip\r\n"
    servers = {
        "large, its length told": Speaker(stream(HEAD + b"Content-Length: 314572800\r\n\r\n", blanks, 300)),
        "large, to the end of the line": Speaker(stream(HEAD + b"Connection: close\r\n\r\n", blanks, 300)),
        "large, in chunks": Speaker(stream(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, 300)),
        "large once unpacked": Speaker(stream(encoded + b"\r\n" + packed, b"", 0)),
        "large, packed twice over": Speaker(stream(encoded + b"\r\n", packed, 100)),
        "large once parsed": Speaker(stream(reply(200, many), b"", 0)),
        "large refusal": Speaker(stream(HEAD.replace(b"200", b"400") + b"\r\n", blanks, 300)),
        "large head": Speaker(stream(HEAD, b"X-A: " + b"x" * 60_000 + b"\r\n", 5000)),
        "slow head": Speaker(drip(HEAD, b"X: y\r\n")),
        "slow body": Speaker(drip(HEAD + b"Content-Length: 9000\r\n\r\n", b" ")),
        "slow, to the end of the line": Speaker(drip(HEAD + b"\r\n", b"{")),
        "slow chunks": Speaker(drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")),
        "slow chunk size": Speaker(drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0")),
        "slow unpacked": Speaker(drip(encoded + b"\r\n", b"\x1f\x8b\x08" + b"\x00" * 7)),
        "slow, to be continued": Speaker(drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0001)),
        "slow, nothing at all": Speaker(lambda line: time.sleep(3 * TIMEOUT)),
        "slow handshake": Speaker(drip(b"\x16\x03\x03\x40\x00", b"\x00"), listens=False),
    }  # fmt: skip
    where = {how: server.url for how, server in servers.items()}
    where["slow handshake"] = where["slow handshake"].replace("http:", "https:")
    where["refused"] = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.greedy"], input=json.dumps(where), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, check=True, timeout=45,
    )  # fmt: skip
    yield json.loads(done.stdout)
    for server in servers.values():
        server.stop()


@pytest.mark.long
def test_every_call_has_an_end(told: dict[str, dict[str, dict[str, tuple[str, float]]]]) -> None:
    """A large or slow answer means 'retry later' within the deadline plus one second."""
    ends = {"RetryLater", "Unreadable", "AnswerLost"}
    late = {
        (how, who): ended
        for how, asked in told["told"].items()
        for who, ended in asked.items()
        if ended[0] not in (ends | {"{}"} if who == "introspect" else ends)
        or ended[1] > TIMEOUT + 1
    }
    assert late == {}


def test_no_answer_takes_the_memory(told: dict[str, float]) -> None:
    """300 MB, a bomb of 200 MB or millions of parts cost the process less than 50 MB of memory."""
    assert told["grown"] < MOST_GROWTH
