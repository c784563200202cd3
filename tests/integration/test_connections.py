"""The life of a connection: broken, repaired, moved, ended; the notices about it; keys that rotate."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from apprise.plugins.slack import NotifySlack
from sqlalchemy import select, update

from app.bootstrap import bootstrap
from app.crm.port import no_limits_told
from app.services.notify import Notifier
from app.store.access_models import EncryptionKey, Revocation
from app.store.connections import NoticeKind
from app.store.engine import utcnow
from app.store.models import Notice, RecordLink
from app.sync.diff_state import Diff
from config.settings import SettingsError
from sandbox.faults import Fault
from tests.bridge import ADAPTERS, ENTRIES, KEY, REVOKED, Bridge, make_settings, sample
from tests.integration.test_cli import run
from tests.ports import free_port
from workers.batch import Batch
from workers.drain import Drainer

KEYED = [entry for entry in ENTRIES.values() if entry.key]
"""The CRMs that accept a key which a person created by hand."""


def csrf(crm: Bridge, path: str = "/") -> str:
    page = crm.client.get(path).get_data(as_text=True)
    return str(re.findall(r'name="csrf" value="([^"]+)"', page)[-1])


def notices(crm: Bridge) -> list[Notice]:
    with crm.services.store.read() as session:
        return list(session.scalars(select(Notice).order_by(Notice.id)))


def kinds(crm: Bridge) -> list[str]:
    return [notice.kind for notice in notices(crm)]


def test_a_dead_grant_is_told_once_and_resumes(crm: Bridge, provider: str) -> None:
    """A dead grant parks all bookings with one notice; after a reconnect each is synced once."""
    sandbox = crm.sandbox(provider)
    sandbox.kill_grants()
    for number in range(5):
        crm.post(sample("booking_created", id=f"b{number}"))
        crm.drain()
    calls = sandbox.calls_to_token
    crm.drain()
    assert sandbox.calls_to_token == calls
    assert {d.state for d in crm.deliveries()} == {"parked"}
    assert sum(d.attempts for d in crm.deliveries()) == 0
    assert kinds(crm) == [NoticeKind.BROKEN]
    page = crm.client.get("/connections/1").get_data(as_text=True)
    assert "5 bookings wait" in page and "Connect again" in page
    assert crm.connect(provider).status_code == 303
    crm.settle()
    assert {d.state for d in crm.deliveries()} == {"synced"}
    bookings = [deal.booking for deal in sandbox.view().deals]
    assert sorted(bookings) == [f"default:b{number}" for number in range(5)]
    assert kinds(crm) == [NoticeKind.BROKEN, NoticeKind.RESTORED]


def test_another_account_is_refused_unless_meant(crm: Bridge, provider: str) -> None:
    """A reconnect to another account changes nothing, unless the user confirms: then all work moves."""
    crm.sync(sample("booking_created"))
    before = crm.connection(provider)
    sandbox = crm.sandbox(provider)
    sandbox.become("999", "Beta")
    answer = crm.connect(provider, query="?connection=1")
    page = answer.get_data(as_text=True)
    assert answer.status_code == 400
    assert before.account in page and "Move the connection to the other account" in page
    assert crm.connection(provider).account_id == before.account_id
    crm.services.connector.revoke_due()
    assert sandbox.grants[-1].dead is (provider in REVOKED) and not sandbox.grants[0].dead
    crm.connect(provider, query="?connection=1&other_account=yes")
    after = crm.connection(provider)
    assert (after.id, after.account_id) == (before.id, "999")
    assert crm.delivery(provider).state == "due"


@pytest.mark.parametrize("lasting", [False, True], ids=["renewed", "lasting"])
def test_a_worker_that_was_refused_breaks_no_new_grant(
    crm: Bridge, provider: str, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's report about a refused old grant does not break a grant that was connected meanwhile."""
    if lasting:
        crm.make_lasting(provider)
    crm.sync(sample("booking_created"))
    crm.sandbox(provider).kill_grants()
    break_off = Drainer._note_refusal

    def late(drainer: Drainer, *args: Any) -> None:
        monkeypatch.setattr(Drainer, "_note_refusal", break_off)
        assert crm.connect(provider).status_code == 303
        break_off(drainer, *args)

    monkeypatch.setattr(Drainer, "_note_refusal", late)
    crm.post(sample("booking_rescheduled"))
    crm.drain()
    assert crm.connection(provider).status == "active"
    crm.settle()
    assert crm.delivery(provider).state == "synced"
    assert crm.sandbox(provider).view().meetings[0].start == "2026-12-02T13:00:00Z"


def test_a_batch_in_hand_is_not_written_into_another_account(
    crm: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch planned for one account is not written into another; a new plan is made for the new one."""
    crm.sync(sample("booking_created"))
    sandbox, note = crm.sandbox(provider), Batch.note_intents

    def move_over(batch: Batch, settled: Diff) -> None:
        note(batch, settled)
        monkeypatch.setattr(Batch, "note_intents", note)
        sandbox.become("999", "Beta")
        crm.connect(provider, query="?connection=1&other_account=yes")
        sandbox.calls.clear()

    monkeypatch.setattr(Batch, "note_intents", move_over)
    crm.post(sample("booking_rescheduled"))
    crm.drainer.drain(1)
    assert not sandbox.calls
    assert crm.delivery(provider).state == "due"
    assert crm.connection(provider).status == "active"
    with crm.services.store.read() as session:
        assert session.scalars(select(RecordLink)).all() == []
    crm.settle()
    assert sandbox.view().meetings[-1].start == "2026-12-02T13:00:00Z"


def test_a_key_connects_and_its_end_is_noticed(tmp_path: Path) -> None:
    """A hand-made key is checked and never shown; a refused key expires the connection."""
    for entry in KEYED:
        provider, scopes = entry.name, (*entry.scopes, *entry.optional_scopes)
        crm = Bridge(f"sqlite:///{tmp_path}/{provider}.sqlite3", (provider,))
        sandbox = crm.sandbox(provider)
        key = sandbox.make_key(*scopes)
        path = f"/connections/key/{provider}"
        wrong = crm.client.post(path, data={"csrf": csrf(crm, path), "key": "nonsense"})
        assert wrong.status_code == 400 and "does not accept" in wrong.get_data(as_text=True)
        answer = crm.client.post(path, data={"csrf": csrf(crm, path), "key": key})
        assert answer.status_code == 303, answer.get_data(as_text=True)
        crm.sync(sample("booking_created"))
        assert crm.delivery(provider).state == "synced"
        assert sandbox.calls_to_token == 0
        assert key not in crm.client.get("/connections/1").get_data(as_text=True)
        assert key.encode() not in b"".join(p.read_bytes() for p in tmp_path.glob("*"))
        sandbox.keys.clear()
        crm.post(sample("booking_created", id="later"))
        crm.drain()
        assert crm.connection(provider).status == "expired"
        assert "new key" in (crm.connection(provider).next_step or "")
        fresh = sandbox.make_key(*scopes)
        crm.services.connector.add_key(crm.services.providers[provider], fresh, "t")
        crm.settle()
        assert {d.state for d in crm.deliveries()} == {"synced"}
        crm.close()


@pytest.mark.parametrize("lasting", [False, True], ids=["renewed", "lasting"])
@pytest.mark.parametrize("provider", REVOKED)
def test_disconnect_keeps_or_discards_and_revokes_later(
    crm: Bridge, provider: str, lasting: bool
) -> None:
    """A disconnect erases the tokens although the provider is down, and revokes them later.

    If the CRM's tokens have no end, the access token is the one that is revoked.
    """
    sandbox = crm.sandbox(provider)
    if lasting:
        crm.make_lasting(provider)
    sandbox.faults.append(Fault(path=sandbox.revoke_path, status=503))
    path = "/connections/1/disconnect"
    assert "bookings wait" in crm.client.get(path).get_data(as_text=True)
    answer = crm.client.post(path, data={"csrf": csrf(crm, path), "parked": "keep"})
    assert answer.status_code == 303
    row = crm.connection(provider)
    assert row.token_encrypted is None and "did not get the revocation" in (row.last_error or "")
    assert not sandbox.grants[-1].dead
    with crm.services.store.write() as session:
        session.execute(update(Revocation).values(next_try_at=utcnow()))
    crm.services.connector.revoke_due()
    assert sandbox.grants[-1].dead
    assert crm.connection(provider).last_error is None
    with crm.services.store.read() as session:
        assert session.scalars(select(Revocation)).all() == []
    crm.post(sample("booking_created"))
    assert crm.connect(provider).status_code == 303
    crm.settle()
    assert crm.delivery(provider).state == "synced"


def test_parked_work_may_be_let_go(crm: Bridge, provider: str) -> None:
    """Discarded bookings are not synced on a reconnect until they change."""
    crm.sandbox(provider).kill_grants()
    crm.post(sample("booking_created"))
    crm.drain()
    printed = run(crm, "connections", "disconnect", "1", "--parked", "discard")
    assert "1 waiting booking is discarded" in printed and "lists connected apps" in printed
    crm.connect(provider)
    crm.drain()
    assert crm.delivery(provider).state == "discarded"
    crm.sync(sample("booking_rescheduled"))
    assert crm.delivery(provider).state == "synced"


@pytest.mark.parametrize(
    ("provider", "withheld"),
    [("hubspot", "crm.schemas.deals.write"), ("pipedrive", "deal-fields:full")],
)
def test_a_scope_that_was_not_granted_is_named(
    tmp_path: Path, provider: str, withheld: str
) -> None:
    """A missing scope is shown with its effect and can be requested again; bookings are synced."""
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (provider,))
    crm.sandbox(provider).withheld = {withheld}
    assert crm.connect(provider).status_code == 303
    page = crm.client.get("/connections/1").get_data(as_text=True)
    assert withheld in page and "booking-id field" in page and "Ask" in page
    crm.sync(sample("booking_created"))
    assert crm.delivery(provider).state == "synced"
    crm.sandbox(provider).withheld = set()
    crm.connect(provider, query="?connection=1")
    assert "Not granted" not in crm.client.get("/connections/1").get_data(as_text=True)
    crm.close()


def test_the_doctor_finds_what_is_wrong(crm: Bridge, provider: str) -> None:
    """A good connection passes; a revoked scope and a dead grant are found and give exit code 1."""
    good = run(crm, "doctor", "--connection", "1")
    assert "Nothing to fix" in good and "read deal" in good
    told = ADAPTERS[provider].api_facts.read_limits is not no_limits_told
    assert ("limit" in good) is told
    crm.sandbox(provider).grants[0].scopes.clear()
    assert "read contact" in run(crm, "doctor", "--connection", "1", code=1)
    crm.sandbox(provider).kill_grants()
    assert "token" in run(crm, "doctor", "--connection", "1", code=1)
    assert "Redis" in run(crm, "doctor", code=1)


def test_encryption_keys_rotate(crm: Bridge, tmp_path: Path) -> None:
    """New writes use the newest key; `keys rotate` rewrites the rest; a missing key gives a sentence."""
    crm.sync(sample("booking_created"))
    url = crm.settings.database_url
    old, new = KEY, KEY.swapcase()
    with pytest.raises(SettingsError, match="ENCRYPTION_KEYS lacks the key"):
        bootstrap(make_settings(url, encryption_keys=new), {}).prepare()
    both = Bridge(url, tuple(crm.served), encryption_keys=f"{new},{old}")
    assert "values re-encrypted" in run(both, "keys", "rotate")
    with both.services.store.read() as session:
        assert session.scalars(select(EncryptionKey.key_id)).all() == [both.services.cipher.newest]
    alone = bootstrap(make_settings(url, encryption_keys=new), {})
    alone.prepare()
    assert alone.tokens.token(1)
    with pytest.raises(SettingsError):
        bootstrap(make_settings(url, encryption_keys=old), {}).prepare()
    both.close()


class Hook(BaseHTTPRequestHandler):
    """Collects what is posted."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.got.append((self.path, self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


class Mailbox:
    """Collects mail."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: object) -> str:
        self.mails.append(envelope.content.decode())  # type: ignore[attr-defined]
        return "250 OK"


def test_notices_reach_mail_slack_and_a_webhook(
    crm: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is sent once to every target; only a failed target gets it again."""
    hook = type("Listener", (Hook,), {"got": []})
    server = HTTPServer(("127.0.0.1", free_port()), hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"127.0.0.1:{server.server_port}"
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{base}/slack")
    mailbox = Mailbox()
    mail = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    mail.start()
    urls = (
        f"mailto://127.0.0.1:{mail.port}?from=bridge@example.com&to=ops@example.com,"
        f"slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops,json://{base}/hook"
    )
    notifier = Notifier(crm.services.store, crm.services.providers, urls, crm.settings.public_url)
    assert len(notifier.targets) == 3
    crm.sandbox(provider).kill_grants()
    crm.post(sample("booking_created"))
    crm.drain()
    mail.stop()
    assert notifier.send_due() == 0
    assert sorted(path.split("/")[1] for path, _ in hook.got) == ["hook", "slack"]
    mail = Controller(mailbox, hostname="127.0.0.1", port=mail.port)
    mail.start()
    with crm.services.store.write() as session:
        session.execute(update(Notice).values(next_try_at=utcnow() - timedelta(seconds=1)))
    assert notifier.send_due() == 1
    assert notifier.send_due() == 0
    assert len(hook.got) == 2 and len(mailbox.mails) == 1
    told = json.loads(next(body for path, body in hook.got if path == "/hook"))
    assert "is broken" in told["title"]
    assert "/connections/1" in told["message"] and "1 bookings wait" in told["message"]
    assert "jane" not in str(hook.got).lower() + mailbox.mails[0].lower()
    mail.stop()
    server.shutdown()
    server.server_close()


def test_failures_in_a_row_are_told_once(crm: Bridge, provider: str) -> None:
    """One notice names the failed bookings and one reports five failures in a row; a success ends it."""
    bad = {"email": f"x@{'y' * 100}.example"}
    bad |= dict.fromkeys(("firstname", "lastname", "fullname"))
    for number in range(7):
        payload = sample("booking_created", id=f"bad{number}")
        payload["attendees"] = [{**payload["attendees"][0], **bad}]
        crm.sync(payload)
    assert kinds(crm) == [NoticeKind.FAILED, NoticeKind.FAILING]
    crm.sync(sample("booking_created", id="good"))
    assert kinds(crm) == [NoticeKind.FAILED, NoticeKind.FAILING, NoticeKind.PASSING]


def test_a_bad_notification_address_is_a_sentence(tmp_path: Path) -> None:
    """The error names the variable and hides the address, which may hold a password."""
    settings = make_settings(f"sqlite:///{tmp_path}/a.sqlite3", notify_urls="nonsense://p4ssw0rd")
    with pytest.raises(SettingsError) as caught:
        bootstrap(settings, {})
    assert "NOTIFY_URLS" in str(caught.value) and "p4ssw0rd" not in str(caught.value)
