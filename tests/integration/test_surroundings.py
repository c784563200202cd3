"""`doctor` on what surrounds the service: address, clocks, files, webhooks; each with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisAway

from app.services import surroundings
from app.services.findings import Finding, Health
from app.services.surroundings import check_clocks, check_last_webhook, check_public_url
from app.store.engine import utcnow
from app.store.models import EventRow
from tests.bridge import Bridge, sample
from tests.ports import free_port

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Page(BaseHTTPRequestHandler):
    """Answers as the class attributes say."""

    status, body = 200, b'{"status":"ok"}'

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[tuple[str, type[Page]]]:
    """A server: its address and how it answers."""
    kind = type("OwnPage", (Page,), {})
    server = HTTPServer(("127.0.0.1", 0), kind)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()


def by_check(found: Iterator[Finding]) -> dict[str, Finding]:
    return {item.check: item for item in found}


def test_public_url_that_answers(page: tuple[str, type[Page]]) -> None:
    """An address of this machine is a note; whether this service answers there is a finding of its own."""
    url, kind = page
    found = by_check(check_public_url(url))
    assert (
        found["PUBLIC_URL"].verdict is Health.NOTE and "this machine" in found["PUBLIC_URL"].detail
    )
    assert found["PUBLIC_URL answers"].verdict is Health.GOOD
    kind.status, kind.body = 404, b"<html>ok"
    other = by_check(check_public_url(url))["PUBLIC_URL answers"]
    assert other.verdict is Health.NOTE
    assert other.detail == f"What answers at {url}/healthz is not this service: it says 404."


def test_public_url_that_does_not_answer() -> None:
    """A host need not reach its own address: silence is a note, and says what to try."""
    url = f"http://127.0.0.1:{free_port()}"
    silent = by_check(check_public_url(url))["PUBLIC_URL answers"]
    assert silent.verdict is Health.NOTE and "does not answer (ConnectionError)" in silent.detail
    assert "elsewhere" in silent.fix
    (form,) = check_public_url("https://x.example/bridge?a=b")
    assert form.verdict is Health.BAD and "https://bridge.example.com" in form.fix


@pytest.mark.parametrize(
    ("off", "words"), [(61, "61 s ahead of"), (-300, "300 s behind"), (59, "")]
)
def test_the_clock_of_redis(bridge: Bridge, off: int, words: str) -> None:
    """A clock that is off by more than a minute is bad, and says in which direction."""
    then = NOW - timedelta(seconds=off)
    redis: Any = SimpleNamespace(time=lambda: (int(then.timestamp()), 0))
    found = check_clocks(bridge.services.store, redis, lambda: NOW)
    if bridge.services.store.engine.dialect.name == "sqlite":
        assert found.verdict is (Health.BAD if words else Health.GOOD)
    assert (words in found.detail) and ("Redis" in found.detail) == bool(words)


def test_the_clock_of_the_database(bridge: Bridge) -> None:
    """PostgreSQL's clock is compared; Redis that is away is told elsewhere."""

    def away() -> None:
        raise RedisAway

    redis: Any = SimpleNamespace(time=away)
    assert check_clocks(bridge.services.store, redis).verdict is Health.GOOD
    found = check_clocks(bridge.services.store, redis, lambda: utcnow() + timedelta(hours=1))
    sqlite = bridge.services.store.engine.dialect.name == "sqlite"
    assert found.verdict is (Health.GOOD if sqlite else Health.BAD)
    assert ("that of the database" in found.detail) is not sqlite


def test_the_clock_of_a_crm(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Date of a CRM's answer is compared while a connection is examined."""
    row = bridge.connection("hubspot")
    good = by_check(bridge.services.doctor.examine_connection(row))["clock"]
    assert good.verdict is Health.GOOD
    seen = surroundings.check_crm_clock("1", "Sat, 28 Nov 2026 11:50:00 GMT", NOW)
    assert seen and seen.verdict is Health.BAD and "600 s ahead of that of the CRM" in seen.detail
    assert surroundings.check_crm_clock("1", "yesterday", NOW) is None


def test_a_database_file_that_others_may_read(tmp_path: Path) -> None:
    """A SQLite file that other users of the machine may read is bad, and named."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ())
    (tmp_path / "a.sqlite3").chmod(0o644)
    bad = by_check(bridge.services.doctor.examine_service())["files of the database"]
    assert bad.verdict is Health.BAD and f"{tmp_path}/a.sqlite3" in bad.detail
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    good = by_check(bridge.services.doctor.examine_service())["files of the database"]
    assert good.verdict is Health.GOOD
    bridge.close()


def test_when_the_last_webhook_came(bridge: Bridge) -> None:
    """Silence is a note only if it is longer than any before, by source; too few webhooks say nothing."""
    store = bridge.services.store
    none = check_last_webhook(store, "default", NOW)
    assert none.verdict is Health.NOTE and "webhooks register" in none.fix
    bridge.post(sample("booking_created"))
    few = by_check(bridge.services.doctor.examine_service())["last webhook"]
    assert few.verdict is Health.GOOD and f"{utcnow():%Y-%m-%d}" in few.detail
    with store.write() as session:
        session.query(EventRow).delete()
        for number in range(20):
            at = NOW - timedelta(hours=2 * number)
            values = {
                "source": "default",
                "type": "x",
                "payload_encrypted": "",
                "status": "applied",
            }
            session.add(EventRow(dedupe_key=f"k{19 - number:02}", received_at=at, **values))
    for hours, verdict in ((3.9, Health.GOOD), (4.1, Health.NOTE)):
        found = check_last_webhook(store, "default", NOW + timedelta(hours=hours))
        assert found.verdict is verdict, found
    assert (
        "usually one comes every 2 hours, and the longest silence so far was 2 hours"
        in found.detail
    )
    assert "webhooks list" in found.fix and "reconcile" in found.fix
    assert check_last_webhook(store, "berlin", NOW).detail == "No webhook has come yet."
