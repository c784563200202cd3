"""Hostile answers to each call of each adapter, token endpoint and meetergo: odd, huge, endless, slow."""

from __future__ import annotations

import gzip
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from app.crm.port import Report
from app.domain.errors import CrmError, RetryLater
from tests.between import Right, Speaks, reply
from tests.bridge import PROVIDERS
from tests.contract.calls import Step, World, world
from tests.contract.test_answers import (
    answers,
    ask_meetergo,
    ask_tokens,
    meetergo_calls,
    points,
    strike,
    token_end,
)

MB = 1024 * 1024
DEADLINE = 2.0
"""HTTP_TIMEOUT of these tests, in seconds."""
SLACK = 3.0
"""Seconds that the rest of a step may take on a busy machine."""
MOST_GROWN = 200
"""MB that a process may grow in a run at most, the senders of large answers among it (85 in two minutes,
90 in three). `test_no_answer_takes_the_memory` measures the service alone."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BOMB = gzip.compress(b" " * (60 * MB))
Hostile = Callable[[Right], Any]


def _stream(head: bytes, piece: bytes, times: int, pause: float = 0.0) -> Hostile:
    """Send a head, then a piece again and again, as fast as the client reads or with pauses."""

    def says(line: socket.socket) -> None:
        line.sendall(head)
        ends = time.monotonic() + DEADLINE + 2 * SLACK
        for _ in range(times):
            line.sendall(piece)
            time.sleep(pause)
            if time.monotonic() > ends:
                return

    return _after_work(says)


def _after_work(says: Speaks) -> Hostile:
    def made(right: Right) -> Speaks:
        right()
        return says

    return made


ENDLESS: dict[str, Hostile] = {
    "large, its length told": _stream(HEAD + b"Content-Length: 99999999\r\n\r\n", b" " * MB, 95),
    "large, to the end of the line": _stream(HEAD + b"\r\n", b" " * MB, 60),
    "large, in chunks": _stream(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + b" " * MB + b"\r\n", 60
    ),
    "a bomb": lambda right: reply(200, BOMB, {"Content-Encoding": "gzip"}),
    "large once parsed": lambda right: reply(200, b"[" + b"[]," * (2 * MB) + b"[]]"),
    "large refusal": _stream(HEAD.replace(b"200", b"400") + b"\r\n", b"x" * MB, 60),
    "endless head": _stream(HEAD, b"X-A: " + b"x" * 60_000 + b"\r\n", 2000),
    "slow head": _stream(HEAD, b"X", 10**9, 0.1),
    "slow body": _stream(HEAD + b"Content-Length: 9000\r\n\r\n", b" ", 10**9, 0.1),
    "slow chunks": _stream(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 10**9, 0.1),
    "silence": _stream(b"", b"", 10**9, 0.1),
}  # fmt: skip
SLOW = [name for name in ENDLESS if name.startswith(("slow", "silence"))]


def struck(of: World, step: Step, place: int, name: str) -> tuple[CrmError | None, Report, float]:
    """Answer one call without end; return the error, the report and the seconds that the step took."""
    began = time.monotonic()
    report, error = strike(of, step, place, ENDLESS[name])
    return error, report, time.monotonic() - began


def every_call() -> Iterator[tuple[str, Step, int]]:
    """Return every call of every step of every CRM."""
    for provider in PROVIDERS:
        for step, place in points(world(provider)):
            yield provider, step, place


def answer(data: st.DataObject) -> None:
    """Any answer to any call gives a declared error or a plausible result, within the deadline and
    without taking the memory.
    """
    who = data.draw(st.sampled_from([*PROVIDERS, *PROVIDERS, "token", "meetergo"]))
    if who == "token":
        name = data.draw(st.sampled_from(["exchange", "refresh", "revoke", "introspect"]))
        ask_tokens(token_end(data.draw(st.sampled_from(PROVIDERS))), name, data.draw(answers()))
        return
    if who == "meetergo":
        ask_meetergo(data.draw(st.sampled_from(sorted(meetergo_calls()))), data.draw(answers()))
        return
    of = world(who)
    every = list(points(of))
    step, place = every[data.draw(st.integers(0, len(every) - 1))]
    endless = data.draw(st.integers(0, 29))
    if endless < len(ENDLESS):
        error, _, seconds = struck(of, step, place, list(ENDLESS)[endless])
        # The step does without the calls that it does not need.
        assert error is None or isinstance(error, RetryLater), (step.name, error)
        assert seconds < DEADLINE + SLACK, (step.name, place, seconds)
    else:
        report, _ = strike(of, step, place, data.draw(answers()))
        for result in report.results.values():
            assert result.record_id and len(result.record_id) <= 64


def memory() -> int:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
