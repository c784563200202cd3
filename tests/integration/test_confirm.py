"""Webhooks that count only after meetergo's API has confirmed them: its answers, its silence, its
failures, and when the service asks again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from app.services.replay import ReplaySelection, replay
from app.store.boxes import seal
from app.store.engine import utcnow
from app.store.models import BookingRow, Notice, SourceRow, SourceState
from app.store.sources import take_reader
from sandbox.limits import Window
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import PROVIDERS, SECRET, Bridge, sample

PATH = f"/webhooks/meetergo/default/{SECRET}"


@pytest.fixture
def meetergo() -> Iterator[Served]:
    """meetergo's API."""
    served = Served(MeetergoSandbox())
    yield served
    served.stop()


def settings(meetergo: Served, **more: Any) -> dict[str, Any]:
    """Return the settings of a service with unsigned webhooks."""
    return {
        "meetergo_signature_scheme": "url-token", "meetergo_api_key": API_KEY,
        "meetergo_api_user_id": "u1", "meetergo_api_base": meetergo.url, **more,
    }  # fmt: skip


@pytest.fixture
def web(meetergo: Served, tmp_path: Path) -> Iterator[Bridge]:
    """The service without a CRM."""
    made = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), **settings(meetergo))
    yield made
    made.close()


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that this test moves."""
    with time_machine.travel("2026-11-24T08:00:00Z") as traveller:
        yield traveller


def post(web: Bridge, name: str = "there", source: str = "default", **changes: Any) -> None:
    """Post a webhook that waits for meetergo's confirmation."""
    path = f"/webhooks/meetergo/{source}/{SECRET}"
    answer = web.post(sample("booking_created", id=name, **changes), path=path)
    assert (answer.status_code, answer.get_json()["status"]) == (202, "accepted")


def states(web: Bridge) -> dict[str, str]:
    """Return the state of each booking's last webhook."""
    return {str(e.booking_key).partition(":")[2]: e.status for e in web.events()}


def wait(web: Bridge, clock: time_machine.Traveller, minutes: float) -> None:
    """Let time pass; read due appointments every ten seconds, as workers do."""
    for _ in range(int(minutes * 6)):
        clock.shift(timedelta(seconds=10))
        web.reread()


def reads(meetergo: Served) -> int:
    """Return how often single appointments were read."""
    found: int = meetergo.sandbox.calls["GET /v4/appointment/…"]
    return found


def source_state(web: Bridge) -> SourceState:
    """Return the state of the source from the environment."""
    with web.services.store.read() as session:
        return session.get_one(SourceState, "default")


def notices(web: Bridge) -> list[str]:
    """Return the kinds of notices that were made."""
    with web.services.store.read() as session:
        return [notice.kind for notice in session.scalars(select(Notice).order_by(Notice.id))]


def test_no_such_appointment_is_believed_after_some_minutes(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """A forged webhook is quarantined after some minutes, not at the first 404; a real one counts
    at once.
    """
    meetergo.sandbox.book(sample("booking_created", id="there"))
    post(web, "forged")
    post(web, "there")
    web.reread()
    assert states(web) == {"there": "applied", "forged": "received"}
    wait(web, clock, 4)
    assert states(web)["forged"] == "received"
    assert "no such appointment" in (web.events()[0].error or "")
    wait(web, clock, 3)
    assert states(web)["forged"] == "quarantined"
    assert "meetergo did not confirm it" in (web.events()[0].error or "")
    assert source_state(web).status == "works"
    assert notices(web) == []


def test_an_appointment_that_is_shown_late_is_taken(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """A webhook that arrives before meetergo's API shows the appointment is confirmed later."""
    post(web, "late")
    web.reread()
    assert states(web) == {"late": "received"}
    meetergo.sandbox.book(sample("booking_created", id="late"))
    wait(web, clock, 0.5)
    assert states(web) == {"late": "applied"}


@pytest.mark.parametrize(
    "body", ["null", "[]", "{}", '{"id": "another"}', '{"id": "there"}', "<html>", '{"id": "there", "start": "soon"}']
)  # fmt: skip
def test_an_answer_without_an_appointment_is_no_word_on_it(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller, body: str
) -> None:
    """A faulty answer does not decide: the webhook waits and counts after the first sound answer."""
    meetergo.sandbox.book(sample("booking_created", id="there"))
    meetergo.sandbox.answers = [(200, body)]
    post(web)
    web.reread()
    assert states(web) == {"there": "received"}
    wait(web, clock, 0.5)
    assert states(web) == {"there": "applied"}


@pytest.mark.parametrize(
    ("breaks", "mends", "status"),
    [
        ({"key": "ak_live:new"}, {"key": API_KEY}, "key_refused"),
        ({"user_id": "u9"}, {"user_id": ""}, "setup_wrong"),
        ({"forbidden": {"/v4/appointment"}}, {"forbidden": set()}, "setup_wrong"),
        ({"down": True}, {"down": False}, "unreachable"),
    ],
)
def test_what_says_something_of_the_source_holds_and_is_told_once(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller,
    breaks: dict[str, Any], mends: dict[str, Any], status: str,
) -> None:  # fmt: skip
    """400, 401, 403 and silence quarantine nothing; notices are sent once, and after the repair all
    goes on.
    """
    for name, value in breaks.items():
        setattr(meetergo.sandbox, name, value)
    for number in range(5):
        meetergo.sandbox.book(sample("booking_created", id=f"b{number}"))
        post(web, f"b{number}")
    wait(web, clock, 60)
    assert set(states(web).values()) == {"received"}
    state = source_state(web)
    assert (state.status, bool(state.problem), bool(state.next_step)) == (status, True, True)
    assert notices(web) == ["broken"]
    for name, value in mends.items():
        setattr(meetergo.sandbox, name, value)
    wait(web, clock, 1)
    assert set(states(web).values()) == {"applied"}
    assert source_state(web).status == "works"
    assert notices(web) == ["broken", "restored"]


def test_one_appointment_that_cannot_be_shown_holds_no_other_up(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """If meetergo answers 500 for one appointment each time, the others are confirmed at once."""
    meetergo.sandbox.broken = {"broken"}
    for name in ("fine", "broken"):
        meetergo.sandbox.book(sample("booking_created", id=name))
        post(web, name)
    web.reread()
    assert states(web) == {"broken": "received", "fine": "applied"}
    wait(web, clock, 30)
    assert states(web)["broken"] == "received" and source_state(web).status == "works"
    assert reads(meetergo) < 60
    meetergo.sandbox.broken = set()
    wait(web, clock, 1.2)
    assert states(web)["broken"] == "applied"


def test_what_cannot_be_shown_is_given_up_after_a_week(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """After a week without confirmation a webhook is quarantined, with the reason."""
    meetergo.sandbox.broken = {"broken"}
    post(web, "broken")
    web.reread()
    clock.shift(timedelta(days=7, minutes=1))
    web.reread()
    assert states(web) == {"broken": "quarantined"}
    assert "within 7 days" in (web.events()[0].error or "")


def test_one_read_settles_all_that_waits_of_an_appointment(web: Bridge, meetergo: Served) -> None:
    """90 webhooks of 45 bookings cost 45 reads."""
    for number in range(45):
        meetergo.sandbox.book(sample("booking_rescheduled", id=f"b{number}"))
        post(web, f"b{number}")
        moved = sample("booking_rescheduled", id=f"b{number}")
        assert web.post(moved, path=PATH).status_code == 202
    web.reread()
    assert {event.status for event in web.events()} == {"applied"}
    assert reads(meetergo) == 45


def test_one_process_reads_a_source(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """Only one process reads a source at a time; a process that died blocks it for two minutes."""
    meetergo.sandbox.book(sample("booking_created", id="there"))
    post(web)
    with web.services.store.write() as session:
        assert take_reader(session, "default", utcnow()) is not None
    web.reread()
    assert reads(meetergo) == 0
    wait(web, clock, 2.2)
    assert states(web) == {"there": "applied"}


def test_what_comes_now_goes_before_what_waited(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """After an outage with a queue, the newest booking is read first."""
    meetergo.sandbox.down = True
    for number in range(8):
        meetergo.sandbox.book(sample("booking_created", id=f"old{number}"))
        post(web, f"old{number}")
    wait(web, clock, 2)
    meetergo.sandbox.down = False
    meetergo.sandbox.book(sample("booking_created", id="live"))
    post(web, "live")
    clock.shift(timedelta(minutes=1))
    meetergo.sandbox.window = Window(3, 60.0)
    web.reread()
    assert states(web)["live"] == "applied"
    assert "received" in states(web).values()


def test_company_and_id_are_held_against_the_answer(tmp_path: Path, meetergo: Served) -> None:
    """A webhook with an allowed company is quarantined if the API returns another company."""
    more = settings(meetergo, meetergo_company_ids="c1")
    web = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), **more)
    meetergo.sandbox.book(sample("booking_created", id="there", companyId="c9"))
    post(web)
    web.reread()
    (event,) = web.events()
    assert (event.status, event.error) == (
        "quarantined",
        "companyId is not one of the allowed ones",
    )
    web.close()


def test_one_source_holds_no_other_up(tmp_path: Path, web: Bridge, meetergo: Served) -> None:
    """A revoked API key of one company does not delay the bookings of another company."""
    services = web.services
    row = SourceRow(
        name="another", scheme="url-token", header="x", company_ids=[], created_at=utcnow(), api_user_id=""
    )  # fmt: skip
    cipher = services.cipher
    row.secrets_encrypted = seal(cipher, SourceRow.secrets_encrypted, row, json.dumps([SECRET]))
    row.api_key_encrypted = seal(cipher, SourceRow.api_key_encrypted, row, "rgo-dead")
    with services.store.write() as session:
        session.add(row)
    for number in range(20):
        post(web, f"held{number}", "another")
    meetergo.sandbox.book(sample("booking_created", id="fine"))
    post(web, "fine")
    web.reread()
    assert states(web)["fine"] == "applied" and states(web)["held0"] == "received"
    views = {view.name: view for view in services.sources.views()}
    assert views["another"].status == "key_refused" and views["another"].waiting == 20
    assert views["default"].works


def test_the_type_is_known_by_its_id(tmp_path: Path, meetergo: Served) -> None:
    """If no webhook told the slug, meetergo is asked once for it, and the slug's mapping rules apply."""
    mappings = tmp_path / "mappings"
    mappings.mkdir()
    text = (
        "version: 1\ncrm: hubspot\ncontact: {fields: {email: attendee.email}}\n"
        "deal: {fields: {dealname: meeting_type.name}}\n"
        "meeting_types: {discovery-call: {deal: none}}\n"
    )
    for crm in PROVIDERS:
        mine = text if crm == "hubspot" else f"version: 1\ncrm: {crm}\n"
        (mappings / f"{crm}.yaml").write_text(mine, encoding="utf-8")
    web = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",), **settings(meetergo, mappings_dir=mappings)
    ).connect_all()
    for number in range(3):
        meetergo.sandbox.book(sample("booking_created", id=f"b{number}"))
        post(web, f"b{number}")
    web.settle()
    assert meetergo.sandbox.calls["GET /v4/meeting-type/…"] == 1
    view = web.sandbox("hubspot").view()
    assert len(view.contacts) == 1 and view.deals == []
    web.close()


def test_a_replay_believes_nothing_that_was_not_confirmed(
    web: Bridge, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """A replay asks meetergo again about an unconfirmed webhook; a confirmed one stays confirmed."""
    meetergo.sandbox.book(sample("booking_created", id="fine"))
    post(web, "forged")
    post(web, "fine")
    wait(web, clock, 7)
    assert states(web) == {"forged": "quarantined", "fine": "applied"}
    forged = sample("booking_rescheduled", id="fine")
    assert web.post(forged, path=PATH).status_code == 202
    web.reread()
    replay(web.services.store, web.services.intake, ReplaySelection(), lambda ids: None)
    assert states(web) == {"forged": "received", "fine": "applied"}
    web.reread()
    with web.services.store.read() as session:
        (row,) = session.scalars(select(BookingRow))
        assert (row.key, row.start.isoformat()) == ("default:fine", "2026-12-01T08:00:00+00:00")


def test_a_replay_takes_no_other_company_in(tmp_path: Path) -> None:
    """A webhook of another company stays quarantined in a replay until this company is allowed."""
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    web = Bridge(url, (), meetergo_company_ids="mine")
    answer = web.post(sample("booking_created", companyId="another"))
    assert answer.get_json()["status"] == "quarantined"
    told = replay(web.services.store, web.services.intake, ReplaySelection(), lambda ids: None)
    assert (told.done, told.unfit) == (0, 1)
    assert [event.status for event in web.events()] == ["quarantined"]
    web.close()
    allowed = Bridge(url, (), meetergo_company_ids="mine,another")
    replay(allowed.services.store, allowed.services.intake, ReplaySelection(), lambda ids: None)
    assert [event.status for event in allowed.events()] == ["applied"]
    allowed.close()


def test_a_key_is_warned_of_before_it_ends(
    tmp_path: Path, meetergo: Served, clock: time_machine.Traveller
) -> None:
    """A notice warns once, a week before the key's expiry date that a person entered."""
    more = settings(meetergo, meetergo_key_ends_at=utcnow() + timedelta(days=8))
    web = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), **more)
    web.services.sources.warn_of_ends()
    assert notices(web) == []
    clock.shift(timedelta(days=1, minutes=1))
    web.services.sources.warn_of_ends()
    web.services.sources.warn_of_ends()
    assert notices(web) == ["expiring"]
    web.close()


def test_answers_come_beside_the_sync_and_over_days(
    tmp_path: Path, meetergo: Served, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller
) -> None:
    """A booking reaches the CRM although meetergo is out of order; its answers follow later, once."""
    web = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",),
        **settings(meetergo, meetergo_signature_scheme="body"),
    ).connect_all()  # fmt: skip
    monkeypatch.setattr(type(web.services.mappings["hubspot"]), "needs_answers", True)
    person = sample("booking_created")["attendees"][0]
    meetergo.sandbox.book(
        sample("booking_created", attendees=[{**person, "notes": {"Budget": "10k"}}])
    )
    meetergo.sandbox.down = True
    assert web.post(sample("booking_created")).status_code == 202
    for _ in range(3):
        web.drain()
    assert [delivery.state for delivery in web.deliveries()] == ["synced"]
    wait(web, clock, 60)
    meetergo.sandbox.down = False
    clock.shift(timedelta(hours=5))
    wait(web, clock, 1)
    web.settle()
    (meeting,) = web.sandbox("hubspot").view().meetings
    assert "Budget: 10k" in meeting.body
    asked = reads(meetergo)
    wait(web, clock, 5)
    assert reads(meetergo) == asked
    web.close()
