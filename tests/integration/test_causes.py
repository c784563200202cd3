"""Bookings that fail for one cause are one group, and are tried again together."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner, Result
from sqlalchemy import event, select, update

from app.cli.later import Later
from app.cli.tree import make_root
from app.services.causes import CauseState, CauseView, NoCause
from app.store import causes
from app.store.cause_models import CauseRow
from app.store.connections import set_status
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import ConnectionStatus, DeliveryState
from tests.bridge import Bridge, sample
from tests.integration.test_outages import Clock
from tests.many import Costs, analyze, fill
from workers.drain import Drainer

TWELVE = 12


@pytest.fixture
def one(database_url: str) -> Iterator[Bridge]:
    """The service with one CRM, on each database."""
    made = Bridge(database_url, ("hubspot",)).connect_all()
    yield made
    made.close()


def person(number: int, name: str = "Forbidden") -> dict[str, str]:
    return {"email": f"p{number}@gmail.com", "firstname": f"Ada{number}", "lastname": name}


def refuse(bridge: Bridge, number: int = TWELVE, first: int = 0) -> None:
    """Post bookings whose contact a rule of the account refuses."""
    bridge.sandbox("hubspot").forbidden_names.add("Forbidden")
    for each in range(first, first + number):
        made = sample("booking_created", id=f"b{each}", attendees=[person(each)])
        assert bridge.post(made).status_code == 202
    bridge.settle()


def only_cause(bridge: Bridge) -> CauseView:
    (found,) = bridge.services.causes.listed()
    return found


def states(bridge: Bridge) -> set[str]:
    return {row.state for row in bridge.deliveries()}


def cli(bridge: Bridge, words: str) -> Result:
    later = Later(bridge.services, prepared=True)
    return CliRunner().invoke(make_root(), shlex.split(words), obj=later)


def test_twelve_bookings_of_one_cause_are_mended_together(one: Bridge) -> None:
    """Twelve refused bookings are one cause; once it is mended, one retry syncs all of them."""
    refuse(one)
    cause = only_cause(one)
    assert cause.counts == {"failed": TWELVE} and cause.state is CauseState.OPEN
    assert (cause.reason, cause.object, cause.field) == ("rule", "contact", "lastname")
    assert cause.sentence.startswith("A rule of the HubSpot account refuses the contact, for")
    assert "mapping file hubspot.yaml" in cause.advice
    assert cause.samples[0].booking.startswith("default:b") and "Ada" not in cause.sentence
    whole = one.services.causes.one(cause.key)
    assert len(whole.samples) == TWELVE and whole.first_seen <= whole.last_seen

    plan = one.services.causes.plan(cause.key)
    assert plan.bookings == TWELVE and plan.calls >= TWELVE and plan.minutes > 0
    assert plan.problem == ""
    one.sandbox("hubspot").forbidden_names.clear()
    begun = one.services.causes.retry(cause.key, "anna")
    assert (begun.planned, begun.waiting, begun.running) == (TWELVE, TWELVE, True)
    assert all(row.backlog for row in one.deliveries())
    one.settle()
    ended = one.services.causes.progress(begun.id)
    assert (ended.synced, ended.failed, ended.waiting, ended.running) == (TWELVE, 0, 0, False)
    assert states(one) == {"synced"} and one.services.causes.listed() == []
    (gone,) = one.services.causes.listed(CauseState.MENDED)
    assert gone.key == cause.key and gone.mended_at and gone.bookings == 0

    refuse(one, 1, first=50)
    back = only_cause(one)
    assert back.key == cause.key and back.state is CauseState.CAME_BACK and back.came_back_at


def test_a_retry_of_what_is_not_mended_says_so(one: Bridge) -> None:
    """What fails again counts as failed, once; the same retry does not try it a second time."""
    refuse(one, 3)
    cause = only_cause(one)
    begun = one.services.causes.retry(cause.key, "anna")
    one.settle()
    one.services.causes.go_on()
    again = one.services.causes.progress(begun.id)
    assert (again.failed, again.synced, again.running) == (3, 0, False)
    view = only_cause(one)
    assert view.key == cause.key and view.state is CauseState.OPEN


def test_a_retry_can_be_stopped(one: Bridge) -> None:
    """What no worker has begun stays failed with its reason, and a changed booking is synced."""
    refuse(one, 4)
    cause = only_cause(one)
    one.sandbox("hubspot").forbidden_names.clear()
    begun = one.services.causes.retry(cause.key, "anna")
    # The person of one booking moves it meanwhile.
    one.post(sample("booking_rescheduled", id="b0", attendees=[person(0)]))
    stopped = one.services.causes.stop(begun.id, "anna")
    assert (stopped.failed, stopped.waiting, stopped.running) == (3, 1, False)
    one.settle()
    assert sorted(row.state for row in one.deliveries()) == ["failed"] * 3 + ["synced"]
    assert all(row.error_message for row in one.deliveries() if row.state == "failed")
    assert only_cause(one).counts == {"failed": 3}


def test_large_retries_go_on_in_the_sweep(one: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry marks its bookings in chunks; what is left is marked by the sweep, or not at all."""
    refuse(one, 5)
    monkeypatch.setattr(causes, "CHUNK", 2)
    monkeypatch.setattr("app.services.causes.AT_ONCE", 1)
    begun = one.services.causes.retry(only_cause(one).key, "anna")
    assert sum(row.state == "due" for row in one.deliveries()) == 2
    assert (begun.waiting, begun.running) == (5, True)
    one.services.causes.go_on()
    one.services.causes.go_on()
    assert states(one) == {"due"}


def test_an_ignored_cause_is_open_again_with_the_next_mapping(
    one: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person ignores a cause until the mapping file changes, or until somebody undoes it."""
    refuse(one, 1)
    service, key = one.services.causes, only_cause(one).key
    service.ignore(key, "anna")
    assert only_cause(one).state is CauseState.IGNORED
    assert service.listed(CauseState.OPEN) == []
    service.unignore(key, "anna")
    assert only_cause(one).state is CauseState.OPEN
    service.ignore(key, "anna")
    mapping = one.services.mappings["hubspot"]
    monkeypatch.setattr(mapping, "version", "another")
    assert only_cause(one).state is CauseState.OPEN
    with pytest.raises(NoCause):
        service.ignore("nothing", "anna")


def test_other_fields_are_other_causes(one: Bridge) -> None:
    """Two fields that are refused are two causes, and a booking has the one that it met last."""
    refuse(one, 2)
    one.sandbox("hubspot").account.refuses(
        "contacts", "PROPERTY_VALIDATION", "No.", fields=("firstname",), where={"firstname": "Ada9"}
    )
    good = person(9, name="Fine")
    one.post(sample("booking_created", id="b9", attendees=[good]))
    one.settle()
    found = {view.field: view.bookings for view in one.services.causes.listed()}
    assert found == {"lastname": 2, "firstname": 1}


def test_parked_bookings_have_their_connection_as_cause(one: Bridge) -> None:
    """Bookings that wait for a broken connection say why, and share its cause until it works."""
    store, number = one.services.store, one.connection("hubspot").id
    refuse(one, 1)
    with store.write() as session:
        row = session.get_one(ConnectionRow, number)
        told = (None, "The CRM refuses the grant.", "Connect it again.")
        set_status(session, row, ConnectionStatus.EXPIRED, row.status_since, *told)
    one.post(sample("booking_created", id="later", attendees=[person(7, "Fine")]))
    parked = {view.error_code: view for view in one.services.causes.listed()}["connection"]
    assert parked.counts == {"parked": 1}
    assert "The CRM refuses the grant." in parked.sentence and parked.advice == "Connect it again."
    assert "does not work" in one.services.causes.plan(parked.key).problem
    key = {"Authorization": f"Bearer {one.key}"}
    told_of = one.client.get("/api/v1/bookings/default:later", headers=key).get_json()
    (delivery,) = told_of["deliveries"]
    assert "The CRM refuses the grant." in delivery["error"] and delivery["cause"] == parked.key
    assert "The CRM refuses the grant." in cli(one, "deliveries list --state parked").stdout
    assert one.connect("hubspot", query=f"?connection={number}").status_code == 303
    assert [view.error_code for view in one.services.causes.listed()] == ["invalid_record"]


def test_an_outage_is_a_cause_while_it_lasts(one: Bridge) -> None:
    """A CRM that answers 503 without a word is a sentence, and the cause ends with the outage."""
    clock, sandbox = Clock(), one.sandbox("hubspot")
    one.drainer = Drainer(one.services, now=clock)
    sandbox.account.answers("/batch/create", 503, method="POST")
    one.post(sample("booking_created"))
    one.drain()
    (row,) = one.deliveries()
    assert row.error_message == "The CRM is out of order at present (it answered 503)."
    assert only_cause(one).error_code == "unavailable"
    assert only_cause(one).sentence.startswith("The CRM does not answer")
    sandbox.account.clears_answers()
    for _ in range(3):
        clock.forward(1000)
        one.drain()
    assert states(one) == {"synced"} and one.services.causes.listed() == []


def test_a_page_shows_the_sentence_and_folds_the_answer_away(one: Bridge) -> None:
    """A failed booking's page and API have a plain sentence, the mend, and the CRM's own answer."""
    refuse(one, 1)
    key = {"Authorization": f"Bearer {one.key}"}
    (told,) = one.client.get("/api/v1/bookings/default:b0", headers=key).get_json()["deliveries"]
    assert told["error"].startswith("A rule of the HubSpot account refuses the contact, for")
    assert told["advice"].endswith("then sync again.") and "{" not in told["error"]
    assert "isValid" in told["error_raw"] and told["cause"] == only_cause(one).key
    page = one.client.get("/bookings/default:b0").get_data(as_text=True)
    assert "A rule of the HubSpot account" in page and "<details>" in page


def test_commands(one: Bridge) -> None:
    """`bridge causes` lists, shows, plans, retries, stops and ignores; ids are whole."""
    empty = cli(one, "causes list")
    assert "Every booking is synced" in empty.stdout and empty.exit_code == 0
    refuse(one, 2)
    key = json.loads(cli(one, "causes list --json").stdout)["causes"][0]["key"]
    assert key in cli(one, "causes list").stdout
    shown = cli(one, f"causes show {key}").stdout
    assert "2 bookings" in shown and "A retry takes 2 bookings, about" in shown
    planned = json.loads(cli(one, f"causes retry {key} --plan --json").stdout)
    assert planned["plan"]["bookings"] == 2 and states(one) == {"failed"}
    assert cli(one, f"causes ignore {key}").exit_code == 0
    assert cli(one, "causes list --state ignored").stdout.count(key) == 1
    assert cli(one, f"causes ignore {key} --undo").exit_code == 0
    nothing = cli(one, f"causes retry {key} --stop")
    assert nothing.exit_code == 1 and "No retry" in nothing.stderr
    begun = json.loads(cli(one, f"causes retry {key} --json").stdout)
    assert begun["retry"]["planned"] == 2 and states(one) == {"due"}
    assert "stopped" in cli(one, f"causes retry {key} --stop").stdout
    assert states(one) == {"failed"}
    assert cli(one, "causes show nothing").exit_code == 1


def _strike(bridge: Bridge, number: int) -> None:
    """Let the deliveries of more bookings fail for one cause."""
    store = bridge.services.store
    fill(store, bridge.services.cipher, number)
    with store.write() as session:
        cause = session.scalars(select(CauseRow)).one()
        session.execute(
            update(DeliveryRow)
            .where(DeliveryRow.cause_key.is_(None))
            .values(cause_key=cause.key, state=DeliveryState.FAILED.value)
        )
    analyze(store)


def test_a_cause_is_counted_at_constant_cost(one: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of causes costs the same for thirty times as many bookings of one cause."""
    monkeypatch.setattr(causes, "MOST_COUNTED", 50)
    refuse(one, 1)
    totals: list[int] = []
    for number in (300, 9000):
        _strike(one, number)
        with Costs().measured(one.services.store.engine) as costs:
            (view,) = one.services.causes.listed()
        assert view.more and view.counts == {"failed": 51}
        totals.append(costs.total)
    assert totals[1] < totals[0] * 2 + 1000, totals


def test_a_list_of_causes_takes_as_many_statements_for_ten_as_for_one(one: Bridge) -> None:
    """No cause is asked for by itself."""
    seen: list[Any] = []
    refuse(one, 1)
    engine = one.services.store.engine
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    one.services.causes.listed()
    few = len(seen)
    with one.services.store.write() as session:
        row = session.scalars(select(CauseRow)).one()
        (first,) = session.scalars(select(DeliveryRow)).all()
        values = {column.key: getattr(row, column.key) for column in CauseRow.__table__.columns}
        for number in range(10):
            session.add(CauseRow(**{**values, "key": f"cause{number}"}))
        first.cause_key = "cause3"
    seen.clear()
    one.services.causes.listed()
    assert len(seen) == few


def test_a_reduced_booking_has_no_cause(one: Bridge) -> None:
    """After RETENTION_DAYS neither answer nor cause of a failed booking is left."""
    refuse(one, 1)
    with time_machine.travel("2030-01-01T00:00:00Z"):
        one.services.retention.run()
    (row,) = one.deliveries()
    assert (row.error_raw, row.error_message, row.cause_key) == (None, None, None)
    assert one.services.causes.listed() == []
    with one.services.store.read() as session:
        assert session.scalars(select(CauseRow)).all() == []
