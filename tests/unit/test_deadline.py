"""The deadline of an outside call: it ends what is late, and leaves nothing behind where it is not."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import requests

from app.outbound import deadline
from app.outbound.deadline import Call, current_call
from app.outbound.wire import bounded_session
from tests.between import Between, Speaker, reply
from tests.bridge import wait_for


class Nobody:
    """No sandbox."""


@pytest.fixture
def server() -> Iterator[Between]:
    """Answers {} to everything, line after line kept open."""
    made = Between(Nobody())
    made.right = lambda asked: reply(200, b"{}")  # type: ignore[method-assign]
    yield made
    made.stop()


def ask(session: requests.Session, url: str, seconds: float = 2.0) -> Call:
    """One bounded call."""
    with Call(seconds) as call:
        session.get(url, timeout=seconds)
    return call


def handles() -> int:
    """Files and sockets that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def watched() -> list[Call]:
    """What the watchdog still looks at."""
    return [call for _, _, call in deadline._watchdog._calls if not call.done]


def test_a_call_that_ends_in_time_leaves_nothing_behind(server: Between) -> None:
    """No call of the thread, nothing that is watched, no handle of its own."""
    with bounded_session() as session:
        call = ask(session, server.url)
        assert (call.done, call.over, call._lines) == (True, False, {})
        assert current_call() is None
        assert call not in watched()


def test_two_hundred_calls_leak_no_handle(server: Between) -> None:
    """On kept lines, on new ones, and on those that were ended by their deadline."""
    late = Speaker(lambda line: time.sleep(1))
    with bounded_session() as kept:
        ask(kept, server.url)
        before = handles()
        for number in range(200):
            ask(kept, server.url)
            if number % 4 == 0:
                with bounded_session() as new:
                    ask(new, server.url)
            if number % 50 == 0:
                with bounded_session() as slow, pytest.raises(requests.RequestException):
                    ask(slow, late.url, 0.05)
        # The server of this test shares the process: its ends of the lines go a moment later.
        wait_for(lambda: handles() <= before + 2, 5)
    assert threading.active_count() < 50
    late.stop()


def test_a_line_that_is_used_again_is_not_shut_by_the_call_before(server: Between) -> None:
    """The deadline of the first call passes while the second one waits on the same line."""
    first_over = threading.Event()

    def instead(asked: object, right: Callable[[], bytes]) -> None:
        if len(server.asked) == 2:
            first_over.wait(5)

    with bounded_session() as session, server.answering(instead) as asked:
        with Call(0.2) as first:
            session.get(server.url, timeout=2)
        handle = threading.Timer(0.4, first_over.set)
        handle.start()
        second = ask(session, server.url)
        assert (first.over, second.over, len(asked)) == (False, False, 2)
        first.end()
        assert ask(session, server.url).over is False


def test_calls_may_be_nested(server: Between) -> None:
    """The inner one ends at its own deadline; the outer one goes on, and has its own."""
    hang = Speaker(lambda line: time.sleep(3))
    with bounded_session() as session:
        with Call(2.0) as outer:
            with Call(0.1) as inner, pytest.raises(requests.RequestException):
                session.get(hang.url, timeout=2)
            assert (inner.over, outer.over, current_call()) == (True, False, outer)
            assert session.get(server.url, timeout=2).json() == {}
        assert current_call() is None
        begun = time.monotonic()
        with Call(0.2) as outer, Call(5.0), pytest.raises(requests.RequestException):
            session.get(hang.url, timeout=1.5)
        assert outer.over and time.monotonic() - begun < 1.2
    hang.stop()


def test_an_answer_without_a_length_ends_at_the_deadline() -> None:
    """http.client closes such a connection at once and reads on: the call has a handle of its own."""

    def drips(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            line.sendall(b" ")
            time.sleep(0.02)

    server, begun = Speaker(drips), time.monotonic()
    with bounded_session() as session:
        call = ask(session, server.url, 0.3)
    assert call.over and time.monotonic() - begun < 1.3
    server.stop()


def test_a_line_that_comes_too_late_is_shut_at_once() -> None:
    """Connecting took until after the deadline: nothing more goes over that line."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Call(0.01) as call:
        wait_for(lambda: call.over, 2)
        call.use(ours)
        assert theirs.recv(1) == b""


def test_who_is_done_shuts_nobody_elses_line() -> None:
    """A call that has ended, in time or not, takes in no line and shuts none."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Call(5.0) as call:
            call.use(ours)
        call.end()
        assert (call.over, call._lines) == (False, {})
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"


def _in_a_child(url: str, told: Connection) -> None:
    begun = time.monotonic()
    with bounded_session() as session, Call(0.2) as call:
        try:
            session.get(url, timeout=1.5)
        except requests.RequestException:
            told.send(time.monotonic() - begun if call.over else -1.0)
    os._exit(0)


def test_a_child_process_has_a_watchdog_of_its_own(server: Between) -> None:
    """A process that forks in the middle of calls: the deadlines of its child hold as well."""
    hang = Speaker(lambda line: time.sleep(3))
    context = multiprocessing.get_context("fork")
    told, ours = context.Pipe(duplex=False)
    with bounded_session() as session:
        ask(session, server.url)
        with Call(5.0):
            child = context.Process(target=_in_a_child, args=(hang.url, ours))
            child.start()
            assert told.poll(5) and 0 < told.recv() < 1.2
        child.join(5)
        assert ask(session, server.url).over is False
    hang.stop()
