"""Pages and sign-in against other sites, other hosts and guesses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.bootstrap import bootstrap
from app.store.access_models import AuditLog
from app.web.tries import MOST_WRONG, WITHIN, WrongTries
from config.settings import SettingsError
from sandbox.browser import ONWARD, address_onward, form_token
from tests.between import Speaker, reply
from tests.bridge import Bridge, make_settings, sample

ACTS = ("connect", "resume", "disconnect")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Bridge]:
    """The service without a CRM."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", ())
    yield made
    made.close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Bridge]:
    """The service behind https."""
    made = Bridge(f"sqlite:///{tmp_path}/s.sqlite3", (), public_url="https://bridge.example")
    yield made
    made.close()


def test_a_connect_begins_only_with_a_form_of_this_site(crm: Bridge, provider: str) -> None:
    """No link of another site begins a connect: it takes a POST with the session's token."""
    path = f"/oauth/{provider}/start"
    assert crm.client.get(path).status_code == 405
    for form in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
        assert crm.client.post(path, data=form).status_code == 400, form
    page = crm.start(provider)
    assert page.status_code == 200
    address = address_onward(page.headers[ONWARD])
    assert address.startswith(crm.services.providers[provider].authorize_url + "?")
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_site_signs_a_person_in(web: Bridge, site: str) -> None:
    """A sign-in form that another site sends is refused, although its key is good."""
    key = web.services.keys.create("tester", "test")
    foreign = web.app.test_client()
    answer = foreign.post("/sign-in", data={"key": key}, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403 and "Set-Cookie" not in answer.headers
    for own in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert foreign.post("/sign-in", data={"key": key}, headers=own).status_code == 303


def test_who_guesses_keys_has_to_wait(web: Bridge) -> None:
    """After twenty wrong keys no key of that address is looked at, on the page and by the API;
    whoever is signed in, and other addresses, do not feel it.
    """
    key = web.services.keys.create("tester", "test")
    stranger = {"REMOTE_ADDR": "203.0.113.5"}
    guess = web.app.test_client()
    for number in range(MOST_WRONG):
        if number % 2:
            answer = guess.post("/sign-in", data={"key": "x"}, environ_base=stranger)
        else:
            bearer = {"Authorization": f"Bearer guess{number}"}
            answer = guess.get("/api/v1/bookings", headers=bearer, environ_base=stranger)
        assert answer.status_code == 401
    for answer in (
        guess.post("/sign-in", data={"key": key}, environ_base=stranger),
        guess.get(
            "/api/v1/bookings", headers={"Authorization": f"Bearer {key}"}, environ_base=stranger
        ),
    ):
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= WITHIN
    assert web.client.get("/", environ_base=stranger).status_code == 200
    assert web.post(sample("booking_created"), environ_base=stranger).status_code == 202


def test_wrong_keys_are_forgotten_in_time() -> None:
    """A minute later a client may try again; neighbours in an IPv6 network count as one."""
    now = 0.0
    tries = WrongTries(lambda: now)
    for number in range(MOST_WRONG):
        tries.note(f"2001:db8::{number:x}")
    assert tries.wait("2001:db8::ffff") == WITHIN
    assert tries.wait("2001:db8:0:1::1") == 0 == tries.wait("198.51.100.1")
    now = WITHIN + 1
    assert tries.wait("2001:db8::1") == 0


def test_behind_https_browsers_are_held_to_it(secure: Bridge, web: Bridge) -> None:
    """With an https PUBLIC_URL the cookie belongs to this host alone, and HSTS is set."""
    key = secure.services.keys.create("tester", "test")
    answer = secure.app.test_client().post(
        "/sign-in", data={"key": key}, base_url="https://bridge.example"
    )
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=") and "Path=/" in cookie
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    assert "Strict-Transport-Security" not in web.app.test_client().get("/sign-in").headers


@pytest.mark.parametrize("path", ["//sign-in", "///", "//evil.example/", "/oauth//hubspot/start"])
def test_no_address_is_made_of_the_host_header(web: Bridge, path: str) -> None:
    """A path with two slashes gives no redirect to a host that the client names."""
    headers = {"Host": "evil.example"}
    for method in ("GET", "POST"):
        raw = {"PATH_INFO": path}  # The client would read //x as a host.
        answer = web.client.open("/", method=method, headers=headers, environ_overrides=raw)
        assert answer.headers.get("Location", "/sign-in") == "/sign-in", answer.status_code


@pytest.mark.parametrize("url", ["json://hooks.example/x", "xml://10.0.0.1", "form://h.example:80"])
def test_no_message_goes_out_in_the_clear(tmp_path: Path, url: str) -> None:
    """A notification address without TLS is refused in words, except on this machine."""
    settings = make_settings(f"sqlite:///{tmp_path}/a.sqlite3", notify_urls=url)
    with pytest.raises(SettingsError, match="in the clear"):
        bootstrap(settings, {})
    safe = make_settings(
        f"sqlite:///{tmp_path}/a.sqlite3",
        notify_urls=f"{url.replace('://', 's://')},json://127.0.0.1",
    )
    assert len(bootstrap(safe, {}).notifier.targets) == 2


def test_a_notice_follows_no_redirect(tmp_path: Path) -> None:
    """What a notification service answers sends the message nowhere else."""
    elsewhere: list[bytes] = []
    other = Speaker(lambda line: elsewhere.append(line.recv(65536)))
    first = Speaker(lambda line: line.sendall(reply(307, b"", {"Location": f"{other.url}/x"})))
    url = first.url.replace("http:", "json:")
    settings = make_settings(f"sqlite:///{tmp_path}/a.sqlite3", notify_urls=url)
    assert bootstrap(settings, {}).notifier.test() == [False]
    assert elsewhere == []
    first.stop()
    other.stop()


def test_who_did_what_is_kept(crm: Bridge, provider: str) -> None:
    """The audit log names the owner of the key for what a person does, in the order of the acts."""
    crm.sync(sample("booking_created"))
    number = crm.connection(provider).id
    page = crm.client.get(f"/connections/{number}").get_data(as_text=True)
    for act in ("resume", "disconnect"):
        answer = crm.client.post(f"/connections/{number}/{act}", data={"csrf": form_token(page)})
        assert answer.status_code == 303
    crm.connect(provider)
    with crm.services.store.read() as session:
        rows = list(session.scalars(select(AuditLog).order_by(AuditLog.id)))
    acts = [(row.actor, row.action) for row in rows if row.action in ACTS][-3:]
    assert acts == [("tester", "resume"), ("tester", "disconnect"), ("tester", "connect")]
    assert all(row.subject and row.at for row in rows)


@pytest.mark.parametrize("text", ["null", "", "-", "1.5", "²", "1e9"])
def test_what_is_no_number_is_refused_by_the_api(web: Bridge, text: str) -> None:
    """A parameter that takes a number refuses anything else with 400, and never takes it for the default."""
    bearer = {"Authorization": f"Bearer {web.key}"}
    for name in ("limit", "offset"):
        answer = web.client.get("/api/v1/bookings", query_string={name: text}, headers=bearer)
        assert answer.status_code == 400 and name in answer.get_json()["error"]["message"]
