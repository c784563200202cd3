"""Hostile OAuth callbacks: parameters of any kind, and token endpoints that answer anything."""

from __future__ import annotations

import functools
import tempfile
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from hypothesis import strategies as st
from sqlalchemy import func, select

from app.store.models import ConnectionRow
from sandbox.serve import load_sandbox
from tests.between import Asked, Between, Right
from tests.bridge import PROVIDERS, Bridge
from tests.contract.test_answers import answers

TEXTS = st.one_of(
    st.sampled_from([
        "", " ", "\0", "x" * 5000, "💩", "\ud800", "%00", "\r\nX: y", "<script>", "{{ 7*7 }}", "null",
        "access_denied", "server_error", "ACCESS_DENIED", "invalid_grant", "'--", "../..", "0",
    ]),
    st.text(max_size=20),
)  # fmt: skip
ISSUERS = st.sampled_from([
    "https://evil.example", "https://evil.example\\@app.hubspot.com", "http://[", "//", "https://",
    "https://app.hubspot.com@evil.example", "javascript:x", "https://login.salesforce.com.evil.example",
])  # fmt: skip
FURTHER = ("error", "error_description", "scope", "next", "host", "connection", "location")
PAGES = (200, 303, 400, 404)


class Desk:
    """The service with all CRMs behind servers whose token answers can be replaced."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.ends = {name: Between(load_sandbox(name)()) for name in PROVIDERS}
        self.bridge = Bridge(f"sqlite:///{self._folder.name}/f.sqlite3", served=self.ends)

    def consented(self, provider: str) -> dict[str, str]:
        """Press Allow on the consent page; return the parameters of the way back."""
        address = self.bridge.consent_page(provider)
        fields = {**dict(parse_qsl(urlsplit(address).query)), "decision": "allow"}
        answer = requests.post(
            address.partition("?")[0], data=fields, allow_redirects=False, timeout=5
        )
        return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    def connections(self) -> int:
        """Return how many connections there are."""
        with self.bridge.services.store.read() as session:
            return session.scalar(select(func.count()).select_from(ConnectionRow)) or 0


@functools.cache
def desk() -> Desk:
    """Return the service; it is made once in a process."""
    return Desk()


def callback(data: st.DataObject) -> None:
    """Any parameters and any token answer end in a page with words; only the right ones connect, and
    no page shows a code, a state or a token.
    """
    at, provider = desk(), data.draw(st.sampled_from(PROVIDERS))
    right = at.consented(provider)
    asked: dict[str, Any] = dict(right)
    bends = data.draw(st.lists(st.sampled_from(["state", "code", "iss", "further"]), max_size=3))
    for name in bends:
        key = data.draw(st.sampled_from(FURTHER)) if name == "further" else name
        asked[key] = data.draw(ISSUERS if name == "iss" else TEXTS)
    if data.draw(st.integers(0, 5)) == 0:
        asked = {key: [value, data.draw(TEXTS)] for key, value in asked.items()}
    make = data.draw(st.none() | answers())
    path = data.draw(st.sampled_from([provider, provider, provider, *PROVIDERS, "nobody"]))
    before = at.connections()

    def instead(call: Asked, usual: Right) -> Any:
        return make(usual) if make and call.path == at.ends[path].sandbox.token_path else None

    end = at.ends.get(path, at.ends[provider])
    query = {key: _sendable(value) for key, value in asked.items()}
    with end.answering(instead):
        answer = at.bridge.client.get(f"/oauth/{path}/callback", query_string=query)
    page = answer.get_data(as_text=True)
    assert answer.status_code in PAGES, (answer.status_code, page)
    assert answer.headers.get("Location", "/").startswith("/")
    assert right["state"] not in page and right["code"] not in page
    sent = asked["state"][0] if isinstance(asked["state"], list) else asked["state"]
    if sent != right["state"] or path != provider:
        assert answer.status_code != 303 and at.connections() == before
    again = at.bridge.client.get(f"/oauth/{provider}/callback", query_string=right)
    if sent == right["state"] and path != "nobody":
        assert again.status_code == 400, "a state counted twice"


def _sendable(value: Any) -> Any:
    """Return a value that a URL can carry: lone surrogates as the bytes of a careless client."""
    if isinstance(value, list):
        return [_sendable(item) for item in value]
    return value.encode("utf-8", "replace").decode()
