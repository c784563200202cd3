"""Time through the whole service: data that expires between two drains, and notices about waiting
work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app.services.watch import waiting
from app.store import deliveries, leases
from app.store.connections import NoticeKind, set_status
from app.store.engine import utcnow
from app.store.models import ConnectionRow, Notice
from app.store.states import ConnectionStatus
from config.settings import CONFIG_DIR
from sandbox.serve import Served
from tests.bridge import Bridge, sample, wait_for
from tests.month import Clock, Hands, own_time
from workers import accounts, jobs, lease
from workers.batch import Batch
from workers.drain import TELL_AFTER
from workers.lookout import Lookout

HIDDEN = "jane.van.der.berg@example.com"
"""A person's data in an exception's text, which must not appear anywhere."""


def notices(bridge: Bridge, kind: NoticeKind) -> list[Notice]:
    """Return the notices of a kind."""
    with bridge.services.store.read() as session:
        return list(session.scalars(select(Notice).where(Notice.kind == kind)))


def look(bridge: Bridge, drain: Callable[[int], None]) -> None:
    """Search the database for due work, as a worker does; `drain` handles each connection found."""
    jobs.look(bridge.services, Hands(drain))  # type: ignore[arg-type]


# Two drains with a lease's end between them


def grow_old(bridge: Bridge, provider: str, clock: Clock) -> None:
    clock.forward(accounts.DIRECTORY_TTL + 1)


def change_mapping(bridge: Bridge, provider: str, clock: Clock) -> None:
    path = bridge.settings.mappings_dir / f"{provider}.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# another word\n", encoding="utf-8")


def change_status(bridge: Bridge, provider: str, clock: Clock) -> None:
    with bridge.services.store.write() as session:
        row = session.get_one(ConnectionRow, 1)
        for status in (ConnectionStatus.EXPIRED, ConnectionStatus.ACTIVE):
            set_status(session, row, status, utcnow())


def change_address(bridge: Bridge, provider: str, clock: Clock) -> None:
    """Move the account to a second address; both addresses work."""
    other = Served(bridge.sandbox(provider))
    bridge.served["other"] = other
    before = bridge.connection(provider).api_base
    old = next(s.url for name, s in bridge.served.items() if name == provider)
    with bridge.services.store.write() as session:
        session.execute(update(ConnectionRow).values(api_base=before.replace(old, other.url)))


CHANGES = {"account": grow_old, "mapping": change_mapping, "status": change_status,
           "address": change_address}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_two_drains_further_apart_than_a_lease(
    change: str, provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that has to read the account again does so under its own lease."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    for source in (CONFIG_DIR / "mappings").glob("*.yaml"):
        (folder / source.name).write_bytes(source.read_bytes())
    with time_machine.travel(utcnow(), tick=False) as traveller:
        clock = Clock(traveller)
        clock.forward(0)
        own_time(monkeypatch, clock)
        url = f"sqlite:///{tmp_path}/a.sqlite3"
        bridge = Bridge(url, (provider,), mappings_dir=folder).connect_all()
        bridge.post(sample("booking_created"))
        bridge.drain()
        clock.forward(leases.LEASE.total_seconds() + 5)
        CHANGES[change](bridge, provider, clock)
        bridge.post(sample("booking_rescheduled"))
        bridge.drain()
        assert {row.state for row in bridge.deliveries()} == {"synced"}
        assert bridge.connection(provider).stalls == 0
        bridge.close()


# Clocks that are reset


@pytest.mark.parametrize("hours", [1, 24])
def test_a_lease_that_ends_in_an_hour_is_void(database_url: str, hours: int) -> None:
    """A lease left by a dead worker is void if it ends in an hour because the clock was set back."""
    bridge = Bridge(database_url, ("hubspot",)).connect_all()
    bridge.post(sample("booking_created"))
    with bridge.services.store.write() as session:
        session.execute(update(ConnectionRow).values(drain_until=utcnow() + timedelta(hours=hours)))
    bridge.drain()
    assert bridge.delivery("hubspot").state == "synced"
    bridge.close()


def test_a_refresh_lease_from_the_future_is_void(tmp_path: Path) -> None:
    """A refresh lease is void if it lies an hour ahead because the clock was set back. One some
    minutes ahead is respected, because two refreshes may end a grant.
    """
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("salesforce",)).connect_all()
    tokens, sandbox = bridge.services.tokens, bridge.sandbox("salesforce")
    before = sandbox.calls_to_token
    ends = utcnow() + timedelta(minutes=5)
    with bridge.services.store.write() as session:
        session.execute(update(ConnectionRow).values(refresh_until=ends))
    assert tokens._take_lease(1, lambda held: True) is None
    with bridge.services.store.write() as session:
        session.execute(update(ConnectionRow).values(refresh_until=ends + timedelta(hours=1)))
    sandbox.expire_access_tokens()
    bridge.sync(sample("booking_created"))
    assert sandbox.calls_to_token == before + 1
    assert bridge.delivery("salesforce").state == "synced"
    bridge.close()


def test_a_pause_of_the_token_endpoint_from_the_future_is_void(tmp_path: Path) -> None:
    """A pause of the token endpoint is void if it lies an hour ahead because the clock was set back."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    later = utcnow() + timedelta(hours=1)
    bridge.sandbox("hubspot").expire_access_tokens()
    with bridge.services.store.write() as session:
        session.execute(
            update(ConnectionRow).values(
                refresh_failures=1, refresh_failing_since=later, expires_at=utcnow(),
                refresh_retry_at=later + timedelta(seconds=5),
            )
        )  # fmt: skip
    assert bridge.services.tokens.due() == [1]
    bridge.sync(sample("booking_created"))
    assert bridge.delivery("hubspot").state == "synced"
    bridge.close()


# Notices about waiting work


def test_overdue_work_is_told_once_everywhere(tmp_path: Path) -> None:
    """Work due for five minutes on a working connection gives one notice, and shows in the metric,
    on the page and in doctor; one notice says when it has caught up.
    """
    with time_machine.travel(utcnow(), tick=True) as traveller:
        bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
        bridge.post(sample("booking_created"))

        def nobody(connection_id: int) -> None:
            """Ignore the connection: no worker takes it."""

        look(bridge, nobody)
        traveller.shift(timedelta(minutes=4))
        look(bridge, nobody)
        assert notices(bridge, NoticeKind.OVERDUE) == []
        traveller.shift(timedelta(minutes=1, seconds=5))
        for _ in range(3):
            look(bridge, nobody)
        (told,) = notices(bridge, NoticeKind.OVERDUE)
        assert "1 bookings are due" in told.reason and "No worker" in told.reason
        metrics = bridge.client.get("/metrics").get_data(as_text=True)
        (line,) = [m for m in metrics.splitlines() if m.startswith("bridge_oldest_due_seconds{")]
        assert 300 < float(line.split()[-1]) < 400
        page = bridge.client.get("/connections/1").get_data(as_text=True)
        assert (
            "1 bookings wait, the oldest since" in page and "No worker has started on them" in page
        )
        doctor = bridge.app.test_cli_runner().invoke(
            args=["doctor", "--connection", "1"], env={"COLUMNS": "250"}
        )
        assert doctor.exit_code == 1 and "waiting too long" in doctor.output
        look(bridge, bridge.drainer.drain)
        look(bridge, bridge.drainer.drain)
        assert bridge.delivery("hubspot").state == "synced"
        assert len(notices(bridge, NoticeKind.CAUGHT_UP)) == 1
        assert len(notices(bridge, NoticeKind.OVERDUE)) == 1
        metrics = bridge.client.get("/metrics").get_data(as_text=True)
        assert 'bridge_oldest_due_seconds{connection="1",provider="hubspot"} 0.0' in metrics
        bridge.close()


def test_a_drain_that_breaks_three_times_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of this service before a booking is in hand is reported at the third time, with its
    place and without its text; after the repair all bookings are synced.
    """
    with time_machine.travel(utcnow(), tick=True) as traveller:
        bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
        bridge.post(sample("booking_created"))
        with monkeypatch.context() as patch:

            def breaks(*args: object) -> Any:
                raise RuntimeError(HIDDEN)

            patch.setattr(deliveries, "due", breaks)
            for number in range(1, 6):
                bridge.drain()
                assert bridge.connection("hubspot").stalls == number
                assert len(notices(bridge, NoticeKind.STALLED)) == (number >= TELL_AFTER)
                traveller.shift(timedelta(minutes=1))
        (told,) = notices(bridge, NoticeKind.STALLED)
        row = bridge.connection("hubspot")
        for words in (told.reason, row.last_error):
            assert words and "RuntimeError at " in words and HIDDEN not in words
        assert bridge.delivery("hubspot").state == "due"
        bridge.settle()
        row = bridge.connection("hubspot")
        assert (bridge.delivery("hubspot").state, row.stalls, row.last_error) == ("synced", 0, None)
        bridge.close()


def test_a_lone_booking_with_a_fault_fails_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of five bookings triggers a fault of this service, it fails in words and the others
    are synced.
    """
    bad, write = "default:b2", Batch.apply

    def breaks(batch: Batch) -> None:
        if bad in [booking.key for _, booking in batch.state.rows]:
            raise KeyError(HIDDEN)
        write(batch)

    monkeypatch.setattr(Batch, "apply", breaks)
    with time_machine.travel(utcnow(), tick=True) as traveller:
        bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
        for number in range(5):
            person = {"email": f"p{number}@gmail.com", "lastname": f"P{number}"}
            bridge.post(sample("booking_created", id=f"b{number}", attendees=[person]))
        for _ in range(12):
            bridge.drain()
            traveller.shift(timedelta(minutes=1))
        states = [row.state for row in bridge.deliveries()]
        assert states == ["synced", "synced", "failed", "synced", "synced"]
        words = bridge.deliveries()[2].error_message or ""
        assert "This service has a bug: KeyError at " in words and HIDDEN not in words
        assert len(bridge.sandbox("hubspot").view().deals) == 4
        assert len(notices(bridge, NoticeKind.FAILED)) == 1
        bridge.close()


def test_what_waits_for_a_crm_that_is_out_says_so(tmp_path: Path) -> None:
    """A booking that waits between two outage pauses shows the CRM's answer as the reason."""
    with time_machine.travel(utcnow(), tick=True) as traveller:
        bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
        bridge.sandbox("hubspot").account.every_call_answers(503, "maintenance")
        bridge.post(sample("booking_created"))
        for _ in range(7):
            bridge.drain()
            traveller.shift(timedelta(minutes=1))
        with bridge.services.store.read() as session:
            (late,) = waiting(session, utcnow()).values()
        assert late.overdue(utcnow())
        assert late.reason.startswith("The service keeps trying: ") and "503" in late.reason
        bridge.close()


# Threads that must keep running


@pytest.mark.parametrize("error", [ValueError("odd"), OperationalError("", {}, Exception("away"))])
def test_a_lease_is_kept_whatever_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The thread that renews a lease survives any exception, and so does the lease."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    renew, tries = leases.hold_lease, 0

    def sometimes(*args: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise error
        return renew(*args)

    monkeypatch.setattr(lease, "RENEW_EVERY", 0.01)
    monkeypatch.setattr(lease, "hold_lease", sometimes)
    taken = bridge.drainer._take(1)
    assert taken is not None
    with taken[0]:
        before = taken[0]._held_until
        wait_for(lambda: taken[0]._held_until > before and tries > 4)
        taken[0].check()
    bridge.close()


def test_the_lookout_goes_on_whatever_is_raised(tmp_path: Path) -> None:
    """The thread that searches for due work survives any exception."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    bridge.services.settings.__dict__["sweep_interval"] = 0.01
    errors = [ValueError("odd"), OperationalError("", {}, Exception("away")), RecursionError()]
    synced = threading.Event()

    def sometimes(services: Any, pool: Any) -> None:
        if errors:
            raise errors.pop()
        look(bridge, bridge.drainer.drain)
        synced.set()

    bridge.post(sample("booking_created"))
    lookout = Lookout(bridge.services, None, sometimes)  # type: ignore[arg-type]
    lookout.start()
    assert synced.wait(30)
    lookout.stop()
    lookout._thread.join(30)
    assert bridge.delivery("hubspot").state == "synced"
    bridge.close()
