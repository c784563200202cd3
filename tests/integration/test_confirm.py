"""Webhooks that are re-read from meetergo before they are believed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.bootstrap import Services
from app.domain.errors import CrmError, Gone, RetryLater, Unauthorized
from app.services.intake import API_KEY_PURPOSE, MOST_FAILURES, SECRETS_PURPOSE
from app.services.replay import Choice, replay
from app.store.engine import utcnow
from app.store.models import BookingRow, Source
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import SECRET, Bridge, sample
from workers import jobs


def test_a_deleted_appointment_holds_up_no_other(tmp_path: Path, monkeypatch: Any) -> None:
    """Signature scheme url-token with an API key: every webhook is re-read before it is believed."""
    meetergo = Served(MeetergoSandbox())
    web = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", (), meetergo_signature_scheme="url-token",
        meetergo_api_key=API_KEY, meetergo_api_user_id="u1", meetergo_api_base=meetergo.url,
    )  # fmt: skip
    meetergo.sandbox.book(sample("booking_created", id="there"))
    for name in ("deleted", "there"):
        path = f"/webhooks/meetergo/default/{SECRET}"
        answer = web.post(sample("booking_created", id=name), path=path)
        assert answer.status_code == 202
    monkeypatch.setattr(jobs, "process_services", lambda: web.services)
    jobs.confirm_now()
    seen = {event.booking_key: event for event in web.events()}
    assert seen["default:there"].status == "applied"
    assert seen["default:deleted"].status == "quarantined"
    assert "meetergo did not confirm it" in (seen["default:deleted"].error or "")
    meetergo.stop()
    web.close()


@pytest.mark.parametrize("error", [Unauthorized("refused"), RetryLater("answered 500")])
def test_one_source_holds_no_other_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: CrmError
) -> None:
    """The API key of one company was revoked: the bookings of another one are confirmed."""
    web = held_web(tmp_path)
    services = web.services
    with services.store.write() as session:
        session.add(
            Source(
                name="another", scheme="url-token", header="x", company_ids=[], created_at=utcnow(),
                secrets_box=services.cipher.encrypt(json.dumps([SECRET]), SECRETS_PURPOSE),
                api_key_box=services.cipher.encrypt("k2", API_KEY_PURPOSE),
            )
        )  # fmt: skip
    for number in range(60):
        post_held(web, "another", f"held{number}")
    post_held(web, "default", "fine")
    asked = shown(web, monkeypatch, lambda source, number: source == "another", error)
    jobs.confirm_now()
    seen = {event.booking_key: event.status for event in web.events()}
    assert seen["default:fine"] == "applied" and seen["another:held0"] == "received"
    assert asked["another"] == MOST_FAILURES
    web.close()


def test_one_appointment_that_cannot_be_shown_holds_no_other_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """meetergo answers 500 for one appointment, each time: the others are confirmed."""
    web = held_web(tmp_path)
    for number in ("broken", "fine"):
        post_held(web, "default", number)
    shown(web, monkeypatch, lambda source, number: number == "broken", RetryLater("answered 500"))
    jobs.confirm_now()
    seen = {event.booking_key: event.status for event in web.events()}
    assert seen == {"default:broken": "received", "default:fine": "applied"}
    web.close()


def test_a_replay_believes_nothing_that_was_not_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that meetergo does not know waits for its word once more; a confirmed one keeps it."""
    web = held_web(tmp_path)
    post_held(web, "default", "forged")
    post_held(web, "default", "fine")
    shown(web, monkeypatch, lambda source, number: number == "forged", Gone("no such appointment"))
    jobs.confirm_now()
    states = {event.booking_key: event.status for event in web.events()}
    assert states == {"default:forged": "quarantined", "default:fine": "applied"}
    forged = sample("booking_rescheduled", id="fine")
    path = f"/webhooks/meetergo/default/{SECRET}"
    assert web.post(forged, path=path).status_code == 202
    jobs.confirm_now()
    replay(web.services.store, web.services.intake, Choice(), lambda ids: None)
    states = {event.booking_key: event.status for event in web.events()}
    assert states == {"default:forged": "received", "default:fine": "applied"}
    jobs.confirm_now()
    with web.services.store.read() as session:
        (row,) = session.scalars(select(BookingRow))
        assert (row.key, row.start.isoformat()) == ("default:fine", "2026-12-01T08:00:00+00:00")
    web.close()


def test_a_replay_takes_no_other_company_in(tmp_path: Path) -> None:
    """What was set aside since it is another company's stays there, until that one is allowed."""
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    web = Bridge(url, (), meetergo_company_ids="mine")
    answer = web.post(sample("booking_created", companyId="another"))
    assert answer.get_json()["status"] == "quarantined"
    told = replay(web.services.store, web.services.intake, Choice(), lambda ids: None)
    assert (told.done, told.unfit) == (0, 1)
    assert [event.status for event in web.events()] == ["quarantined"]
    web.close()
    allowed = Bridge(url, (), meetergo_company_ids="mine,another")
    replay(allowed.services.store, allowed.services.intake, Choice(), lambda ids: None)
    assert [event.status for event in allowed.events()] == ["applied"]
    allowed.close()


def held_web(tmp_path: Path) -> Bridge:
    """A service that re-reads every webhook before it believes it."""
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    return Bridge(url, (), meetergo_signature_scheme="url-token", meetergo_api_key="k")


def post_held(web: Bridge, source: str, number: str) -> None:
    """A webhook that is held until meetergo has confirmed it."""
    path = f"/webhooks/meetergo/{source}/{SECRET}"
    assert web.post(sample("booking_created", id=number), path=path).status_code == 202


def shown(
    web: Bridge, monkeypatch: pytest.MonkeyPatch, fails: Callable[[str, str], bool], error: CrmError
) -> Counter[str]:
    """Let meetergo show every appointment but some; gives how often each source was asked."""
    asked: Counter[str] = Counter()

    def read(_: Services, source: str, number: str) -> Any:
        asked[source] += 1
        if fails(source, number):
            raise error
        return sample("booking_created", id=number)

    monkeypatch.setattr(Services, "read_appointment", read)
    monkeypatch.setattr(jobs, "process_services", lambda: web.services)
    return asked
