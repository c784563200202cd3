"""The texts of the mapping files that were in force: kept, listed, compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.domain.text import quoted
from app.mapping.mapping import Mapping
from app.security.encryption import Cipher
from app.store.boxes import seal, unseal
from app.store.engine import Store, utcnow
from app.store.mapping_models import MappingVersionRow
from app.store.upsert import insert_unless_there

log = structlog.get_logger(__name__)
MOST_KEPT = 50
"""The most versions of a CRM's file that are kept, those that were used last."""
MOST_CHARACTERS = 2_000_000
"""The most characters of all kept versions of a CRM's file; the newest is kept in any case."""
FILE = "file"
"""The name of the file as it is now, among the versions."""
LEAST_PREFIX = 4
"""The fewest characters by which a version may be named."""


@dataclass(frozen=True)
class KeptVersion:
    """A version of a mapping file that was in force."""

    version: str
    size: int
    first_at: datetime
    first_by: str
    last_at: datetime


class UnknownVersion(ValueError):
    """There is no such version, or several; the message says so to people."""


@dataclass(frozen=True)
class VersionText:
    """A version with its text."""

    version: str
    text: str


class MappingVersions:
    """Workers note here which mapping they use; pages and commands read it."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    def note(self, mapping: Mapping, by: str) -> None:
        """Keep the text of a mapping that a worker begins to use; `by` names the worker."""
        now = utcnow()
        key = {"provider": mapping.crm, "version": mapping.version}
        this = (MappingVersionRow.provider == mapping.crm) & (
            MappingVersionRow.version == mapping.version
        )
        row = {
            **key,
            "text_encrypted": seal(
                self._cipher, MappingVersionRow.text_encrypted, key, mapping.text
            ),
            "size": len(mapping.text), "first_at": now, "first_by": by[:100], "last_at": now,
        }  # fmt: skip
        with self._store.write() as session:
            insert = insert_unless_there(session, MappingVersionRow, ["provider", "version"])
            session.execute(insert, row)
            session.execute(update(MappingVersionRow).where(this).values(last_at=now))
            _forget_old(session, mapping.crm, mapping.version)

    def listed(self, provider: str) -> list[KeptVersion]:
        """The kept versions of a CRM's file, the one that was used last first."""
        query = (
            select(MappingVersionRow)
            .where(MappingVersionRow.provider == provider)
            .order_by(MappingVersionRow.last_at.desc(), MappingVersionRow.version)
        )
        with self._store.read() as session:
            return [
                KeptVersion(row.version, row.size, row.first_at, row.first_by, row.last_at)
                for row in session.scalars(query)
            ]

    def text(self, provider: str, version: str) -> str | None:
        """The text of a kept version; None if there is none. Raises UnreadableSecret."""
        with self._store.read() as session:
            row = session.get(MappingVersionRow, (provider, version))
            return unseal(self._cipher, MappingVersionRow.text_encrypted, row) if row else None

    def kept(self, wanted: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of some (CRM, version) whose text is kept."""
        versions = {version for _, version in wanted}
        query = select(MappingVersionRow.provider, MappingVersionRow.version)
        with self._store.read() as session:
            found = session.execute(query.where(MappingVersionRow.version.in_(versions)))
            return {(provider, version) for provider, version in found} & set(wanted)

    def read(self, name: str, current: Mapping) -> VersionText:
        """The version that begins so, or `file` for the file as it is now.

        `current`: the mapping of that file. Raises UnknownVersion, UnreadableSecret.
        """
        if name == FILE or (len(name) >= LEAST_PREFIX and current.version.startswith(name)):
            return VersionText(current.version, current.text)
        there = [kept.version for kept in self.listed(current.crm)]
        found = [version for version in there if version.startswith(name)]
        if len(found) > 1:
            raise UnknownVersion(f"Several versions begin with {name}: {', '.join(found)}.")
        text = self.text(current.crm, found[0]) if found and len(name) >= LEAST_PREFIX else None
        if text is None:
            words = f"No version {quoted(name)} of {current.crm}'s file is kept"
            raise UnknownVersion(f"{words}; there are: {', '.join([FILE, *there])}.")
        return VersionText(found[0], text)


def _forget_old(session: Session, provider: str, newest: str) -> None:
    """Delete the versions that are more, or longer, than what is kept."""
    query = (
        select(MappingVersionRow.version, MappingVersionRow.size)
        .where(MappingVersionRow.provider == provider)
        .order_by(MappingVersionRow.last_at.desc(), MappingVersionRow.version)
    )
    old, characters = [], 0
    for number, (version, size) in enumerate(session.execute(query).all()):
        characters += size
        if version != newest and (number >= MOST_KEPT or characters > MOST_CHARACTERS):
            old.append(version)
    if old:
        mine = MappingVersionRow.provider == provider
        session.execute(delete(MappingVersionRow).where(mine, MappingVersionRow.version.in_(old)))
        log.info("mapping_versions_forgotten", provider=provider, number=len(old))
