"""Bookings whose webhook never arrived, or arrived garbled, are found through meetergo's API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from app.domain.errors import RateLimited, RetryLater
from app.meetergo.client import MeetergoClient, Page
from app.services.catch_up import MOST_BACKS, CatchUp, WalkKind
from app.store.bookings import read_state
from app.store.models import Backfill, BookingRow, EventRow
from sandbox.limits import Window
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import PROVIDERS, Bridge, sample

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)


@pytest.fixture
def meetergo() -> Iterator[Served]:
    """meetergo's API."""
    served = Served(MeetergoSandbox())
    yield served
    served.stop()


@pytest.fixture
def crm(meetergo: Served, tmp_path: Path) -> Iterator[Bridge]:
    """The service with one CRM and an API key of meetergo."""
    made = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", PROVIDERS[:1], meetergo_api_base=meetergo.url,
        meetergo_api_key=API_KEY, meetergo_api_user_id="u1", public_url="http://127.0.0.1:8000",
    ).connect_all()  # fmt: skip
    yield made
    made.close()


def booking(number: int, **changes: Any) -> dict[str, Any]:
    """Return one of many bookings, each with its own time of creation and start."""
    start = datetime(2026, 12, 1, 8, tzinfo=UTC) + timedelta(hours=number)
    made = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(minutes=number)
    values = {
        "id": f"b{number}", "start": start.isoformat(), "createdAt": made.isoformat(),
        "end": (start + timedelta(minutes=30)).isoformat(), "updatedAt": made.isoformat(),
        "attendees": [{"email": f"p{number % 50}@gmail.com", "firstname": "P", "lastname": "T"}],
    }  # fmt: skip
    return sample("booking_created", **{**values, **changes})


def walk(crm: Bridge, kind: WalkKind = WalkKind.RECONCILE) -> int:
    """Walk to the end; return the number of bookings found."""
    number = crm.services.catch_up.begin("default", kind, SINCE, UNTIL)
    assert crm.services.catch_up.run(number)
    with crm.services.store.read() as session:
        return session.get_one(Backfill, number).found


@pytest.mark.long
def test_two_hundred_withheld_webhooks_are_found_in_one_pass(crm: Bridge, meetergo: Served) -> None:
    """One pass finds all 200 bookings whose webhooks were withheld; a second pass finds nothing."""
    known = [booking(number) for number in range(200, 300)]
    for payload in known:
        meetergo.sandbox.book(payload)
        crm.post(payload)
    for number in range(100):
        meetergo.sandbox.book(booking(number))
    later = "2026-11-23T00:00:00+00:00"
    for number in range(200, 300):
        changed = {"updatedAt": later, "rescheduledAt": later}
        if number % 2:
            changed = {"updatedAt": later, "isCancelled": True, "cancel": {"reason": "ill"}}
        meetergo.sandbox.book(booking(number, **changed))
    assert walk(crm) == 200
    with crm.services.store.read() as session:
        rows = session.scalars(select(BookingRow)).all()
    assert len(rows) == 200
    assert sum(row.status == "cancelled" for row in rows) == 50
    assert all(d.backlog for d in crm.deliveries() if d.state == "due")
    crm.settle(120)
    assert {d.state for d in crm.deliveries()} == {"synced"}
    assert walk(crm) == 0
    writes = crm.sandbox(PROVIDERS[0]).writes()
    crm.settle()
    assert crm.sandbox(PROVIDERS[0]).writes() == writes


def test_not_found_is_not_cancelled(crm: Bridge, meetergo: Served) -> None:
    """A booking that meetergo no longer has stays unchanged."""
    crm.sync(booking(1))
    assert walk(crm) == 0
    with crm.services.store.read() as session:
        assert session.scalars(select(BookingRow)).one().status == "scheduled"


def test_the_same_state_in_the_apis_shape_is_no_news(crm: Bridge, meetergo: Served) -> None:
    """A booking known by its webhook is not stored again, with updatedAt or without."""
    for payload in (booking(1), booking(2, updatedAt=None)):
        crm.sync(payload)
        meetergo.sandbox.book(payload)
    assert walk(crm) == 0


def test_a_garbled_one_is_set_aside_and_the_rest_taken(crm: Bridge, meetergo: Served) -> None:
    """An unreadable appointment is quarantined once, with its reason; the others are stored."""
    meetergo.sandbox.appointments["x"] = {"id": "x", "start": "soon", "createdAt": "2026-11-22"}
    meetergo.sandbox.book(booking(1))
    assert walk(crm) == 1
    walk(crm)
    with crm.services.store.read() as session:
        aside = [e for e in session.scalars(select(EventRow)) if e.status == "quarantined"]
    assert [e.error for e in aside] == ["start is missing or not a time"]


@pytest.mark.long
def test_a_walk_that_was_broken_off_goes_on_where_it_was(crm: Bridge, meetergo: Served) -> None:
    """A walk that meetergo's outage interrupts continues at its page; no page is read twice."""
    for number in range(350):
        meetergo.sandbox.book(booking(number))
    number = crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL)
    pages = []

    def show(progress: Any) -> None:
        pages.append((progress.phase, progress.seen))
        if len(pages) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crm.services.catch_up.run(number, show)
    meetergo.sandbox.down = True
    with pytest.raises(RetryLater):
        crm.services.catch_up.run(number)
    meetergo.sandbox.down = False
    assert crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL) == number
    assert crm.services.catch_up.run(number, lambda p: pages.append((p.phase, p.seen)))
    assert [seen for phase, seen in pages if phase == "created"] == [100, 200, 300, 350]
    with crm.services.store.read() as session:
        assert session.get_one(Backfill, number).found == 350


def meddled(crm: Bridge, meetergo: Served, after: tuple[str, int], change: Any) -> None:
    """Walk, and run `change` after the page `after` has been read."""
    number = crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL)
    pages: dict[str, int] = {}

    def show(progress: Any) -> None:
        pages[progress.phase] = pages.get(progress.phase, 0) + 1
        if (progress.phase, pages[progress.phase]) == after:
            change()

    assert crm.services.catch_up.run(number, show)


def known(crm: Bridge) -> set[str]:
    """Return the bookings that the service knows."""
    with crm.services.store.read() as session:
        return {row.key.partition(":")[2] for row in session.scalars(select(BookingRow))}


def withheld(meetergo: Served, numbers: range, **changes: Any) -> set[str]:
    """Add bookings that were made long ago and start in the window: only the second phase finds them."""
    for number in numbers:
        meetergo.sandbox.book(booking(number, createdAt="2026-01-01T00:00:00+00:00", **changes))
    return {f"b{number}" for number in numbers}


@pytest.mark.long
def test_a_meeting_that_is_moved_during_a_walk_hides_no_other(
    crm: Bridge, meetergo: Served
) -> None:
    """If a meeting of a page already read moves to the end, the pages shift and all others are found."""
    wanted = withheld(meetergo, range(250))

    def move() -> None:
        moved = {"start": "2026-12-30T08:00:00+00:00", "end": "2026-12-30T09:00:00+00:00"}
        withheld(meetergo, range(5, 6), **moved)

    meddled(crm, meetergo, ("starts", 1), move)
    assert known(crm) == wanted


@pytest.mark.long
def test_appointments_that_are_deleted_during_a_walk_hide_no_other(
    crm: Bridge, meetergo: Served
) -> None:
    """If appointments of the first page are deleted during a walk, those that move up are still found."""
    for number in range(250):
        # These start outside the window: only the first phase finds them.
        far = {"start": "2028-01-01T08:00:00+00:00", "end": "2028-01-01T09:00:00+00:00"}
        meetergo.sandbox.book(booking(number, **far))

    def delete() -> None:
        for number in range(160, 165):
            del meetergo.sandbox.appointments[f"b{number}"]

    meddled(crm, meetergo, ("created", 1), delete)
    assert known(crm) == {f"b{number}" for number in range(250)}


@pytest.mark.long
def test_more_than_a_page_may_start_at_one_moment(crm: Bridge, meetergo: Served) -> None:
    """230 meetings with one start time, and others around them, are all found; progress reaches the
    total.
    """
    together = {"start": "2026-12-10T08:00:00+00:00", "end": "2026-12-10T09:00:00+00:00"}
    wanted = withheld(meetergo, range(300, 530), **together) | withheld(meetergo, range(50))
    wanted |= withheld(meetergo, range(600, 640))
    number = crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL)
    told: list[Any] = []
    assert crm.services.catch_up.run(number, told.append)
    assert known(crm) == wanted
    assert told[-1].seen == told[-1].total >= 320


@pytest.mark.long
def test_who_starts_at_one_moment_is_found_where_another_is_deleted(
    crm: Bridge, meetergo: Served
) -> None:
    """Among 250 meetings with one start time, a deletion during the walk hides no other meeting."""
    together = {"start": "2026-12-10T08:00:00+00:00", "end": "2026-12-10T09:00:00+00:00"}
    wanted = withheld(meetergo, range(300, 550), **together)

    def delete() -> None:
        del meetergo.sandbox.appointments["b310"]

    meddled(crm, meetergo, ("starts", 2), delete)
    assert known(crm) == wanted


@pytest.mark.parametrize("told", ["nothing", "the page's", "up and down"])
def test_a_walk_ends_whatever_meetergo_says_of_how_many_there_are(
    crm: Bridge, meetergo: Served, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """A walk ends even if meetergo reports a total of zero or a different total each time."""
    for module in ("app.services.catch_up", "app.meetergo.client"):
        monkeypatch.setattr(f"{module}.PAGE_SIZE", 20)
    monkeypatch.setattr("app.services.catch_up.SIZES", (20, 5, 1))
    for number in range(50):
        meetergo.sandbox.book(booking(number))
    read, asked = MeetergoClient.appointments, []

    def appointments(client: MeetergoClient, page: int, *args: Any, **more: Any) -> Page:
        got = read(client, page, *args, **more)
        asked.append(page)
        if told == "up and down":
            return Page(got.appointments, got.total - (page == 1))
        return Page(got.appointments, 0 if told == "nothing" else len(got.appointments))

    monkeypatch.setattr(MeetergoClient, "appointments", appointments)
    number = crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL)
    assert crm.services.catch_up.run(number, until=lambda: len(asked) > 300)
    assert known(crm) == {f"b{number}" for number in range(50)}


def test_progress_stays_true_over_many_pages(
    crm: Bridge, meetergo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress stays correct in a walk with more pages than the allowed steps back."""
    for module in ("app.services.catch_up", "app.meetergo.client"):
        monkeypatch.setattr(f"{module}.PAGE_SIZE", 5)
    monkeypatch.setattr(CatchUp, "_take", lambda *_: 0)
    withheld(meetergo, range(400))
    number = crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL)
    told: list[Any] = []
    assert crm.services.catch_up.run(number, told.append)
    assert len([at for at in told if at.phase == "starts"]) > MOST_BACKS
    # Each page repeats the end of the page before, and these entries count twice.
    assert max(at.total for at in told) <= 400 * 1.3
    assert told[-1].seen == told[-1].total


@pytest.mark.long
def test_what_cannot_be_shown_is_passed_around(crm: Bridge, meetergo: Served) -> None:
    """Two of 250 appointments break every page with them; all others are found, and the page
    reports it.
    """
    for number in range(250):
        meetergo.sandbox.book(booking(number))
    meetergo.sandbox.broken = {"b37", "b180"}
    number = crm.services.catch_up.begin("default", WalkKind.BACKFILL, SINCE, UNTIL)
    assert crm.services.catch_up.run(number)
    assert known(crm) == {f"b{n}" for n in range(250)} - {"b37", "b180"}
    with crm.services.store.read() as session:
        row = session.get_one(Backfill, number)
    assert row.skipped == 4 and "could not show" in (row.error or "")
    page = crm.client.get("/sources").get_data(as_text=True)
    assert "4 appointments could not be shown" in page
    assert crm.services.sources.view("default").works


def test_a_look_begins_with_what_is_new(crm: Bridge, meetergo: Served) -> None:
    """The next scheduled look finds new bookings first, although an older walk stands at a later page."""
    for number in range(350):
        meetergo.sandbox.book(booking(number))
    number = crm.services.catch_up.begin("default", WalkKind.RECONCILE, SINCE, UNTIL)
    seen: list[Any] = []
    crm.services.catch_up.run(number, seen.append, until=lambda: len(seen) == 2)
    now = datetime.now(UTC).isoformat()
    meetergo.sandbox.book(booking(900, createdAt=now, updatedAt=now))
    assert crm.services.catch_up.begin("default", WalkKind.RECONCILE, SINCE, UNTIL) == number
    crm.services.catch_up.run(number, until=lambda: True)
    assert "b900" in known(crm)


@pytest.mark.long
@pytest.mark.parametrize("until", [None, UNTIL])
def test_a_backfill_is_resumed_with_and_without_an_end(
    crm: Bridge, meetergo: Served, until: datetime | None
) -> None:
    """A backfill with the same dates continues where it stopped."""
    for number in range(250):
        meetergo.sandbox.book(booking(number))
    begin = crm.services.catch_up.begin
    number = begin("default", WalkKind.BACKFILL, SINCE, until)
    seen: list[Any] = []
    crm.services.catch_up.run(number, seen.append, until=lambda: len(seen) == 1)
    assert begin("default", WalkKind.BACKFILL, SINCE, until) == number
    assert crm.services.catch_up.run(number, seen.append)
    assert [at.seen for at in seen if at.phase == "created"] == [100, 200, 250]
    assert known(crm) == {f"b{n}" for n in range(250)}


def test_a_page_without_a_total_is_walked_as_well(crm: Bridge, meetergo: Served) -> None:
    """A walk works without `total` in meetergo's answer."""
    meetergo.sandbox.tells_total = False
    for number in range(150):
        meetergo.sandbox.book(booking(number))
    assert walk(crm) == 150


@pytest.mark.long
def test_a_walk_over_known_bookings_does_not_hold_up_webhooks(
    crm: Bridge, meetergo: Served
) -> None:
    """A walk over known bookings only reads: the database's single writer stays free for webhooks."""
    for number in range(120):
        meetergo.sandbox.book(booking(number))
    writes: list[str] = []

    @event.listens_for(crm.services.store.engine, "before_cursor_execute")
    def note(_c: Any, _u: Any, statement: str, *_: Any) -> None:
        writes.extend([statement] if statement.startswith("BEGIN IMMEDIATE") else [])

    assert walk(crm) == 120
    assert len(writes) > 120
    writes.clear()
    assert walk(crm) == 0
    assert len(writes) < 20
    meetergo.sandbox.book(booking(7, isCancelled=True, updatedAt="2026-11-27T00:00:00Z"))
    assert walk(crm) == 1


def test_reconcile_asks_for_a_meeting_type_once(crm: Bridge, meetergo: Served) -> None:
    """Reconcile asks meetergo once for a meeting type that appointments name by id only."""
    for number in range(30):
        meetergo.sandbox.book(booking(number))
    walk(crm)
    assert meetergo.sandbox.calls["GET /v4/meeting-type/…"] == 1
    with crm.services.store.read() as session:
        states = [
            read_state(row, crm.services.cipher) for row in session.scalars(select(BookingRow))
        ]
    assert {state.meeting_type.slug for state in states} == {"discovery-call"}


def test_it_keeps_to_a_hundred_calls_a_minute(crm: Bridge, meetergo: Served) -> None:
    """Calls to meetergo wait their turn or raise an error, so that its limit is never hit."""
    meetergo.sandbox.window = Window(100, 60.0)
    client = crm.services.sources.client("default")
    made = 0
    with pytest.raises(RateLimited):
        for _ in range(150):
            client.appointments(0, "start")
            made += 1
            if made >= 30:
                raise RateLimited("enough seen", 1.0)
    assert meetergo.sandbox.refused == 0


def test_backfill_by_the_command_line(crm: Bridge, meetergo: Served) -> None:
    """`backfill --since` and `reconcile` print what they found; a missing key gives a sentence."""
    for number in range(5):
        meetergo.sandbox.book(booking(number))
    runner = crm.app.test_cli_runner()
    told = runner.invoke(args=["backfill", "--since", "2026-11-01"])
    assert told.exit_code == 0, told.output
    assert "5 bookings found" in told.output
    assert "0 bookings found" in runner.invoke(args=["reconcile"]).output
    assert runner.invoke(args=["backfill", "--since", "tomorrowish"]).exit_code == 2
    crm.settings.meetergo_api_key = ""
    told = runner.invoke(args=["reconcile"])
    assert told.exit_code == 1 and "no meetergo API key" in told.output


def test_webhooks_are_registered_once_and_shown(crm: Bridge, meetergo: Served) -> None:
    """A webhook for the scheme is registered once; a second run adds none; a full list is an error
    in words.
    """
    runner = crm.app.test_cli_runner()
    assert "https" in runner.invoke(args=["webhooks", "register"]).output
    crm.services.settings.public_url = "https://bridge.example"
    told = runner.invoke(args=["webhooks", "register"])
    assert told.exit_code == 0 and "does not sign" in told.output
    (made,) = meetergo.sandbox.webhooks.values()
    assert made["endpoint"] == "https://bridge.example/webhooks/meetergo"
    assert set(made["eventTypes"]) == {
        "booking_created", "booking_rescheduled", "booking_cancelled",
    }  # fmt: skip
    assert "already" in runner.invoke(args=["webhooks", "register"]).output
    assert "now sends" in runner.invoke(args=["webhooks", "register", "--forms"]).output
    shown = runner.invoke(args=["webhooks", "list"], env={"COLUMNS": "200"})
    assert "yes" in shown.output
    # A webhook for one of our older addresses is changed, and a surplus one is removed.
    made["endpoint"] = "https://bridge.example/webhooks/meetergo/default/an-old-secret"
    meetergo.sandbox.webhooks[7] = {"id": 7, "endpoint": made["endpoint"], "eventTypes": []}
    meetergo.sandbox.webhooks[8] = {"id": 8, "endpoint": "https://x.example", "eventTypes": []}
    meetergo.sandbox.silent_changes = True
    told = runner.invoke(args=["webhooks", "register", "--forms"])
    assert told.exit_code == 0 and "7 was a duplicate" in told.output
    assert sorted(meetergo.sandbox.webhooks) == [1, 8]
    assert meetergo.sandbox.webhooks[1]["endpoint"] == "https://bridge.example/webhooks/meetergo"
    assert "1 webhook removed" in runner.invoke(args=["webhooks", "remove"]).output
    assert sorted(meetergo.sandbox.webhooks) == [8]
    meetergo.sandbox.webhooks.clear()
    for number in range(6):
        meetergo.sandbox.webhooks[number] = {"id": number, "endpoint": "https://x.example"}
    told = runner.invoke(args=["webhooks", "register"])
    assert told.exit_code == 1 and "6 webhooks per company" in told.output
