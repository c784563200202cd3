"""The service probes a CRM that is down at a low rate; waiting bookings use no attempt, and other
CRMs go on.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app.domain.errors import InvalidRecord, RetryLater
from app.store import deliveries, delivery_outcomes
from app.store.deliveries import FEW, OPEN_AFTER
from app.store.delivery_outcomes import LEAST_ATTEMPTS, LEAST_TIME, RETRY_CEILINGS
from app.store.engine import utcnow
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import DeliveryState
from sandbox.faults import Fault
from tests.bridge import ADAPTERS, PROVIDERS, Bridge, sample
from tests.contract.desk import desk_in
from tests.contract.test_adapters import REFUSED, only, person
from tests.thorough import some
from workers.drain import Drainer
from workers.lease import LeaseLost


class Clock:
    """The current time plus the time that a test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utcnow() + self.ahead

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def clock(crm: Bridge) -> Clock:
    """The clock of `crm`'s drainer."""
    made = Clock()
    crm.drainer = Drainer(crm.services, now=made)
    return made


def down(crm: Bridge) -> Any:
    """Make the CRM answer 503 to all calls."""
    sandbox = only(crm)
    sandbox.faults[:] = [Fault(status=503, body="maintenance", times=10**9)]
    return sandbox


def test_an_account_that_cannot_be_read_is_left_alone_and_said_so(
    crm: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the account's settings cannot be read, the booking waits without an attempt, and the page
    says why.
    """

    def refuse(adapter: object, needed: object = None) -> None:
        raise InvalidRecord("this version of the API has ended")

    whole = ADAPTERS[provider].directory
    monkeypatch.setattr(ADAPTERS[provider], "directory", refuse)
    crm.drainer = Drainer(crm.services)
    crm.post(sample("booking_created"))
    crm.drain()
    connection = crm.connection(provider)
    assert connection.pause_until is not None and connection.status == "active"
    assert "has ended" in (connection.last_error or "")
    assert [(row.state, row.attempts) for row in crm.deliveries()] == [("due", 0)]
    monkeypatch.setattr(ADAPTERS[provider], "directory", whole)
    crm.settle()
    assert crm.delivery(provider).state == "synced"


def test_a_database_that_is_away_fails_no_booking(crm: Bridge, provider: str) -> None:
    """A database that fails at the save three times in a row does not count as a worker's death."""
    left = 3

    def away() -> None:
        nonlocal left
        if left:
            left -= 1
            raise OperationalError("COMMIT", {}, Exception("database is locked"))

    crm.drainer = Drainer(crm.services, before_save=away)
    crm.post(sample("booking_created"))
    for _ in range(3):
        with pytest.raises(OperationalError):
            crm.drain()
        assert (crm.delivery(provider).claimed_by, crm.delivery(provider).worker_crashes) == (
            None,
            0,
        )
    crm.settle()
    assert crm.delivery(provider).state == "synced"
    seen = only(crm).view()
    assert (len(seen.contacts), len(seen.deals), len(seen.meetings)) == (1, 1, 1)


def test_a_worker_that_ends_while_the_crm_hangs_blames_no_booking(
    crm: Bridge, provider: str
) -> None:
    """A worker that ends while the CRM hangs leaves its bookings unchanged and blames none."""
    crm.post(sample("booking_created"))

    def end() -> None:
        crm.drainer.abandon()
        raise LeaseLost

    for _ in range(3):
        crm.drainer._before_save = end
        crm.drain()
        assert (crm.delivery(provider).claimed_by, crm.delivery(provider).worker_crashes) == (
            None,
            0,
        )
    crm.drainer._before_save = lambda: None
    crm.settle()
    assert crm.delivery(provider).state == "synced"


@pytest.mark.parametrize("minutes", [-5, 5], ids=["behind", "ahead"])
def test_clocks_of_web_and_worker_may_differ(crm: Bridge, clock: Clock, minutes: int) -> None:
    """A booking that a web process marks as due is due for a worker whose clock differs by minutes."""
    clock.forward(60 * minutes)
    crm.post(sample("booking_created"))
    crm.drain()
    assert {delivery.state for delivery in crm.deliveries()} == {"synced"}


def struck(sandbox: Any) -> int:
    """Return how many calls got the outage's answer."""
    return 10**9 - sandbox.faults[0].times


@pytest.mark.long
def test_a_dead_crm_sees_two_probes_a_minute(crm: Bridge, clock: Clock) -> None:
    """An outage costs a few calls at first, then at most two calls per minute, and no attempt."""
    sandbox = down(crm)
    for number in range(5):
        crm.post(sample("booking_created", id=f"b{number}"))
    per_minute = []
    for _ in some(range(60), 4):
        before = struck(sandbox)
        for _ in range(60):
            crm.drain()
            clock.forward(1)
        per_minute.append(struck(sandbox) - before)
    assert per_minute[0] <= OPEN_AFTER + 2
    assert set(per_minute[1:]) <= {1, 2}
    assert {(d.state, d.attempts) for d in crm.deliveries()} == {("due", 0)}
    connection = crm.connection(next(iter(crm.served)))
    assert connection.outages >= OPEN_AFTER and "503" in (connection.last_error or "")
    sandbox.faults.clear()
    clock.forward(60)
    crm.drain()
    assert {d.state for d in crm.deliveries()} == {"synced"}
    connection = crm.connection(next(iter(crm.served)))
    assert (connection.outages, connection.last_error) == (0, None)


def test_the_other_crms_do_not_feel_it(tmp_path: Path) -> None:
    """While one CRM is down, the others sync every booking at once."""
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3").connect_all()
    crm.sandbox(PROVIDERS[0]).faults.append(Fault(status=500, times=10**9))
    for number in range(5):
        crm.post(sample("booking_created", id=f"b{number}"))
    crm.drain()
    states = {name: set() for name in PROVIDERS}
    with crm.services.store.read() as session:
        for row in crm.deliveries():
            provider = session.get_one(ConnectionRow, row.connection_id).provider
            states[provider].add(row.state)
    assert states == {name: {"due" if name == PROVIDERS[0] else "synced"} for name in PROVIDERS}
    crm.close()


def test_a_retry_after_is_kept_exactly(crm: Bridge, clock: Clock) -> None:
    """A CRM that asks for a pause of 100 seconds gets no call for 100 seconds, and one right after."""
    only(crm).faults.append(Fault(status=503, headers={"Retry-After": "100"}))
    crm.post(sample("booking_created"))
    crm.drain()
    calls = only(crm).total_calls
    clock.forward(99)
    crm.drain()
    assert only(crm).total_calls == calls
    clock.forward(2)
    crm.drain()
    assert {d.state for d in crm.deliveries()} == {"synced"}


def test_a_booking_that_the_crm_breaks_on_holds_nobody_up(crm: Bridge, clock: Clock) -> None:
    """If the CRM answers 500 to one booking each time, the others are synced and only that one uses
    attempts.
    """
    sandbox = only(crm)
    evil = "evil@corp.example"
    for number in range(FEW + 5):
        email = evil if number == 3 else f"p{number}@gmail.com"
        crm.post(sample("booking_created", id=f"b{number}", attendees=[person(email)]))
    break_on(sandbox, evil)
    for _ in range(200):
        crm.drain()
        clock.forward(20)
        states = [d.state for d in crm.deliveries()]
        if states.count("synced") == FEW + 4:
            break
    assert states.count("synced") == FEW + 4
    for _ in range(40):
        crm.drain()
        clock.forward(3600)
    (left,) = [d for d in crm.deliveries() if d.state != "synced"]
    assert left.attempts > 3 and left.error_code == "unavailable"


def break_on(sandbox: Any, word: str) -> None:
    """Answer 500 to every call that contains this word."""
    from flask import Response, request

    def fail() -> Response | None:
        carried = request.get_data(as_text=True) + request.full_path
        hit = word in carried or word.replace("@", "%40") in carried
        return Response("internal error", 500) if hit else None

    sandbox.app.before_request_funcs[None].insert(0, fail)


def test_a_refusal_names_the_field_and_is_told_once(crm: Bridge, provider: str) -> None:
    """A refusal fails the booking with the CRM's words, the field and one notice; a newer event
    repairs it.
    """
    crm.sync(sample("booking_created", attendees=[REFUSED]))
    failed = crm.delivery(provider)
    assert failed.state == "failed" and failed.error_message
    assert any("mail" in field.lower() for field in failed.error_fields)
    key = "default:" + sample("booking_created")["id"]
    for address in (f"/bookings/{key}", f"/api/v1/bookings/{key}"):
        shown = crm.client.get(address, headers={"Authorization": f"Bearer {crm.key}"})
        assert all(field in shown.get_data(as_text=True) for field in failed.error_fields)
    (told,) = shown.get_json()["deliveries"]
    assert told["error_fields"] == failed.error_fields
    notices = []
    target = next(iter(crm.services.notifier.targets), None)
    assert target is None  # the test has no notification target: it reads the notice itself
    with crm.services.store.read() as session:
        from sqlalchemy import select

        from app.store.models import Notice

        notices = [n for n in session.scalars(select(Notice)) if n.kind == "failed"]
    assert len(notices) == 1
    title, body, _ = crm.services.notifier._compose(
        notices[0], crm.services.notifier._failed(notices[0])
    )
    assert "did not accept some bookings" in title
    assert failed.error_message in body and "y" * 20 not in body
    crm.sync(sample("booking_rescheduled"))
    assert crm.delivery(provider).state == "synced"
    assert crm.delivery(provider).error_fields == {}


def test_what_failed_is_listed_and_tried_again_in_bulk(crm: Bridge) -> None:
    """`deliveries list` shows failed bookings, and `deliveries retry --all` tries them again."""
    only(crm).forbidden_names.add("Forbidden")
    for number in range(3):
        who = person("jane@globex.example", lastname="Forbidden")
        crm.post(sample("booking_created", id=f"b{number}", attendees=[who]))
    crm.settle()
    runner = crm.app.test_cli_runner()
    listed = runner.invoke(args=["deliveries", "list"], env={"COLUMNS": "250"})
    assert listed.exit_code == 0 and listed.output.count("default:b") == 3
    assert runner.invoke(args=["deliveries", "retry"]).exit_code == 2
    page = crm.client.get("/bookings?state=failed").get_data(as_text=True)
    assert page.count('class="state failed"') == 3
    assert "No booking fits" in crm.client.get("/bookings?state=synced").get_data(as_text=True)
    assert crm.client.get("/?state=failed").headers["Location"] == "/bookings?state=failed"
    headers = {"Authorization": f"Bearer {crm.key}"}
    told = crm.app.test_client().get("/api/v1/bookings?state=failed", headers=headers)
    assert len(told.get_json()["bookings"]) == 3
    wrong = crm.app.test_client().get("/api/v1/bookings?state=x", headers=headers)
    assert wrong.status_code == 400 and "failed" in wrong.get_json()["error"]["message"]
    only(crm).forbidden_names.clear()
    crm.drainer = Drainer(crm.services)
    again = runner.invoke(args=["deliveries", "retry", "--all"])
    assert "3 deliveries are tried again" in again.output
    crm.settle()
    assert {d.state for d in crm.deliveries()} == {"synced"}


def test_at_least_ten_attempts_over_four_days(tmp_path: Path) -> None:
    """A temporary fault of one booking is retried at least ten times within 96 hours, with full
    jitter.
    """
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", PROVIDERS[:1]).connect_all()
    crm.post(sample("booking_created"))
    (delivery,) = crm.deliveries()
    begun = now = utcnow()
    waits, given_up = [], False
    while not given_up:
        with crm.services.store.write() as session:
            lost = RetryLater("No answer.")
            given_up = delivery_outcomes.record_failure(session, delivery.id, 1, lost, 0, now)
            row = session.get_one(DeliveryRow, delivery.id)
            if not given_up:
                waits.append((row.next_attempt_at - now).total_seconds())
                now = row.next_attempt_at
    assert row.state == DeliveryState.FAILED
    assert len(waits) + 1 >= LEAST_ATTEMPTS and now - begun >= LEAST_TIME
    ceilings = [RETRY_CEILINGS[min(n, len(RETRY_CEILINGS) - 1)] for n in range(len(waits))]
    assert all(0 <= wait <= most for wait, most in zip(waits, ceilings, strict=True))
    assert len({round(wait) for wait in waits}) > len(waits) / 2
    crm.close()


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    """A permanent refusal by the CRM fails the delivery at once."""
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", PROVIDERS[:1]).connect_all()
    crm.post(sample("booking_created"))
    (delivery,) = crm.deliveries()
    with crm.services.store.write() as session:
        refused = InvalidRecord("No.", {"amount": "No."})
        assert delivery_outcomes.record_failure(session, delivery.id, 1, refused, 0, utcnow())
    assert crm.deliveries()[0].error_fields == {"amount": "No."}
    crm.close()


@pytest.mark.long
def test_one_poisoned_among_a_hundred(crm: Bridge, provider: str) -> None:
    """One refused booking among a hundred fails with its field and costs at most 2*log2(100)+3 more calls."""
    sandbox = only(crm)
    only(crm).calls.clear()

    def book(prefix: str, poisoned: int | None) -> int:
        before = sandbox.total_calls
        for number in range(100):
            who = REFUSED if number == poisoned else person(f"{prefix}{number}@gmail.com")
            payload = sample("booking_created", id=f"{prefix}{number}", attendees=[who])
            crm.post(payload)
        desk_in(crm).lift_limits()
        crm.settle(120)
        return sandbox.total_calls - before

    plain = book("a", None)
    poisoned = book("b", 50)
    assert poisoned - plain <= 2 * 7 + 3, (plain, poisoned)
    states = sorted(d.state for d in crm.deliveries())
    assert states == ["failed"] + ["synced"] * 199
    (failed,) = [d for d in crm.deliveries() if d.state == "failed"]
    assert any("mail" in field.lower() for field in failed.error_fields)


def test_what_kills_its_worker_twice_is_set_aside(crm: Bridge, clock: Clock, provider: str) -> None:
    """A booking that kills its worker twice is isolated and set aside; the others are synced."""

    class Died(BaseException):
        pass

    for number in range(4):
        crm.post(
            sample("booking_created", id=f"b{number}", attendees=[person(f"p{number}@x.example")])
        )
    apply = type(crm.drainer.warm(1).adapter).apply

    def deadly(adapter: Any, plan: Any, report: Any) -> None:
        if any("b2" in change.ref.key for change in plan.changes):
            raise Died
        apply(adapter, plan, report)

    adapter_class = type(crm.drainer.warm(1).adapter)
    adapter_class.apply = deadly
    try:
        for _ in range(8):
            crm.drainer = Drainer(crm.services, now=clock)
            with contextlib.suppress(Died):
                crm.drain()
            clock.forward(60)
    finally:
        adapter_class.apply = apply
    by_key = {}
    with crm.services.store.read() as session:
        from app.store.models import BookingRow

        for row in crm.deliveries():
            by_key[session.get_one(BookingRow, row.booking_id).key] = row
    assert {key for key, row in by_key.items() if row.state == "synced"} == {
        "default:b0", "default:b1", "default:b3",
    }  # fmt: skip
    aside = by_key["default:b2"]
    assert (aside.state, aside.error_code, aside.worker_crashes) == ("failed", "killed_worker", 2)


def test_live_bookings_go_before_backlog(crm: Bridge, clock: Clock) -> None:
    """A live booking that arrives during a backlog is synced first, in a batch of its own."""
    for number in range(60):
        crm.post(
            sample("booking_created", id=f"old{number}", attendees=[person(f"o{number}@gmail.com")])
        )
    with crm.services.store.write() as session:
        session.execute(update(DeliveryRow).values(backlog=True))
    crm.post(sample("booking_created", id="live"))
    with crm.services.store.read() as session:
        batch = deliveries.due(session, 1, clock(), 500)
    assert [booking.key for _, booking in batch] == ["default:live"]
    with crm.services.store.write() as session:
        session.get_one(ConnectionRow, 1).backlog_after = clock() + timedelta(minutes=15)
    crm.drain()
    states = [d.state for d in crm.deliveries()]
    assert states.count("synced") == 1 and states.count("due") == 60
