"""The migrations keep an older release's data: columns, marks, records in doubt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from app.store.engine import MIGRATIONS, Store, utcnow
from app.store.models import DeliveryRow
from tests.bridge import Bridge, sample

MARKED = {"name": "aa|bb|cc", "email": "dd", "~": "?", "~-": "?"}
"""A record's fingerprints before revision 0011, with all marks."""
PLAIN = {"name": "aa", "email": "dd"}


def move(connection: Connection, revision: str, up: bool) -> None:
    """Migrate to a revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    (command.upgrade if up else command.downgrade)(config, revision)
    connection.commit()


def rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table, by id."""
    found = connection.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()
    return [dict(row) for row in found]


def test_what_stood_in_marks_before_0011_is_in_columns_and_back(database_url: str) -> None:
    """Down and up again gives the same rows: each mark becomes a state, and each state a mark."""
    bridge = Bridge(database_url, ("hubspot",)).connect_all()
    bridge.sync(sample("booking_created"), sample("booking_created", id="b2"))
    engine = bridge.services.store.engine
    with engine.connect() as connection:
        before = {t: rows(connection, t) for t in ("deliveries", "record_links", "bookings")}
        move(connection, "0010", up=False)
        marked, plain = rows(connection, "record_links")[:2]
        for row, value in ((marked, MARKED), (plain, PLAIN)):
            connection.execute(
                text("UPDATE record_links SET hashes = :value, in_doubt = :doubt WHERE id = :id"),
                {"value": json.dumps(value), "doubt": value is MARKED, "id": row["id"]},
            )
        connection.execute(
            text("UPDATE deliveries SET mapping_version = '~abcdefghijk' WHERE id = 1")
        )
        connection.commit()
        old = {t: rows(connection, t) for t in before}
        move(connection, "head", up=True)
        links = {row["id"]: row for row in rows(connection, "record_links")}
        stored = links[marked["id"]]["fingerprints"]
        values = json.loads(stored) if isinstance(stored, str) else stored
        assert values == {"name": ["aa", "bb", "cc"], "email": "dd"}
        assert links[marked["id"]]["links_in_doubt"] and links[marked["id"]]["erase_begun"]
        assert links[marked["id"]]["needs_recheck"]
        assert not links[plain["id"]]["links_in_doubt"] and not links[plain["id"]]["erase_begun"]
        first = rows(connection, "deliveries")[0]
        assert first["replan_by"] is not None and first["mapping_version"] is None
        move(connection, "0010", up=False)
        again = {t: rows(connection, t) for t in before}
        again["deliveries"][0]["mapping_version"] = old["deliveries"][0]["mapping_version"]
        assert [loads(row) for row in again["record_links"]] == [
            loads(row) for row in old["record_links"]
        ]
        assert again["deliveries"] == old["deliveries"] and again["bookings"] == old["bookings"]
        move(connection, "head", up=True)
        assert set(rows(connection, "deliveries")[0]) == set(before["deliveries"][0])
    bridge.close()


def loads(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its JSON parsed: the order of keys does not matter."""
    value = row["hashes"]
    return {**row, "hashes": json.loads(value) if isinstance(value, str) else value}


@pytest.mark.long
@pytest.mark.parametrize("back", ["0010"])
def test_a_migrated_database_goes_on_and_writes_nothing_twice(database_url: str, back: str) -> None:
    """A replay in a migrated database makes no call to any CRM."""
    bridge = Bridge(database_url).connect_all()
    bridge.sync(sample("booking_created"))
    store = bridge.services.store
    with store.engine.connect() as connection:
        move(connection, back, up=False)
        move(connection, "head", up=True)
    writes = {name: sum(bridge.sandbox(name).calls.values()) for name in bridge.served}
    with store.write() as session:
        for row in session.query(DeliveryRow):
            row.state, row.next_attempt_at, row.due_since = "due", utcnow(), utcnow()
    bridge.settle()
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    assert writes == {name: sum(bridge.sandbox(name).calls.values()) for name in bridge.served}
    bridge.close()


def test_the_store_is_at_the_newest_revision(database_url: str) -> None:
    """The migrations of an empty database create exactly the tables of the models."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from app.store.all_tables import metadata

    store = Store(database_url)
    store.migrate()
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
    store.close()
