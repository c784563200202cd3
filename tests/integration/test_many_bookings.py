"""What the service does all day costs the same, however many bookings its database holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from sqlalchemy import event

from app.store.deliveries import due
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from app.store.states import ConnectionStatus
from tests.bridge import Bridge, sample
from tests.many import Costs, Idle, analyze, fill
from workers.jobs import look

FEW, MANY = 200, 20_000
LISTS = ("/", "/bookings", "/bookings?state=synced", "/bookings?state=due", "/api/v1/bookings")
NUMBERS = itertools.count()
GROWTH, SLACK = 1.6, {"sqlite": 60_000, "postgresql": 400}
"""An index grows by a level now and then; a scan of a table costs seven times the slack and more."""


def deeds(bridge: Bridge) -> dict[str, Callable[[], object]]:
    """Everything that is done again and again, by name."""
    headers = {"Authorization": f"Bearer {bridge.key}"}
    paths = ["/", "/bookings", "/bookings?state=failed", "/bookings?state=synced",
             "/bookings?state=due", "/events", "/sources", "/metrics",
             "/readyz", "/mappings", *(f"/connections/{n}" for n in (1, 2, 3)),
             "/bookings/default:many-7"]  # fmt: skip
    api = ["/api/v1/bookings", "/api/v1/bookings?state=failed", "/api/v1/connections"]
    return {
        "look": lambda: look(bridge.services, Idle()),  # type: ignore[arg-type]
        "webhook": lambda: bridge.post(sample("booking_created", id=f"live-{next(NUMBERS)}")),
        "live booking": lambda: bridge.drainer.drain(1),
        "first backlog": lambda: first_due(bridge),
        **{path: lambda path=path: get(bridge, path) for path in paths},
        **{path: lambda path=path: get(bridge, path, headers) for path in api},
    }


def first_due(bridge: Bridge) -> None:
    """Look for the first of the backlog."""
    with bridge.services.store.read() as session:
        assert due(session, 2, utcnow(), 50)


def get(bridge: Bridge, path: str, headers: dict[str, str] | None = None) -> None:
    """Ask for a page."""
    answer = bridge.client.get(path, headers=headers)
    assert answer.status_code == 200, (path, answer.get_data(as_text=True)[:500])


def costs_of(bridge: Bridge) -> dict[str, Costs]:
    """The cost of each deed."""
    found = {}
    for name, deed in deeds(bridge).items():
        with Costs().measured(bridge.services.store.engine) as found[name]:
            deed()
    return found


@pytest.mark.long
def test_costs_do_not_grow_with_the_number_of_bookings(database_url: str) -> None:
    """Looking for work, one live booking, every page and the metrics cost the same in a database of
    thirty times as many bookings."""
    bridge = Bridge(database_url).connect_all()
    try:
        _break(bridge, "salesforce")
        _filled(bridge, FEW, undone=True)
        few = _filled(bridge, FEW)
        _alike(bridge, few, _filled(bridge, MANY))
    finally:
        bridge.close()


@pytest.mark.long
def test_costs_of_a_live_booking_do_not_grow_with_the_backlog(database_url: str) -> None:
    """Looking for work and one live booking cost the same while thirty times as many bookings wait
    as backlog, are parked, or wait for a later time."""
    bridge = Bridge(database_url).connect_all()
    try:
        _break(bridge, "salesforce")
        few = _filled(bridge, FEW, undone=True)
        many = _filled(bridge, MANY, undone=True)
        names = ("look", "webhook", "live booking", "first backlog")
        _alike(bridge, few, {name: many[name] for name in names})
    finally:
        bridge.close()


def _break(bridge: Bridge, provider: str) -> None:
    with bridge.services.store.write() as session:
        row = session.get_one(ConnectionRow, bridge.connection(provider).id)
        row.status = ConnectionStatus.EXPIRED


def _filled(bridge: Bridge, number: int, undone: bool = False) -> dict[str, Costs]:
    fill(bridge.services.store, bridge.services.cipher, number, undone)
    analyze(bridge.services.store)
    return costs_of(bridge)


def _alike(bridge: Bridge, few: dict[str, Costs], many: dict[str, Costs]) -> None:
    slack = SLACK[bridge.services.store.engine.dialect.name]
    grown = {
        name: (
            few[name].total,
            many[name].total,
            *map(short, many[name].by_statement.most_common(3)),
        )
        for name in many
        # In a small table PostgreSQL reads all pages rather than the index of 350 keys.
        if many[name].total > few[name].total * GROWTH + slack * (10 if name in LISTS else 1)
    }
    assert not grown, "\n".join(f"{name}: {told}" for name, told in grown.items())


def short(told: tuple[str, int]) -> str:
    """A statement and its cost, without the columns that it reads."""
    statement, cost = told
    place = statement.find("FROM") if statement.startswith("SELECT") else 0
    return f"{cost}: {statement[place : place + 300]}"


def test_a_page_takes_as_many_statements_for_fifty_bookings_as_for_five(database_url: str) -> None:
    """No page of a list asks the database once for each of its rows."""
    bridge = Bridge(database_url).connect_all()
    try:
        paths = [
            "/",
            "/bookings",
            "/bookings?state=synced&q=corp",
            "/events",
            "/mappings",
            "/api/v1/bookings",
        ]
        counts = []
        for number in (5, 45):
            fill(bridge.services.store, bridge.services.cipher, number)
            counts.append({path: _statements(bridge, path) for path in paths})
        assert counts[0] == counts[1]
    finally:
        bridge.close()


def _statements(bridge: Bridge, path: str) -> int:
    """Return how many statements a page takes."""
    seen: list[str] = []
    engine = bridge.services.store.engine

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    key = {"Authorization": f"Bearer {bridge.key}"}
    get(bridge, path, key)
    event.listen(engine, "before_cursor_execute", note)
    get(bridge, path, key)
    event.remove(engine, "before_cursor_execute", note)
    return len(seen)
