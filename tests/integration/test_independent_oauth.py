"""The whole life of a grant with an independent OAuth server: npm's oidc-provider."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests

from app.crm.objects import ObjectName
from app.crm.port import Access, ApiFacts, Report
from app.crm.schema import CrmAccount, CrmShape, Directory
from app.domain.errors import Unauthorized
from app.domain.rate_limits import RateLimit
from app.store.boxes import unseal
from app.store.models import ConnectionRow
from config.settings import CONFIG_DIR
from crm_adapters.base import CrmField
from crm_adapters.http import ApiSession, RefusedToken, with_token
from crm_adapters.hubspot import HubSpotAdapter
from tests.bridge import Bridge
from tests.ports import free_port

SERVER = Path(__file__).parent.parent / "oauth_server"
PUBLIC = "http://127.0.0.1:8000"
ENTRY = """
independent:
  title: Independent
  adapter: tests.integration.test_independent_oauth:IndependentAdapter
  authorize_url: {base}/auth
  token_url: {base}/token
  revoke_url: {base}/token/revocation
  introspect_url: {base}/token/introspection
  api_base: {base}
  pkce: true
  rotates: true
  authorize_params: {{prompt: consent}}
  scopes: {{openid: to know who, offline_access: to stay connected}}
  client_id: bridge
  client_secret: a-secret-that-only-the-test-knows
"""


CALLS = RateLimit("calls", 100, 1.0)


class IndependentAdapter:
    """The minimum of a CRM adapter: it returns the account that a token belongs to."""

    shape: ClassVar[CrmShape] = HubSpotAdapter.shape
    batch_size: ClassVar[int] = 1
    asks_ahead: ClassVar[bool] = False
    allowances: ClassVar[tuple[RateLimit, ...]] = (CALLS,)
    api_facts: ClassVar[ApiFacts] = ApiFacts()

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = ApiSession(access)

    def whoami(self) -> CrmAccount:
        def once(token: str) -> Any:
            headers = self.access.authorization(token)
            answer = self._session.request("GET", "/me", headers, CALLS)
            if answer.status == 401:
                raise RefusedToken("expired")
            return answer.json()

        subject = with_token(self.access, once, CALLS)["sub"]
        return CrmAccount(subject, f"user {subject}")

    def check(self, name: ObjectName) -> None:
        self.whoami()

    def directory(self, needed: object = None) -> Directory:
        return Directory()

    def describe(self, name: ObjectName) -> list[CrmField]:
        return []

    def provision(self) -> list[str]:
        return []

    def apply(self, plan: object, report: Report) -> None:
        raise AssertionError("nothing is booked here")

    def url_for(self, name: ObjectName, record_id: str) -> str:
        return ""


@pytest.fixture
def independent(tmp_path: Path) -> Iterator[tuple[Bridge, str]]:
    """The service with the independent server as its one provider."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: the independent OAuth server cannot be run")
    if not (SERVER / "node_modules").exists():
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=SERVER, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    node = subprocess.Popen(
        ["node", "server.mjs", str(port), f"{PUBLIC}/oauth/independent/callback"],
        cwd=SERVER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert node.stdout and node.stdout.readline().strip() == "ready"
    (tmp_path / "providers.yaml").write_text(ENTRY.format(base=base), encoding="utf-8")
    mapping = (CONFIG_DIR / "mappings" / "hubspot.yaml").read_text(encoding="utf-8")
    mapping = mapping.replace("crm: hubspot", "crm: independent")
    (tmp_path / "independent.yaml").write_text(mapping, encoding="utf-8")
    bridge = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", (), public_url=PUBLIC,
        providers_file=tmp_path / "providers.yaml", mappings_dir=tmp_path,
    )  # fmt: skip
    yield bridge, base
    bridge.close()
    node.terminate()
    node.wait(10)


def consent(address: str) -> str:
    """Sign in and allow access as a person does; return the address that the browser is sent back to."""
    browser = requests.Session()
    answer = browser.get(address, allow_redirects=False, timeout=10)
    for _ in range(12):
        if answer.is_redirect:
            address = urljoin(address, answer.headers["Location"])
            if address.startswith(PUBLIC):
                return address
            answer = browser.get(address, allow_redirects=False, timeout=10)
            continue
        action = re.search(r'action="([^"]+)"', answer.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert action and prompt, answer.text[:500]
        fields = {"prompt": prompt[1], "login": "jane", "password": "any"}
        answer = browser.post(
            urljoin(address, action[1]), data=fields, allow_redirects=False, timeout=10
        )
    raise AssertionError("the consent page led nowhere")


def active(base: str, token: str) -> bool:
    body = {
        "token": token, "client_id": "bridge",
        "client_secret": "a-secret-that-only-the-test-knows",
    }  # fmt: skip
    answer = requests.post(f"{base}/token/introspection", data=body, timeout=10)
    return bool(answer.json()["active"])


def test_connect_rotate_and_revoke(independent: tuple[Bridge, str]) -> None:
    """PKCE, state, iss, two rotations and revocation work, and a replayed token ends the grant."""
    bridge, base = independent
    services = bridge.services

    def refresh_token() -> str:
        row = bridge.connection("independent")
        box = unseal(services.cipher, ConnectionRow.token_encrypted, row)
        return str(json.loads(box)["refresh_token"])

    start = bridge.consent_page("independent")
    assert parse_qs(urlsplit(start).query)["code_challenge_method"] == ["S256"]
    back = urlsplit(consent(start))
    assert parse_qs(back.query)["iss"] == [base]
    callback = f"{back.path}?{back.query}"
    first_answer = bridge.client.get(callback)
    assert first_answer.status_code == 303, first_answer.get_data(as_text=True)[-600:]
    assert bridge.client.get(callback).status_code == 400
    row = bridge.connection("independent")
    assert (row.status, row.account_id, row.problem) == ("active", "jane", None)
    first = refresh_token()
    for _ in range(2):
        before, token = refresh_token(), services.tokens.token(row.id)
        assert services.tokens.renewed(row.id, token) != token
        assert refresh_token() != before
        assert active(base, refresh_token()) and not active(base, before)
    assert refresh_token() != first
    last, token = refresh_token(), services.tokens.token(row.id)
    assert services.connector.disconnect(row.id, "test") == (0, None)
    assert not active(base, last)
    assert bridge.connection("independent").token_encrypted is None
    # After a reconnect, a stolen refresh token that is used again ends the grant on both sides.
    again = urlsplit(consent(bridge.consent_page("independent")))
    assert bridge.client.get(f"{again.path}?{again.query}").status_code == 303
    stolen = refresh_token()
    services.tokens.renewed(row.id, services.tokens.token(row.id))
    body = {
        "grant_type": "refresh_token", "refresh_token": stolen, "client_id": "bridge",
        "client_secret": "a-secret-that-only-the-test-knows",
    }  # fmt: skip
    assert requests.post(f"{base}/token", data=body, timeout=10).json()["error"] == "invalid_grant"
    with pytest.raises(Unauthorized):
        services.tokens.renewed(row.id, services.tokens.token(row.id))
    assert bridge.connection("independent").status == "expired"


def test_an_answer_of_another_issuer_is_refused(independent: tuple[Bridge, str]) -> None:
    """RFC 9207: a code with a foreign `iss` is never traded."""
    bridge, _ = independent
    start = bridge.consent_page("independent")
    state = parse_qs(urlsplit(start).query)["state"][0]
    answer = bridge.client.get(
        f"/oauth/independent/callback?code=x&state={state}&iss=https://evil.example"
    )
    assert answer.status_code == 400
    assert "another server" in answer.get_data(as_text=True)
