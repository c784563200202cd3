"""`make pictures`: the pictures of the README, taken from the pages as they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.bridge import Bridge, sample
from tests.browser.test_pages import CHROMIUM, FLAGS, served, sign_in

DOCS = Path(__file__).parent.parent.parent / "docs"
PEOPLE = ("Anna Schmidt", "Bo Li", "Carla Gomez", "Dan Okafor", "Eva Novak", "Finn O'Brien")


def main() -> None:
    """Fill a service and take the pictures."""
    with (
        served(Path(tempfile.mkdtemp())) as (bridge, url),
        sync_playwright() as playwright,
    ):
        _fill(bridge)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        desk = {"viewport": {"width": 1280, "height": 860}, "timezone_id": "Europe/Berlin"}
        page = browser.new_context(**desk).new_page()  # type: ignore[arg-type]
        sign_in(page, bridge, url)
        _take(page, url, "dashboard")
        page.get_by_role("link", name="Mend all of them").click()
        page.get_by_role("button", name="Try all").wait_for()
        _take(page, page.url, "cause")
        phone = {"viewport": {"width": 390, "height": 844}, "timezone_id": "Europe/Berlin"}
        page = browser.new_context(color_scheme="dark", **phone).new_page()  # type: ignore[arg-type]
        sign_in(page, bridge, url)
        _take(page, f"{url}/bookings", "phone")
        browser.close()


def _fill(bridge: Bridge) -> None:
    bridge.connect_all()
    for number, name in enumerate(PEOPLE):
        bridge.sync(sample("booking_created", id=f"p{number}", attendees=[_person(number, name)]))
    bridge.sandbox("hubspot").forbidden_names.add("Grey")
    for number in range(3):
        who = _person(10 + number, ("Gil", "Gwen", "Gus")[number] + " Grey")
        bridge.post(sample("booking_created", id=f"g{number}", attendees=[who]))
    bridge.settle()
    bridge.sandbox("salesforce").kill_grants()
    bridge.post(sample("booking_created", id="h", attendees=[_person(20, "Hana Ito")]))
    bridge.drain()


def _person(number: int, name: str) -> dict[str, str]:
    first, _, last = name.partition(" ")
    return {
        "email": f"{first.lower()}@company{number}.example",
        "firstname": first,
        "lastname": last,
    }


def _take(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.locator("time").first.wait_for()
    page.screenshot(path=DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
