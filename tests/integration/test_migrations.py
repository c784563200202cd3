"""The migrations keep an older release's data: columns, marks, records in doubt."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    TypeDecorator,
    inspect,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from app.security.encryption import Cipher, keyed
from app.store.all_tables import metadata
from app.store.boxes import place_in
from app.store.engine import Store, utcnow
from app.store.models import DeliveryRow, RecordLink
from app.store.schema import MIGRATIONS, SchemaFit, UnfitSchema, revisions
from tests.bridge import KEY, Bridge, sample

MARKED = {"name": "aa|bb|cc", "email": "dd", "~": "?", "~-": "?"}
"""A record's fingerprints before revision 0011, with all marks."""
PLAIN = {"name": "aa", "email": "dd"}
MARKS = ("links_in_doubt", "erase_begun")
EMPTY = ("replan_by", "reduced_at")
"""Columns of states that an older revision keeps otherwise, or not at all: other tests fill them."""


CIPHER = Cipher((KEY,))
HASH_KEY = b"k" * 32


def move(connection: Connection, revision: str, up: bool) -> None:
    """Migrate to a revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["cipher"] = CIPHER
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
        place_of_it = place_in(RecordLink.fingerprints_encrypted.info, links[marked["id"]])
        stored = CIPHER.decrypt(links[marked["id"]]["fingerprints_encrypted"], place_of_it)
        assert json.loads(stored) == {"name": ["aa", "bb", "cc"], "email": "dd"}
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
        assert again["deliveries"] == old["deliveries"]
        move(connection, "head", up=True)
        assert set(rows(connection, "deliveries")[0]) == set(before["deliveries"][0])
    bridge.close()


def loads(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its JSON parsed: the order of keys does not matter."""
    value = row["hashes"]
    hashes = json.loads(value) if isinstance(value, str) else value
    return {**row, "hashes": hashes, "key_box": CIPHER.decrypt(row["key_box"], "record_links.key")}


@pytest.mark.long
@pytest.mark.parametrize("back", ["0010", "0012"])
def test_a_migrated_database_goes_on_and_writes_nothing_twice(database_url: str, back: str) -> None:
    """A replay in a migrated database makes no call to any CRM."""
    bridge = Bridge(database_url).connect_all()
    bridge.sync(sample("booking_created"))
    store = bridge.services.store
    with store.engine.connect() as connection:
        move(connection, back, up=False)
        move(connection, "head", up=True)
    bridge.services.prepare()
    writes = {name: sum(bridge.sandbox(name).calls.values()) for name in bridge.served}
    with store.write() as session:
        for row in session.query(DeliveryRow):
            row.state, row.next_attempt_at, row.due_since = "due", utcnow(), utcnow()
    bridge.settle()
    assert bridge.post(sample("booking_created")).json["status"] == "duplicate"
    bridge.services.intake.replay(1)
    bridge.settle()
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    assert writes == {name: sum(bridge.sandbox(name).calls.values()) for name in bridge.served}
    bridge.close()


def value_for(column: Column[Any], row: int) -> Any:
    """Return a value for a column: different in each row, and in every column that may be empty."""
    kind = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    if column.foreign_keys or (column.primary_key and isinstance(kind, Integer | BigInteger)):
        return row
    values = {
        Boolean: row == 1 and column.name not in MARKS,
        DateTime: datetime(2026, 1, row, 12, 30, 15, 123456, tzinfo=UTC),
        JSON: {"a": f"ü {row}"},
        Integer: row + len(column.name),
        Float: row + 0.5,
    }
    found = next((value for each, value in values.items() if isinstance(kind, each)), None)
    text_of = f"{row} {column.name} ü"[: getattr(kind, "length", None) or 100]
    return None if column.name in EMPTY else text_of if found is None else found


def fill(store: Store) -> None:
    """Put two rows into every table, with a value in every column."""
    with store.write_plain() as connection:
        for table in metadata.sorted_tables:
            for row in (1, 2):
                values = {column.name: value_for(column, row) for column in table.columns}
                values |= hashes_for(table.name, row)
                for column in table.columns:
                    if "purpose" in column.info:
                        where = place_in(column.info, values)
                        values[column.name] = CIPHER.encrypt(text_for(column, row), where)
                connection.execute(table.insert().values(values))


def text_for(column: Column[Any], row: int) -> str:
    """Return what is encrypted in a column."""
    texts = {
        "hash_key_encrypted": HASH_KEY.hex(),
        "key_encrypted": f"email:{row}@x.example",
        "fingerprints_encrypted": json.dumps({"name": f"ab{row}"}),
    }
    usual = json.dumps({"attendees": [{"email": f"{row}@x.example", "phone": None}]})
    return texts.get(column.name, usual)


def hashes_for(table: str, row: int) -> dict[str, Any]:
    """Return the keyed hashes of a row."""
    if table == "booking_people":
        return {"person_hash": hashed(f"person\0email:{row}@x.example")}
    if table != "record_links":
        return {}
    text = f"{row}\0{value_for(metadata.tables[table].c.object, row)}\0email:{row}@x.example"
    return {"key_hash": hashed(text), "links": []}


def hashed(text: str) -> str:
    """Return the hash of a text under the key in the database."""
    return keyed(HASH_KEY, hashlib.sha256(text.encode()).hexdigest())


def described(store: Store) -> dict[str, Any]:
    """Return the tables of a database with their columns, keys and indexes."""
    found = inspect(store.engine)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in found.get_columns(table)
            },
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "refers": sorted(
                (key["constrained_columns"], key["referred_table"])
                for key in found.get_foreign_keys(table)
            ),
            "unique": sorted(key["column_names"] for key in found.get_unique_constraints(table)),
            "indexes": sorted(
                (str(index["name"]), index["column_names"], bool(index["unique"]))
                for index in found.get_indexes(table)
                if not index.get("duplicates_constraint")
            ),
        }
        for table in found.get_table_names()
        if table != "alembic_version"
    }


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table."""
    with store.engine.connect() as connection:
        return {
            table: [
                dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()
            ]
            for table in described(store)
        }


def assert_kept(
    old: dict[str, list[dict[str, Any]]],
    new: dict[str, list[dict[str, Any]]],
    renamed: Any,
    rewritten: Any = None,
) -> None:
    """Fail unless all that an older revision can hold is the same in both; `new` is the newer one.

    `rewritten`: columns whose values change, besides the encrypted ones; another test compares them.
    """
    for table, rows in old.items():
        names = renamed.get(table, {})
        changed = {"hashes", *(rewritten or {}).get(table, ())} if rewritten else set()
        kept = [
            column
            for column in rows[0]
            if names.get(column, column) in new[table][0]
            and column not in changed
            and not (rewritten and str(names.get(column, column)).endswith(("_encrypted", "_box")))
        ]
        assert len(rows) == len(new[table])
        assert len(kept) > 1 or len(rows[0]) == 1 or (kept and rewritten), table
        assert sorted(str([row[name] for name in kept]) for row in rows) == sorted(
            str([row[names.get(name, name)] for name in kept]) for row in new[table]
        ), table


def test_rows_of_all_tables_go_down_to_the_first_revision_and_up_again(database_url: str) -> None:
    """Each step back leaves the tables of that revision, with all that they can hold of each row."""
    store = Store(database_url)
    scripts = ScriptDirectory(str(MIGRATIONS))
    made = {}
    for revision in revisions():
        with store.engine.connect() as connection:
            move(connection, revision, up=True)
        made[revision] = described(store)
    fill(store)
    whole = contents(store)
    assert set(whole) == set(metadata.tables) and all(len(rows) == 2 for rows in whole.values())
    newer = whole
    for back, ahead in reversed(list(pairwise(revisions()))):
        assert store.schema.downgrade(back, CIPHER).database == ahead
        older = contents(store)
        assert described(store) == made[back]
        module = scripts.get_revision(ahead).module
        rewritten = getattr(module, "REWRITTEN", None)
        assert_kept(older, newer, getattr(module, "RENAMED", {}), rewritten)
        newer = older
    assert len(newer) == 10
    store.migrate(CIPHER)
    assert described(store) == made[revisions()[-1]]
    rewritten = scripts.get_revision("0015").module.REWRITTEN
    assert_kept(newer, contents(store), scripts.get_revision("0011").module.RENAMED, rewritten)
    # Those rows still refer to one another, and SQLite checks that again.
    with pytest.raises(IntegrityError), store.write_plain() as session:
        session.execute(text("DELETE FROM bookings"))
    store.close()


def test_one_damaged_entry_of_the_ledger_does_not_stop_an_upgrade(database_url: str) -> None:
    """It stays as unreadable as it was, and all others are moved; a lost key stops the upgrade."""
    store = Store(database_url)
    store.migrate(CIPHER)
    fill(store)
    store.schema.downgrade("0014", CIPHER)
    with store.write_plain() as session:
        whole = session.execute(text("SELECT key_encrypted FROM record_links")).scalars().all()
        changed = {"old": whole[0], "new": whole[0][:-8] + "AAAAAAA="}
        session.execute(
            text("UPDATE record_links SET key_encrypted = :new WHERE key_encrypted = :old"), changed
        )
    with pytest.raises(UnfitSchema, match="ENCRYPTION_KEYS lacks its key"):
        store.migrate(Cipher(("z" * 43,)))
    store.migrate(CIPHER)
    with store.read() as session:
        after = session.execute(text("SELECT key_encrypted FROM record_links")).scalars().all()
    assert [box for box in after if box == changed["new"]] == [changed["new"]]
    assert len(after) == len(whole) and not set(after) & set(whole)
    store.close()


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("0999", "There is no revision '0999': they go from 0001 to"),
        ("base", "There is no revision 'base'"),
    ],
)
def test_a_downgrade_goes_only_to_a_known_revision(
    tmp_path: Path, revision: str, words: str
) -> None:
    """An unknown revision, or none at all, is refused with a sentence, and nothing is changed."""
    store = Store(f"sqlite:///{tmp_path}/a.sqlite3")
    store.migrate()
    with pytest.raises(UnfitSchema, match=words):
        store.schema.downgrade(revision)
    assert store.schema.state().fit is SchemaFit.FITS
    store.schema.downgrade("0010")
    with pytest.raises(UnfitSchema, match="is newer than the database, which is at 0010"):
        store.schema.downgrade("0011")
    store.close()


def test_a_migration_that_fails_changes_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downgrade that stops half-way leaves the schema and the rows as they were."""
    store = Store(database_url)
    store.migrate()
    fill(store)
    before = described(store), contents(store)
    script = ScriptDirectory(str(MIGRATIONS)).get_revision("0003").module

    def fails(*_: object, **__: object) -> None:
        raise OperationalError("DROP", {}, Exception("the power is gone"))

    monkeypatch.setattr(script.op, "drop_index", fails)
    with pytest.raises(OperationalError):
        store.schema.downgrade("0001", CIPHER)
    monkeypatch.undo()
    assert (described(store), contents(store)) == before
    store.schema.downgrade("0001", CIPHER)
    store.close()


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
