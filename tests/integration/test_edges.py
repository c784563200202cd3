"""Any input of a stranger or of a signed-in person gets an intended answer, on both databases."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.sessions import SecureCookieSessionInterface
from sqlalchemy import Engine, event, text, update

from app.domain.json_text import MAX_DEPTH
from app.services import mapping_trial as trial
from app.services import sessions
from app.services.sessions import Person
from app.store.access_models import ApiKey, WebSession
from app.store.models import EventRow
from tests.bridge import Bridge, sample
from tests.contract.test_adapters import person
from tests.integration.test_cli import run


@pytest.fixture
def web(database_url: str) -> Iterator[Bridge]:
    """The service without any CRM, on each database."""
    made = Bridge(database_url, ())
    yield made
    made.close()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Bridge]:
    """The service without any CRM, on SQLite."""
    made = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ())
    yield made
    made.close()


def nested(core: str, depth: int) -> bytes:
    return ("[" * depth + core + "]" * depth).encode()


UNFIT = {
    "an id longer than its column": sample("booking_created", id="x" * 393),
    "an event's name longer than its column": {"event": "x" * 101, "data": {}},
    "the other name longer than its column": {"webhookType": "x" * 101},
    "an event's name of NUL alone": {"event": "\0", "data": {}},
    "no object": ["\0", "\ud800"],
}


@pytest.mark.parametrize("payload", UNFIT.values(), ids=UNFIT)
def test_what_no_column_takes_is_kept_aside(web: Bridge, payload: Any) -> None:
    """An authentic webhook that no column can hold is quarantined with the reason."""
    answer = web.post(payload)
    assert (answer.status_code, answer.json["status"]) == (202, "quarantined")
    (row,) = web.events()
    assert row.error and "database" not in row.error and row.booking_key is None


def test_odd_characters_are_cleaned_on_both_databases(web: Bridge) -> None:
    """NUL and lone surrogates are removed from any text of a booking before it is stored."""
    odd = "a\0b\ud800c\x1b"
    everywhere = {
        key: odd
        for key in ("id", "location", "companyId", "webhookType", "meetingTypeId", "timezone")
    }
    payload = {**sample("booking_created"), **everywhere, "webhookType": "booking\0_created"}
    payload["attendees"] = [person("jane@globex.example", lastname=odd, id=odd)]
    answer = web.post(payload)
    assert (answer.status_code, answer.json["status"]) == (202, "accepted")
    (row,) = web.events()
    assert (row.type, row.booking_key) == ("booking_created", "default:ab?c")


def test_what_nobody_foresaw_is_kept_aside(web: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that fails only in the database is quarantined, too, and gives no 500."""
    monkeypatch.setattr("app.domain.events.BOOKING_KEY", 10_000)
    answer = web.post(sample("booking_created", id="x" * 500))
    assert (answer.status_code, answer.json["status"]) == (202, "quarantined")
    assert "cannot hold" in str(web.events()[0].error)


@pytest.mark.parametrize("name", ["%00", "x" * 65, "Berlin", "a%2fb", "%F0%9F%92%A9", "%ff", "a b"])
def test_a_name_that_no_source_has_is_unauthorized(web: Bridge, name: str) -> None:
    """A text that cannot be a source's name is refused like an unknown name, without a database query."""
    answer = web.post(sample("booking_created"), path=f"/webhooks/meetergo/{name}")
    assert answer.status_code == 401
    assert web.events() == []


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, 900, 20_000])
def test_deep_json_is_kept_aside(web: Bridge, depth: int) -> None:
    """An authentic body that is nested too deeply is stored whole, without the credential."""
    body = nested('{"secret": {"a": "do-not-keep"}, "kept": "this"}', depth)
    answer = web.post(body)
    assert (answer.status_code, answer.json["status"]) == (202, "quarantined")
    assert web.post(body).json["status"] == "duplicate"
    runner = web.app.test_cli_runner().invoke(args=["events", "show", "1"])
    assert "do-not-keep" not in runner.output and "this" in runner.output
    assert web.post(body + b"x").status_code == 400
    assert web.post(nested("", depth + 3).replace(b"]", b"", 1)).status_code == 400


def test_a_number_of_many_digits_is_json(web: Bridge) -> None:
    """An authentic webhook with a number that Python cannot read is not thrown away."""
    body = json.dumps(sample("booking_created")).encode()[:-1] + b', "n": ' + b"9" * 9000 + b"}"
    assert web.post(body).json["status"] == "accepted"


@pytest.mark.parametrize("attendees", ["x", 7, [None], ["a@b", None, 3], [[]], {"a": 1}, True])
def test_attendees_of_another_shape_change_no_booking(lite: Bridge, attendees: Any) -> None:
    """Attendees that are no list of objects unlink nobody from a known booking."""
    lite.post(sample("booking_created"))
    before = lite.client.get("/").get_data(as_text=True)
    changed = sample("booking_rescheduled", attendees=attendees, updatedAt="2027-01-01T00:00:00Z")
    assert lite.post(changed).json["status"] == "quarantined"
    assert "attendees is not a list of objects" in str(lite.events()[1].error)
    shown = lite.client.get("/").get_data(as_text=True)
    assert "Jane van der Berg" in before and "Jane van der Berg" in shown


@contextmanager
def read_only(bridge: Bridge, full: bool) -> Iterator[None]:
    """A database that refuses writes: a standby on PostgreSQL; read-only or a full disk on SQLite."""
    engine: Engine = bridge.services.store.engine
    if full:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # No file of this process may grow beyond 8 KiB, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    sqlite = engine.dialect.name == "sqlite"
    words = "PRAGMA query_only=ON" if sqlite else "SET default_transaction_read_only = on"

    def close(connection: Any, _record: object) -> None:
        connection.execute(words)
        if not sqlite:
            connection.commit()

    event.listen(engine, "connect", close)
    engine.dispose()
    yield
    event.remove(engine, "connect", close)
    engine.dispose()


@pytest.mark.parametrize("full", [False, True], ids=["read-only", "full disk"])
def test_a_database_that_takes_no_write_is_away(web: Bridge, full: bool) -> None:
    """Without a writable database the sender gets 503 and /readyz reports it, until writes work again."""
    if full and web.services.store.engine.dialect.name == "postgresql":
        pytest.skip("the disk of a PostgreSQL server is its own")
    client, signed_in = web.app.test_client(), web.client
    assert client.get("/readyz").status_code == 200
    with read_only(web, full):
        answer = web.post(sample("booking_created"))
        assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json["checks"]["database"]) == (503, "down")
        assert signed_in.get("/").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert web.post(sample("booking_created")).json["status"] == "accepted"


def test_readyz_leaves_nothing_behind(web: Bridge) -> None:
    """/readyz rolls its test write back."""
    tables = "SELECT count(*) FROM encryption_keys"
    with web.services.store.read() as session:
        before = session.execute(text(tables)).scalar()
    web.app.test_client().get("/readyz")
    with web.services.store.read() as session:
        assert session.execute(text(tables)).scalar() == before


# Browser sessions


def cookie_of(bridge: Bridge) -> str:
    found = bridge.client.get_cookie("session")
    assert found is not None
    return found.value


def opens(bridge: Bridge, cookie: str) -> bool:
    client = bridge.app.test_client()
    client.set_cookie("session", cookie)
    return bool(client.get("/").status_code == 200)


def test_signing_out_ends_the_session(web: Bridge) -> None:
    """A cookie copied earlier gives no access after its owner has signed out."""
    copied = cookie_of(web)
    with web.client.session_transaction() as session:
        assert set(session) == {"id"}
        csrf = Person(session["id"], "").csrf
    assert opens(web, copied)
    assert web.client.post("/sign-out", data={"csrf": csrf}).status_code == 303
    assert not opens(web, copied)


def test_revoking_the_key_ends_its_sessions(web: Bridge) -> None:
    """A revoked key ends all its sessions, and `keys list` shows the open ones."""
    copied = cookie_of(web)
    listed = run(web, "keys", "list")
    (line,) = [row for row in listed.splitlines() if "tester" in row]
    assert line.count(":") == 3  # created, session begun, last used
    run(web, "keys", "revoke", "tester")
    assert not opens(web, copied)


@pytest.mark.parametrize(("column", "age"), [("seen_at", "IDLE"), ("created_at", "LONGEST")])
def test_a_session_ends_by_itself(web: Bridge, column: str, age: str) -> None:
    """A session ends after two hours without use, and after twelve hours in any case."""
    with web.services.store.write() as session:
        almost = sessions.utcnow() - getattr(sessions, age) + timedelta(minutes=5)
        session.execute(update(WebSession).values({column: almost}))
    assert opens(web, cookie_of(web))
    with web.services.store.write() as session:
        over = sessions.utcnow() - getattr(sessions, age) - timedelta(seconds=1)
        session.execute(update(WebSession).values({column: over}))
    assert not opens(web, cookie_of(web))


def test_being_used_keeps_a_session(web: Bridge) -> None:
    """A session's last use is noted, to the minute."""
    before = sessions.utcnow() - timedelta(minutes=30)
    with web.services.store.write() as session:
        session.execute(update(WebSession).values(seen_at=before))
    assert opens(web, cookie_of(web))
    with web.services.store.read() as session:
        assert session.query(WebSession).one().seen_at > before + timedelta(minutes=29)


@pytest.mark.parametrize(
    "content",
    [{"id": 7}, {"id": {"a": 1}}, {"id": "\0"}, {"id": "x" * 5000}, {"id": "\ud800"}, {},
     {"user": "tester", "key": "x"}, [1, 2], "text", 7, None],
    ids=str,
)  # fmt: skip
def test_a_session_of_another_shape_is_none(web: Bridge, content: Any) -> None:
    """A cookie with a valid signature but other content leads to the sign-in page."""
    signer = SecureCookieSessionInterface().get_signing_serializer(web.app)
    assert signer is not None
    client = web.app.test_client()
    client.set_cookie("session", str(signer.dumps(content)))
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")


def test_the_migration_of_sessions_goes_both_ways(web: Bridge) -> None:
    """The migration of sessions works down and up again and keeps the data of the other tables."""
    web.post(sample("booking_created"))
    cookie = cookie_of(web)
    store = web.services.store
    store.schema.downgrade("0007", web.services.cipher)
    web.services.prepare()
    with store.read() as session:
        assert session.query(EventRow).count() == session.query(ApiKey).count() == 1
    assert not opens(web, cookie)
    assert web.sign_in().get("/").status_code == 200


# Inputs of a signed-in person

ODD = ["%00", "x" * 500, "9" * 30, "-1", "0", "%F0%9F%92%A9", "%ff", "..%2f..", "%0d%0aX:1", "null"]
QUERY = ("connection", "page", "limit", "offset", "state", "host", "next", "other_account", "iss",
         "code", "error", "key", "mapping", "parked", "outcome")  # fmt: skip
VALUES = [
    "\0",
    "x" * 5000,
    "9" * 5000,
    "-1",
    str(10**20),
    "💩",
    "http://[",
    "//evil",
    "“key”",
    "NaN",
]


def test_no_route_fails_for_odd_parameters(web: Bridge) -> None:
    """No route answers 5xx, whatever is in its address, its query, its form and its JSON."""
    with web.client.session_transaction() as session:
        csrf = Person(session["id"], "").csrf
    bearer = {"Authorization": f"Bearer {web.key}"}
    web.post(sample("booking_created", id="there"))
    tried = 0
    for rule in web.app.url_map.iter_rules():
        if rule.endpoint in ("dashboard.sign_out", "dashboard.sign_in_form"):
            continue
        for number, (odd, value) in enumerate(zip(ODD, VALUES, strict=True)):
            parts = {
                name: "hubspot" if name == "name" and number % 2 else odd for name in rule.arguments
            }
            if "key" in parts and number % 2:
                parts["key"] = "there"
            path = rule.rule
            for name, part in parts.items():
                for kind in ("", "path:", "int:"):
                    path = path.replace(f"<{kind}{name}>", part)
            query = dict.fromkeys(QUERY, value)
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                sent: dict[str, Any] = {"query_string": query, "headers": bearer}
                if method == "POST" and path.startswith("/api"):
                    sent.update(data=nested("1", 3_000), content_type="application/json")
                elif method == "POST":
                    sent["data"] = {**query, "csrf": csrf}
                answer = web.client.open(path, method=method, **sent)
                assert answer.status_code < 500, (method, path, value)
                tried += 1
    assert tried > 250


@pytest.mark.parametrize("proxies", [0, 1])
def test_a_host_that_is_none_is_refused(tmp_path: Path, proxies: int) -> None:
    """A Host header that names no host gives 400, also if a trusted proxy forwards it."""
    web = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), trusted_proxies=proxies)
    header = "X-Forwarded-Host" if proxies else "Host"
    for host in ("x" * 64, "x" * 5000, "a..b", "a b", "[", "x@y", "x:123456", "\xe9"):
        answer = web.app.test_client().get("/sign-in", headers={header: host})
        assert answer.status_code == 400, host
    for host in ("bridge.example", "127.0.0.1:8000", "[::1]:8000", "my_host", "bridge.example."):
        assert web.app.test_client().get("/sign-in", headers={header: host}).status_code == 200
    web.close()


def test_a_key_of_other_characters_is_a_sentence(lite: Bridge) -> None:
    """A key with a typographic quote is refused in words, before any call to the CRM."""
    with lite.client.session_transaction() as session:
        csrf = Person(session["id"], "").csrf
    for key in ("“pat-123”", "päß", "a b", "a\0b", ""):
        answer = lite.client.post("/connections/key/hubspot", data={"key": key, "csrf": csrf})
        assert answer.status_code == 400
        assert "This is not a key" in answer.get_data(as_text=True)


def test_the_api_takes_json_alone(lite: Bridge) -> None:
    """Deep JSON, no JSON and another content type are each refused by name."""
    lite.post(sample("booking_created", id="there"))
    path, bearer = "/api/v1/bookings/there/outcome", {"Authorization": f"Bearer {lite.key}"}
    ask = lite.app.test_client().post
    for body, kind, status in (
        (nested("1", 60_000), "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"outcome": "held"}', "application/json", 200),
    ):
        answer = ask(path, data=body, headers=bearer, content_type=kind)
        assert answer.status_code == status


HOSTILE = {
    "brackets": "[" * 50_000,
    "levels": "".join(" " * depth + "a:\n" for depth in range(300)),
    "aliases": "a: &a 1\nb: [" + "*a," * 20_000 + "]",
    "unknown keys": "".join(f"k{number}: 1\n" for number in range(9000)),
    "overrides times overrides": "version: 1\ncrm: hubspot\nmeeting_types: {"
    + "".join(f"t{number}: {{}}, " for number in range(2000))
    + "}\nhosts: {"
    + "".join(f"h{number}: {{}}, " for number in range(2000))
    + "}\n",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_try_of_a_mapping_ends_soon(
    lite: Bridge, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    """No text keeps the web process busy for longer than a trial may take."""
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    assert len(hostile) <= trial.MAX_TEXT
    began = time.thread_time()  # of processor time: other load on this machine does not count
    found = lite.services.trial.try_text("hubspot", hostile, None)
    assert time.thread_time() - began < 2
    assert found.mistakes
