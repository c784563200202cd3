"""The log of real processes: web, worker and scheduler write one JSON object a line, and no person."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.faults import Fault
from sandbox.oauth import CLIENT_SECRET
from tests.bridge import KEY, SECRET, Bridge, sample, wait_for
from tests.processes import running

NEEDED = {"timestamp", "level", "event", "process", "pid", "version"}
HONCHO = re.compile(r"^\S+ (web|worker|scheduler)\.1 +\| ?(.*)$")
OUTAGES = {"redis_away", "redis_back", "crm_away", "crm_back"}
PROXYS_ID = "fedcba9876543210fedcba9876543210"


def lines_of(log: str) -> list[dict[str, Any]]:
    """Return the lines of the service's processes; each must be a JSON object of their shape."""
    found = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines():
        prefixed = HONCHO.match(line)
        if prefixed:
            entry = json.loads(prefixed[2])
            assert entry.keys() >= NEEDED, line
            assert entry["process"] == prefixed[1], line
            found.append(entry)
        else:
            assert " system " in line, line
    return found


@pytest.mark.long
def test_every_line_of_every_process_has_one_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a webhook on its way, Redis and a CRM away, each line is JSON, without a person or a stack."""
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--access-logfile=-")
    with running(tmp_path, f"sqlite:///{tmp_path}/a.sqlite3") as service:
        wait_for(service.ready, 60)
        service.connect("hubspot")
        assert service.post(sample("booking_created")).json()["status"] == "accepted"
        wait_for(lambda: len(service.bookings()) == 1 and _states(service) == ["synced"], 30)
        sandbox = service.served["hubspot"].sandbox
        sandbox.faults.append(Fault(status=503, times=10**9))
        service.valkey.stop()
        answer = service.post(sample("booking_rescheduled"))
        assert answer.status_code == 202
        log = tmp_path / "log"
        wait_for(
            lambda: all(f'"{name}"' in log.read_text() for name in ("redis_away", "crm_away")), 30
        )
        sandbox.faults.clear()
        service.start_redis()
        wait_for(lambda: _states(service) == ["synced"], 60)
        wait_for(lambda: all(f'"{name}"' in log.read_text() for name in OUTAGES), 30)
        named = requests.get(
            f"{service.web}/healthz", headers={"X-Request-Id": PROXYS_ID}, timeout=5
        )
        odd = requests.get(
            f"{service.web}/healthz", headers={"X-Request-Id": "Jane Smith"}, timeout=5
        )
        wait_for(lambda: odd.headers["X-Request-Id"] in log.read_text(), 10)
    text = log.read_text()
    lines = lines_of(text)
    assert {line["process"] for line in lines} == {"web", "worker", "scheduler"}
    assert named.headers["X-Request-Id"] == PROXYS_ID
    assert re.fullmatch(r"[0-9a-f]{16}", odd.headers["X-Request-Id"])
    for needle in (
        "van der Berg",
        "van.der.berg",
        "23456789",
        "Jane",
        "Traceback",
        SECRET,
        KEY,
        CLIENT_SECRET,
    ):
        assert needle not in text
    _follows_a_webhook(lines)
    for process in ("web", "worker", "scheduler"):
        mine = [line for line in lines if line["process"] == process]
        assert sum(line["event"].endswith("_away") for line in mine) <= 4, mine
        assert not [line for line in mine if line["level"] in ("error", "critical")]


def _states(service: Any) -> list[str]:
    return [row["state"] for booking in service.bookings() for row in booking["deliveries"]]


def _follows_a_webhook(lines: list[dict[str, Any]]) -> None:
    """One webhook can be followed: request, event, booking, delivery, connection."""
    by_event = {}
    for line in lines:
        by_event.setdefault(line["event"], []).append(line)
    stored = by_event["webhook_stored"][0]
    asked = [line for line in by_event["request"] if line["request_id"] == stored["request_id"]]
    assert [(line["route"], line["status"]) for line in asked] == [("/webhooks/meetergo", 202)]
    (processed,) = [
        line for line in by_event["webhook_processed"] if line["event_id"] == stored["event_id"]
    ]
    ended = by_event["delivery_ended"][0]
    assert ended["booking"] == processed["booking"] and ended["connection_id"] == 1
    assert ended["delivery_id"]


def test_each_request_has_its_own_id(bridge: Bridge) -> None:
    """Each answer carries an id; a caller's id counts only if no word could look like it."""
    client = bridge.app.test_client()
    first, second = (client.get("/healthz").headers["X-Request-Id"] for _ in range(2))
    assert first != second
    for given in ("Jane", "a" * 65, "jane@corp.example", "0123456789abcdeg", "abc"):
        answer = client.get("/none", headers={"X-Request-Id": given})
        assert answer.headers["X-Request-Id"] not in (given, first, second)
