"""ENCRYPTION_KEYS and the data in the database: keys are checked at start, replaced on demand."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from sqlalchemy import Column, ColumnElement, Table, delete, func, select, update
from sqlalchemy.orm import Session

from app.security.encryption import UNBOUND, Cipher, UnreadableSecret
from app.store.access_models import DataKey, EncryptionKey, UserRow
from app.store.all_tables import metadata
from app.store.boxes import place_in, seal, unseal
from app.store.engine import Store, utcnow
from app.store.models import BookingPerson, RecordLink
from app.store.tables import Base
from app.store.upsert import insert_unless_there

HASH_KEY_ID = 1
"""The id of the only row of data_keys."""
CHUNK = 200
"""Rows to re-encrypt in one transaction."""


class MissingKey(Exception):
    """A key that the data needs is not there; the message says what to do."""


def boxes() -> Iterator[tuple[Table, Column[str]]]:
    """Every encrypted column."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if "purpose" in column.info:
                yield table, column


def check_keys(store: Store, cipher: Cipher) -> None:
    """Note the newest key as used, and let the cipher hash with the database's key.

    Raises MissingKey if ENCRYPTION_KEYS lacks a used key, or the database its hash key.
    """
    with store.write() as session:
        used = set(session.scalars(select(EncryptionKey.key_id)))
        if not used:
            used = _key_ids_in_use(session)
        missing = sorted(used - cipher.key_ids)
        if missing:
            raise MissingKey(
                f"ENCRYPTION_KEYS lacks the key with the id {', '.join(missing)}, which data in the"
                f" database was encrypted with; it holds {', '.join(sorted(cipher.key_ids))}. Put"
                " the old key back at the end of the list; `bridge keys rotate` then"
                " re-encrypts everything with the first key, and you may remove the old one."
            )
        for key_id in used | {cipher.newest}:
            row = {"key_id": key_id, "first_used_at": utcnow()}
            session.execute(insert_unless_there(session, EncryptionKey, ["key_id"]), row)
        _learn_hash_key(session, cipher)


def _learn_hash_key(session: Session, cipher: Cipher) -> None:
    row = session.get(DataKey, HASH_KEY_ID)
    if row is None:
        _make_hash_key(session, cipher)
        row = session.get_one(DataKey, HASH_KEY_ID)
    try:
        key = unseal(cipher, DataKey.hash_key_encrypted, row)
    except UnreadableSecret as error:
        raise MissingKey(f"The hash key cannot be read. {error}") from None
    cipher.use_hash_key(bytes.fromhex(key))
    cipher.reads_unbound = row.reads_unbound


def _make_hash_key(session: Session, cipher: Cipher) -> None:
    """Make the hash key of an empty database; the migration makes that of an older one with data."""
    if any(_is_filled(session, model) for model in (BookingPerson, RecordLink, UserRow)):
        raise MissingKey(
            "The database has lost its hash key (table data_keys), without which no person and no"
            " record is found again, and each would be created twice. Restore the whole backup."
        )
    values = {"id": HASH_KEY_ID, "reads_unbound": False, "created_at": utcnow()}
    values["hash_key_encrypted"] = seal(
        cipher, DataKey.hash_key_encrypted, values, secrets.token_hex(32)
    )
    session.execute(insert_unless_there(session, DataKey, ["id"]), values)


def _is_filled(session: Session, model: type[Base]) -> bool:
    return session.scalars(select(model).limit(1)).first() is not None


def rekey(store: Store, cipher: Cipher, progress: Callable[[int, int], None]) -> int:
    """Re-encrypt all values of older keys and formats with the newest key; return their number.

    Afterwards boxes of older formats, which were not bound to their rows, are refused. May be
    interrupted and run again. `progress` is called with (done, all) after each chunk.
    """
    with store.read() as session:
        counts = [select(func.count()).where(_stale(column, cipher)) for _, column in boxes()]
        total = sum(session.scalar(query) or 0 for query in counts)
    done = 0
    for table, column in boxes():
        while chunk := _rekey_chunk(store, cipher, table, column):
            done += chunk
            progress(done, max(done, total))
    with store.write() as session:
        # A process that still has the old key first in its list may have written meanwhile.
        if _key_ids_in_use(session) <= {cipher.newest}:
            session.execute(delete(EncryptionKey).where(EncryptionKey.key_id != cipher.newest))
        if UNBOUND not in _heads(session, len(UNBOUND)):
            _refuse_unbound(session, cipher)
    return done


def _refuse_unbound(session: Session, cipher: Cipher) -> None:
    row = session.get_one(DataKey, HASH_KEY_ID, with_for_update=True)
    key = unseal(cipher, DataKey.hash_key_encrypted, row)
    row.reads_unbound = cipher.reads_unbound = False
    row.hash_key_encrypted = seal(cipher, DataKey.hash_key_encrypted, row, key)


def _rekey_chunk(store: Store, cipher: Cipher, table: Table, column: Column[str]) -> int:
    key = next(iter(table.primary_key.columns))
    with store.write() as session:
        wanted = [key, column, *(table.columns[name] for name in column.info["row"])]
        query = select(*dict.fromkeys(wanted)).where(_stale(column, cipher)).limit(CHUNK)
        rows = session.execute(query).mappings().all()
        for row in rows:
            where, box = place_in(column.info, row), row[column.name]
            fresh = cipher.encrypt(cipher.decrypt(box, where), where)
            # A value that another process has written meanwhile is kept.
            same = (key == row[key.name], column == box)
            session.execute(update(table).where(*same).values({column.name: fresh}))
        return len(rows)


def _stale(column: Column[str], cipher: Cipher) -> ColumnElement[bool]:
    return column.is_not(None) & column.not_like(f"{cipher.prefix}%")


def _key_ids_in_use(session: Session) -> set[str]:
    return {head.split(".")[1] for head in _heads(session, Cipher.HEAD)}


def _heads(session: Session, length: int) -> set[str]:
    """The first characters of all boxes, which name format and key."""
    found: set[str] = set()
    for _, column in boxes():
        query = select(func.substr(column, 1, length)).where(column.is_not(None)).distinct()
        found.update(session.scalars(query))
    return found
