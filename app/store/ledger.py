"""The ledger: which CRM record stands for what, so that none is searched for or made twice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Text, bindparam, cast, delete, select
from sqlalchemy.orm import Session

from app.crm.objects import FORGOTTEN, PEOPLE, Fingerprints, ObjectName, Ref, with_unanswered
from app.security.encryption import Cipher
from app.store.boxes import seal, unseal
from app.store.models import RecordLink
from app.store.upsert import insert_unless_there
from app.sync.ledger_entry import LedgerEntry

CHUNK = 500
"""Rows in one statement: SQLite accepts at most 32,766 values."""


_BY_KEYS = select(RecordLink).where(
    RecordLink.connection_id == bindparam("connection_id"),
    RecordLink.key_hash.in_(bindparam("hashes", expanding=True)),
)


@dataclass(frozen=True)
class Intent:
    """What a write is about to send: its links and its field values."""

    links: tuple[Ref, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, datetime] = field(default_factory=dict)
    """Field -> the state of a booking that its value is from, as a moment."""


class Ledger:
    """The ledger of one connection inside one session."""

    def __init__(self, session: Session, cipher: Cipher, connection_id: int) -> None:
        self._session = session
        self._cipher = cipher
        self._connection_id = connection_id

    def read(self, refs: Iterable[Ref], now: datetime | None = None) -> dict[Ref, LedgerEntry]:
        """The entries of these records, and of the records that they are linked to now."""
        tokens = {self._token(ref): ref for ref in refs}
        rows = self._rows(tokens)
        linked = {token for row in rows for token in row.links} - set(tokens)
        others = self._rows(linked)
        for row in others:
            tokens[f"{row.object}:{row.key_hash}"] = self._ref(row)
        return {
            tokens[f"{row.object}:{row.key_hash}"]: LedgerEntry(
                row.record_id,
                self._fingerprints(row),
                tuple(tokens[token] for token in row.links if token in tokens),
                row.version,
                row.url,
                row.lost,
                (now - row.updated_at).total_seconds() if now else None,
                {name: datetime.fromisoformat(moment) for name, moment in row.versions.items()},
                frozenset(row.filled_by_others),
                row.links_in_doubt,
                row.erase_begun,
            )
            for row in [*rows, *others]
        }

    def there(self, refs: Iterable[Ref]) -> set[Ref]:
        """The records among these that were made or begun."""
        tokens = {self._token(ref): ref for ref in refs}
        return {tokens[f"{row.object}:{row.key_hash}"] for row in self._rows(tokens)}

    def intend(self, intents: Mapping[Ref, Intent], now: datetime) -> None:
        """Note what is about to be sent, since the answer to it may never come.

        A create that was begun is then found instead of repeated. Fields and links that an update
        may have written are written again, or taken away, by the next write.
        """
        tokens = {self._token(ref): ref for ref in intents}
        there = {f"{row.object}:{row.key_hash}": row for row in self._rows(tokens)}
        rows = []
        for token, ref in tokens.items():
            intent = intents[ref]
            links = [self._token(target) for target in intent.links]
            if token in there:
                row = there[token]
                before = self._fingerprints(row)
                row.links = list(dict.fromkeys([*row.links, *links]))
                if row.record_id is None:
                    # The values of the first create still identify it; the new values may be
                    # written to it.
                    sent = {
                        name: with_unanswered(before[name], value) if name in before else (value,)
                        for name, value in intent.fingerprints.items()
                    }
                    row.updated_at = now
                else:
                    # A write that fills a field first may fill it again if the answer is lost.
                    first = {k: v for k, v in intent.versions.items() if k not in before}
                    row.versions = {**row.versions, **_told(first)}
                    sent = {
                        name: with_unanswered(before.get(name), value)
                        for name, value in intent.fingerprints.items()
                    }
                    row.links_in_doubt = row.needs_recheck = True
                self._keep_fingerprints(row, {**before, **sent})
                continue
            object_name, _, key_hash = token.partition(":")
            place = {
                "connection_id": self._connection_id,
                "object": object_name,
                "key_hash": key_hash,
            }
            begun = {name: (value,) for name, value in intent.fingerprints.items()}
            rows.append(
                {
                    **place,
                    "key_encrypted": seal(self._cipher, RecordLink.key_encrypted, place, ref.key),
                    "url": "",
                    "fingerprints_encrypted": self._sealed_fingerprints(place, begun),
                    "links": links,
                    "versions": {},
                    "filled_by_others": [],
                    "links_in_doubt": False,
                    "erase_begun": False,
                    "needs_recheck": False,
                    "updated_at": now,
                }
            )
        unique = ["connection_id", "key_hash"]
        if rows:
            self._session.execute(insert_unless_there(self._session, RecordLink, unique), rows)

    def intend_to_erase(self, refs: Iterable[Ref]) -> None:
        """Note which records are about to be deleted: the next write first checks for them."""
        for row in self._rows([self._token(ref) for ref in refs]):
            row.lost = row.erase_begun = True

    def claimed(self, ref: Ref, record_id: str) -> bool:
        """Whether a record stands for another booking or person already."""
        query = select(RecordLink.key_hash).where(
            RecordLink.connection_id == self._connection_id,
            RecordLink.object == ref.object.value,
            RecordLink.record_id == record_id,
        )
        mine = self._token(ref).split(":")[1]
        return any(key_hash != mine for key_hash in self._session.scalars(query))

    def holders(self, ref: Ref, record_id: str) -> list[Ref]:
        """The other bookings or people that a record stands for."""
        query = select(RecordLink).where(
            RecordLink.connection_id == self._connection_id,
            RecordLink.object == ref.object.value,
            RecordLink.record_id == record_id,
        )
        return [other for other in map(self._ref, self._session.scalars(query)) if other != ref]

    def save(self, records: Mapping[Ref, LedgerEntry], now: datetime) -> None:
        """Write the results of a batch."""
        tokens = {self._token(ref): ref for ref in records}
        rows = {f"{row.object}:{row.key_hash}": row for row in self._rows(tokens)}
        missing = [ref for token, ref in tokens.items() if token not in rows]
        if missing:
            self.intend(dict.fromkeys(missing, Intent()), now)
            rows = {f"{row.object}:{row.key_hash}": row for row in self._rows(tokens)}
        for ref, known in records.items():
            row = rows[self._token(ref)]
            self._remember_key(row, ref)
            row.record_id, row.url, row.lost = known.record_id, known.url, False
            row.version = known.version
            self._keep_fingerprints(row, known.fingerprints)
            row.versions = _told(known.versions)
            row.links_in_doubt = known.links_in_doubt
            row.erase_begun, row.needs_recheck = known.erase_begun, False
            row.links = [self._token(link) for link in known.links]
            row.filled_by_others, row.updated_at = sorted(known.filled_by_others), now

    def withdraw(self, refs: Iterable[Ref]) -> None:
        """Take back intents whose create was never sent."""
        for row in self._rows([self._token(ref) for ref in refs]):
            if row.record_id is None:
                self._session.delete(row)

    def has_doubts(self) -> bool:
        """Whether there is a record for which an answer never came."""
        return self._session.scalars(self._to_recheck().limit(1)).first() is not None

    def _to_recheck(self) -> Select[RecordLink]:
        return select(RecordLink).where(
            RecordLink.connection_id == self._connection_id, RecordLink.needs_recheck
        )

    def abandoned(self) -> list[Ref]:
        """The people of records for which an answer never came and no delivery waits any more.

        Call this only once no delivery is due. Each record is reported once.
        """
        rows = list(self._session.scalars(self._to_recheck()))
        companies = [row for row in rows if row.object == ObjectName.COMPANY]
        for row in rows:
            row.needs_recheck = False
        for row in companies:
            rows += self._session.scalars(self._linking(f"{row.object}:{row.key_hash}"))
        return [self._ref(row) for row in rows if row.object in PEOPLE]

    def lose(self, ref: Ref) -> None:
        """Note that the CRM no longer has a record; the next write looks for what became of it."""
        for row in self._rows([self._token(ref)]):
            row.lost, row.links = True, []
        self.unlink(ref)

    def unlink(self, ref: Ref) -> None:
        """Remove every link to a record: they are made again to the record that replaces it."""
        token = self._token(ref)
        for row in self._session.scalars(self._linking(token)):
            row.links = [link for link in row.links if link != token]

    def _linking(self, token: str) -> Select[RecordLink]:
        """The records that have a link to this one."""
        return select(RecordLink).where(
            RecordLink.connection_id == self._connection_id,
            cast(RecordLink.links, Text).like(f"%{token}%"),
        )

    def forget(self, ref: Ref) -> None:
        """Drop the entry of a record that was deleted in the CRM, and every link to it."""
        token = self._token(ref)
        name, key_hash = token.split(":")
        mine = RecordLink.connection_id == self._connection_id
        self._session.execute(
            delete(RecordLink).where(
                mine, RecordLink.object == name, RecordLink.key_hash == key_hash
            )
        )
        self.unlink(ref)

    def forget_keys(self, identities: Iterable[str]) -> None:
        """Delete the addresses and numbers of some people; their records are still found by hash."""
        refs = [Ref(name, identity) for identity in identities for name in PEOPLE]
        for row in self._rows([self._token(ref) for ref in refs]):
            row.key_encrypted = None

    def _rows(self, tokens: Iterable[str]) -> list[RecordLink]:
        wanted = set(tokens)
        hashes = sorted({token.split(":")[1] for token in wanted})
        rows: list[RecordLink] = []
        for start in range(0, len(hashes), CHUNK):
            part = hashes[start : start + CHUNK]
            values = {"connection_id": self._connection_id, "hashes": part}
            rows += self._session.scalars(_BY_KEYS, values)
        return [row for row in rows if f"{row.object}:{row.key_hash}" in wanted]

    def _token(self, ref: Ref) -> str:
        """Return `object:hash`: the ledger holds no e-mail address in clear text."""
        if ref.object in PEOPLE and ref.key.startswith(FORGOTTEN):
            return f"{ref.object}:{ref.key.removeprefix(FORGOTTEN)}"
        text = f"{self._connection_id}\0{ref.object}\0{ref.key}"
        return f"{ref.object}:{self._cipher.keyed_hash(text)}"

    def _ref(self, row: RecordLink) -> Ref:
        if row.key_encrypted is None:
            return Ref(ObjectName(row.object), f"{FORGOTTEN}{row.key_hash}")
        return Ref(ObjectName(row.object), unseal(self._cipher, RecordLink.key_encrypted, row))

    def _remember_key(self, row: RecordLink, ref: Ref) -> None:
        """Store the key of a person who is back after their address was deleted."""
        if row.key_encrypted is None and not ref.key.startswith(FORGOTTEN):
            row.key_encrypted = seal(self._cipher, RecordLink.key_encrypted, row, ref.key)

    def _fingerprints(self, row: RecordLink) -> dict[str, Fingerprints]:
        stored = json.loads(unseal(self._cipher, RecordLink.fingerprints_encrypted, row))
        return {
            name: (value,) if isinstance(value, str) else tuple(value)
            for name, value in stored.items()
        }

    def _keep_fingerprints(self, row: RecordLink, fingerprints: Mapping[str, Fingerprints]) -> None:
        if fingerprints != self._fingerprints(row):
            row.fingerprints_encrypted = self._sealed_fingerprints(row, fingerprints)

    def _sealed_fingerprints(self, row: Any, fingerprints: Mapping[str, Fingerprints]) -> str:
        """One fingerprint as it is, several as a list: hardly any field has several."""
        stored = {
            name: several[0] if len(several) == 1 else list(several)
            for name, several in fingerprints.items()
        }
        return seal(self._cipher, RecordLink.fingerprints_encrypted, row, json.dumps(stored))


def _told(versions: Mapping[str, datetime]) -> dict[str, str]:
    return {name: moment.isoformat() for name, moment in versions.items()}
