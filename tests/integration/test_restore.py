"""A backup is taken while bookings come and are worked off; the service goes on with its copy."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services.replay import ReplaySelection, replay
from tests.bridge import PROVIDERS, Bridge
from tests.integration.test_catch_up import booking
from tests.postgres import postgres_url

BOOKINGS = 36
LATER = "2026-11-23T00:00:00+00:00"
RESTORED = datetime(2026, 11, 24, tzinfo=UTC)
"""After the time at which each booking of these tests was made."""


def created(number: int) -> dict[str, Any]:
    """Return a booking of a person of a company of their own."""
    someone = {"email": f"p{number}@firm{number}.example", "firstname": "P", "lastname": "T"}
    return booking(number, attendees=[someone])


def moved(number: int) -> dict[str, Any]:
    """Return the same booking, moved to another day."""
    start = datetime(2027, 1, 4, 8, tzinfo=UTC) + timedelta(hours=number)
    return {
        **created(number), "updatedAt": LATER, "rescheduledAt": LATER,
        "start": start.isoformat(), "end": (start + timedelta(minutes=30)).isoformat(),
    }  # fmt: skip


ALL = [created(number) for number in range(BOOKINGS)]
MOVED = [moved(number) for number in range(0, BOOKINGS, 3)]


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URLs of a database and of a new one for its backup."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/first.sqlite3", f"sqlite:///{tmp_path}/second.sqlite3"
        return
    if not shutil.which("pg_dump") or not shutil.which("pg_restore"):
        pytest.skip("pg_dump and pg_restore are not installed here")
    with postgres_url() as first, postgres_url() as second:
        yield first, second


def back_up(database: str, to: Path) -> None:
    """Back up a database in use, with the command of docs/deploy.md."""
    if database.startswith("sqlite"):
        connection = sqlite3.connect(database.partition(":///")[2])
        connection.execute("VACUUM INTO ?", (str(to),))
        connection.close()
        return
    command = ["pg_dump", "--format=custom", f"--file={to}", database]
    subprocess.run(command, check=True, capture_output=True)


def restore(backup: Path, database: str) -> None:
    """Restore a backup into a new database, with the command of docs/deploy.md."""
    if database.startswith("sqlite"):
        shutil.copy(backup, database.partition(":///")[2])
        return
    command = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={database}", backup]
    subprocess.run(command, check=True, capture_output=True)


class Load:
    """Posts webhooks and works them off in two threads, and takes the backup in the middle.

    It is taken between the second CRM's answer and the ledger, while more webhooks are stored: the
    first CRM has its records, the second has records that the backup lacks, the third has none.
    """

    def __init__(self, service: Bridge, back_up_now: Callable[[], None]) -> None:
        self._service, self._back_up = service, back_up_now
        self._enough, self._begun, self._done, self._posted = (threading.Event() for _ in range(4))
        self._errors: list[BaseException] = []
        self._batches = itertools.count(1)

    def run(self) -> None:
        """Run until everything is posted; raise the error of a thread."""
        self._service.workers_sleep = True
        self._service.drainer._before_save = self._between
        threads = [
            threading.Thread(target=self._noting_errors, args=(target,))
            for target in (self._post, self._work)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self._service.drainer._before_save = lambda: None
        assert not self._errors, self._errors

    def _noting_errors(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            self._errors.append(error)

    def _post(self) -> None:
        third = BOOKINGS // 3
        self._post_each(ALL[:third])
        self._enough.set()
        self._post_each(ALL[third : 2 * third])
        assert self._begun.wait(60)
        self._post_each(MOVED[:3])
        assert self._done.wait(60)
        self._post_each([*ALL[2 * third :], *MOVED])
        self._posted.set()

    def _post_each(self, payloads: list[dict[str, Any]]) -> None:
        for payload in payloads:
            assert self._service.post(payload).status_code == 202

    def _work(self) -> None:
        assert self._enough.wait(60)
        while not self._posted.is_set() and not self._errors:
            self._service.drain()

    def _between(self) -> None:
        if next(self._batches) == 2:
            self._begun.set()
            self._back_up()
            self._done.set()


def seen(service: Bridge) -> dict[str, Any]:
    """Return what the CRMs hold."""
    return {name: service.sandbox(name).view() for name in service.served}


def number_of(service: Bridge) -> dict[str, dict[str, int]]:
    """Return the number of records of each kind in each CRM."""
    return {
        name: {kind: len(records) for kind, records in vars(view).items()}
        for name, view in seen(service).items()
    }


def replay_all(service: Bridge) -> None:
    """Process each stored event again, as `events replay --all` does, and work until all is done."""
    replay(service.services.store, service.services.intake, ReplaySelection(), lambda due: None)
    service.settle(120)


@pytest.mark.long
def test_a_restored_backup_writes_nothing_twice(databases: tuple[str, str], tmp_path: Path) -> None:
    """After a restore and a replay the CRMs hold each record once; once meetergo has sent all again,
    they are as they were without the restore."""
    first, second = databases
    backup = tmp_path / "backup"
    service = Bridge(first).connect_all()
    try:
        Load(service, lambda: back_up(first, backup)).run()
        service.settle(120)
        whole, numbers = seen(service), number_of(service)
        service.services.store.close()
        restore(backup, second)
        again = Bridge(second, served=service.served, restored_at=RESTORED)
        lost = BOOKINGS - len({d.booking_id for d in again.deliveries()})
        assert 0 < lost < BOOKINGS
        assert any(d.state not in ("synced", "skipped") for d in again.deliveries())
        replay_all(again)
        assert number_of(again) == numbers
        again.sync(*ALL, *MOVED)
        assert seen(again) == whole
        writes = {name: again.sandbox(name).writes() for name in again.served}
        replay_all(again)
        assert {name: again.sandbox(name).writes() for name in again.served} == writes
        again.services.store.close()
    finally:
        service.close()


def test_without_the_time_of_the_restore_a_booking_is_made_again(tmp_path: Path) -> None:
    """A booking that the backup lacks is doubled unless RESTORED_AT says when it was restored; a
    booking made after that time costs no more calls than usual."""
    backup, url = tmp_path / "backup", f"sqlite:///{tmp_path}/first.sqlite3"
    service = Bridge(url).connect_all()
    try:
        back_up(url, backup)
        service.sync(created(1))
        service.services.store.close()
        once = number_of(service)
        for restored_at, doubled in ((RESTORED, False), (None, True)):
            copy = f"sqlite:///{tmp_path}/{doubled}.sqlite3"
            restore(backup, copy)
            again = Bridge(copy, served=service.served, restored_at=restored_at)
            again.sync(created(1))
            assert (number_of(again) != once) is doubled
            again.services.store.close()
        usual: list[int] = []
        for restored_at in (None, datetime(2026, 11, 1, tzinfo=UTC)):
            copy = f"sqlite:///{tmp_path}/{restored_at is None}-calls.sqlite3"
            restore(backup, copy)
            again = Bridge(copy, served=service.served, restored_at=restored_at)
            before = sum(again.sandbox(name).total_calls for name in PROVIDERS)
            again.sync(created(2 + len(usual)))
            usual.append(sum(again.sandbox(name).total_calls for name in PROVIDERS) - before)
            again.services.store.close()
        assert usual[0] == usual[1]
    finally:
        service.close()
