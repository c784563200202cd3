"""Sends webhooks over raw sockets, as cheaply as Python can: the clients share the machine."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from app.security.signatures import sign_body
from tests.bridge import SECRET, sample

NUMBER = b"#number#"
"""The place of a webhook's number in its body."""


class Clients:
    """Clients that post signed webhooks, each about another booking of another person."""

    def __init__(self, url: str, mark: str = "load", **changes: Any) -> None:
        """`mark` begins the ids and people's addresses; `changes` are other keys of the webhook."""
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        self._numbers = itertools.count()
        base: dict[str, Any] = sample("booking_created", id=f"{mark}-{NUMBER.decode()}")
        mail = f"{mark}-p{NUMBER.decode()}@{mark}-corp{NUMBER.decode()}.example"
        person = {**base["attendees"][0], "email": mail}
        self._body = json.dumps({**base, **changes, "attendees": [person]}).encode()
        self._lock = threading.Lock()

    def flood(self, clients: int, seconds: float) -> tuple[float, list[float]]:
        """Post as fast as answers come; return webhooks a second, and the seconds of each."""
        times: list[float] = []
        began = time.monotonic()
        ends = began + seconds

        def go_on() -> Iterator[float]:
            while time.monotonic() < ends:
                yield time.monotonic()

        self._run([lambda: self._post_at(go_on(), times)] * clients)
        return len(times) / (time.monotonic() - began), sorted(times)

    def pace(self, rate: float, seconds: float, clients: int = 16) -> list[float]:
        """Post at a steady rate; return the seconds from when each was due to its answer."""
        times: list[float] = []
        began = time.monotonic() + 0.1
        turns = itertools.count()
        last = int(rate * seconds)

        def due() -> Iterator[float]:
            while True:
                with self._lock:
                    turn = next(turns)
                if turn >= last:
                    return
                at = began + turn / rate
                time.sleep(max(0.0, at - time.monotonic()))
                yield at

        self._run([lambda: self._post_at(due(), times)] * clients)
        return sorted(times)

    def _post_at(self, moments: Iterator[float], times: list[float]) -> None:
        for at in moments:
            self._post(self._request())
            times.append(time.monotonic() - at)

    def _request(self) -> bytes:
        with self._lock:
            number = next(self._numbers)
        body = self._body.replace(NUMBER, str(number).encode())
        head = (
            "POST /webhooks/meetergo HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Meetergo-Signature: {sign_body(SECRET, body)}\r\n\r\n"
        )
        return head.encode() + body

    def _post(self, request: bytes) -> None:
        with socket.create_connection(self._address, timeout=30) as wire:
            wire.sendall(request)
            answer = b""
            while part := wire.recv(4096):
                answer += part
        if b" 202 " not in answer.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"the endpoint answered {answer[:200]!r}")

    @staticmethod
    def _run(targets: list[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=target) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
