"""The pages in Chromium, as a person uses them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from werkzeug.serving import make_server

from app.services.catch_up import WalkKind
from sandbox.faults import Fault
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import Bridge, sample
from tests.integration.test_catch_up import SINCE, booking
from tests.ports import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
]
# A click does not wait for the page it leads to, so a look waits for what it expects to see.
expect.set_options(timeout=30_000)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@contextmanager
def served(folder: Path, **values: Any) -> Iterator[tuple[Bridge, str]]:
    """Start the service on its own port, without connections."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    bridge = Bridge(f"sqlite:///{folder}/a.sqlite3", public_url=url, **values)
    server = make_server("127.0.0.1", port, bridge.app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield bridge, url
    server.shutdown()
    server.server_close()
    bridge.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Bridge, str]]:
    """The service on its own port."""
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def page() -> Iterator[Page]:
    """A new browser page; a script error or a blocked resource fails the test."""
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        made = browser.new_page()
        made.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        made.on("pageerror", lambda error: problems.append(str(error)))
        yield made
        browser.close()
    # The 401 after a wrong key and Chromium's own request for an icon are no errors of a page.
    assert [p for p in problems if "401" not in p and "404" not in p and "400" not in p] == []


def sign_in(page: Page, bridge: Bridge, url: str) -> None:
    page.goto(url)
    page.get_by_label("Your key").fill(bridge.key)
    page.get_by_role("button", name="Sign in with the key").click()
    page.get_by_role("heading", name="Overview").wait_for()


def test_sign_in_connect_and_see(site: tuple[Bridge, str], page: Page) -> None:
    """A person signs in, connects HubSpot on its consent page and sees a synced booking."""
    bridge, url = site
    page.goto(url)
    page.get_by_label("Your key").fill("wrong")
    page.get_by_role("button", name="Sign in with the key").click()
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid")
    sign_in(page, bridge, url)
    expect(page.get_by_text("No CRM is connected yet")).to_be_visible()
    page.get_by_role("button", name="HubSpot").click()
    page.get_by_role("button", name="Allow").click()
    page.get_by_role("heading", name="Overview").wait_for()
    expect(page.get_by_text("portal 4711")).to_be_visible()
    bridge.sync(sample("booking_created"))
    page.reload()
    row = page.get_by_role("row", name="Discovery Call")
    expect(row.get_by_text("synced")).to_be_visible()
    assert row.get_by_role("link", name="deal").get_attribute("href")
    page.get_by_role("link", name="Webhooks").click()
    expect(page.get_by_text("booking_created")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your key")).to_be_visible()


def test_refusal_and_outage_end_in_words(site: tuple[Bridge, str], page: Page) -> None:
    """After Deny on the consent page, or with the token endpoint down, the page says what happened."""
    bridge, url = site
    sign_in(page, bridge, url)
    page.get_by_role("button", name="Pipedrive").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_text("access was not granted")).to_be_visible()
    sandbox = bridge.sandbox("salesforce")
    sandbox.faults.append(Fault(path=sandbox.token_path, status=503, body="down"))
    page.goto(url)
    page.get_by_role("button", name="Salesforce").click()
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_text("token endpoint answered 503")).to_be_visible()


def test_a_source_is_made_changed_and_ended(site: tuple[Bridge, str], page: Page) -> None:
    """A person adds a second workspace: the form reports mistakes and never shows the key."""
    bridge, url = site
    sign_in(page, bridge, url)
    page.get_by_role("link", name="Sources").click()
    page.get_by_role("link", name="Add a source").click()
    page.get_by_label("Name:").fill("berlin")
    page.get_by_label("How its webhooks are signed").select_option("url-token")
    page.get_by_label("meetergo key").fill("ak_live:berlin-key")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("user")
    page.get_by_label("meetergo key").fill("ak_live:berlin-key")
    page.get_by_label("Id of the user").fill("u1")
    page.get_by_label("Day on which the key ends").fill("2030-02-01")
    page.get_by_role("button", name="Add").click()
    row = page.get_by_role("row", name="berlin")
    expect(row.get_by_text("ends Fri 1 Feb 2030")).to_be_visible()
    row.get_by_role("link", name="berlin").click()
    page.get_by_role("button", name="End this source").wait_for()
    assert "berlin-key" not in page.content()
    page.get_by_label("Company ids").fill("c1")
    page.get_by_role("button", name="Change").click()
    page.get_by_role("heading", name="meetergo workspaces").wait_for()
    assert bridge.services.sources.rules("berlin").company_ids == ("c1",)
    page.get_by_role("row", name="berlin").get_by_role("link").click()
    page.get_by_role("button", name="End this source").click()
    page.get_by_role("heading", name="meetergo workspaces").wait_for()
    expect(page.get_by_role("row", name="berlin")).to_have_count(0)


def test_how_far_a_walk_is_shows_by_itself(tmp_path: Path, page: Page) -> None:
    """A person sees a backfill progress and end without a click."""
    meetergo = Served(MeetergoSandbox())
    for number in range(250):
        meetergo.sandbox.book(booking(number))
    asked = {
        "meetergo_api_base": meetergo.url,
        "meetergo_api_key": API_KEY,
        "meetergo_api_user_id": "u1",
    }
    with served(tmp_path, **asked) as (bridge, url):
        walks = bridge.services.catch_up
        number = walks.begin("default", WalkKind.BACKFILL, SINCE, None)
        sign_in(page, bridge, url)
        page.get_by_role("link", name="Sources").click()
        row = page.get_by_role("row", name="backfill")
        row.get_by_text("newest bookings first: 0").wait_for()
        page.evaluate("document.title = 'the same page'")
        seen: list[Any] = []
        walks.run(number, seen.append, until=lambda: len(seen) == 1)
        row.get_by_text("100 of 250").wait_for()
        assert walks.run(number)
        row.get_by_text("ended ").wait_for()
        asks = page.locator("[hx-trigger]")
        asks.wait_for(state="detached")
        assert page.title() == "the same page"
    meetergo.stop()


def test_a_failed_booking_says_why(site: tuple[Bridge, str], page: Page) -> None:
    """A sales person sees the CRM's own words and the next step; a stranger's markup stays text."""
    bridge, url = site
    bridge.connect("hubspot")
    bridge.sandbox("hubspot").required_when["deals"] = (
        "dealstage", "appointmentscheduled", "closedate"
    )  # fmt: skip
    evil = [{"email": "eve@gmail.com", "fullname": "<script>document.title='x'</script>"}]
    bridge.sync(sample("booking_created", attendees=evil))
    sign_in(page, bridge, url)
    expect(page.get_by_text("closedate is required").first).to_be_visible()
    expect(page.get_by_text("<script>document.title")).to_be_visible()
    assert page.title().startswith("Overview")
    page.get_by_role("link", name="Discovery Call").first.click()
    bridge.sandbox("hubspot").required_when.clear()
    page.get_by_role("button", name="Sync again").click()
    expect(page.get_by_role("status")).to_contain_text("The sync has begun")
    bridge.settle()
    expect(page.locator("#in-the-crms").get_by_text("synced")).to_be_visible()
    expect(page.get_by_text("booking_created")).to_be_visible()
    crm = bridge.served["hubspot"].url
    page.goto(crm)
    expect(page.get_by_role("heading", name="HubSpot (sandbox)")).to_be_visible()
    expect(page.get_by_text("eve@gmail.com").first).to_be_visible()


def test_a_connection_is_examined_ended_and_mended(site: tuple[Bridge, str], page: Page) -> None:
    """A connection's page reports problems, asks what to do with waiting bookings, and connects again."""
    bridge, url = site
    sign_in(page, bridge, url)
    page.get_by_role("button", name="Salesforce").click()
    page.get_by_role("button", name="Allow").click()
    page.get_by_role("link", name="Manage").click()
    page.get_by_role("button", name="Examine").click()
    page.get_by_role("heading", name="Examination").wait_for()
    expect(page.locator(".state.bad")).to_have_count(0)
    bridge.sandbox("salesforce").kill_grants()
    bridge.post(sample("booking_created"))
    bridge.drain()
    page.goto(f"{url}/connections/1")
    expect(page.get_by_text("1 bookings wait")).to_be_visible()
    page.get_by_role("link", name="Disconnect").click()
    page.get_by_label("Keep them").check()
    page.get_by_role("button", name="Disconnect").click()
    page.get_by_text("lists connected apps").wait_for()
    page.get_by_role("button", name="Connect again").click()
    page.get_by_role("button", name="Allow").click()
    page.get_by_text("active", exact=True).wait_for()
    bridge.settle()
    assert bridge.delivery("salesforce").state == "synced"


def test_a_cause_is_mended_for_all_of_its_bookings(site: tuple[Bridge, str], page: Page) -> None:
    """From the overview, two clicks try twelve failed bookings again; the page shows how far."""
    bridge, url = site
    bridge.connect("hubspot")
    hubspot = bridge.sandbox("hubspot")
    hubspot.forbidden_names.add("Forbidden")
    for number in range(12):
        who = {"email": f"p{number}@corp.example", "firstname": "Pat", "lastname": "Forbidden"}
        bridge.post(sample("booking_created", id=f"b{number}", attendees=[who]))
    bridge.settle()
    sign_in(page, bridge, url)
    hubspot.forbidden_names.clear()
    page.get_by_role("link", name="Mend all of them").click()
    expect(page.get_by_text("12 bookings, about")).to_be_visible()
    page.get_by_role("button", name="Try all 12 again").click()
    expect(page.get_by_role("status")).to_contain_text("12 bookings are being tried again")
    expect(page.get_by_role("button", name="Stop the retry")).to_be_visible()
    bridge.settle()
    expect(page.get_by_text("12 of 12 tried, 12 synced, 0 failed")).to_be_visible()
    expect(page.get_by_text("mended", exact=True)).to_be_visible()
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_text("Nothing needs you")).to_be_visible()
