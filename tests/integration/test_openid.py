"""Signing in through the company's server, against npm's oidc-provider, and against one that lies."""

from __future__ import annotations

import hashlib
import hmac
import re
import shutil
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import pytest
import requests
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import RSAKey

from app.domain.roles import Role
from app.oauth import openid
from app.oauth.openid import Begun, OpenId, OpenIdProblem
from app.store.audit import AuditFilter
from tests.bridge import Bridge
from tests.ports import free_port

SERVER = Path(__file__).parent.parent / "oauth_server"
PUBLIC = "http://127.0.0.1:8000"
CALLBACK = f"{PUBLIC}/sign-in/oidc/callback"
CLIENT = {"oidc_client_id": "bridge", "oidc_client_secret": "a-secret-that-only-the-test-knows"}


@pytest.fixture(params=["yes", "no"], ids=["claims in the token", "claims when asked"])
def company(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run an OpenID Connect server; return its address."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: the independent OpenID Connect server cannot be run")
    if not (SERVER / "node_modules").exists():
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=SERVER, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    port = free_port()
    node = subprocess.Popen(
        ["node", "openid.mjs", str(port), CALLBACK, request.param],
        cwd=SERVER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert node.stdout and node.stdout.readline().strip() == "ready"
    yield f"http://127.0.0.1:{port}"
    node.terminate()
    node.wait(10)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    """Start a service whose people sign in through a server."""
    made: list[Bridge] = []

    def start(issuer: str, **values: Any) -> Bridge:
        url = f"sqlite:///{tmp_path}/{len(made)}.sqlite3"
        made.append(Bridge(url, (), public_url=PUBLIC, oidc_issuer=issuer, **CLIENT, **values))
        return made[-1]

    yield start
    for bridge in made:
        bridge.close()


def go(browser: FlaskClient) -> str:
    """Press the button; return the address of the server's page."""
    assert "/sign-in/oidc" in browser.get("/sign-in").get_data(as_text=True)
    answer = browser.get("/sign-in/oidc")
    assert answer.status_code == 303, answer.get_data(as_text=True)
    return str(answer.headers["Location"])


def come_back(address: str, login: str) -> str:
    """Sign in at the server as a person does; return the path that the browser is sent back to."""
    there = requests.Session()
    answer = there.get(address, allow_redirects=False, timeout=10)
    for _ in range(12):
        if answer.is_redirect:
            address = urljoin(address, answer.headers["Location"])
            if address.startswith(PUBLIC):
                return address.removeprefix(PUBLIC)
            answer = there.get(address, allow_redirects=False, timeout=10)
            continue
        action = re.search(r'action="([^"]+)"', answer.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert action and prompt, answer.text[:500]
        fields = {"prompt": prompt[1], "login": login, "password": "any"}
        answer = there.post(
            urljoin(address, action[1]), data=fields, allow_redirects=False, timeout=10
        )
    raise AssertionError("the server's page led nowhere")


def sign_in(bridge: Bridge, login: str) -> tuple[FlaskClient, Any]:
    """Go the whole way; return the browser and the last answer."""
    browser = bridge.app.test_client()
    return browser, browser.get(come_back(go(browser), login))


def test_people_of_the_company_sign_in(serve: Callable[..., Bridge], company: str) -> None:
    """PKCE, state and nonce; a first sign-in makes a user with the claimed role, a second none."""
    bridge = serve(company, oidc_domains="example.com", oidc_role_claim="roles")
    asked = parse_qs(urlsplit(go(bridge.app.test_client())).query)
    assert asked["code_challenge_method"] == ["S256"] and asked["state"] and asked["nonce"]
    assert asked["response_type"] == ["code"] and asked["redirect_uri"] == [CALLBACK]
    for _ in range(2):
        browser, answer = sign_in(bridge, "anna.developer@example.com")
        assert answer.status_code == 303, answer.get_data(as_text=True)
        assert browser.get("/sources/new").status_code == 200
        assert browser.get("/people").status_code == 403
    (user,) = bridge.services.users.all()
    assert (user.email, user.role, user.has_password) == (
        "anna.developer@example.com", Role.DEVELOPER, False,
    )  # fmt: skip
    # The server decides about the role, at each sign-in.
    bridge.services.users.set_role(user.id, Role.ADMIN, "test")
    sign_in(bridge, "anna.developer@example.com")
    assert bridge.services.users.all()[0].role is Role.DEVELOPER
    noted = [row.action for row in bridge.services.audit.page(AuditFilter(), None, 50)]
    assert noted.count("sign_in") == 3 and {"user_create", "user_role"} <= set(noted)


def test_who_is_not_known_stays_outside(serve: Callable[..., Bridge], company: str) -> None:
    """Another domain, an address that is not verified, a disabled user: no session, and the reason."""
    bridge = serve(
        company, oidc_domains="example.com", oidc_default_role="none", oidc_role_claim="roles"
    )
    users = bridge.services.users
    users.create("known.sales@other.example", Role.VIEWER, "test", password="long enough 123")
    for login, words in (
        ("eve.admin@evil.example", "no user here yet"),
        ("unverified.admin@example.com", "no verified e-mail address"),
        ("bob.boss@example.com", "gives you no role"),
    ):
        browser, answer = sign_in(bridge, login)
        assert answer.status_code == 403 and words in answer.get_data(as_text=True), login
        assert browser.get("/").headers["Location"] == "/sign-in"
    # An admin has made a user: the domain does not matter.
    _, answer = sign_in(bridge, "known.sales@other.example")
    assert answer.status_code == 303
    (user,) = users.all()
    users.disable(user.id, "test")
    _, answer = sign_in(bridge, "known.sales@other.example")
    assert answer.status_code == 403 and "disabled" in answer.get_data(as_text=True)


def test_an_answer_counts_once_and_in_its_own_browser(
    serve: Callable[..., Bridge], company: str
) -> None:
    """A copied address of the way back, another issuer and another state give no session."""
    bridge = serve(company, oidc_domains="example.com")
    mine, other = bridge.app.test_client(), bridge.app.test_client()
    back = come_back(go(mine), "anna.sales@example.com")
    go(other)
    for browser in (other, bridge.app.test_client()):
        assert browser.get(back).status_code == 400
        assert browser.get("/").headers["Location"] == "/sign-in"
    assert mine.get(back).status_code == 303
    assert mine.get(back).status_code == 400
    foreign = bridge.app.test_client()
    state = parse_qs(urlsplit(go(foreign)).query)["state"][0]
    query = urlencode({"code": "x", "state": state, "iss": "https://evil.example"})
    answer = foreign.get(f"/sign-in/oidc/callback?{query}")
    assert answer.status_code == 400 and "another server" in answer.get_data(as_text=True)


KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER = RSAKey.generate_key(2048, {"kid": "one"})
ISSUER = "https://login.example.com"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> OpenId:
    """A client whose server is described and has a key, without any call."""
    made = OpenId(ISSUER, "bridge", "secret", CALLBACK, 5)
    keys = openid.KeySet([RSAKey.import_key(KEY.as_dict(private=False))])
    monkeypatch.setattr(made, "_about", lambda afresh=False: ({}, keys))
    return made


def token(key: RSAKey = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    usual = {
        "iss": ISSUER, "aud": "bridge", "sub": "anna", "nonce": "n", "iat": now, "exp": now + 300,
    }  # fmt: skip
    whole = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(header or {"alg": "RS256", "kid": "one"}, whole, key)


def test_a_good_id_token_is_accepted(server: OpenId) -> None:
    """The token that the next test damages is good."""
    assert server._checked(token(), None, "n")["sub"] == "anna"


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://evil.example"}, {"aud": "another"}, {"aud": ["another"]}, {"nonce": "m"},
     {"nonce": None}, {"exp": 1}, {"exp": None}, {"sub": None}, {"sub": 7}, {"iss": None},
     {"aud": None}, {"aud": ["bridge", "another"], "azp": "another"}, {"iat": int(time.time()) + 900}],
    ids=str,
)  # fmt: skip
def test_an_id_token_with_one_wrong_claim_is_refused(
    server: OpenId, claims: dict[str, Any]
) -> None:
    """Issuer, audience, party, nonce, times and subject are each checked."""
    with pytest.raises(openid.FAULTS):
        server._checked(token(**claims), None, "n")


def test_an_id_token_with_another_signature_is_refused(server: OpenId) -> None:
    """A foreign key, no signature, and our client secret as a key sign nobody in."""
    unsigned = f"eyJhbGciOiJub25lIn0.{token().split('.')[1]}."
    shared = [with_shared_key(key) for key in (KEY.as_pem(private=False), b"secret")]
    for forged in (token(key=OTHER), unsigned, *shared, "", "a.b.c"):
        with pytest.raises(openid.FAULTS):
            server._checked(forged, None, "n")


def with_shared_key(key: bytes) -> str:
    """Return the good claims under a signature that takes a public key, or our secret, as its key."""
    head = urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').rstrip(b"=").decode()
    signed = f"{head}.{token().split('.')[1]}"
    digest = hmac.new(key, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_a_state_is_compared_before_anything_is_sent(server: OpenId) -> None:
    """Another state stops the sign-in before the code leaves this service."""
    with pytest.raises(OpenIdProblem, match="another browser"):
        server.finish({"state": "x", "code": "c"}, Begun("s", "n", "v"))
