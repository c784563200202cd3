"""Webhooks that are re-read from meetergo before they are believed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import Services
from app.domain.errors import CrmError, RetryLater, Unauthorized
from app.services.intake import API_KEY_PURPOSE, MOST_FAILURES, SECRETS_PURPOSE
from app.store.engine import utcnow
from app.store.models import Source
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
    jobs.confirm_events()
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
    jobs.confirm_events()
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
    jobs.confirm_events()
    seen = {event.booking_key: event.status for event in web.events()}
    assert seen == {"default:broken": "received", "default:fine": "applied"}
    web.close()


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
