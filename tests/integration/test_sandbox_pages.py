"""The pages of the sandbox CRMs for people: each link of the service opens the record there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from sandbox import pages
from sandbox.serve import Served, load_sandbox
from tests.bridge import PROVIDERS, Bridge, sample


@pytest.mark.parametrize("crm", PROVIDERS)
def test_a_link_opens_the_record_in_the_sandbox(tmp_path: Path, crm: str) -> None:
    """Each record link of a booking leads to a page with fields, linked records and history."""
    sandbox = load_sandbox(crm)()
    pages.keep_history(sandbox)
    served = Served(sandbox, own_pages=True)
    bridge = Bridge(f"sqlite:///{tmp_path}/b.sqlite3", (crm,), {crm: served}).connect_all()
    bridge.sync(sample("booking_created"))
    bridge.sync(sample("booking_rescheduled"))
    # An outage of the API leaves the pages for people as they are.
    served.sandbox.account.every_call_answers(503)
    page = bridge.client.get("/").get_data(as_text=True)
    links = re.findall(rf'href="({served.url}[^"]+)"', page)
    assert len(links) >= 4
    shown = {}
    for link in links:
        answer = requests.get(link, timeout=10)
        assert answer.status_code == 200, link
        shown[link] = answer.text
    meeting = next(
        text for text in shown.values() if "<h1>Meeting:" in text or "meetings</h1>" in text
    )
    assert "2026-12-01" in meeting
    assert "2026-12-02" in meeting, "the history shows the time before the move"
    for text in shown.values():
        assert "made" in text
        for other in re.findall(r'<li>\w+ <a href="([^"]+)"', text):
            assert requests.get(served.url + other, timeout=10).status_code == 200
    assert sum("jane" in text.lower() for text in shown.values()) >= 2
    contents = requests.get(f"{served.url}/", timeout=10).text
    for link in links:
        assert f'href="{link.removeprefix(served.url)}"' in contents
    made_up = served.url + links[0].removeprefix(served.url).replace("10", "90")
    assert requests.get(made_up, timeout=10).status_code == 404
    bridge.close()
