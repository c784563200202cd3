"""A source is made, listed, changed and ended on the command line and on its page, with its status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services.secrets import fingerprint
from app.services.sources import SourceRules, UnknownSource
from config.settings import SettingsError, load_settings
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import KEY, Bridge, sample


@pytest.fixture
def meetergo() -> Iterator[Served]:
    """meetergo's API."""
    served = Served(MeetergoSandbox())
    yield served
    served.stop()


@pytest.fixture
def web(tmp_path: Path, meetergo: Served) -> Iterator[Bridge]:
    """The service without a CRM; its own source has a key."""
    made = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", (), meetergo_api_base=meetergo.url,
        meetergo_api_key=API_KEY, meetergo_api_user_id="u1",
    )  # fmt: skip
    yield made
    made.close()


def run(web: Bridge, *args: str, text: str | None = None) -> Any:
    """Run a command."""
    return web.app.test_cli_runner().invoke(args=list(args), input=text, env={"COLUMNS": "220"})


def test_made_used_changed_and_ended_by_the_command_line(web: Bridge, meetergo: Served) -> None:
    """A webhook is accepted after `sources add`, and refused after `sources end`."""
    told = run(web, "sources", "add", "berlin", "--scheme", "url-token", "--key", "-", "--user-id",
               "u1", "--company", "c1", text=f"{API_KEY}\n")  # fmt: skip
    assert told.exit_code == 0, told.output
    secret = run(web, "secrets", "add", "--source", "berlin").output.strip()
    meetergo.sandbox.book(sample("booking_created", id="b1"))
    path = f"/webhooks/meetergo/berlin/{secret}"
    assert web.post(sample("booking_created", id="b1"), path=path).status_code == 202
    web.reread()
    assert [event.status for event in web.events()] == ["applied"]
    assert run(web, "sources", "change", "berlin", "--key-ends", "2030-01-01").exit_code == 0
    rules = web.services.sources.rules("berlin")
    assert (rules.api_key, rules.company_ids) == (API_KEY, ("c1",))
    assert rules.key_ends_at == datetime(2030, 1, 1, tzinfo=UTC)
    listed = run(web, "sources", "list").output
    assert "berlin" in listed and "until 2030-01-01" in listed and "works" in listed
    assert API_KEY not in listed
    assert run(web, "sources", "end", "berlin").exit_code == 0
    assert web.post(sample("booking_created", id="b2"), path=path).status_code == 401
    with pytest.raises(UnknownSource):
        web.services.sources.rules("berlin")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["add", "Berlin!"], "small letters"),
        (["add", "default"], "already"),
        (["change", "default", "--key", "x"], "environment"),
        (["end", "default"], "environment"),
        (["end", "paris"], "no source"),
        (["change", "paris", "--company", "c1"], "no source"),
        (["add", "paris", "--key", "ak_live:1:2"], "id of that user"),
    ],
)
def test_what_cannot_be_is_a_sentence(web: Bridge, args: list[str], words: str) -> None:
    """A wrong command names the mistake and changes nothing."""
    told = run(web, "sources", *args)
    assert told.exit_code == 1 and words in told.output, told.output
    assert web.services.sources.names() == ["default"]


def form(web: Bridge, page: str) -> str:
    """Return the token of a page's form."""
    found = re.search(r'name="csrf" value="([^"]+)"', web.client.get(page).get_data(as_text=True))
    assert found
    return found[1]


def test_made_changed_and_ended_on_the_page(web: Bridge) -> None:
    """A person can do the same on the page; the key is never shown again."""
    values = {"name": "berlin", "scheme": "url-token", "header": "X-Sign", "company_ids": "c1, c2",
              "api_key": API_KEY, "api_user_id": "u1", "key_ends_at": "2030-01-01"}  # fmt: skip
    answer = web.client.post("/sources", data={**values, "csrf": form(web, "/sources/new")})
    assert answer.status_code == 303, answer.get_data(as_text=True)
    page = web.client.get("/sources/berlin").get_data(as_text=True)
    assert API_KEY not in page and "c1, c2" in page and "2030-01-01" in page
    again = {**values, "csrf": form(web, "/sources/berlin"), "change": "yes", "api_key": "",
             "company_ids": "c3"}  # fmt: skip
    assert web.client.post("/sources", data=again).status_code == 303
    rules = web.services.sources.rules("berlin")
    assert (rules.api_key, rules.company_ids) == (API_KEY, ("c3",))
    wrong = {**again, "api_key": "ak_live:x", "api_user_id": ""}
    answer = web.client.post("/sources", data=wrong)
    assert answer.status_code == 400 and "user" in answer.get_data(as_text=True)
    assert "berlin" in web.client.get("/sources").get_data(as_text=True)
    end = {"csrf": form(web, "/sources/berlin")}
    assert web.client.post("/sources/berlin/end", data=end).status_code == 303
    assert web.services.sources.names() == ["default"]
    assert web.client.get("/sources/berlin").status_code == 404


def test_a_source_in_trouble_is_seen_everywhere(web: Bridge, meetergo: Served) -> None:
    """Overview, doctor, metrics and API all report a source's problem."""
    meetergo.sandbox.key = "ak_live:another"
    assert not web.services.sources.probe("default", by_page=True)
    assert "key refused" in web.client.get("/").get_data(as_text=True)
    told = run(web, "doctor")
    assert told.exit_code == 1 and "refuses the API key" in told.output
    text = web.client.get("/metrics").get_data(as_text=True)
    assert 'bridge_source{source="default",status="key_refused"} 1.0' in text
    answer = web.app.test_client().get(
        "/api/v1/sources", headers={"Authorization": f"Bearer {web.key}"}
    )
    (source,) = answer.get_json()["sources"]
    assert source["status"] == "key_refused" and "MEETERGO_API_KEY" in source["next_step"]
    assert API_KEY not in answer.get_data(as_text=True)
    meetergo.sandbox.key = API_KEY
    assert web.services.sources.probe("default", by_page=True)
    assert "key refused" not in web.client.get("/").get_data(as_text=True)


@pytest.mark.parametrize("path", ["/v4/appointment", "/v4/meeting-type", "/webhooks"])
def test_doctor_names_the_permission_that_is_missing(
    web: Bridge, meetergo: Served, path: str
) -> None:
    """doctor names the permission that a personal token lacks."""
    names = {"/v4/appointment": "read appointments", "/v4/meeting-type": "read meeting types",
             "/webhooks": "read webhooks"}  # fmt: skip
    meetergo.sandbox.forbidden = {path}
    told = run(web, "doctor")
    assert told.exit_code == 1
    assert names[path] in told.output and "Missing permission" in told.output


def test_a_key_without_its_user_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without its user stops the start, and the error names the missing variable."""
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv("ENCRYPTION_KEYS", KEY)
    monkeypatch.setenv("MEETERGO_API_KEY", "ak_live:1:2")
    with pytest.raises(SettingsError, match="MEETERGO_API_USER_ID"):
        load_settings()
    monkeypatch.setenv("MEETERGO_API_KEY", "rgo-1")
    monkeypatch.setenv("MEETERGO_KEY_ENDS_AT", "2030-01-01")
    assert load_settings().meetergo_key_ends_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_what_has_ended_stays_ended(web: Bridge) -> None:
    """An ended secret stays ended, an end cannot be postponed, and an empty fingerprint ends nothing."""
    secrets = web.services.intake.secrets
    one, two = secrets.add("default"), secrets.add("default")
    assert secrets.end("default", "", timedelta()) == 0
    assert secrets.end("default", fingerprint(one), timedelta()) == 1
    assert secrets.end("default", fingerprint(one), timedelta(hours=24)) == 0
    assert secrets.of("default", anew=True) == (two,)
    assert secrets.end("default", fingerprint(two), timedelta(hours=1)) == 1
    secrets.end("default", fingerprint(two), timedelta(hours=24))
    (view,) = [v for v in secrets.views("default", ()) if v.fingerprint == fingerprint(two)]
    assert view.ends_at and view.ends_at < datetime.now(UTC) + timedelta(hours=2)


def test_a_notice_about_a_source_is_sent(
    web: Bridge, meetergo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice names the source and its page."""
    sent: list[str] = []

    class Target:
        def notify(self, body: str, title: str, notify_type: Any) -> bool:
            sent.append(f"{title}\n{body}")
            return True

    monkeypatch.setattr(web.services.notifier, "targets", {"t": Target()})
    meetergo.sandbox.key = "ak_live:another"
    web.services.sources.probe("default", by_page=True)
    assert web.services.notifier.send_due() == 1
    assert "meetergo, source default is broken" in sent[0] and "/sources" in sent[0]


def test_rules_of_no_source_have_defaults() -> None:
    """A source without settings uses the scheme `body`, and its webhooks need no confirmation."""
    assert SourceRules("x").scheme.value == "body" and not SourceRules("x").confirms
