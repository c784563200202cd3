"""Shows what a mapping, in use or proposed, would do in an account: reads, and writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from app.crm.port import Adapter
from app.crm.schema import CrmShape, Directory
from app.domain.booking import Booking
from app.domain.errors import CrmError, MappingError
from app.mapping.check import check_against
from app.mapping.load import MappingText
from app.mapping.mapping import Mapping
from app.mapping.patience import patience
from app.mapping.unfit_answers import unfit_answers
from app.security.encryption import Cipher
from app.services.mappings import MappingFiles
from app.services.preview import BookingPreview, Previewer
from app.services.questions import answers_seen, questions_seen, warn
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow
from app.store.states import WORKING
from config.providers import Providers

MOST_BOOKINGS = 20
"""Bookings in a trial, the newest ones: each may have to be looked up in the CRM."""
SPAN = timedelta(days=7)
"""How far back a trial goes."""
MAX_TEXT = 100_000
"""The most characters of a file to be tried."""


SECONDS = 2.0
"""How long one text may take to check: the same process answers webhooks."""
_ONE = threading.Lock()
"""Only one text is checked at a time: each uses the processor fully."""


@dataclass(frozen=True)
class AccountPreview:
    """What a sync would do in one account, or why that cannot be shown."""

    connection: int
    provider: str
    account: str
    mapping_version: str | None = None
    bookings: tuple[BookingPreview, ...] = ()
    problem: str | None = None
    advice: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """The result of trying the text of a mapping file."""

    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Names that occur in no stored booking: maybe a typing mistake, maybe just new."""
    version: str = ""
    account: AccountPreview | None = None


class MappingTrial:
    """Tries mapping files on accounts; nothing is stored."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        mappings: MappingFiles,
        providers: Providers,
        adapter: Callable[[int], Adapter],
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._mappings = mappings
        self._providers = providers
        self._adapter = adapter

    def preview_account(self, row: ConnectionRow, bookings: Sequence[Booking]) -> AccountPreview:
        """What the mapping in use would do with bookings in an account, or why that is unknown."""
        problem = self._unusable(row)
        if problem:
            return problem
        mapping = self._mappings[row.provider]
        return self._live(row, bookings, mapping, self._adapter(row.id), None)

    def preview_alone(
        self, provider: str, shape: CrmShape, bookings: Sequence[Booking]
    ) -> AccountPreview:
        """What the mapping in use would write for bookings, without asking any account."""
        mapping = self._mappings[provider]
        found = Previewer(self._store, self._cipher, utcnow).imagined(mapping, shape, bookings)
        return AccountPreview(0, provider, "no account asked", mapping.version, tuple(found))

    def doubts(self, provider: str, bookings: Sequence[Booking]) -> list[str]:
        """The names in the file in use that no stored booking, and none of these, has."""
        read = MappingText(f"{provider}.yaml", self._mappings[provider].text, provider)
        return warn(read, questions_seen(self._store, self._cipher), bookings)

    def check(self, row: ConnectionRow) -> Trial:
        """Check the file in use against an account; nothing is stored."""
        mapping = self._mappings[row.provider]
        read = MappingText(f"{row.provider}.yaml", mapping.text, row.provider)
        account = self._unusable(row)
        if account is None:
            try:
                self._compare(read, mapping, self._adapter(row.id))
            except CrmError as error:
                account = _silent(row, error)
        warnings = warn(read, questions_seen(self._store, self._cipher))
        return Trial(tuple(read.lines()), tuple(warnings), read.version, account)

    def try_text(self, provider: str, text: str, row: ConnectionRow | None) -> Trial:
        """Check a text, and show what it would do with last week's bookings; nothing is stored."""
        if len(text) > MAX_TEXT:
            return Trial((f"The text is longer than {MAX_TEXT:,} characters.",))
        if not _ONE.acquire(blocking=False):
            return Trial(
                ("Another text is being checked at the moment. Try again in a few seconds.",)
            )
        try:
            with patience(SECONDS):
                read = MappingText(f"{provider}.yaml", text, provider)
        except MappingError as error:
            return Trial((str(error),))
        finally:
            _ONE.release()
        account = None
        if row is not None and read.mapping is not None:
            mapping = self._mappings.settle(read.mapping)
            account = self._unusable(row) or self._try_live(read, mapping, row)
        warnings = warn(read, questions_seen(self._store, self._cipher))
        return Trial(tuple(read.lines()), tuple(warnings), read.version, account)

    def _try_live(
        self, read: MappingText, mapping: Mapping, row: ConnectionRow
    ) -> AccountPreview | None:
        """Check the file against the account first; a file that it would refuse gives no plan."""
        adapter = self._adapter(row.id)
        try:
            directory = self._compare(read, mapping, adapter)
        except CrmError as error:
            return _silent(row, error)
        if read.mistakes:
            return None
        previewer = Previewer(self._store, self._cipher, utcnow)
        bookings = previewer.since(utcnow() - SPAN, MOST_BOOKINGS)
        return self._live(row, bookings, mapping, adapter, directory)

    def _compare(self, read: MappingText, mapping: Mapping, adapter: Adapter) -> Directory:
        """Note in a file what its account refuses, and the answers so far that do not fit.

        Return what was read of the account. Raises the CRM's errors.
        """
        directory = adapter.directory()
        for complaint in check_against(mapping, adapter.shape, directory):
            if not read.left_out(complaint.location):
                read.note(complaint.location, complaint.message)
        for doubt in unfit_answers(mapping, directory, answers_seen(self._store, self._cipher)):
            read.warn(doubt.location, doubt.message)
        return directory

    def _live(
        self,
        row: ConnectionRow,
        bookings: Sequence[Booking],
        mapping: Mapping,
        adapter: Adapter,
        directory: Directory | None,
    ) -> AccountPreview:
        previewer = Previewer(self._store, self._cipher, utcnow)
        try:
            found = previewer.live(row.id, adapter, mapping, bookings, directory=directory)
        except CrmError as error:
            return _silent(row, error)
        return AccountPreview(row.id, row.provider, row.account, mapping.version, tuple(found))

    def _unusable(self, row: ConnectionRow) -> AccountPreview | None:
        words, advice = None, None
        if row.provider not in self._providers:
            words = f"providers.yaml no longer names {row.provider}."
        elif row.status not in WORKING:
            words = f"The connection is {row.status}. {row.last_error or ''}".strip()
            advice = row.next_step
        if words is None:
            return None
        return AccountPreview(row.id, row.provider, row.account, problem=words, advice=advice)


def _silent(row: ConnectionRow, error: CrmError) -> AccountPreview:
    about = (row.id, row.provider, row.account)
    return AccountPreview(*about, problem=error.message, advice=error.advice)
