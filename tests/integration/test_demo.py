"""The demo: a day with faults, its page to make things happen, one demo in a folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from sandbox.browser import form_token
from sandbox.demo import story
from sandbox.demo.control import Control
from sandbox.demo.folder import DemoError, locked_folder
from sandbox.demo.mishaps import (
    LOCKED,
    NEW_OPTION,
    REFUSED_NAME,
    RIVAL,
    Mishap,
    mishaps_of,
)
from sandbox.demo.sender import Sender
from sandbox.meetergo import MeetergoSandbox
from tests.bridge import PROVIDERS, SECRET, Bridge, wait_for

ROOT = Path(__file__).parent.parent.parent
BOOKING: dict[str, dict[str, str]] = {
    "name": {"name": f"Rolf {REFUSED_NAME}"},
    "option": {"answer": NEW_OPTION},
    "approval": {"name": f"Rita {RIVAL}"},
    "lock": {"name": f"Lea {LOCKED}"},
}
"""Mishap -> the booking that it meets; the others meet every booking."""
STATES = {"outage": {"due"}, "limit": {"due"}, "grant": {"parked"}, "sign-in": {"due"}, "name": {"failed"},
          "option": {"failed"}, "approval": {"failed"}, "lock": {"due", "retrying"}}  # fmt: skip


@contextmanager
def playing(folder: Path, crm: str) -> Iterator[tuple[Bridge, FlaskClient, Sender]]:
    """Give a bridge with one CRM as in the demo, the demo's page for it, and its sender."""
    with locked_folder(folder / "demo") as own:
        mappings = own.write_mappings()
        bridge = Bridge(f"sqlite:///{folder}/b.sqlite3", (crm,), mappings_dir=mappings)
        story.prepare({crm: bridge.sandbox(crm)})
        bridge.connect_all()
        server = make_server("127.0.0.1", 0, bridge.app, threaded=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        web = f"http://127.0.0.1:{server.server_port}"
        sender = Sender(web, SECRET, MeetergoSandbox())
        page = Control(sender, bridge.served, web).app.test_client()
        yield bridge, page, sender
        server.shutdown()
        server.server_close()
        bridge.close()


def press(page: FlaskClient, path: str, base: str = "http://127.0.0.1", **form: str) -> str:
    """Press a button; return what the page says then."""
    answer = page.post(path, data=form, base_url=base, follow_redirects=True)
    assert answer.status_code == 200, (path, answer.status_code)
    said = re.search(r'role="status">([^<]*)', answer.get_data(as_text=True))
    return said[1] if said else ""


def book(page: FlaskClient, number: int, **changes: str) -> str:
    """Fill in the form and book."""
    form = {"name": f"Robin Example{number}", "email": f"r{number}@house{number}.example",
            "kind": "discovery-call", "day": "2027-03-01", "answer": "Event", **changes}  # fmt: skip
    return press(page, "/bookings", **form)


@pytest.mark.parametrize("crm", PROVIDERS)
def test_each_mishap_shows_what_the_page_says_and_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crm: str
) -> None:
    """Break, book, see the state; mend, see the booking synced: for everything that can go wrong."""
    # A person needs longer than this from the button in the CRM to the one in the bridge.
    monkeypatch.setattr("workers.accounts.LEAST_BETWEEN", 0.0)
    with playing(tmp_path, crm) as (bridge, page, sender):
        sandbox = bridge.sandbox(crm)
        for number, mishap in enumerate(mishaps_of(sandbox)):
            if mishap.is_on(sandbox) and mishap.ends:
                press(page, f"/crms/{crm}/{mishap.code}/mend")
            assert not mishap.is_on(sandbox)
            said = press(page, f"/crms/{crm}/{mishap.code}/break")
            assert mishap.title.partition("'")[0] in said
            assert mishap.is_on(sandbox)
            assert "accepted" in book(page, number, **BOOKING.get(mishap.code, {}))
            seen: set[str] = set()
            for _ in range(3):
                bridge.drain()
                seen.add(bridge.deliveries()[-1].state)
            assert bridge.deliveries()[-1].state in STATES[mishap.code], (mishap.code, seen)
            mend(bridge, page, crm, mishap)
            if bridge.deliveries()[-1].state == "failed":
                sync_again(bridge, list(sender.bookings)[-1])
            wait_for(lambda: drained(bridge) == {"synced"}, 30)
        assert not any(mishap.is_on(sandbox) for mishap in mishaps_of(sandbox))


def sync_again(bridge: Bridge, booking_id: str) -> None:
    """Press the button on the booking's page in the bridge."""
    path = f"/bookings/default:{booking_id}"
    token = form_token(bridge.client.get(path).get_data(as_text=True))
    assert bridge.client.post(f"{path}/sync", data={"csrf": token}).status_code == 303


def drained(bridge: Bridge) -> set[str]:
    """Do the work that is due; return the states."""
    bridge.drain()
    return {delivery.state for delivery in bridge.deliveries()}


def mend(bridge: Bridge, page: FlaskClient, crm: str, mishap: Mishap) -> None:
    """Mend a CRM by the page, or by connecting it again in the bridge."""
    if mishap.ends:
        press(page, f"/crms/{crm}/{mishap.code}/mend")
    else:
        assert "again in the bridge" in press(page, f"/crms/{crm}/{mishap.code}/mend")
        assert bridge.connect(crm, query="?connection=1").status_code == 303


def test_the_page_moves_and_cancels_and_sends_bad_webhooks(tmp_path: Path) -> None:
    """What the page does comes through the front door: the CRM follows, a bad webhook is kept out."""
    with playing(tmp_path, PROVIDERS[0]) as (bridge, page, sender):
        book(page, 1)
        bridge.settle()
        (before,) = bridge.sandbox(PROVIDERS[0]).view().meetings
        (booking_id,) = sender.bookings
        assert "moved" in press(page, f"/bookings/{booking_id}/move")
        bridge.settle()
        (after,) = bridge.sandbox(PROVIDERS[0]).view().meetings
        assert (before.start[:10], after.start[:10]) == ("2027-03-01", "2027-03-02")
        assert "cancelled" in press(page, f"/bookings/{booking_id}/cancel")
        bridge.settle()
        (end,) = bridge.sandbox(PROVIDERS[0]).view().meetings
        assert end.cancelled
        assert "quarantined" in press(page, "/webhooks/unreadable")
        assert "401" in press(page, "/webhooks/unsigned")
        assert Counter(event.status for event in bridge.events()) == {
            "applied": 3,
            "quarantined": 1,
        }
        assert book(page, 2, kind="team-meeting")
        bridge.settle()
        assert bridge.deliveries()[-1].state == "skipped"
        for bad in ({"name": ""}, {"email": "nobody"}, {"kind": "x"}, {"day": "soon"}):
            assert "Give a name" in book(page, 3, **bad)
        assert len(sender.bookings) == 2


def test_the_page_takes_no_form_of_another_site(tmp_path: Path) -> None:
    """A page of another site, or a name that was led to this machine, breaks nothing."""
    with playing(tmp_path, PROVIDERS[0]) as (bridge, page, _):
        path = f"/crms/{PROVIDERS[0]}/outage/break"
        refused = page.post(
            path, base_url="http://127.0.0.1", headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert refused.status_code == 403
        assert page.post(path, base_url="http://evil.example").status_code == 403
        assert page.get("/", base_url="http://evil.example").status_code == 403
        assert not bridge.sandbox(PROVIDERS[0]).faults
        missing = (
            "/crms/nothing/outage/break",
            f"/crms/{PROVIDERS[0]}/nothing/break",
            "/bookings/1/move",
        )
        for path in missing:
            assert page.post(path, base_url="http://127.0.0.1").status_code == 404


def test_a_second_demo_is_refused_and_a_killed_one_is_cleared_away(tmp_path: Path) -> None:
    """The folder belongs to one demo; what a killed one leaves running is ended."""
    path = tmp_path / "demo"
    with locked_folder(path) as first:
        (path / "bridge.sqlite3").write_text("kept")
        first.note(web="http://127.0.0.1:8000")
        with pytest.raises(DemoError, match=f"at http://127.0.0.1:8000 .process {os.getpid()}"):
            locked_folder(path).__enter__()
        assert (path / "bridge.sqlite3").read_text() == "kept"
    holder = (
        "import subprocess, sys, pathlib; from sandbox.demo.folder import locked_folder\n"
        "with locked_folder(pathlib.Path(sys.argv[1])) as own:\n"
        "    rest = subprocess.Popen(['sleep', '300'], pass_fds=(own.lock_number,))\n"
        "    own.note(service=rest.pid)\n"
        "    print(rest.pid, flush=True)\n"
        "    rest.wait()\n"
    )
    command = [sys.executable, "-c", holder, str(path)]
    demo = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert demo.stdout
    rest = int(demo.stdout.readline())
    demo.kill()
    demo.wait()
    with locked_folder(path):
        assert [entry.name for entry in path.iterdir()] == ["lock"]
    stat = Path(f"/proc/{rest}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


@pytest.mark.long
def test_a_day_with_faults_as_a_person_sees_it(tmp_path: Path) -> None:
    """`make demo` shows every state with its reason, links into the sandboxes, and serves the CLI."""
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "sandbox.demo", "--folder", str(folder)]
    demo = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        printed = read_until(demo, "Press Ctrl+C")
        web = found(r"Dashboard: (\S+)", printed)
        key = found(r"sign in with this key: (\S+)", printed)
        bearer = {"Authorization": f"Bearer {key}"}
        listed = requests.get(f"{web}/api/v1/bookings?limit=200", headers=bearer, timeout=30).json()
        deliveries = [each for booking in listed["bookings"] for each in booking["deliveries"]]
        states = Counter(each["state"] for each in deliveries)
        assert states["failed"] == 14
        assert (states["parked"], states["skipped"], states["retrying"]) == (3, 6, 1)
        causes = Counter(each["error"] for each in deliveries if each["state"] == "failed")
        assert causes.most_common(1)[0][1] == len(story.LISTENERS) == 12
        for words in ("lead_source", "12 ", "parked", "no longer accepts the grant", "UNABLE_TO_LOCK_ROW",
                      "stay out of the CRM", "quarantined"):  # fmt: skip
            assert words in printed
        links = [link["url"] for each in deliveries for link in each["links"]]
        assert {address.partition("//")[2].partition(":")[0] for address in links} == {"127.0.0.1"}
        for address in links[:: len(links) // 12]:
            assert requests.get(address, timeout=30).status_code == 200, address
        control = found(r"break and mend a CRM: (\S+)", printed)
        assert "Lea Locked" in requests.get(control, timeout=30).text
        second = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 1
        assert "A demo runs already in this folder" in " ".join(second.stdout.split())
        shell = found(r"Command line: (.+)", printed).replace(
            "deliveries list", "deliveries list --json"
        )
        told = subprocess.run(
            ["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert told.stdout.count("lead_source") >= 12, told.stderr
        assert (folder / "env").stat().st_mode & 0o077 == 0
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0


def read_until(process: subprocess.Popen[Any], words: str) -> str:
    """Read what a process prints until these words; fail if it ends before."""
    printed, deadline = "", time.monotonic() + 240
    assert process.stdout
    for line in process.stdout:
        printed += line
        if words in line:
            return printed
        assert time.monotonic() < deadline
    raise AssertionError(printed)


def found(pattern: str, text: str) -> str:
    """Return the first group of a pattern in a text."""
    match = re.search(pattern, text)
    assert match, (pattern, text)
    return match[1]
