"""The web process of the Procfile against slow clients and broken requests."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from app.security.signatures import sign_body
from app.web.arrival import MAX_BODY
from tests.bridge import SECRET, sample, wait_for
from tests.web import ROOT, Web, answer_of, status_of, web_process

HEAD = b"POST /webhooks/meetergo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SIGNED = HEAD + b"X-Meetergo-Signature: x\r\n"
CHUNKED = SIGNED + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The web process on SQLite."""
    folder = tmp_path_factory.mktemp("front")
    with web_process(folder, f"sqlite:///{folder}/a.sqlite3") as made:
        yield made


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The same worker with shorter timeouts and an application with large answers."""
    folder = tmp_path_factory.mktemp("hasty")
    config = folder / "hasty.py"
    config.write_text(
        f"exec(open({str(ROOT / 'config/gunicorn.py')!r}).read())\n"
        "import app.web.front as front\n"
        "front.HEAD_SECONDS = front.BODY_SECONDS = front.ANSWER_SECONDS = 0.5\n"
        "front.LINGER_SECONDS = 0.5\nworkers = 1\nworker_connections = 40\n",
        encoding="utf-8",
    )
    url = f"sqlite:///{folder}/a.sqlite3"
    with web_process(folder, url, str(config), "tests.integration.test_front:large") as made:
        yield made


def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A WSGI application that reads the body and answers with 64 MB, or with the body's length."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/large":
        return [b"x" * 1_000_000] * 64
    return [str(len(body)).encode()]


def reloaded(web: Web, times: int) -> bool:
    """Return whether the server has begun to reload so many times."""
    log = web.log.read_text(encoding="utf-8", errors="replace")
    return log.count("Handling signal: hup") >= times


def slow_to_start() -> Any:
    """The same application from a process that takes a while to load it."""
    time.sleep(3)
    return large


def test_slow_clients_keep_no_webhook_waiting(web: Web) -> None:
    """With 64 slow connections of several kinds open, every webhook is answered within a second."""
    body = SIGNED + b"Content-Length: 2000\r\n\r\n"
    starts = [b"POST /webhooks/meetergo HT", body, CHUNKED, CHUNKED + b"10\r\nab", b""]
    held = [web.connect(starts[number % len(starts)]) for number in range(64)]
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.25):
            for wire in held:
                try:
                    wire.send(b"a")
                except OSError:
                    continue

    dripping = threading.Thread(target=drip)
    dripping.start()
    times = []
    try:
        for number in range(40):
            began = time.monotonic()
            assert web.post(sample("booking_created", id=f"slow-{number}")).status_code == 202
            times.append(time.monotonic() - began)
    finally:
        over.set()
        dripping.join()
        for wire in held:
            wire.close()
    # A machine under load from other tests may pause for a moment, now and then.
    assert sorted(times)[-4] < 1 and max(times) < 5


def test_a_request_on_its_way_is_answered_while_the_server_stops(tmp_path: Path) -> None:
    """A client that was let in before a restart gets its answer, not a reset."""
    body = json.dumps(sample("booking_created")).encode()
    head = HEAD + b"X-Meetergo-Signature: " + sign_body(SECRET, body).encode()
    with web_process(tmp_path, f"sqlite:///{tmp_path}/a.sqlite3") as web:
        early = web.connect(timeout=0.5)
        # Connections are let in one after the other: this answer says that the first one is in.
        assert web.post(sample("booking_created", id="later")).status_code == 202
        web.process.terminate()
        with pytest.raises(TimeoutError):
            early.recv(1)
        early.settimeout(15)
        early.sendall(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert status_of(answer_of(early)) == 202


@pytest.mark.long
def test_reloads_that_never_end_leave_somebody_to_serve(tmp_path: Path) -> None:
    """The server is reloaded faster than a worker starts, and answers all the same."""
    application = "tests.integration.test_front:slow_to_start()"
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    with web_process(tmp_path, url, application=application) as web:
        over = threading.Event()

        def reload() -> None:
            while not over.wait(0.5):
                web.process.send_signal(signal.SIGHUP)

        reloading = threading.Thread(target=reload)
        reloading.start()
        try:
            for handled in (2, 3):
                wait_for(partial(reloaded, web, handled), 60)
                assert requests.get(web.url, timeout=20).text == "0"
        finally:
            over.set()
            reloading.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\nab",
        b"GET /large HTTP/1.1\r\n\r\n",
    ],
    ids=["nothing", "half a header", "half a body", "half a chunk", "an answer that is not read"],
)
def test_each_phase_has_an_end(hasty: Web, sent: bytes) -> None:
    """The server ends a connection whose request or answer stays too slow in any phase."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(("127.0.0.1", hasty.port))
    wire.settimeout(0.1)
    wire.sendall(sent)
    received, ends = b"", time.monotonic() + 10
    # After the server closed, the next byte is answered with a reset.
    while time.monotonic() < ends:
        try:
            wire.send(b"a")
            part = b"" if b"large" in sent else wire.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        received += part
    else:
        pytest.fail("the connection was never ended")
    if received:
        assert status_of(received) == 408


def test_where_there_is_no_room_the_oldest_unfinished_goes(hasty: Web) -> None:
    """If a process holds too many slow connections, it drops the oldest, so that a quick client
    gets in.
    """
    held = [hasty.connect(b"GET / HT") for _ in range(60)]
    answer = answer_of(hasty.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert status_of(answer) == 200
    for wire in held:
        wire.close()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST /webhooks/meetergo HTTP/1.1\r\nContent-Type: application/json\r\n", 401),
        (b"POST /webhooks/meetergo HTTP/1.1\r\nX-Meetergo-Signature: x\r\n", 415),
        (SIGNED.replace(b"meetergo HTTP", b"meetergo/nobody HTTP"), 401),
        (b"POST /webhooks/meetergo/default/%00/x HTTP/1.1\r\n", 404),
        (b"POST /api/v1/bookings/x/outcome HTTP/1.1\r\nContent-Type: application/json\r\n", 401),
        (b"POST /bookings/x/sync HTTP/1.1\r\n", 303),
        (b"PUT /webhooks/meetergo HTTP/1.1\r\n", 405),
        (SIGNED + b"Content-Length: 262145\r\n", 413),
    ],
)
def test_what_needs_no_body_is_refused_before_it(
    web: Web, request_head: bytes, status: int
) -> None:
    """A request refused by its head is answered without its body, and never gets `100 Continue`."""
    if b"Content-Length" not in request_head:
        request_head += b"Content-Length: 20000\r\n"
    answer = answer_of(web.connect(request_head + b"Expect: 100-continue\r\n\r\n"))
    assert status_of(answer) == status
    assert not answer.startswith(b"HTTP/1.1 100")


def test_who_asks_first_is_told_to_go_on(web: Web) -> None:
    """A client with `Expect: 100-continue` gets it if the body is wanted, and then the body is read."""
    body = json.dumps(sample("booking_created", id="asked-first")).encode()
    sign = sign_body(SECRET, body).encode()
    head = HEAD + b"X-Meetergo-Signature: " + sign + b"\r\n"
    wire = web.connect(head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body))
    assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
    wire.sendall(body)
    assert status_of(answer_of(wire)) == 202


BROKEN = {
    "a chunk size that is none": CHUNKED + b"zz\r\n",
    "a negative chunk size": CHUNKED + b"-5\r\n",
    "an endless chunk size": CHUNKED + b"1" * 9000,
    "an extension that is none": CHUNKED + b"5;=;\r\nhello\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n",
    "trailers that are none": CHUNKED + b"0\r\nno trailer\r\n\r\n",
    "two lengths": SIGNED + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": SIGNED + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "a length that is none": SIGNED + b"Content-Length: x\r\n\r\n{}",
    "a coding that nobody knows": SIGNED + b"Transfer-Encoding: xyz\r\n\r\n{}",
    "a line that ends in LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_a_broken_request_is_refused(web: Web, sent: bytes) -> None:
    """A malformed request gets 400 and the connection ends, without a wait for more."""
    answer = answer_of(web.connect(sent))
    assert (status_of(answer), b"connection: close" in answer.lower()) == (400, True), answer


SHORT = [
    SIGNED + b"Content-Length: 9\r\n\r\n{}",
    CHUNKED + b"9\r\n{}",
    CHUNKED + b"2\r\n{}\r\n",
    SIGNED + b"X-Never-Ends: x",
]


@pytest.mark.parametrize("sent", SHORT)
def test_a_body_that_breaks_off_is_refused(web: Web, sent: bytes) -> None:
    """A body shorter than announced gets 400."""
    wire = web.connect(sent)
    wire.shutdown(socket.SHUT_WR)
    assert status_of(answer_of(wire)) == 400


@pytest.mark.parametrize("kibibytes", [65, 200, 900])
def test_a_head_without_an_end_is_refused(web: Web, kibibytes: int) -> None:
    """More than 64 KiB of headers without an empty line get 431, and nobody else notices."""
    line = b"X-Filler: " + b"x" * 1012 + b"\r\n"
    wire = web.connect(b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 64)
    for _ in range(kibibytes - 64):
        try:
            wire.sendall(line)
        except OSError:
            break
    assert status_of(answer_of(wire)) == 431
    assert web.process.poll() is None
    assert web.post(sample("booking_created", id=f"beside-{kibibytes}")).status_code == 202
    assert "exited with code" not in web.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def routes(web: Web) -> dict[str, bytes]:
    """Return the head of a request for each kind of route that reads a body."""
    key = web.make_key().encode()
    return {
        "webhook": SIGNED,
        "api": b"POST /api/v1/bookings/x/outcome HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + key + b"\r\n",
        "form": b"POST /sign-in HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        "upload": b"POST /sign-in HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n",
    }


@pytest.mark.parametrize("name", ["webhook", "api", "form", "upload"])
def test_no_route_takes_a_part_of_a_body(web: Web, routes: dict[str, bytes], name: str) -> None:
    """Every route answers 413 to one byte over 256 KiB, however it is sent, and 400 to a broken chunk."""
    head = routes[name].replace(b"/bookings/x/", b"/bookings/there/")
    web.post(sample("booking_created", id="there"))
    web.work()
    chunk = b"%x\r\n%s\r\n" % (65536, b" " * 65536)
    over = chunk * 4 + b"1\r\nx\r\n0\r\n\r\n"
    sent = {
        413: [
            head + b"Transfer-Encoding: chunked\r\n\r\n" + over,
            head + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1) + b" " * 1000,
            head + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
        ],
        400: [head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n  \r\nzz\r\n"],
    }
    for status, hostile in sent.items():
        for request in hostile:
            answer = answer_of(web.connect(request))
            assert (status_of(answer), b"Connection: close" in answer) == (status, True), answer
    exact = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 4 + b"0\r\n\r\n"
    assert status_of(answer_of(web.connect(exact))) in (400, 401)


@pytest.mark.long
def test_nothing_of_this_is_a_fault_of_ours(web: Web) -> None:
    """No request of this file has logged an error."""
    log = web.log.read_text(encoding="utf-8", errors="replace")
    assert "unexpected_error" not in log and "Traceback" not in log and "request_failed" not in log
