"""WCAG 2.2 AA, as far as axe can see it: every page, on a desk and on a phone, light and dark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import select

from app.store.models import EventRow
from tests.bridge import Bridge, sample
from tests.browser.test_pages import CHROMIUM, FLAGS, served, sign_in

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
]
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
CLOSED = {"/oauth/<name>/callback", "/sign-in/oidc", "/sign-in/oidc/callback", "/static/<path:filename>", "/healthz", "/readyz", "/metrics",
          "/walks"}  # fmt: skip
"""Addresses that are no pages."""
OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def filled(bridge: Bridge) -> None:
    """Fill the pages: synced, failed and parked bookings, notes, a webhook that is set aside."""
    bridge.connect_all()
    bridge.sync(sample("booking_created"), sample("booking_rescheduled"))
    bridge.sync(sample("booking_created", id="past", start="2026-01-02T09:00:00Z"))
    bridge.sandbox("hubspot").required_when["deals"] = (
        "dealstage", "appointmentscheduled", "closedate"
    )  # fmt: skip
    bridge.sync(sample("booking_created", id="bad", attendees=[{"email": "x@gmail.com"}]))
    bridge.sandbox("salesforce").kill_grants()
    bridge.post(sample("booking_created", id="parked", attendees=[{"email": "y@gmail.com"}]))
    bridge.drain()
    bridge.post(b'{"what": "is this?"}')
    with bridge.services.store.read() as session:
        assert "quarantined" in session.scalars(select(EventRow.status)).all()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, str]]:
    """One filled service for all looks."""
    with served(Path(tmp_path_factory.mktemp("accessible"))) as made:
        filled(made[0])
        yield made


def addresses(bridge: Bridge) -> list[str]:
    """Every page that a person may open, by the routes themselves."""
    values: dict[str, Any] = {
        "key": "default:bad", "connection_id": 1, "name": "hubspot", "event_id": 1,
        "version": bridge.services.mappings["hubspot"].version,
    }  # fmt: skip
    found = []
    for rule in bridge.app.url_map.iter_rules():
        is_page = "GET" in (rule.methods or ()) and not rule.rule.startswith(("/api", "/webhooks"))
        if not is_page or rule.rule in CLOSED or rule.rule.endswith((".json", ".csv")):
            continue
        mine = {name: values[name] for name in rule.arguments}
        if rule.endpoint == "sources.show":
            mine["name"] = "default"
        if rule.endpoint == "causes.show":
            mine["key"] = bridge.services.causes.listed()[0].key
        with bridge.app.test_request_context():
            found.append(bridge.app.url_map.bind("").build(rule.endpoint, mine))
    return [*dict.fromkeys(found), "/bookings?q=van&state=synced", "/bookings?q=x", "/no-such-page"]


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_no_page_has_a_barrier(site: tuple[Bridge, str], width: int, scheme: Any) -> None:
    """axe finds nothing, of any weight; nothing is wider than the screen."""
    bridge, url = site
    told: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, timezone_id="Asia/Tokyo"
        )
        page = context.new_page()
        told += _look(page, f"{url}/sign-in")
        sign_in(page, bridge, url)
        for address in addresses(bridge):
            told += _look(page, f"{url}{address}")
        browser.close()
    assert told == []


def _look(page: Page, address: str) -> list[str]:
    page.goto(address)
    found = Axe().run(page, options=OPTIONS).response["violations"]
    told = [
        f"{address}: {each['id']} ({each['impact']}): {node['html'][:160]}"
        for each in found
        for node in each["nodes"][:3]
    ]
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [*told, *([f"{address}: {wide} px too wide"] if wide > 0 else [])]


def test_times_are_in_the_viewers_zone(site: tuple[Bridge, str]) -> None:
    """The browser says its zone: from then on all times are in it, with weekday and zone."""
    bridge, url = site
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(timezone_id="Asia/Tokyo").new_page()
        sign_in(page, bridge, url)
        page.goto(f"{url}/bookings?q=past")
        shown = page.locator("#rows time").first
        assert shown.inner_text() == "Fri 2 Jan 2026, 18:00 JST"
        assert shown.get_attribute("datetime") == "2026-01-02T09:00:00Z"
        browser.close()


def test_lists_bring_themselves_up_to_date(site: tuple[Bridge, str]) -> None:
    """A new booking shows on an open page without a click; a hidden page asks for nothing."""
    bridge, url = site
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        sign_in(page, bridge, url)
        page.goto(f"{url}/bookings")
        person = {"email": "live@corp.example", "fullname": "Lively Person"}
        message = sample("booking_created", id="live", attendees=[person])
        threading.Thread(target=bridge.post, args=(message,)).start()
        page.get_by_role("link", name="Lively Person").wait_for(timeout=20_000)
        page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate("htmx.trigger('#rows', 'every')")
        page.evaluate("htmx.ajax('GET', '/bookings', {source: '#rows', target: '#rows'})")
        page.wait_for_function("() => true")
        assert asked == []
        browser.close()
