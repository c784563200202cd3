"""Tells people, through apprise, that a connection breaks, is broken, or is back: once a change."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime, timedelta

import apprise
import structlog
from apprise.utils.parse import parse_urls
from sqlalchemy import func, select, update

from app.store.connections import NoticeKind
from app.store.deliveries import count_parked
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, Notice
from config.providers import Providers

log = structlog.get_logger(__name__)
MOST_TRIES = 12
WAIT = (30.0, 3600.0)
"""Seconds until a notice that could not be sent is tried again: at first, at most."""
WORDS = {
    NoticeKind.EXPIRING: ("is about to break", apprise.NotifyType.WARNING),
    NoticeKind.BROKEN: ("is broken", apprise.NotifyType.FAILURE),
    NoticeKind.RESTORED: ("works again", apprise.NotifyType.SUCCESS),
    NoticeKind.FAILING: ("fails to take bookings", apprise.NotifyType.FAILURE),
    NoticeKind.PASSING: ("takes bookings again", apprise.NotifyType.SUCCESS),
}


class Notifier:
    """Sends the notices that status changes left behind."""

    def __init__(self, store: Store, providers: Providers, urls: str, public_url: str) -> None:
        """`urls`: apprise addresses, separated by blanks or commas. Raises ValueError for a bad one."""
        # Apprise logs the addresses, which hold passwords.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self._store = store
        self._providers = providers
        self._public_url = public_url
        self.targets: dict[str, apprise.NotifyBase] = {}
        addresses = parse_urls(urls)  # type: ignore[no-untyped-call]
        for number, url in enumerate(addresses, 1):
            target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
            if target is None:
                raise ValueError(
                    f"NOTIFY_URLS: address number {number} is none that apprise knows."
                    " See https://github.com/caronc/apprise/wiki for how they are written."
                )
            self.targets[hashlib.sha256(url.encode()).hexdigest()[:16]] = target

    def due(self) -> bool:
        """Whether a notice waits to be sent."""
        query = select(func.count()).where(Notice.next_try_at <= utcnow())
        with self._store.read() as session:
            return bool(session.scalar(query))

    def send_due(self) -> int:
        """Send what waits, oldest first; give the number of notices that everybody has."""
        done = 0
        while True:
            notice = self._claim()
            if notice is None:
                return done
            done += self._send(notice)

    def test(self) -> list[bool]:
        """Send a test message to every target; give for each whether it was taken."""
        body = "If you read this, messages about broken CRM connections will reach you."
        kind = apprise.NotifyType.INFO
        return [
            bool(target.notify(body=body, title="meetergo CRM bridge: test", notify_type=kind))
            for target in self.targets.values()
        ]

    def _claim(self) -> Notice | None:
        """Take the oldest notice that is due; the next try is set before this one is made."""
        now = utcnow()
        with self._store.write() as session:
            query = (
                select(Notice).where(Notice.next_try_at <= now).order_by(Notice.id).limit(1)
            ).with_for_update()
            notice = session.scalars(query).first()
            if notice is None:
                return None
            notice.tries += 1
            wait = min(WAIT[0] * 2 ** (notice.tries - 1), WAIT[1])
            notice.next_try_at = now + timedelta(seconds=wait)
        return notice

    def _send(self, notice: Notice) -> bool:
        title, body, kind = self._compose(notice)
        told = set(notice.told)
        for token, target in self.targets.items():
            if token not in told and target.notify(body=body, title=title, notify_type=kind):
                told.add(token)
        reached = told >= set(self.targets)
        given_up = notice.tries >= MOST_TRIES
        if not reached:
            log.warning("notice_not_sent", notice_id=notice.id, tries=notice.tries)
        values = {"told": sorted(told), **({"next_try_at": None} if reached or given_up else {})}
        with self._store.write() as session:
            session.execute(update(Notice).where(Notice.id == notice.id).values(**values))
        return reached

    def _compose(self, notice: Notice) -> tuple[str, str, apprise.NotifyType]:
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, notice.connection_id)
            waiting = count_parked(session, row.id)
        provider = self._providers.get(row.provider)
        words, kind = WORDS[NoticeKind(notice.kind)]
        name = f"{provider.title if provider else row.provider}: {row.account}"
        lines = [f"{_minute(notice.created_at)}: {name} {words}."]
        lines += [text for text in (notice.reason, notice.next_step) if text]
        if waiting:
            lines.append(f"{waiting} bookings wait; none is lost.")
        lines.append(f"{self._public_url}/connections/{row.id}")
        return f"{name} {words}", "\n".join(lines), kind


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
