"""The pages of webhooks: what came, what became of it, and once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.roles import Role
from tests.bridge import Bridge, sample


@pytest.fixture
def bridge(tmp_path: Path) -> Any:
    """The service with one CRM and two webhooks: a booking, and one that is none."""
    made = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    made.sync(sample("booking_created"))
    made.post(sample("booking_created", id="b2", start="not a time"))
    yield made
    made.close()


def signed_in(bridge: Bridge, role: Role) -> Any:
    browser = bridge.app.test_client()
    key = bridge.services.keys.create(f"key of {role}", "test", role)
    assert browser.post("/sign-in", data={"key": key}).status_code == 303
    return browser


def test_webhooks_are_listed_by_what_became_of_them(bridge: Bridge) -> None:
    """Each status has its list and its number; a wrong one is refused in words."""
    browser = signed_in(bridge, Role.DEVELOPER)
    page = browser.get("/events").text
    assert "quarantined <small>1</small>" in page and "applied <small>1</small>" in page
    page = browser.get("/events?status=quarantined").text
    assert "webhook 2" in page and "webhook 1<" not in page
    assert browser.get("/events?status=zebra").status_code == 400
    assert browser.get("/events/99").status_code == 404
    assert "webhook 1" in browser.get("/events?before=2").text


def test_a_body_shows_people_only_to_who_sets_things_up(bridge: Bridge) -> None:
    """A developer sees it whole, a viewer its shape; sales no webhook at all."""
    whole = signed_in(bridge, Role.DEVELOPER).get("/events/1").text
    assert "Jane.van.der.Berg@" in whole
    shape = signed_in(bridge, Role.VIEWER).get("/events/1").text
    assert "attendees" in shape and "jane" not in shape.lower()
    assert signed_in(bridge, Role.SALES).get("/events/1").status_code == 403


def test_a_webhook_is_replayed_by_a_button(bridge: Bridge) -> None:
    """What is correct is not written again; what still does not fit says why."""
    browser = signed_in(bridge, Role.DEVELOPER)
    page = browser.get("/events/1").text
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    writes = bridge.sandbox("hubspot").writes()
    answer = browser.post("/events/1/replay", data={"csrf": token}, follow_redirects=True)
    assert "processed again" in answer.text
    bridge.settle()
    assert bridge.sandbox("hubspot").writes() == writes
    refused = browser.post("/events/2/replay", data={"csrf": token})
    assert refused.status_code == 400 and "It cannot be replayed" in refused.text
