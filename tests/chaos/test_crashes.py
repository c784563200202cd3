"""A process killed at any commit and any call leaves the CRM as if it had not died."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import Services
from app.services.rate_limits import SharedRateLimiter
from app.store.states import DeliveryState
from tests.bridge import ADAPTERS, ASKED_AHEAD, PROVIDERS, sample
from tests.chaos.crashes import LATER, Ended, Point, Stage, deliver, drain, states
from tests.integration.test_stories import new, old, old_cancelled
from tests.postgres import postgres_url
from tests.thorough import some

JANE = {"email": "jane@globex.example", "firstname": "Jane", "lastname": "Berg", "phone": "+4915123456789"}  # fmt: skip
OMAR = {"email": "omar@gmail.com", "firstname": "Omar", "lastname": "Haddad"}
FIRST = [
    sample("booking_created", id="a", attendees=[JANE, OMAR]),
    sample("booking_created", id="b", attendees=[OMAR], hosts=[]),
]
SECOND = [
    sample(
        "booking_rescheduled",
        id="a",
        attendees=[OMAR, JANE],
        hosts=[{"email": "mary@acme.example"}],
    ),
    sample("booking_cancelled", id="b", attendees=[OMAR], hosts=[]),
]


CROWD = [
    sample(
        "booking_created",
        id=f"c{number}",
        attendees=[{"email": f"p{number}@{domain}", "firstname": "Pat", "lastname": f"No{number}"}],
    )
    for number, domain in enumerate(("a.example", "b.example", "a.example", "c.example"))
]
EACH = 4
"""In a short run, the process dies at every n-th point only."""


def day(services: Services, acknowledged: Path) -> None:
    """Sync two bookings, then move one with its people in another order and cancel the other."""
    deliver(services, FIRST, acknowledged)
    drain(services)
    deliver(services, FIRST + SECOND, acknowledged)
    drain(services)


def aftermath(services: Services, acknowledged: Path) -> None:
    """meetergo repeats unanswered webhooks; another worker continues an hour later."""
    deliver(services, FIRST + SECOND, acknowledged)
    for hours in (1, 2, 3):
        drain(services, LATER * hours)
    ended = states(services)
    assert [state for state, _ in ended] == [DeliveryState.SYNCED] * 2, ended


def replay(services: Services, acknowledged: Path) -> None:
    """Replay every stored webhook."""
    from app.services.replay import ReplaySelection
    from app.services.replay import replay as replay_all

    told = replay_all(services.store, services.intake, ReplaySelection(), services.waker.wake)
    assert told.done >= len(FIRST + SECOND)
    drain(services, LATER * 5)


@pytest.fixture(params=[*((name, "sqlite") for name in PROVIDERS), (PROVIDERS[0], "postgresql")],
                ids=lambda param: f"{param[0]} {param[1]}")  # fmt: skip
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """One CRM connected, on one database."""
    provider, database = request.param
    with ExitStack() as stack:
        url = stack.enter_context(postgres_url()) if database == "postgresql" else None
        made = Stage(tmp_path, provider, url)
        yield made
        made.served.stop()


def one_run(stage: Stage, tmp_path: Path, url: str, deadly: Any) -> Any:
    """Run to the end, or to a death and its aftermath."""
    (tmp_path / "acknowledged").unlink(missing_ok=True)
    ended = stage.run(url, day, deadly)
    assert ended.good or ended.killed
    if ended.killed:
        assert stage.run(url, aftermath, None).good
    return ended


def distinct(points: list[Point]) -> list[Point]:
    """Return the points without those that others cannot tell apart from the point before.

    Between a call and the next point a process changes only itself: a death after the call or
    before the next point has the same effect. Between two commits a webhook is answered.
    """

    def same(before: Point | None, point: Point) -> bool:
        if before is None or not before.after or point.after:
            return False
        return "call" in (before.kind, point.kind)

    pairs = zip([None, *points], points, strict=False)
    return [point for before, point in pairs if not same(before, point)]


def crowd(services: Services, acknowledged: Path) -> None:
    """Sync four bookings of different people, two of whom work at one company."""
    deliver(services, CROWD, acknowledged)
    drain(services)


def crowd_aftermath(services: Services, acknowledged: Path) -> None:
    """meetergo repeats unanswered webhooks; another worker continues hours later."""
    deliver(services, CROWD, acknowledged)
    for hours in (1, 2, 3):
        drain(services, LATER * hours)
    ended = states(services)
    assert [state for state, _ in ended] == [DeliveryState.SYNCED] * len(CROWD), ended


@pytest.mark.long
@pytest.mark.parametrize("provider", ASKED_AHEAD)
def test_killed_with_two_batches_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """A death during a batch's write and the next batch's lookups loses and duplicates no record."""
    stage = Stage(tmp_path, provider)
    adapter = ADAPTERS[provider]
    monkeypatch.setattr(adapter, "batch_size", 2)
    # Each point is its own run: none waits for the CRM's limits.
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda gate, _: gate.ensure_lease())
    stage.unlimited()

    def one(url: str, deadly: Point | None) -> Ended:
        (tmp_path / "acknowledged").unlink(missing_ok=True)
        ended = stage.run(url, crowd, deadly)
        assert ended.good or ended.killed
        if ended.killed:
            assert stage.run(url, crowd_aftermath, None).good
        return ended

    with stage.fresh() as url:
        points = one(url, None).points
        expected = stage.picture()
    assert expected["counts"] == (4, 4) and len(expected["companies"]) == 3
    struck = 0
    chosen = some(points, EACH)
    for point in chosen:
        with stage.fresh() as url:
            # With two threads, the last call differs from run to run.
            struck += one(url, point).killed
            assert stage.picture() == expected, f"killed {point}"
    assert struck > len(chosen) * 0.8
    stage.served.stop()


@pytest.mark.long
def test_killed_at_every_commit_and_every_call(stage: Stage, tmp_path: Path) -> None:
    """A process killed at any point leaves the records of a run without a death, and no duplicates."""
    with stage.fresh() as url:
        points = one_run(stage, tmp_path, url, None).points
        expected = stage.picture()
    assert expected["counts"] == (2, 2) and len(expected["people"]) == 2
    assert len([p for p in points if p.kind == "commit"]) > 10
    assert len([p for p in points if p.kind == "call"]) > 5
    if url.startswith("postgresql"):
        # The CRM's records do not depend on the database; the data on disk does.
        points = [point for point in points if point.kind == "commit"]
    for point in some(distinct(points), EACH):
        with stage.fresh() as url:
            assert one_run(stage, tmp_path, url, point).killed, f"never died {point}"
            assert stage.picture() == expected, f"killed {point}"
            if not point.after or point.kind != "call":
                continue
            # Records that are in the CRM already are not written again, however they came there.
            writes = stage.served.sandbox.writes()
            assert stage.run(url, replay, None).good
            assert stage.served.sandbox.writes() == writes, f"replayed after a death {point}"


ALONE = [old(), new(rescheduledFromId=None)]
"""Two bookings of one person; nothing says yet that the second replaces the first."""


def two_of_one(services: Services, acknowledged: Path) -> None:
    """Sync the first booking, and then its replacement as a booking of its own."""
    deliver(services, ALONE[:1], acknowledged)
    drain(services)
    deliver(services, ALONE, acknowledged)
    drain(services)


def known_as_moved(services: Services, acknowledged: Path) -> None:
    """The first booking's cancel shows that the second replaces it; another worker continues hours
    later.
    """
    deliver(services, [*ALONE, old_cancelled()], acknowledged)
    for hours in (1, 2, 3):
        drain(services, LATER * hours)
    assert sorted(state for state, _ in states(services)) == ["skipped", "synced"]


@pytest.mark.long
@pytest.mark.parametrize("provider", some(PROVIDERS, 2))
def test_killed_before_it_is_known_that_a_booking_was_moved(tmp_path: Path, provider: str) -> None:
    """If a worker died while it created records of a booking that turns out to be a move, they are
    found and removed.
    """
    stage = Stage(tmp_path, provider)
    stage.unlimited()
    with stage.fresh() as url:
        points = stage.run(url, two_of_one, None).points
    assert len(points) > 40
    last = points[len(points) // 2 :]
    for point in some(last, EACH // 2):
        (tmp_path / "acknowledged").unlink(missing_ok=True)
        with stage.fresh() as url:
            assert stage.run(url, two_of_one, point).killed
            assert stage.run(url, known_as_moved, None).good, str(point)
            there = stage.served.sandbox.view()
            assert len(there.deals) == len(there.meetings) == 1, (str(point), there)
    stage.served.stop()


def test_what_is_to_be_taken_out_may_still_be_on_its_way(tmp_path: Path) -> None:
    """A dead worker's create may still arrive: the service keeps searching for it until it would have."""
    stage = Stage(tmp_path, PROVIDERS[0])
    with stage.fresh() as url:
        points = stage.run(url, two_of_one, None).points
    sent = [point for point in points if point.kind == "call" and not point.after][-2]
    early: Path = tmp_path / "early"

    def at_once(services: Services, acknowledged: Path) -> None:
        deliver(services, [*ALONE, old_cancelled()], acknowledged)
        drain(services, timedelta(seconds=20))
        early.write_text("".join(str(error) for _, error in states(services)))

    (tmp_path / "acknowledged").unlink()
    with stage.fresh() as url:
        assert stage.run(url, two_of_one, sent).killed
        assert stage.run(url, at_once, None).good
        assert "was sent a moment ago" in early.read_text()
        assert stage.run(url, known_as_moved, None).good
        assert len(stage.served.sandbox.view().deals) == 1
    stage.served.stop()
