"""POST /webhooks/meetergo over HTTP, on both databases."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from standardwebhooks.webhooks import Webhook

from app.security.signatures import sign_body
from app.store.boxes import seal
from app.store.models import EventRow, SourceRow
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import DATA, OLDER_SECRET, SECRET, Bridge, sample
from tests.contract.test_adapters import person


@pytest.fixture
def web(database_url: str) -> Iterator[Bridge]:
    """The service without any CRM."""
    made = Bridge(database_url, ())
    yield made
    made.close()


SAMPLES = {
    "booking_created": "accepted",
    "booking_rescheduled": "accepted",
    "booking_cancelled": "accepted",
    "envelope_dialect_created": "duplicate",  # the same booking in the older payload format
    "group_booking_created": "accepted",
    "group_attendee_removed": "accepted",
    "phone_only_created": "accepted",
    "form_submission_assumed": "ignored",
    "unknown_event": "ignored",
}


def test_every_sample_has_its_answer(web: Bridge) -> None:
    """Every file of tests/data is accepted, and the second time it is a duplicate."""
    assert {path.stem for path in DATA.glob("*.json")} == set(SAMPLES)
    for name, status in SAMPLES.items():
        answer = web.post(sample(name))
        assert (answer.status_code, answer.json["status"]) == (202, status), name
        again = web.post(sample(name))
        assert (again.status_code, again.json["status"]) == (202, "duplicate")
        assert again.json["event_id"] == answer.json["event_id"]
    assert len(web.events()) == len(SAMPLES) - 1


def test_a_wrong_byte_is_refused_and_nothing_stored(web: Bridge) -> None:
    """A changed body or signature gives 401 and stores no row."""
    body = json.dumps(sample("booking_created")).encode()
    sign = sign_body(SECRET, body)
    client = web.app.test_client()
    for number in range(0, len(body), 97):
        changed = body[:number] + bytes([body[number] ^ 1]) + body[number + 1 :]
        answer = client.post(
            "/webhooks/meetergo",
            data=changed,
            headers={"X-Meetergo-Signature": sign},
            content_type="application/json",
        )
        assert answer.status_code == 401
    for bad in (None, "", sign[:-1], sign.replace("sha256", "sha1"), "sha256=", "é", "x" * 9999):
        headers = {"X-Meetergo-Signature": bad} if bad is not None else {}
        answer = client.post(
            "/webhooks/meetergo", data=body, headers=headers, content_type="application/json"
        )
        assert answer.status_code == 401
        assert answer.json["error"]["code"] == "unauthorized"
    assert web.events() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"NaN",
        b'{"a": Infinity}',
        b"[" * 5000,
        b"[" * 200 + b"]" * 200 + b"x",
    ],
)
def test_what_is_not_json_is_refused(web: Bridge, body: bytes) -> None:
    """A signed body that is not JSON gives 400."""
    assert web.post(body).status_code == 400
    assert web.events() == []


def test_huge_and_wrong_type(web: Bridge) -> None:
    """A body over 256 KiB gives 413; another content type gives 415."""
    assert web.post(b'"' + b"x" * (256 * 1024) + b'"').status_code == 413
    assert web.post(b"{}", content_type="text/plain").status_code == 415
    assert web.post(sample("booking_created"), content_type="application/json; charset=utf-8").status_code == 202  # fmt: skip


@pytest.mark.parametrize("payload", [[], 3, {}, {"webhookType": "booking_created"}, "text", None])
def test_an_authentic_misfit_is_kept_aside(web: Bridge, payload: Any) -> None:
    """An authentic webhook that does not fit is quarantined with its reason, never thrown away."""
    answer = web.post(payload)
    assert (answer.status_code, answer.json["status"]) == (202, "quarantined")
    (event,) = web.events()
    assert event.status == "quarantined" and event.error


def test_a_foreign_company_is_quarantined(database_url: str) -> None:
    """A webhook with a companyId that is not allowed is quarantined."""
    web = Bridge(database_url, (), meetergo_company_ids="c2,c3")
    assert web.post(sample("booking_created")).json["status"] == "quarantined"
    assert web.post(sample("booking_created", companyId="c2")).json["status"] == "accepted"
    web.close()


def test_older_secret_is_good(web: Bridge) -> None:
    """Several secrets are valid at the same time."""
    assert web.post(sample("booking_created"), secret=OLDER_SECRET).status_code == 202


def test_timestamped_and_standard_schemes(tmp_path: Path) -> None:
    """The other header schemes work over HTTP."""
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    now = datetime.now(UTC)
    body = json.dumps(sample("booking_created")).encode()
    stamp = str(int(now.timestamp()))
    web = Bridge(url, (), meetergo_signature_scheme="timestamped")
    headers = {
        "X-Meetergo-Timestamp": stamp,
        "X-Meetergo-Signature": sign_body(SECRET, stamp.encode() + b"." + body),
    }
    client = web.app.test_client()
    post = {"data": body, "content_type": "application/json"}
    assert client.post("/webhooks/meetergo", headers=headers, **post).status_code == 202
    assert web.post(sample("booking_created")).status_code == 401
    web.close()
    secret = base64.b64encode(b"0123456789abcdef01234567").decode()
    web = Bridge(url, (), meetergo_signature_scheme="standard-webhooks",
                 meetergo_webhook_secrets=f"whsec_{secret}")  # fmt: skip
    headers = {
        "webhook-id": "m1",
        "webhook-timestamp": stamp,
        "webhook-signature": Webhook(secret).sign("m1", now, body.decode()),
    }
    client = web.app.test_client()
    assert client.post("/webhooks/meetergo", headers=headers, **post).json["status"] == "duplicate"
    assert client.post("/webhooks/meetergo", **post).status_code == 401
    web.close()


def test_url_token_is_re_read_before_it_is_believed(tmp_path: Path) -> None:
    """With an API key the service reads the appointment from meetergo and ignores the webhook's
    content.
    """
    meetergo = Served(MeetergoSandbox())
    web = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", (), meetergo_signature_scheme="url-token",
        meetergo_api_key=API_KEY, meetergo_api_user_id="u1", meetergo_api_base=meetergo.url,
    )  # fmt: skip
    meetergo.sandbox.book(sample("booking_created"))
    forged = sample("booking_created", start="2030-01-01T00:00:00Z", end="2030-01-01T01:00:00Z")
    path = f"/webhooks/meetergo/default/{SECRET}"
    assert web.post(forged, path="/webhooks/meetergo/default/wrong").status_code == 401
    assert web.post(forged).status_code == 401
    answer = web.post(forged, path=path)
    assert (answer.status_code, answer.json["status"]) == (202, "accepted")
    assert web.events()[0].status == "received"
    web.services.rereader.run("default")
    assert web.events()[0].status == "applied"
    shown = web.client.get("/").get_data(as_text=True)
    assert "Tue 1 Dec 2026, 08:00 UTC" in shown and "2030" not in shown
    meetergo.stop()
    web.close()


def test_a_second_source_has_its_own_secret(web: Bridge) -> None:
    """/webhooks/meetergo/<source> uses that source's rules; an unknown source gives 401."""
    from app.store.engine import utcnow

    box = seal(
        web.services.cipher, SourceRow.secrets_encrypted, {"name": "berlin"}, '["their-secret"]'
    )
    with web.services.store.write() as session:
        session.add(
            SourceRow(
                name="berlin",
                scheme="body",
                header="X-Sign",
                secrets_encrypted=box,
                company_ids=[],
                created_at=utcnow(),
            )
        )
    body = json.dumps(sample("booking_created")).encode()
    sign = {"X-Sign": sign_body("their-secret", body)}
    path = "/webhooks/meetergo/berlin"
    assert web.post(body, path=path).status_code == 401
    assert web.post(body, path=path, headers=sign).status_code == 202
    assert web.post(body, path="/webhooks/meetergo/paris", headers=sign).status_code == 401


def test_fifty_at_once_are_one_event(web: Bridge) -> None:
    """50 posts of one webhook by 8 clients give one event, and all are answered 202."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: web.post(sample("booking_created")), range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert [a.json["status"] for a in answers].count("accepted") == 1
    assert len(web.events()) == 1


def test_different_states_at_once_end_in_the_newest(web: Bridge) -> None:
    """Two threads post two states of one booking: the newest is kept, and both events are stored."""
    names = ["booking_created", "booking_rescheduled", "booking_cancelled"]
    start = threading.Barrier(3)

    def post(name: str) -> int:
        start.wait()
        return int(web.post(sample(name)).status_code)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(post, names)) == [202] * 3
    assert len(web.events()) == 3
    shown = web.client.get("/api/v1/bookings", headers={"Authorization": f"Bearer {web.key}"}).json
    assert [b["status"] for b in shown["bookings"]] == ["cancelled"]


def test_a_database_that_is_away_is_503(web: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the database the sender gets 503 and posts again; a 202 means that the event is on disk."""

    def broken(*_: object, **__: object) -> None:
        raise OperationalError("BEGIN", {}, Exception("down"))

    with monkeypatch.context() as patch:
        patch.setattr(web.services.store, "write_plain", broken)
        answer = web.post(sample("booking_created"))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert web.post(sample("booking_created")).json["status"] == "accepted"


def test_the_credential_lies_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The database and the logs contain neither the payload's secret nor the person's data in clear
    text.
    """
    web = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), log_level="DEBUG")
    web.post(sample("booking_created"))
    web.post({"webhookType": "booking_created", "secret": "cancel-token-do-not-store"})
    web.services.store.close()
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    printed = "".join(capfd.readouterr())
    for needle in ("cancel-token-do-not-store", "van.der.berg", "23456789", SECRET):
        assert needle.encode() not in raw
        assert needle not in printed
    with web.services.store.read() as session:
        assert session.query(EventRow).count() == 2
    web.close()


def test_health_and_metrics(web: Bridge) -> None:
    """The service reports its health, readiness without Redis and what waits by status."""
    client = web.app.test_client()
    assert client.get("/healthz").json == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]["redis"]) == (200, "down")
    web.workers_sleep = True
    web.post(sample("booking_created"))
    text = client.get("/metrics").get_data(as_text=True)
    assert 'bridge_events{status="stored"} 1.0' in text


def test_half_a_character_is_taken(bridge: Bridge) -> None:
    """An emoji that JavaScript cut in two arrives as a lone surrogate and is accepted, though no
    database stores it.
    """
    cut = "Jane \ud83d"
    payload = sample("booking_created", attendees=[person("jane@globex.example", lastname=cut)])
    assert bridge.post(payload).status_code == 202
    bridge.settle()
    assert {delivery.state for delivery in bridge.deliveries()} == {"synced"}
    assert bridge.post(payload).get_json()["status"] == "duplicate"
    shown = sample("booking_created", id="shown", attendees=payload["attendees"])
    assert bridge.services.intake.adopt("default", shown)
