"""Webhooks that are re-read from meetergo before they are believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
