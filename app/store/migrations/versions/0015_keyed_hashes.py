"""keyed hashes of people and records, fingerprints encrypted, values bound to their rows"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog
from alembic import context, op

from app.security.encryption import Cipher, DamagedSecret, keyed, place
from app.store.tables import Id, UtcTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

log = structlog.get_logger(__name__)
CHUNK = 500
BOXES = (
    ("sources", "name", "secrets_encrypted", "sources.secrets", ("name",)),
    ("sources", "name", "api_key_encrypted", "sources.api_key", ("name",)),
    ("events", "id", "payload_encrypted", "events.payload", ("dedupe_key",)),
    ("bookings", "id", "state_encrypted", "bookings.state", ("key",)),
    ("connections", "id", "token_encrypted", "connections.tokens", ("id",)),
    ("oauth_flows", "state_hash", "verifier_encrypted", "oauth_flows.verifier", ("state_hash",)),
    ("revocations", "id", "token_encrypted", "revocations.token", ("connection_id", "created_at")),
    ("webhook_secrets", "id", "secret_encrypted", "webhook_secrets.secret", ("source", "created_at")),
)  # fmt: skip
"""Table, primary key, encrypted column, its purpose, and what its values are bound to."""
REWRITTEN = {"booking_people": {"person_hash"}, "record_links": {"key_hash", "links"}}
"""Columns whose values this revision changes, besides the encrypted ones."""
RENAMED = {"record_links": {"fingerprints": "fingerprints_encrypted"}}

links = sa.table(
    "record_links",
    sa.column("id", sa.BigInteger),
    sa.column("connection_id", sa.BigInteger),
    sa.column("object", sa.String),
    sa.column("key_hash", sa.String),
    sa.column("old_hash", sa.String),
    sa.column("key_encrypted", sa.Text),
    sa.column("fingerprints", sa.JSON),
    sa.column("fingerprints_encrypted", sa.Text),
    sa.column("links", sa.JSON),
)
people = sa.table(
    "booking_people", sa.column("booking_id", sa.BigInteger), sa.column("person_hash", sa.String)
)
keys = sa.table(
    "data_keys",
    sa.column("id", sa.BigInteger),
    sa.column("hash_key_encrypted", sa.Text),
    sa.column("reads_unbound", sa.Boolean),
    sa.column("created_at", UtcTime()),
)


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", Id, primary_key=True),
        sa.Column("hash_key_encrypted", sa.Text(), nullable=False),
        sa.Column("reads_unbound", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
    )
    op.add_column("record_links", sa.Column("fingerprints_encrypted", sa.Text()))
    if _has_data():
        _key_hashes()
    with op.batch_alter_table("record_links") as batch:
        batch.drop_column("fingerprints")
        batch.alter_column("fingerprints_encrypted", existing_type=sa.Text(), nullable=False)


def downgrade() -> None:
    op.add_column("record_links", sa.Column("fingerprints", sa.JSON()))
    op.add_column("record_links", sa.Column("old_hash", sa.String(64)))
    if _has_data():
        _unkey_hashes()
    with op.batch_alter_table("record_links") as batch:
        batch.drop_column("fingerprints_encrypted")
        batch.drop_column("old_hash")
        batch.alter_column("fingerprints", existing_type=sa.JSON(), nullable=False)
    op.drop_table("data_keys")


def _has_data() -> bool:
    """Whether the database holds anything encrypted or hashed."""
    tables = {name for name, *_ in BOXES} | {"record_links", "booking_people"}
    connection = op.get_bind()
    counted = (sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1) for name in tables)
    return any(connection.scalar(query) for query in counted)


def _cipher() -> Cipher:
    cipher = context.config.attributes.get("cipher")
    if not isinstance(cipher, Cipher):
        raise RuntimeError("the data of this database can be moved only with ENCRYPTION_KEYS")
    return cipher


def _chunks(query: sa.Select[Any], key: sa.ColumnElement[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a query in the order of a key, a chunk at a time."""
    connection, after = op.get_bind(), None
    while True:
        part = query.order_by(key).limit(CHUNK)
        if after is not None:
            part = part.where(key > after)
        rows = connection.execute(part).all()
        if rows:
            yield rows
        if len(rows) < CHUNK:
            return
        after = getattr(rows[-1], key.name)


def _update(table: Any, changed: list[dict[str, Any]], *where: str) -> None:
    """Change rows one by one; `where` names the columns that select one, given as `of_…`."""
    conditions = (table.c[name] == sa.bindparam(f"of_{name}") for name in where)
    if changed:
        op.get_bind().execute(sa.update(table).where(*conditions), changed)


def _key_hashes() -> None:
    """Make the hash key, and turn each plain hash into the hash under this key."""
    cipher, key = _cipher(), secrets.token_bytes(32)
    cipher.reads_unbound = True
    row: dict[str, Any] = {"id": 1, "reads_unbound": True, "created_at": datetime.now(UTC)}
    box = cipher.encrypt(key.hex(), place("data_keys.hash_key", "1", "True"))
    op.get_bind().execute(sa.insert(keys).values(**row, hash_key_encrypted=box))
    bookings = sa.table("bookings", sa.column("id", sa.BigInteger))
    for some in _chunks(sa.select(bookings.c.id), bookings.c.id):
        theirs = people.c.booking_id.in_([row.id for row in some])
        rows = op.get_bind().execute(sa.select(people).where(theirs)).all()
        moved = [
            {
                "of_booking_id": row.booking_id,
                "of_person_hash": row.person_hash,
                "person_hash": keyed(key, row.person_hash),
            }
            for row in rows
        ]
        _update(people, moved, "booking_id", "person_hash")
    columns = [
        column for column in links.c if column.name not in ("old_hash", "fingerprints_encrypted")
    ]
    for rows in _chunks(sa.select(*columns), links.c.id):
        _update(links, [_keyed_link(row, cipher, key) for row in rows], "id")


def _keyed_link(row: Any, cipher: Cipher, key: bytes) -> dict[str, Any]:
    key_hash = keyed(key, row.key_hash)
    where = (str(row.connection_id), row.object, key_hash)
    written = json.dumps(row.fingerprints)
    targets = (target.partition(":") for target in row.links)
    return {
        "of_id": row.id,
        "key_hash": key_hash,
        "key_encrypted": _bound(row, cipher, where),
        "fingerprints_encrypted": cipher.encrypt(
            written, place("record_links.fingerprints", *where)
        ),
        "links": [f"{name}:{keyed(key, plain)}" for name, _, plain in targets],
    }


def _bound(row: Any, cipher: Cipher, where: tuple[str, ...]) -> str:
    """The key of a record, bound to its row; a damaged one stays, as unreadable as it was."""
    try:
        text = cipher.decrypt(row.key_encrypted, "record_links.key")
    except DamagedSecret as error:
        # One row must not keep the whole service from its new version.
        log.error("ledger_entry_unreadable", entry_id=row.id, reason=str(error))
        return str(row.key_encrypted)
    return cipher.encrypt(text, place("record_links.key", *where))


def _unkey_hashes() -> None:
    """Take everything back to plain hashes and boxes without their rows.

    A person whose data was deleted has no plain hash any more: the row about them goes.
    """
    cipher, connection = _cipher(), op.get_bind()
    row = connection.execute(sa.select(keys).where(keys.c.id == 1)).one()
    bound = place("data_keys.hash_key", "1", str(row.reads_unbound))
    key = bytes.fromhex(cipher.decrypt(row.hash_key_encrypted, bound))
    _unkey_people(cipher, key)
    _unkey_links(cipher)
    for table, primary, column, purpose, names in BOXES:
        _unbind(cipher, table, primary, column, purpose, names)


def _unkey_people(cipher: Cipher, key: bytes) -> None:
    bookings = sa.table("bookings", *(sa.column(name) for name in ("id", "key", "state_encrypted")))
    query = sa.select(bookings.c.id, bookings.c.key, bookings.c.state_encrypted)
    for rows in _chunks(query, bookings.c.id):
        moved, kept = [], []
        for row in rows:
            state = json.loads(
                cipher.decrypt(row.state_encrypted, place("bookings.state", row.key))
            )
            for plain in {*map(_plain_hash, state.get("attendees") or ())} - {None}:
                found = keyed(key, plain or "")
                moved.append(
                    {"of_booking_id": row.id, "of_person_hash": found, "person_hash": plain}
                )
                kept.append(plain)
        _update(people, moved, "booking_id", "person_hash")
        mine = people.c.booking_id.in_([row.id for row in rows])
        gone = sa.delete(people).where(mine, people.c.person_hash.not_in(sorted(set(kept))))
        op.get_bind().execute(gone)


def _plain_hash(person: Any) -> str | None:
    email, phone = person.get("email"), person.get("phone")
    identity = f"email:{email}" if email else f"phone:{phone}" if phone else None
    return _sha256(f"person\0{identity}") if identity else None


def _unkey_links(cipher: Cipher) -> None:
    connection = op.get_bind()
    columns = [
        links.c[name] for name in ("id", "connection_id", "object", "key_hash", "key_encrypted")
    ]
    for rows in _chunks(sa.select(*columns), links.c.id):
        found = []
        for row in rows:
            where = (str(row.connection_id), row.object, row.key_hash)
            if row.key_encrypted:
                text = cipher.decrypt(row.key_encrypted, place("record_links.key", *where))
                plain = _sha256(f"{row.connection_id}\0{row.object}\0{text}")
                box = cipher.encrypt_unbound(text, "record_links.key")
                found.append({"of_id": row.id, "old_hash": plain, "key_encrypted": box})
        _update(links, found, "id")
    connection.execute(sa.delete(links).where(links.c.old_hash.is_(None)))
    wanted = ("id", "connection_id", "object", "key_hash", "links", "fingerprints_encrypted")
    for rows in _chunks(sa.select(*(links.c[name] for name in wanted)), links.c.id):
        _update(links, _unlinked(rows, cipher), "id")
    connection.execute(sa.update(links).values(key_hash=links.c.old_hash))


def _unlinked(rows: Sequence[Any], cipher: Cipher) -> list[dict[str, Any]]:
    hashes = {target.partition(":")[2] for row in rows for target in row.links}
    query = sa.select(links.c.key_hash, links.c.old_hash).where(links.c.key_hash.in_(hashes))
    old = {new: plain for new, plain in op.get_bind().execute(query)} if hashes else {}
    changed = []
    for row in rows:
        where = place("record_links.fingerprints", str(row.connection_id), row.object, row.key_hash)
        targets = (target.partition(":") for target in row.links)
        changed.append(
            {
                "of_id": row.id,
                "fingerprints": json.loads(cipher.decrypt(row.fingerprints_encrypted, where)),
                "links": [f"{name}:{old[new]}" for name, _, new in targets if new in old],
            }
        )
    return changed


def _unbind(
    cipher: Cipher, name: str, primary: str, column: str, purpose: str, names: tuple[str, ...]
) -> None:
    """Encrypt the values of a column as older releases did."""
    kinds = {"created_at": UtcTime()}
    columns = dict.fromkeys((primary, column, *names))
    table = sa.table(name, *(sa.column(each, kinds.get(each)) for each in columns))
    query = sa.select(*table.c).where(table.c[column].is_not(None))
    for rows in _chunks(query, table.c[primary]):
        changed = []
        for row in rows:
            parts = [getattr(row, each) for each in names]
            where = place(purpose, *(_text(part) for part in parts))
            text = cipher.decrypt(getattr(row, column), where)
            changed.append(
                {
                    f"of_{primary}": getattr(row, primary),
                    column: cipher.encrypt_unbound(text, purpose),
                }
            )
        _update(table, changed, primary)


def _text(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
