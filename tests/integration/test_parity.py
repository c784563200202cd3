"""The whole path on both databases, and all CRMs at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import inspect, select

from app.store.all_tables import metadata
from app.store.models import RecordLink, SyncLog
from sandbox.day import day
from tests.bridge import PROVIDERS, Bridge, sample


def test_fifty_posts_make_one_of_each(database_url: str) -> None:
    """50 posts of one webhook by 8 clients and 4 drainers create one of each record in each CRM."""
    bridge = Bridge(database_url).connect_all()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bridge.post(sample("booking_created")), range(50)))
    assert {answer.status_code for answer in answers} == {202}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bridge.drain(), range(4)))
    bridge.settle()
    assert len(bridge.events()) == 1
    for provider in PROVIDERS:
        seen = bridge.sandbox(provider).view()
        counts = [len(x) for x in (seen.contacts, seen.companies, seen.deals, seen.meetings)]
        assert counts == [1, 1, 1, 1], provider
    bridge.close()


@pytest.mark.long
def test_a_day_of_bookings(database_url: str) -> None:
    """The demo's day is synced into every CRM, and a second run writes nothing."""
    bridge = Bridge(database_url).connect_all()
    events = day()
    bridge.sync(*events)
    bookings = len({event["id"] for event in events})
    states = {delivery.state for delivery in bridge.deliveries()}
    assert (len(bridge.deliveries()), states) == (bookings * len(PROVIDERS), {"synced"})
    for provider in PROVIDERS:
        seen = bridge.sandbox(provider).view()
        assert len(seen.deals) == len(seen.meetings) == bookings
        assert len(seen.contacts) == 9
        assert sum(meeting.cancelled for meeting in seen.meetings) == 3
        bridge.sandbox(provider).calls.clear()
    for event in bridge.events():
        bridge.services.intake.replay(event.id)
    bridge.settle()
    assert [bridge.sandbox(provider).writes() for provider in PROVIDERS] == [0] * len(PROVIDERS)
    with bridge.services.store.read() as session:
        links = session.scalars(select(RecordLink)).all()
        assert all(link.record_id and link.url for link in links)
        assert not any("@" in link.key_encrypted for link in links)
        assert session.scalars(select(SyncLog)).first() is not None
    bridge.close()


def test_the_migrations_make_the_models(database_url: str) -> None:
    """The migrations create exactly the schema of the models."""
    bridge = Bridge(database_url, ())
    there = inspect(bridge.services.store.engine)
    for name, table in metadata.tables.items():
        assert {c["name"] for c in there.get_columns(name)} == {c.name for c in table.columns}
    bridge.services.store.migrate()
    bridge.close()
