"""Two processes that read the same row on PostgreSQL at the same moment do not undo each other's work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.domain.errors import Unauthorized
from app.services import bookings, intake, processing
from app.services.bookings import sync_again
from app.services.connect import Connector
from app.store import delivery_marking, delivery_outcomes, leases
from app.store.connections import set_status
from app.store.engine import utcnow
from app.store.models import ConnectionRow, Notice
from app.store.states import ConnectionStatus
from sandbox.faults import Fault
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import Bridge, sample, wait_for
from tests.contract.test_adapters import BOOKING, only, person, view
from tests.integration.test_begun import dying
from tests.postgres import postgres_url
from workers import delivery_ends
from workers import lease as lease_module
from workers.lease import Lease


@pytest.fixture
def shared() -> Iterator[Bridge]:
    """The service on PostgreSQL with HubSpot connected."""
    with postgres_url() as url:
        made = Bridge(url, ("hubspot",), meetergo_api_key="k", meetergo_api_user_id="u")
        yield made.connect_all()
        made.close()


class Meanwhile:
    """An action of another process; it may wait for a row until this process is done."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self._do, self._thread = do, threading.Thread(target=self._run)
        self.told: Any = None

    def _run(self) -> None:
        self.told = self._do()

    def __call__(self) -> None:
        """Begin, once; give the action time to reach the row."""
        if not self._thread.ident:
            self._thread.start()
            self._thread.join(0.5)

    def end(self) -> Any:
        """Return the result of the action."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.told


def before(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, do: Callable[[], Any]) -> None:
    """Run `do` right before each call of a function."""
    real = getattr(place, name)

    def late(*args: Any, **more: Any) -> Any:
        do()
        return real(*args, **more)

    monkeypatch.setattr(place, name, late)


def test_a_webhook_while_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """meetergo's answers are merged with a webhook that arrives at the same moment."""
    meetergo = Served(MeetergoSandbox())
    bridge = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",), meetergo_api_key=API_KEY,
        meetergo_api_user_id="u1", meetergo_api_base=meetergo.url,
    ).connect_all()  # fmt: skip
    kind = type(bridge.services.mappings["hubspot"])
    monkeypatch.setattr(kind, "needs_answers", True)
    answers = [{**sample("booking_created")["attendees"][0], "notes": {"Budget": "10k"}}]
    meetergo.sandbox.book(sample("booking_created", attendees=answers))
    bridge.post(sample("booking_created"))
    bridge.drain()
    cancel = Meanwhile(lambda: bridge.post(sample("booking_cancelled")).status_code)
    before(monkeypatch, intake, "add_event", cancel)
    bridge.reread()
    assert cancel.end() == 202
    bridge.settle()
    (meeting,) = bridge.sandbox("hubspot").view().meetings
    assert meeting.cancelled
    assert "10k" in meeting.body
    bridge.close()
    meetergo.stop()


def test_a_webhook_while_somebody_presses_sync_again(
    shared: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older state does not replace a newer one, so that the drain comes to its end."""
    shared.sync(sample("booking_created"))
    move = Meanwhile(lambda: shared.post(sample("booking_rescheduled")).status_code)
    before(monkeypatch, bookings, "mark_due", move)
    sync_again(shared.services.store, BOOKING, "me")
    assert move.end() == 202
    shared.settle()
    assert view(shared).meetings[0].start == "2026-12-02T13:00:00Z"


def test_an_older_revision_is_never_wanted_again(crm: Bridge, provider: str) -> None:
    """A process that read the booking before a webhook does not reset the wanted revision."""
    crm.sync(sample("booking_created"))
    with crm.services.store.read() as session:
        connection = session.get_one(ConnectionRow, 1)
        old = session.get_one(bookings.BookingRow, 1)
    crm.post(sample("booking_rescheduled"))
    with crm.services.store.write() as session:
        delivery_marking.mark_due_for(session, [old], {1: connection.status}, utcnow())
    assert crm.delivery(provider).wanted_revision == old.revision + 1
    crm.settle()


def test_a_webhook_while_parked_work_is_taken_up(
    shared: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parked work that resumes gets a webhook's newest revision, although PostgreSQL read the row
    before it.
    """
    over = {"start": "2026-01-01T08:00:00Z", "end": "2026-01-01T08:30:00Z"}
    shared.sync(sample("booking_created", **over))

    def turn(status: ConnectionStatus) -> None:
        with shared.services.store.write() as session:
            set_status(session, session.get_one(ConnectionRow, 1), status, utcnow())

    turn(ConnectionStatus.EXPIRED)
    early = {"updatedAt": "2026-11-23T16:00:00Z", **over}
    shared.post(sample("booking_cancelled", **early))
    back, want = Meanwhile(lambda: turn(ConnectionStatus.ACTIVE)), processing.mark_due

    def held(*args: Any) -> list[int]:
        wake = want(*args)
        back()
        return wake

    monkeypatch.setattr(processing, "mark_due", held)
    shared.post(sample("booking_cancelled", **{**early, "updatedAt": "2026-11-23T17:00:00Z"}))
    back.end()
    shared.settle()
    assert shared.delivery("hubspot").synced_revision == 3


def test_a_webhook_while_a_booking_is_set_aside(
    shared: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook during a booking's failure makes the service try the newer state."""
    shared.post(sample("booking_created"))
    for _ in range(delivery_outcomes.MOST_KILLS):
        with dying(shared):
            shared.drain()
    move = Meanwhile(lambda: shared.post(sample("booking_rescheduled")).status_code)
    before(monkeypatch, delivery_outcomes, "_fail", move)
    shared.drain()
    assert move.end() == 202
    shared.settle()
    assert shared.delivery("hubspot").state == "synced"


def test_two_people_who_connect_one_account_get_one_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second of two people who connect one account gets the first one's connection."""
    with postgres_url() as url:
        crm = Bridge(url, ("hubspot",))
        first, both = crm.client, Meanwhile(lambda: other.connect("hubspot").status_code)
        other = Bridge.__new__(Bridge)
        other.client = crm.sign_in()
        crm.client = first
        place = Connector._place

        def slowly(*args: Any) -> Any:
            found = place(*args)
            both()
            return found

        monkeypatch.setattr(Connector, "_place", slowly)
        assert crm.connect("hubspot").status_code == both.end() == 303
        assert crm.connection("hubspot").id == 1
        crm.close()


@pytest.mark.parametrize("lasting", [False, True], ids=["renewed", "lasting"])
def test_who_disconnects_is_not_overruled_by_a_resume(
    crm: Bridge, provider: str, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Check and resume' does not reactivate a connection that another person disconnected meanwhile."""
    if lasting:
        crm.make_lasting(provider)
    with crm.services.store.write() as session:
        set_status(session, session.get_one(ConnectionRow, 1), ConnectionStatus.ERROR, utcnow())
    connector = crm.services.connector
    account = connector._account

    def late(number: int) -> Any:
        adapter = account(number)
        ask = adapter.whoami

        def whoami() -> Any:
            found = ask()
            connector.disconnect(number, "other")
            return found

        adapter.whoami = whoami
        return adapter

    monkeypatch.setattr(connector, "_account", late)
    with pytest.raises(Unauthorized, match="disconnected the account"):
        connector.resume(1, "me")
    assert crm.connection(provider).status == "disconnected"


def test_a_failure_while_the_notice_before_it_is_sent(
    shared: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that occurs while a notice is sent is named in that notice or in the next one."""
    made = Bridge(
        shared.settings.database_url, served=shared.served, notify_urls="json://127.0.0.1:9/x"
    )
    notifier, said = made.services.notifier, list[str]()
    (target,) = notifier.targets.values()
    monkeypatch.setattr(target, "notify", lambda body, **_: said.append(body) or True)
    made.drain(warm_only=True)
    refusal = '{"category":"VALIDATION_ERROR","message":"no"}'
    only(made).faults[:] = [Fault(status=400, body=refusal, times=10**9)]

    def fall_due() -> None:
        with made.services.store.write() as session:
            waiting = update(Notice).where(Notice.tries == 0)
            session.execute(waiting.values(next_try_at=utcnow()))

    def fail(name: str) -> None:
        made.post(sample("booking_created", id=name, attendees=[person(f"a@{name}.example")]))
        wait_for(lambda: made.drain() or made.deliveries()[-1].state == "failed")

    fail("one")
    fall_due()
    send, tell = Meanwhile(notifier.send_due), delivery_ends.tell_failures

    def meanwhile(*args: Any) -> None:
        tell(*args)
        send()

    monkeypatch.setattr(delivery_ends, "tell_failures", meanwhile)
    fail("two")
    send.end()
    fall_due()
    notifier.send_due()
    assert any("two" in body for body in said), said
    made.services.store.close()


def test_a_lease_that_was_given_back_stays_so(
    crm: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that runs as a drain ends does not take the connection for another 15 s."""
    monkeypatch.setattr(lease_module, "RENEW_EVERY", 0.01)
    renewing, given = threading.Event(), threading.Event()

    write = crm.services.store.write

    def wait_first() -> Any:
        if threading.current_thread().name.startswith("lease-"):
            renewing.set()
            given.wait(10)
        return write()

    with crm.services.store.write() as session:
        fence = leases.take_lease(session, 1, utcnow())
    assert fence is not None
    mine = Lease(crm.services.store, 1, fence, lease_module.ticks())
    monkeypatch.setattr(crm.services.store, "write", wait_first)
    with mine:
        assert renewing.wait(5)
    given.set()
    mine._thread.join(5)
    assert crm.connection(provider).drain_until is None
