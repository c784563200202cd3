"""A CRM is connected through its consent page, and every failure on the way ends in words."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import requests
from sqlalchemy import update
from werkzeug.test import TestResponse

from app.domain.errors import RetryLater, Unauthorized
from app.oauth.tokens import TokenService
from app.store.access_models import OAuthFlow
from app.store.boxes import unseal
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from sandbox.browser import ONWARD, address_onward
from sandbox.faults import Fault
from tests.bridge import RENEWED, REVOKED, Bridge, sample


class Clock:
    """A clock for the token service that the test sets."""

    def __init__(self, crm: Bridge) -> None:
        services = crm.services
        self.ahead = timedelta()
        self.tokens = TokenService(
            services.store, services.cipher, services.providers, 5.0, lambda: utcnow() + self.ahead
        )

    def forward(self, **span: float) -> None:
        self.ahead += timedelta(**span)


def state_of(response: TestResponse) -> str:
    return parse_qs(urlsplit(address_onward(response.headers[ONWARD])).query)["state"][0]


def test_connect_shows_the_account(crm: Bridge, provider: str) -> None:
    """The dashboard names the connected account, and the booking-id fields are created."""
    page = crm.client.get("/").get_data(as_text=True)
    assert crm.connection(provider).account in page
    assert crm.connection(provider).last_error is None


def test_refused_consent(crm: Bridge, provider: str) -> None:
    """A click on Deny leads to a page that says so."""
    answer = crm.connect(provider, "deny")
    assert answer.status_code == 400
    assert "not granted" in answer.get_data(as_text=True)


def test_a_state_is_single_use_and_bound(crm: Bridge, provider: str) -> None:
    """Replayed, unknown and foreign states are refused before any token call."""
    sandbox = crm.sandbox(provider)
    before = sandbox.calls_to_token
    state = state_of(crm.start(provider))
    callback = f"/oauth/{provider}/callback?code=x&state="
    stranger = crm.sign_in()
    assert stranger.get(callback + state).status_code == 400
    # The first use ended the state, although it failed.
    assert crm.client.get(callback + state).status_code == 400
    assert crm.client.get(callback + "never-begun").status_code == 400
    assert crm.client.get(f"/oauth/{provider}/callback").status_code == 400
    assert sandbox.calls_to_token == before


def test_a_code_of_one_crm_is_refused_at_another(bridge: Bridge) -> None:
    """HubSpot's state at Salesforce's callback makes no token call (mix-up attack)."""
    before = bridge.sandbox("salesforce").calls_to_token
    state = state_of(bridge.start("hubspot"))
    answer = bridge.client.get(f"/oauth/salesforce/callback?code=x&state={state}")
    assert answer.status_code == 400
    assert bridge.sandbox("salesforce").calls_to_token == before


def test_only_who_is_signed_in(crm: Bridge, provider: str) -> None:
    """Without a sign-in nobody reaches the pages or the flow; a form needs its token."""
    stranger = crm.app.test_client()
    for path in ("/", "/events", f"/oauth/{provider}/callback"):
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")
    started = stranger.post(f"/oauth/{provider}/start")
    assert (started.status_code, started.headers["Location"]) == (303, "/sign-in")
    assert stranger.post("/sign-in", data={"key": "mcb_wrong"}).status_code == 401
    number = crm.connection(provider).id
    assert crm.client.post(f"/connections/{number}/disconnect").status_code == 400
    assert crm.app.test_client().get("/api/v1/bookings").status_code == 401
    assert "frame-ancestors 'none'" in stranger.get("/sign-in").headers["Content-Security-Policy"]
    assert stranger.get("/sign-in").headers["Referrer-Policy"] == "no-referrer"


def test_reconnect_keeps_connection_and_ledger(crm: Bridge, provider: str) -> None:
    """A reconnect of the same account keeps the connection; nothing is written again."""
    crm.sync(sample("booking_created"))
    before = crm.connection(provider).id
    assert crm.connect(provider).status_code == 303
    assert crm.connection(provider).id == before
    writes = crm.sandbox(provider).writes()
    crm.settle()
    assert crm.sandbox(provider).writes() == writes


def test_disconnect_erases_and_revokes(crm: Bridge, provider: str) -> None:
    """A disconnect erases the tokens here and revokes them at the provider; later bookings wait."""
    page = crm.client.get("/").get_data(as_text=True)
    csrf = re.findall(r'name="csrf" value="([^"]+)"', page)[-1]
    number = crm.connection(provider).id
    answer = crm.client.post(f"/connections/{number}/disconnect", data={"csrf": csrf})
    assert answer.status_code == 303
    assert crm.connection(provider).token_encrypted is None
    assert provider not in REVOKED or all(g.dead for g in crm.sandbox(provider).grants)


def test_tokens_lie_nowhere_in_clear(
    crm: Bridge, provider: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the database nor the logs contain a token or a client secret in clear text."""
    crm.sync(sample("booking_created"))
    if provider in RENEWED:
        crm.services.tokens.renewed(1, crm.services.tokens.token(1))
    grants = crm.sandbox(provider).grants
    needles = [t for g in grants for t in (*g.access_tokens, g.refresh_token)]
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("bridge*"))
    printed = "".join(capfd.readouterr())
    for needle in [*needles, "sandbox-secret-for-tests"]:
        assert needle.encode() not in raw
        assert needle not in printed


@pytest.mark.parametrize("provider", RENEWED)
def test_refresh_keeps_what_the_answer_leaves_out(crm: Bridge, provider: str) -> None:
    """A refresh answer is merged into the stored tokens; rotation works twice."""
    for _ in range(2):
        token = crm.services.tokens.token(1)
        assert crm.services.tokens.renewed(1, token) != token
    row = crm.connection(provider)
    stored = json.loads(unseal(crm.services.cipher, ConnectionRow.token_encrypted, row))
    assert stored["refresh_token"] == crm.sandbox(provider).grants[0].refresh_token
    assert crm.connection(provider).scopes


@pytest.mark.parametrize("provider", RENEWED)
def test_an_outage_of_the_token_endpoint_is_transient(crm: Bridge, provider: str) -> None:
    """429, 5xx and HTML from the token endpoint never expire a connection."""
    sandbox = crm.sandbox(provider)
    clock = Clock(crm)
    before = crm.services.tokens.token(1)
    for status, body in ((500, "oops"), (429, "{}"), (200, "<html></html>"), (503, "")):
        clock.forward(minutes=3)  # past the back-off after the earlier failure
        sandbox.faults.append(Fault(path=sandbox.token_path, status=status, body=body))
        with pytest.raises(RetryLater):
            clock.tokens.renewed(1, before)
        assert crm.connection(provider).status == "active"
    clock.forward(hours=3)
    sandbox.faults.append(Fault(path=sandbox.token_path, status=503))
    with pytest.raises(RetryLater):
        clock.tokens.token(1)
    assert crm.connection(provider).status == "expiring"
    assert "tries again by itself" in (crm.connection(provider).next_step or "")
    with crm.services.store.write() as session:
        session.get_one(ConnectionRow, 1).pause_until = utcnow() + timedelta(hours=1)
    clock.forward(hours=1)
    before = clock.tokens.token(1)
    assert crm.connection(provider).status == "active"
    assert crm.connection(provider).pause_until is None
    sandbox.kill_grants()
    with pytest.raises(Unauthorized):
        clock.tokens.renewed(1, before)
    assert crm.connection(provider).status == "expired"


def test_a_provider_that_is_down_at_connect(crm: Bridge, provider: str) -> None:
    """If the provider is down, the callback shows a page in words and no traceback."""
    sandbox = crm.sandbox(provider)
    sandbox.faults.append(Fault(path=sandbox.token_path, status=502, body="bad gateway"))
    answer = crm.connect(provider)
    assert answer.status_code == 400
    assert "502" in answer.get_data(as_text=True)
    assert issubclass(RetryLater, Exception)


def consent(address: str) -> str:
    """Allow access on a consent page; return the path that the browser is sent back to."""
    fields = {**dict(parse_qsl(urlsplit(address).query)), "decision": "allow"}
    page = address.partition("?")[0]
    answer = requests.post(page, data=fields, allow_redirects=False, timeout=5)
    back = urlsplit(answer.headers["Location"])
    return f"{back.path}?{back.query}"


def test_two_tabs_end_well_in_any_order(crm: Bridge, provider: str) -> None:
    """Two tabs each have their own state; both lead to the account's single connection."""
    first, second = (consent(crm.consent_page(provider)) for _ in range(2))
    assert crm.client.get(second).status_code == 303
    assert crm.client.get(first).status_code == 303
    assert crm.connection(provider).status == "active"


def test_a_consent_page_that_was_open_for_too_long(crm: Bridge, provider: str) -> None:
    """A state older than ten minutes is refused, in words, before any token call."""
    back = consent(crm.consent_page(provider))
    with crm.services.store.write() as session:
        session.execute(update(OAuthFlow).values(created_at=utcnow() - timedelta(minutes=11)))
    before = crm.sandbox(provider).calls_to_token
    answer = crm.client.get(back)
    assert answer.status_code == 400
    assert "open for too long" in answer.get_data(as_text=True)
    assert crm.sandbox(provider).calls_to_token == before


def test_forwarded_headers_are_not_believed(crm: Bridge, provider: str) -> None:
    """The redirect address comes from PUBLIC_URL; the request's host headers are ignored."""
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    start = crm.consent_page(provider, headers=headers)
    assert "evil.example" not in start
    sent = parse_qs(urlsplit(start).query)["redirect_uri"][0]
    assert sent.startswith(crm.settings.public_url)
    onward = crm.consent_page(provider, "?next=//evil.example")
    assert crm.client.get(consent(onward)).headers["Location"] == "/"


def test_tokens_that_last_are_neither_missed_nor_refreshed(crm: Bridge, provider: str) -> None:
    """A CRM whose tokens have no end gives no refresh token; that is a fact of the provider."""
    sandbox = crm.sandbox(provider)
    sandbox.lifetime = 0.0
    if provider in RENEWED:
        refused = crm.connect(provider, query="?connection=1").get_data(as_text=True)
        assert "gave no refresh token" in refused
    crm.make_lasting(provider)
    assert crm.connection(provider).expires_at is None
    calls = sandbox.calls_to_token
    clock = Clock(crm)
    clock.forward(days=400)
    assert clock.tokens.token(1) and clock.tokens.due() == []
    crm.sync(sample("booking_created"))
    assert crm.delivery(provider).state == "synced"
    for grant in sandbox.grants:
        grant.access_tokens.clear()
    crm.post(sample("booking_rescheduled"))
    crm.drain()
    assert sandbox.calls_to_token == calls
    row = crm.connection(provider)
    assert row.status == "expired" and '"Connect again"' in (row.next_step or "")
