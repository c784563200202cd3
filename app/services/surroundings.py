"""Examines what surrounds the service: its address, the clocks, its files, how often webhooks come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select, text

from app.domain.errors import RetryLater
from app.outbound.deadline import Call
from app.outbound.wire import bounded_session
from app.services.findings import Finding, Health
from app.store.engine import Store, utcnow
from app.store.models import EventRow
from config.settings import is_loopback

OFF = timedelta(minutes=1)
"""A clock that differs by more than this is wrong."""
SET_CLOCK = "Keep the clocks of all machines right, with systemd-timesyncd or chrony for example."
ASK_SECONDS = 5.0
"""How long PUBLIC_URL may take to answer."""
LOOK_BACK = 200
"""How many webhooks show how often they usually come."""
FEW = 10
"""With fewer webhooks nobody knows what is usual."""
SHORTEST_SILENCE = timedelta(hours=1)


def check_public_url(url: str) -> Iterator[Finding]:
    """Check the form of PUBLIC_URL, and whether this service answers there."""
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        yield _public(
            Health.BAD,
            "PUBLIC_URL has more than a scheme, a host and a port.",
            "Set it to the form https://bridge.example.com.",
        )
        return
    if parts.scheme != "https" or is_loopback(url):
        detail = (
            "PUBLIC_URL names this machine: meetergo and other people's browsers cannot reach it."
        )
        fix = "Behind a proxy with TLS, set PUBLIC_URL to its https:// address."
        yield _public(Health.NOTE, detail, fix)
    trouble = _trouble_at(f"{url}/healthz")
    fix = (
        "Some networks do not let a machine call its own public address: open it in a browser"
        " elsewhere. If it does not answer there either, check DNS, firewall, proxy and certificate."
    )
    if trouble:
        yield Finding("service", "PUBLIC_URL answers", Health.NOTE, trouble, fix)
    else:
        yield Finding("service", "PUBLIC_URL answers", Health.GOOD)


def _public(verdict: Health, detail: str, fix: str) -> Finding:
    return Finding("service", "PUBLIC_URL", verdict, detail, fix)


def _trouble_at(url: str) -> str:
    """Why this service does not answer at an address, in a sentence; empty if it does."""
    try:
        with Call(ASK_SECONDS), bounded_session() as session:
            answer = session.get(url, timeout=ASK_SECONDS, allow_redirects=False)
    except (requests.RequestException, RetryLater, OSError) as error:
        return f"From this machine, {url} does not answer ({type(error).__name__})."
    if answer.status_code != 200 or b'"ok"' not in answer.content:
        return f"What answers at {url} is not this service: it says {answer.status_code}."
    return ""


def check_clocks(store: Store, redis: Redis, now: Callable[[], datetime] = utcnow) -> Finding:
    """Compare the clock of this machine with those of the database and of Redis."""
    others: list[tuple[str, datetime]] = []
    if store.engine.dialect.name == "postgresql":
        with store.read() as session:
            shown = session.scalar(text("SELECT clock_timestamp()"))
        if shown is not None:
            others.append(("the database", shown.astimezone(UTC)))
    try:
        seconds, _ = redis.time()
        others.append(("Redis", datetime.fromtimestamp(int(seconds), UTC)))
    except (RedisError, OSError):
        pass  # Redis has a finding of its own.
    return compare_clocks("service", others, now())


def compare_clocks(subject: str, others: list[tuple[str, datetime]], now: datetime) -> Finding:
    """Return whether the clock of this machine agrees with the others."""
    wrong = [
        (name, (now - other).total_seconds()) for name, other in others if abs(now - other) > OFF
    ]
    if not wrong:
        return Finding(subject, "clock", Health.GOOD)
    words = [
        f"is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} that of {name}"
        for name, seconds in wrong
    ]
    detail = f"The clock of this machine {' and '.join(words)}."
    return Finding(subject, "clock", Health.BAD, detail, SET_CLOCK)


def check_crm_clock(subject: str, date: str, now: datetime) -> Finding | None:
    """Compare the clock with the `Date` of a CRM's answer; None if there is none to compare."""
    try:
        shown = parsedate_to_datetime(date)
    except ValueError:
        return None
    return compare_clocks(subject, [("the CRM", shown.replace(tzinfo=UTC))], now)


def check_last_webhook(store: Store, source: str, now: datetime) -> Finding:
    """Say when the last webhook of a source came, and whether it has been silent for unusually long."""
    query = select(EventRow.received_at).where(EventRow.source == source)
    with store.read() as session:
        times = list(session.scalars(query.order_by(EventRow.id.desc()).limit(LOOK_BACK)))
    subject, check = f"source {source}", "last webhook"
    if not times:
        fix = "Book a test meeting; `bridge webhooks register` makes meetergo post them."
        return Finding(subject, check, Health.NOTE, "No webhook has come yet.", fix)
    times.sort(reverse=True)
    detail = f"The last one came at {times[0]:%Y-%m-%d %H:%M} UTC"
    gaps = [later - earlier for later, earlier in itertools.pairwise(times)]
    if len(times) < FEW:
        return Finding(subject, check, Health.GOOD, f"{detail}.")
    span, longest = times[0] - times[-1], max(gaps)
    detail += f"; usually one comes every {words_for(span / len(gaps))}"
    if now - times[0] <= max(2 * longest, SHORTEST_SILENCE):
        return Finding(subject, check, Health.GOOD, f"{detail}.")
    detail += f", and the longest silence so far was {words_for(longest)}."
    fix = (
        "Check in meetergo that the webhook is still there and active:"
        " `bridge webhooks list`. Lost bookings are found by `bridge reconcile`."
    )
    return Finding(subject, check, Health.NOTE, detail, fix)


def words_for(length: timedelta) -> str:
    """Return a length of time in words."""
    seconds = length.total_seconds()
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
