"""Single HTTP exchanges: how the service reads each answer of a CRM or of meetergo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
import responses

from app.crm.port import Access, Adapter
from app.domain.errors import (
    AccountMoved,
    FreshTokenRefused,
    Gone,
    MissingScope,
    RateLimited,
    RetryLater,
    Unauthorized,
)
from app.meetergo.client import MeetergoClient
from app.outbound.reply import seconds_asked
from config.providers import load_providers
from config.settings import CONFIG_DIR, SettingsError
from crm_adapters.guard import guarded
from crm_adapters.http import shorten
from crm_adapters.hubspot.client import dated
from crm_adapters.pipedrive import PipedriveAdapter

FOREIGN_HOSTS = (
    "http://acme.my.salesforce.com",
    "https://evil.example",
    "https://xsalesforce.com",
    "https://127.0.0.1\\.salesforce.com",
    "https://evil.example\\@acme.salesforce.com",
    "https://evil.example%5c.salesforce.com",
    "https://evil.example/.salesforce.com",
    "https://evil.example#.salesforce.com",
    "https://evil.example?.salesforce.com",
    "https://evil.example;.salesforce.com",
    "https://user:word@acme.salesforce.com",
    "https://user@acme.salesforce.com",
    "https://acme.salesforce.com:444",
    "https://acme.salesforce.com:443:80",
    "https://acme.salesforce.com/path",
    "https://acme.salesforce.com//",
    "https://acme.salesforce.com?x=1",
    "https://acme.salesforce.com#x",
    "https://acme.salesforce.com.",
    "https://acme..salesforce.com",
    "https://-acme.salesforce.com",
    "https://acme\t.salesforce.com",
    "https://acme\n.salesforce.com",
    "https://acme.salesforce.com\n",
    " https://acme.salesforce.com",
    "https://acme .salesforce.com",
    "https://acme\x00.salesforce.com",
    "https://acme．salesforce．com",
    "https://evil.example。salesforce.com",
    "https://[::1].salesforce.com",
    "https://[::ffff:127.0.0.1]",
    "https://2130706433",
    "https://0x7f000001",
    "https://127.0.0.1",
    "https://localhost",
    "https:/acme.salesforce.com",
    "https:acme.salesforce.com",
    "//acme.salesforce.com",
    "acme.salesforce.com",
    "ftp://acme.salesforce.com",
    "https://" + "a" * 64 + ".salesforce.com",
    "https://" + "a." * 120 + "salesforce.com",
)
"""Hosts that a token answer may name but the service must not call, above all ambiguous ones."""
ME = "https://api.example/v1/users/me"


class Tokens:
    """A token source that counts renewals."""

    renewals = 0

    def token(self) -> str:
        return "first"

    def renewed(self, refused: str) -> str:
        self.renewals += 1
        return "second"

    def look_for_address(self, token: str) -> None:
        self.renewals += 1


def adapter() -> Adapter:
    facts = PipedriveAdapter.api_facts
    return guarded(
        PipedriveAdapter(Access("https://api.example", Tokens(), timeout=1, facts=facts))
    )


@responses.activate
@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "after"),
    [
        (500, "oops", {}, RetryLater, None),
        (502, "<html>x</html>", {"Retry-After": "9"}, RetryLater, 9),
        (429, "{}", {"x-ratelimit-reset": "77"}, RateLimited, 77),
        (429, "{}", {}, RateLimited, 2),
        (403, "<html>blocked</html>", {}, RateLimited, 300),
        (403, '{"error": "Scope and URL mismatch"}', {}, MissingScope, None),
        (404, '{"error": "not found"}', {}, Gone, None),
        (200, "not json", {}, RetryLater, None),
        (302, "", {"Location": "https://evil.example"}, AccountMoved, None),
        (200, "[]", {}, RetryLater, None),
        (200, '{"data": null}', {}, RetryLater, None),
        (207, '{"data": 7}', {}, RetryLater, None),
        (429, "{}", {"Retry-After": "\u00b2"}, RateLimited, 2),
        (429, "{}", {"Retry-After": "9" * 20}, RateLimited, 86_400),
        (429, "{}", {"x-ratelimit-reset": "9" * 5000}, RateLimited, 2),
    ],
)
def test_answers(
    status: int, body: str, headers: dict[str, str], error: type[Exception], after: float | None
) -> None:
    """Each answer gives its error class, with the wait that the CRM asks for."""
    responses.get(ME, status=status, body=body, headers=headers)
    with pytest.raises(error) as caught:
        adapter().whoami()
    assert getattr(caught.value, "after", None) == after


@responses.activate
def test_a_401_is_renewed() -> None:
    """A 401 causes a token renewal; a 401 after two renewals does not mean that the grant has ended."""
    responses.get(ME, status=401, json={"error": "expired"})
    made = adapter()
    with pytest.raises(FreshTokenRefused):
        made.whoami()
    assert [c.request.headers["Authorization"] for c in responses.calls] == [
        "Bearer first",
        "Bearer second",
        "Bearer second",
    ]


@responses.activate
def test_no_answer() -> None:
    """A time-out counts as an outage, and its text contains no address."""
    responses.get(ME, body=requests.Timeout("https://api.example?token=x"))
    with pytest.raises(RetryLater) as caught:
        adapter().whoami()
    assert "token" not in str(caught.value)


@responses.activate
@pytest.mark.parametrize(
    ("status", "error"),
    [(404, Gone), (429, RateLimited), (401, Unauthorized), (500, RetryLater)],
)
def test_meetergo(status: int, error: type[Exception]) -> None:
    """A missing appointment is not a cancelled one; any id is one part of the path."""
    responses.get("https://m.example/v4/appointment/a%2Fb", status=status, json={})
    client = MeetergoClient("https://m.example", "ak_live:x", "u1", 1)
    with pytest.raises(error):
        client.appointment("a/b")
    assert responses.calls[0].request.headers["x-meetergo-api-user-id"] == "u1"


def test_retry_after() -> None:
    """Retry-After is read as seconds or as a date."""
    assert seconds_asked("5") == 5
    later = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < (seconds_asked(format_datetime(later)) or 0) <= 60
    assert seconds_asked("soon") is None
    assert seconds_asked(str(10**30)) == 86_400
    assert seconds_asked("Fri, 31 Dec 9999 23:59:59 GMT") == 86_400


def test_shorten_hides_people_and_credentials() -> None:
    """A CRM's words are stored without personal data and credentials."""
    text = shorten("bad jane@x.example token " + "a" * 50)
    assert text == "bad [e-mail] token [hidden]"


def test_no_numbered_path_of_hubspot_is_left() -> None:
    """Every numbered path of the HubSpot client that we call goes to the date-based API."""
    for path in ("/crm/v3/objects/deals/batch/read", "/crm/v4/associations/a/b/batch/create",
                 "/crm/v3/properties/deals", "/crm/v3/pipelines/deals", "/crm/v3/owners/"):  # fmt: skip
        assert "2026-09" in dated(path) and "/v3/" not in dated(path) and "/v4/" not in dated(path)


def test_plain_http_endpoints_are_refused() -> None:
    """Only loopback may be called without TLS, and a foreign API host is refused."""
    path = CONFIG_DIR / "providers.yaml"
    with pytest.raises(SettingsError, match="HUBSPOT_TOKEN_URL"):
        load_providers(path, {"HUBSPOT_TOKEN_URL": "http://evil.example/token"})
    salesforce = load_providers(path, {})["salesforce"]
    good = {"instance_url": "https://acme.my.salesforce.com"}
    assert salesforce.api_base_for(good) == "https://acme.my.salesforce.com"
    for bad in FOREIGN_HOSTS:
        with pytest.raises(ValueError, match="of another owner"):
            salesforce.api_base_for({"instance_url": bad})
