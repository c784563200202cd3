"""The deadline of an outside call ends a late call, and leaves nothing behind after a timely one."""

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
    """Stands for a sandbox that the test does not need."""


@pytest.fixture
def server() -> Iterator[Between]:
    """A server that answers {} to every request and keeps its connections open."""
    made = Between(Nobody())
    made.right = lambda asked: reply(200, b"{}")  # type: ignore[method-assign]
    yield made
    made.stop()


def ask(session: requests.Session, url: str, seconds: float = 2.0) -> Call:
    """Make one call with a deadline."""
    with Call(seconds) as call:
        session.get(url, timeout=seconds)
    return call


def handles() -> int:
    """Return the number of open files and sockets of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def watched() -> list[Call]:
    """Return the calls that the watchdog still watches."""
    return [call for _, _, call in deadline._watchdog._calls if not call.done]


def test_a_call_that_ends_in_time_leaves_nothing_behind(server: Between) -> None:
    """After a call that ends in time, the thread has no current call, no watched call and no extra
    handle.
    """
    with bounded_session() as session:
        call = ask(session, server.url)
        assert (call.done, call.over, call._lines) == (True, False, {})
        assert current_call() is None
        assert call not in watched()


def test_two_hundred_calls_leak_no_handle(server: Between) -> None:
    """Two hundred calls leak no handle, on kept connections, new ones and those ended by a deadline."""
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
        # The server runs in this process: its ends of the connections close a moment later.
        wait_for(lambda: handles() <= before + 2, 5)
    assert threading.active_count() < 50
    late.stop()


def test_a_line_that_is_used_again_is_not_shut_by_the_call_before(server: Between) -> None:
    """The first call's deadline does not shut a connection that a second call is using."""
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
    """A nested inner call ends at its own deadline; the outer call goes on with its own."""
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
    """A call without a length in the answer ends at its deadline, although http.client has closed
    the connection.
    """

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
    """A connection made after the deadline is shut at once."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Call(0.01) as call:
        wait_for(lambda: call.over, 2)
        call.use(ours)
        assert theirs.recv(1) == b""


def test_who_is_done_shuts_nobody_elses_line() -> None:
    """A call that has ended accepts no connection and shuts none."""
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
    """A process forked in the middle of a call keeps its own deadlines."""
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
