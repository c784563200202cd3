"""If one outside endpoint hangs or drips, the bookings of the other CRMs are synced in time."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app.store.access_models import Revocation
from app.store.connections import NoticeKind, tell
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from sandbox.faults import Fault
from sandbox.serve import load_sandbox
from tests.between import Asked, Between, Right, Speaker, Speaks
from tests.bridge import PROVIDERS, Bridge, sample, wait_for
from workers.jobs import look
from workers.pool import DrainPool

WITHIN = 10.0
"""The seconds within which the other CRMs have their bookings."""
SLOW = "salesforce"


def synced(bridge: Bridge) -> set[str]:
    """Return the CRMs that have the newest booking."""
    newest = max(row.booking_id for row in bridge.deliveries())
    with bridge.services.store.read() as session:
        return {
            session.get_one(ConnectionRow, row.connection_id).provider
            for row in bridge.deliveries()
            if row.booking_id == newest and row.state == "synced"
        }


@pytest.mark.parametrize("how", ["hangs", "drips"])
def test_the_others_do_not_wait(how: str, tmp_path: Path) -> None:
    """The other CRMs do not wait for a slow API, token endpoint, revocation or notification target."""
    over, reached = threading.Event(), threading.Event()
    others = set(PROVIDERS) - {SLOW}

    def endless(line: socket.socket) -> None:
        reached.set()
        line.sendall(b"HTTP/1.1 200 OK\r\n" if how == "drips" else b"")
        while not over.wait(0.2):
            line.sendall(b"X" if how == "drips" else b"")

    target = Speaker(endless)
    between = Between(load_sandbox(SLOW)())
    served = {n: between if n == SLOW else Between(load_sandbox(n)()) for n in PROVIDERS}
    bridge = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", served=served, http_timeout=30, oauth_timeout=30,
        notify_urls=target.url.replace("http:", "json:"),
    ).connect_all()  # fmt: skip
    pool = DrainPool(bridge.services)
    slow_id = bridge.connection(SLOW).id

    def slow(part: str) -> None:
        def instead(asked: Asked, right: Right) -> Speaks | None:
            return endless if part in asked.path else None

        between.instead = instead

    def token_due() -> None:
        slow("/oauth2/token")
        with bridge.services.store.write() as session:
            soon = utcnow() + timedelta(seconds=1)
            values = {"expires_at": soon}
            session.execute(update(ConnectionRow).where(ConnectionRow.id == slow_id).values(values))

    def notice() -> None:
        between.instead = lambda asked, right: None
        with bridge.services.store.write() as session:
            row = session.get_one(ConnectionRow, slow_id)
            tell(session, row, NoticeKind.STALLED, utcnow(), "a reason", "a step")

    def revocation_due() -> None:
        # The immediate attempt fails, so that a worker has to try again.
        between.instead = lambda asked, right: None
        between.sandbox.faults.append(Fault(path="/oauth2/revoke", status=503))
        assert bridge.services.connector.disconnect(slow_id, "test")[1]
        slow("/oauth2/revoke")
        with bridge.services.store.write() as session:
            session.execute(update(Revocation).values(next_try_at=utcnow()))

    for number, step in enumerate(
        [notice, lambda: slow("/services/data"), token_due, revocation_due]
    ):
        step()
        name = f"b{number}"
        person = {"email": f"{name}@gmail.com", "firstname": name, "lastname": "X"}
        assert (
            bridge.post(sample("booking_created", id=name, attendees=[person])).status_code == 202
        )
        begun = time.monotonic()
        look(bridge.services, pool)
        assert time.monotonic() - begun < 2, "who hands out work has waited for somebody outside"
        wait_for(lambda: others <= synced(bridge), WITHIN)
        assert reached.wait(5), f"nobody has asked the slow one, step {number}"
        reached.clear()
    over.set()
    pool.stop(2)
    target.stop()
    bridge.close()
