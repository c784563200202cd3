"""A booking's page, its preview and outcome, and the mapping pages, in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from config.settings import CONFIG_DIR
from tests.bridge import PROVIDERS, Bridge, sample
from tests.browser.test_pages import CHROMIUM, page, served, sign_in

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
]
__all__ = ["page"]
PAST = {"start": "2026-11-20T09:00:00+01:00", "end": "2026-11-20T09:30:00+01:00"}
NARROW = 360
PHONE = "phone: {from: attendee.phone, write: untouched}"
"""The line of the default file that the tests change."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the mapping files that the test may change."""
    return Path(shutil.copytree(CONFIG_DIR / "mappings", tmp_path / "mappings"))


@pytest.fixture
def site(tmp_path: Path, files: Path) -> Iterator[tuple[Bridge, str]]:
    """The service on its own port with all CRMs connected, and a booking of last week."""
    with served(tmp_path, mappings_dir=files) as (bridge, url):
        bridge.connect_all()
        bridge.sync(sample("booking_created", **PAST))
        yield bridge, url


def test_a_person_says_how_a_meeting_went(site: tuple[Bridge, str], page: Page) -> None:
    """A person opens a booking and sets No-show, then Held, then takes it back; each reaches the CRM."""
    bridge, url = site
    sign_in(page, bridge, url)
    page.get_by_role("link", name="Discovery Call").click()
    page.get_by_role("heading", name="How it went").wait_for()
    expect(page.get_by_text("Friday 2026-11-20 09:00–09:30 (Europe/Berlin)")).to_be_visible()
    (meeting,) = bridge.sandbox("hubspot").records["meetings"].values()
    for button, words, stands in (
        ("No-show", "A person set: no-show", "NO_SHOW"),
        ("Held", "A person set: held", "COMPLETED"),
        ("Take it back", "No outcome is set yet", "SCHEDULED"),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        page.get_by_text(words).wait_for()
        bridge.settle()
        assert meeting["properties"]["hs_meeting_outcome"] == stands
    page.reload()
    assert page.get_by_role("row", name="meeting").get_by_text("updated").count() >= 3


def test_a_preview_shows_old_and_new(site: tuple[Bridge, str], page: Page) -> None:
    """The preview shows a moved meeting next to the CRM's values, and writes nothing."""
    bridge, url = site
    bridge.post(sample("booking_rescheduled"))
    before = [served.sandbox.writes() for served in bridge.served.values()]
    sign_in(page, bridge, url)
    page.get_by_role("link", name="Discovery Call").click()
    page.get_by_role("link", name="Preview what would change").click()
    row = page.get_by_role("row", name="hs_meeting_start_time")
    expect(row.get_by_text("2026-11-20T08:00:00Z")).to_be_visible()
    expect(row.get_by_text("2026-12-02T13:00:00Z")).to_be_visible()
    expect(page.get_by_text("Nothing to write.")).to_have_count(3 * len(PROVIDERS))
    assert [served.sandbox.writes() for served in bridge.served.values()] == before
    page.get_by_role("link", name="Back to the booking").click()
    page.get_by_role("button", name="Sync again").click()
    page.get_by_role("heading", name="In the CRMs").wait_for()
    bridge.settle()
    page.get_by_role("link", name="Preview what would change").click()
    expect(page.get_by_text("Nothing to write.")).to_have_count(4 * len(PROVIDERS))


def test_a_mapping_is_tried_and_a_broken_one_told(
    site: tuple[Bridge, str], page: Page, files: Path
) -> None:
    """A person tries a change on a page; a broken file on disk gives an alert on the dashboard."""
    bridge, url = site
    sign_in(page, bridge, url)
    page.get_by_role("link", name="Mappings").click()
    page.get_by_role("row", name="HubSpot").get_by_role("link", name="Try a change").click()
    box = page.get_by_label("Mapping file")
    text = box.input_value()
    assert text == (files / "hubspot.yaml").read_text(encoding="utf-8")
    box.fill(text.replace(PHONE, "jobtitel: {value: Boss}"))
    page.get_by_role("button", name="Check and preview").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("did you mean jobtitle?")
    page.get_by_label("Mapping file").fill(text.replace(PHONE, "jobtitle: {value: Boss}"))
    page.get_by_role("button", name="Check and preview").click()
    page.get_by_role("row", name="jobtitle").get_by_text("Boss").wait_for()
    expect(page.get_by_role("alert")).to_have_count(0)
    (files / "hubspot.yaml").write_text(text.replace("attendee.phone", "attendee.fone"), "utf-8")
    page.goto(url)
    expect(page.get_by_role("alert")).to_contain_text("did you mean attendee.phone?")


def test_pages_fit_a_telephone(site: tuple[Bridge, str], page: Page) -> None:
    """On a narrow screen the page does not become wider, and every field has its label."""
    bridge, url = site
    bridge.post(sample("booking_rescheduled"))
    sign_in(page, bridge, url)
    page.set_viewport_size({"width": NARROW, "height": 740})
    key = sample("booking_created")["id"]
    for path in ("/", f"/bookings/{key}", f"/bookings/{key}/preview", "/mappings",
                 "/mappings/hubspot/try", "/events", "/sources", "/sources/new"):  # fmt: skip
        page.goto(f"{url}{path}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW, (path, width)
        if path == "/sources":
            inside = page.evaluate("document.querySelector('main').scrollWidth")
            assert inside <= NARROW, (path, inside)
        unnamed = "[...document.querySelectorAll('input:not([type=hidden]),select,textarea')]"
        assert (
            page.evaluate(f"{unnamed}.filter(e => !e.labels.length && !e.ariaLabel).length") == 0
        ), path
        assert page.evaluate("document.querySelectorAll('h1').length") >= 1, path
