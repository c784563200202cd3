"""ENCRYPTION_KEYS and the data in the database: keys are checked at start, replaced on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Column, ColumnElement, Table, delete, func, select, update
from sqlalchemy.orm import Session

from app.security.encryption import Cipher
from app.store.access_models import EncryptionKey
from app.store.all_tables import metadata
from app.store.engine import Store, utcnow
from app.store.upsert import insert_unless_there

CHUNK = 200
"""Rows to re-encrypt in one transaction."""


class MissingKey(Exception):
    """ENCRYPTION_KEYS lacks a key that encrypted data needs; the message says what to do."""


def boxes() -> Iterator[tuple[Table, Column[str], str]]:
    """Every encrypted column, with the purpose that its values are bound to."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if "purpose" in column.info:
                yield table, column, column.info["purpose"]


def check_keys(store: Store, cipher: Cipher) -> None:
    """Note the newest key as used. Raises MissingKey if ENCRYPTION_KEYS lacks a used one."""
    with store.write() as session:
        used = set(session.scalars(select(EncryptionKey.key_id)))
        if not used:
            used = _key_ids_in_use(session)
        missing = sorted(used - cipher.key_ids)
        if missing:
            raise MissingKey(
                f"ENCRYPTION_KEYS lacks the key with the id {', '.join(missing)}, which data in the"
                f" database was encrypted with; it holds {', '.join(sorted(cipher.key_ids))}. Put"
                " the old key back at the end of the list; `flask --app app keys rotate` then"
                " re-encrypts everything with the first key, and you may remove the old one."
            )
        for key_id in used | {cipher.newest}:
            row = {"key_id": key_id, "first_used_at": utcnow()}
            session.execute(insert_unless_there(session, EncryptionKey, ["key_id"]), row)


def rekey(store: Store, cipher: Cipher, progress: Callable[[int, int], None]) -> int:
    """Re-encrypt with the newest key all values of older keys; return how many these were.

    May be interrupted and run again. `progress` is called with (done, all) after each chunk.
    """
    with store.read() as session:
        counts = [select(func.count()).where(_stale(column, cipher)) for _, column, _ in boxes()]
        total = sum(session.scalar(query) or 0 for query in counts)
    done = 0
    for table, column, purpose in boxes():
        while chunk := _rekey_chunk(store, cipher, table, column, purpose):
            done += chunk
            progress(done, max(done, total))
    with store.write() as session:
        # A process that still has the old key first in its list may have written meanwhile.
        if _key_ids_in_use(session) <= {cipher.newest}:
            session.execute(delete(EncryptionKey).where(EncryptionKey.key_id != cipher.newest))
    return done


def _rekey_chunk(
    store: Store, cipher: Cipher, table: Table, column: Column[str], purpose: str
) -> int:
    key = next(iter(table.primary_key.columns))
    with store.write() as session:
        rows = session.execute(select(key, column).where(_stale(column, cipher)).limit(CHUNK)).all()
        for number, box in rows:
            fresh = cipher.encrypt(cipher.decrypt(box, purpose), purpose)
            # A value that another process has written meanwhile is kept.
            session.execute(
                update(table).where(key == number, column == box).values({column.name: fresh})
            )
        return len(rows)


def _stale(column: Column[str], cipher: Cipher) -> ColumnElement[bool]:
    return column.is_not(None) & column.not_like(f"{cipher.prefix}%")


def _key_ids_in_use(session: Session) -> set[str]:
    found: set[str] = set()
    for _, column, _ in boxes():
        query = select(func.substr(column, 1, Cipher.HEAD)).where(column.is_not(None)).distinct()
        found.update(head.split(".")[1] for head in session.scalars(query))
    return found
