"""Encrypted values belong to one row: in another row they are refused, and the rest goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from app.security.encryption import UnreadableSecret
from app.store.access_models import DataKey
from app.store.boxes import place_in
from app.store.engine import Store
from app.store.models import BookingPerson, BookingRow, EventRow, RecordLink
from app.store.rekey import MissingKey, boxes, check_keys, rekey
from tests.bridge import Bridge, sample
from tests.integration.test_migrations import CIPHER, fill


def swap(store: Store, table: Any, column: Any) -> None:
    """Exchange the values of a column between the first two rows of a table."""
    key = next(iter(table.primary_key.columns))
    with store.write_plain() as connection:
        (one, first), (two, second) = connection.execute(
            select(key, column).order_by(key).limit(2)
        ).all()
        for number, box in ((one, second), (two, first)):
            connection.execute(update(table).where(key == number).values({column.name: box}))


def unreadable(store: Store) -> set[str]:
    """Return the encrypted columns that have a value that cannot be read."""
    found = set()
    with store.engine.connect() as connection:
        for table, column in boxes():
            for row in connection.execute(select(table)).mappings():
                try:
                    CIPHER.decrypt(row[column.name], place_in(column.info, row))
                except UnreadableSecret:
                    found.add(column.info["purpose"])
    return found


def test_no_box_can_be_moved_to_another_row(database_url: str) -> None:
    """Two rows of a table exchange an encrypted value: neither can be read, whatever the column."""
    store = Store(database_url)
    store.migrate()
    fill(store)
    assert unreadable(store) == set()
    for table, column in boxes():
        swap(store, table, column)
        assert unreadable(store) == {column.info["purpose"]}
        swap(store, table, column)
    store.close()


def test_exchanged_webhooks_and_bookings_are_not_used(crm: Bridge, provider: str) -> None:
    """Exchanged payloads stay stored and exchanged bookings fail; no record mixes the two."""
    store = crm.services.store
    crm.workers_sleep = True
    for name in ("b1", "b2"):
        assert crm.post(sample("booking_created", id=name)).status_code == 202
    swap(store, EventRow.__table__, EventRow.__table__.c.payload_encrypted)
    crm.drain()
    assert [event.status for event in crm.events()] == ["stored", "stored"]
    assert not crm.sandbox(provider).view().meetings
    swap(store, EventRow.__table__, EventRow.__table__.c.payload_encrypted)
    crm.services.processor.run()
    swap(store, BookingRow.__table__, BookingRow.__table__.c.state_encrypted)
    other = (
        json.dumps(sample("booking_created", id="b3"))
        .replace("Jane", "Bea")
        .replace("23456789", "23456780")
    )
    crm.post(json.loads(other))
    crm.settle()
    assert [delivery.state for delivery in crm.deliveries()] == ["failed", "failed", "synced"]
    assert "DamagedSecret" in (crm.deliveries()[0].error_message or "")
    assert len(crm.sandbox(provider).view().meetings) == 1


def test_rotation_binds_old_boxes_and_then_none_is_accepted(crm: Bridge) -> None:
    """After an upgrade boxes without rows are read; after `keys rotate` one of them is refused."""
    crm.sync(sample("booking_created"))
    store, cipher = crm.services.store, crm.services.cipher
    crm.services.store.schema.downgrade("0012", cipher)
    crm.services.prepare()
    assert cipher.reads_unbound
    with store.read() as session:
        old = session.scalars(select(BookingRow.state_encrypted)).one()
    assert old.startswith("v1.")
    assert rekey(store, cipher, lambda done, total: None) > 2
    check_keys(store, cipher)
    assert not cipher.reads_unbound
    crm.sync(sample("booking_cancelled"))
    with store.write() as session:
        session.execute(update(BookingRow).values(state_encrypted=old))
        row = session.scalars(select(BookingRow)).one()
        where = place_in(BookingRow.state_encrypted.info, row)
    with pytest.raises(UnreadableSecret, match="not accepted any more"):
        cipher.decrypt(old, where)
    # Nobody can switch that back, and a lost hash key is no reason to make another one.
    with store.write() as session:
        session.execute(update(DataKey).values(reads_unbound=True))
    with pytest.raises(MissingKey, match="hash key"):
        check_keys(store, cipher)
    with store.write() as session:
        session.execute(text("DELETE FROM data_keys"))
    with pytest.raises(MissingKey, match="lost its hash key"):
        check_keys(store, cipher)


def test_a_person_is_not_found_by_trying(tmp_path: Path) -> None:
    """Two services hash the same person differently, and no hash can be made without the key."""
    hashes = []
    for name in ("one", "two"):
        # With a setting of its own, it is no copy of a service that is there already.
        bridge = Bridge(f"sqlite:///{tmp_path}/{name}.sqlite3", ("hubspot",), http_timeout=6)
        bridge.connect_all().sync(sample("booking_created"))
        with bridge.services.store.read() as session:
            people = set(session.scalars(select(BookingPerson.person_hash)))
            keys = set(session.scalars(select(RecordLink.key_hash)))
        hashes.append(people | keys)
        bridge.close()
    email = sample("booking_created")["attendees"][0]["email"].lower()
    tried = {
        hashlib.sha256(text.encode()).hexdigest()
        for text in (email, f"person\0{email}", f"1\0contact\0{email}", f"contact\0{email}")
    }
    assert hashes[0] and not hashes[0] & hashes[1]
    assert not tried & (hashes[0] | hashes[1])
