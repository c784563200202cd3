"""Many new companies at once, some of which a colleague keeps under another first domain (HubSpot)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge import Bridge, sample
from tests.contract.desk import desk_in
from tests.contract.test_adapters import only, person, view

DOMAINS = 60


@pytest.fixture
def crm(tmp_path: Path) -> Iterator[Bridge]:
    """The service with HubSpot."""
    made = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    yield made
    made.close()


@pytest.mark.parametrize("others", [0, 250, 3_000], ids=["a small portal", "two pages", "too many"])
def test_companies_under_another_first_domain_are_found(crm: Bridge, others: int) -> None:
    """Each of three such companies stays one; a portal with few of them costs few searches."""
    desk, sandbox = desk_in(crm), only(crm)
    for number in range(others):
        more = f"more{number}.example"
        other = {"domain": f"other{number}.example", "hs_additional_domains": more}
        desk.make("company", other)
    for number in (7, 8, 9):
        further = f"also.example;corp{number}.example"
        first = {"domain": f"group{number}.example", "hs_additional_domains": further}
        desk.make("company", first)
    for number in range(DOMAINS):
        attendee = person(f"p{number}@corp{number}.example")
        crm.post(sample("booking_created", id=str(number), attendees=[attendee]))
    sandbox.calls.clear()
    crm.settle(60)
    seen = view(crm)
    assert len(seen.companies) == others + DOMAINS
    assert {row.state for row in crm.deliveries()} == {"synced"}
    searches = sum(n for call, n in sandbox.calls.items() if call.endswith("companies/search"))
    assert (searches < 8) is (others < 3_000), sandbox.calls
