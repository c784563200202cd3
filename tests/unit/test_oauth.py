"""Providers are data, and their endpoints' answers are checked."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import RetryLater, Unauthorized
from app.oauth import exchange
from app.oauth.flow import Flow, own_path
from app.security.encryption import Cipher
from app.store.engine import Store
from config.providers import Provider, load_providers
from config.settings import CONFIG_DIR, SettingsError
from tests.bridge import DATA

NOW = load_providers(CONFIG_DIR / "providers.yaml", {})
APPS = {
    f"{name}_CLIENT_{what}": "x" * 8
    for name in ("GOOGLE", "MICROSOFT", "ZOOM")
    for what in ("ID", "SECRET")
}
LATER = load_providers(DATA / "future_providers.yaml", APPS)
HUBSPOT, SALESFORCE = NOW["hubspot"], NOW["salesforce"]
GOOD = {"access_token": "a", "refresh_token": "r", "token_type": "bearer", "expires_in": 60}


@pytest.mark.parametrize("provider", LATER.values(), ids=LATER)
@responses.activate
def test_later_providers_fit_as_entries(provider: Provider, tmp_path: Path) -> None:
    """Google, Microsoft and Zoom work from start to revocation by their entries alone."""
    store = Store(f"sqlite:///{tmp_path}/a.sqlite3")
    store.migrate()
    flow = Flow(store, Cipher(("k" * 16,)), "https://bridge.example", 5)
    start = flow.start(provider, "me")
    asked = parse_qs(urlsplit(start).query)
    assert start.startswith(provider.authorize_url)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"https://bridge.example/oauth/{provider.name}/callback"]
    assert all(asked[key] == [value] for key, value in provider.authorize_params.items())
    responses.post(provider.token_url, json=GOOD)
    token, _ = flow.finish(provider, {"code": "c", "state": asked["state"][0]}, "me")
    assert token["access_token"] == "a"
    assert exchange.refresh(provider, "r", 5)["refresh_token"] == "r"
    if provider.revoke_url:
        responses.post(provider.revoke_url)
        exchange.revoke(provider, "r", 5)
    for call in responses.calls:
        # RFC 9700, 4.3.2 and RFC 6749, 2.3.1: no token and no secret in a URL.
        assert urlsplit(str(call.request.url)).query == ""


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, '{"error": "invalid_grant"}', Unauthorized),
        (400, '{"status": "BAD_REFRESH_TOKEN", "message": "no"}', Unauthorized),
        (400, '{"status": "BAD_HUB"}', Unauthorized),
        (400, '{"status": "BAD_CLIENT_SECRET"}', exchange.SetupError),
        (401, '{"error": "invalid_client"}', exchange.SetupError),
        (429, '{"error": "slow down"}', RetryLater),
        (503, "", RetryLater),
        (200, "<html>maintenance</html>", RetryLater),
        (200, "[]", RetryLater),
        (200, '{"token_type": "bearer"}', RetryLater),
        (200, '{"access_token": "a", "token_type": "mac"}', RetryLater),
        (400, "<html>proxy</html>", RetryLater),
    ],
)
@responses.activate
def test_answers_of_a_token_endpoint(status: int, body: str, error: type[Exception]) -> None:
    """Only a clear refusal ends a grant; every temporary error is tried again."""
    responses.post(HUBSPOT.token_url, status=status, body=body)
    with pytest.raises(error) as caught:
        exchange.refresh(HUBSPOT, "the-refresh-token", 5)
    assert "the-refresh-token" not in str(caught.value)


@responses.activate
def test_a_token_endpoint_is_not_followed_elsewhere() -> None:
    """A redirect is not followed, because it would send code and secret to another host (RFC 9700,
    4.12).
    """
    responses.post(HUBSPOT.token_url, status=307, headers={"Location": "https://evil.example/t"})
    responses.post("https://evil.example/t", json=GOOD)
    with pytest.raises(RetryLater):
        exchange.refresh(HUBSPOT, "r", 5)
    assert len(responses.calls) == 1


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "https://evil.example", "/a\\b", "/a@evil", "/a\n", "", None,
     "javascript:alert(1)", "evil", "/" + "a" * 400, "/%0d%0aX: y"],
)  # fmt: skip
def test_only_own_paths(path: str | None) -> None:
    """A redirect target outside this service is refused (open redirector, RFC 9700, 4.11)."""
    found = own_path(path)
    assert found is None


def test_an_own_path_is_kept() -> None:
    """A page of this service is a valid target for the browser."""
    assert own_path("/connections/3?x=1") == "/connections/3?x=1"


@given(st.text(max_size=40))
def test_no_text_leads_elsewhere(text: str) -> None:
    """Any requested target gives a path on this host, or nothing."""
    found = own_path(text)
    assert found is None or (urlsplit(found).netloc == "" and found.startswith("/"))


@pytest.mark.parametrize(
    "host", ["login.salesforce.com", "test.salesforce.com", "acme--uat.sandbox.my.salesforce.com"]
)
def test_login_hosts_of_salesforce(host: str) -> None:
    """All endpoints use the right Salesforce login host: production, sandbox or My Domain."""
    moved = SALESFORCE.at(host)
    for url in (moved.authorize_url, moved.token_url, moved.revoke_url, moved.introspect_url):
        assert urlsplit(url).hostname == host


@pytest.mark.parametrize(
    "host",
    ["evil.com", "my.salesforce.com", "x.my.salesforce.com@evil.com", "x.my.salesforce.com:99",
     "a/b.my.salesforce.com", "my.salesforce.com.evil.com", "evil.com#.my.salesforce.com"],
)  # fmt: skip
def test_foreign_login_hosts(host: str) -> None:
    """A typed login host outside the provider's domains is refused."""
    with pytest.raises(ValueError, match="not a login host"):
        SALESFORCE.at(host)


@pytest.mark.parametrize(
    "named",
    [
        "http://x.salesforce.com",
        "https://evil.com",
        "https://salesforce.com.evil.com",
        "https://x@evil.com",
    ],
)
def test_foreign_api_hosts(named: str) -> None:
    """instance_url is accepted only on the provider's own domains (RFC 9700, 4.4)."""
    with pytest.raises(ValueError, match="of another owner"):
        SALESFORCE.api_base_for({"instance_url": named})


def test_scopes_that_lack() -> None:
    """Missing scopes are found, with implied scopes and with an answer that names none."""
    assert HUBSPOT.lacking([]) == {}
    assert "crm.objects.deals.write" in HUBSPOT.lacking(["oauth"])
    assert (
        NOW["pipedrive"].lacking(
            ["base", "deals:full", "contacts:full", "activities:full", "search:read", "admin"]
        )
        == {}
    )
    granted = [scope for scope in NOW["pipedrive"].scopes]
    assert NOW["pipedrive"].lacking(granted) == {}
    assert [*NOW["pipedrive"].lacking(granted, leads=True)] == ["leads:full"]
    assert SALESFORCE.lacking(["full", "offline_access"]) == {}
    assert exchange.read_scopes({"scope": "a,b c"}) == ["a", "b", "c"]


def test_overridden_endpoints() -> None:
    """If a server replaces a provider, its tokens are never sent to the provider, and never by
    plain http.
    """
    moved = load_providers(
        CONFIG_DIR / "providers.yaml", {"HUBSPOT_TOKEN_URL": "https://proxy.example/t"}
    )
    assert moved["hubspot"].introspect_url == ""
    with pytest.raises(SettingsError, match="HUBSPOT_TOKEN_URL must be an https"):
        load_providers(
            CONFIG_DIR / "providers.yaml", {"HUBSPOT_TOKEN_URL": "http://proxy.example/t"}
        )


def test_a_secret_stays_out_of_repr() -> None:
    """A printed provider does not show its secret."""
    provider = load_providers(
        CONFIG_DIR / "providers.yaml", {"HUBSPOT_CLIENT_SECRET": "very-secret"}
    )["hubspot"]
    assert "very-secret" not in repr(provider)
