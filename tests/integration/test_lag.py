"""A create whose answer was lost, while the CRM's search does not show the record yet."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.faults import Fault
from tests.bridge import Bridge, sample
from tests.contract.test_adapters import only, person
from tests.integration.test_outages import Clock, clock

__all__ = ["clock"]
PHONE_ONLY = {"fullname": "Jane Berg", "phone": "+4915123456789"}


def lagging(crm: Bridge) -> None:
    """Hide all records made so far from the search."""
    sandbox = only(crm)
    kind = type(next(iter(sandbox.records["deals"]), 0)) if sandbox.name == "pipedrive" else str
    sandbox.search_lag = {kind(n) for n in range(1000, sandbox.next_id + 200)}


@pytest.mark.parametrize(
    ("provider", "path", "view", "attendee"),
    [
        ("pipedrive", "/persons", "contacts", person("jane@globex.example")),
        ("pipedrive", "/organizations", "companies", person("jane@globex.example")),
        ("hubspot", "/companies/batch/create", "companies", person("jane@globex.example")),
        ("hubspot", "/contacts/batch/create", "contacts", PHONE_ONLY),
    ],
    ids=[
        "pipedrive person",
        "pipedrive organization",
        "hubspot company",
        "hubspot contact by phone",
    ],
)
def test_a_lost_create_is_not_repeated_while_the_search_lags(
    crm: Bridge, clock: Clock, provider: str, path: str, view: str, attendee: dict[str, Any]
) -> None:
    """A lost create is not repeated if the search shows the record 10 s later (documented wait: 15 s)."""
    only(crm).faults.append(Fault(method="POST", path=path, drop_after_commit=True))
    crm.post(sample("booking_created", attendees=[attendee]))
    crm.drain()
    assert not only(crm).faults
    assert len(getattr(only(crm).view(), view)) == 1
    lagging(crm)
    clock.forward(3)
    crm.drain()
    clock.forward(7)
    only(crm).search_lag = set()
    for _ in range(5):
        clock.forward(60)
        crm.drain()
    assert {d.state for d in crm.deliveries()} == {"synced"}
    assert len(getattr(only(crm).view(), view)) == 1
