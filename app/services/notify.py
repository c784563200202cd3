"""Notifies people, through apprise, of each change: a connection breaks, is broken, is back."""

from __future__ import annotations

import hashlib
import logging
import threading
from datetime import datetime, timedelta

import apprise
import structlog
from apprise.utils.parse import parse_urls
from sqlalchemy import func, select, update

from app.outbound.addresses import LOOPBACK
from app.store.connections import NoticeKind
from app.store.delivery_marking import count_parked
from app.store.engine import Store, utcnow
from app.store.models import BookingRow, ConnectionRow, DeliveryRow, Notice
from app.store.sources import count_waiting
from app.store.states import DeliveryState
from config.providers import Providers

log = structlog.get_logger(__name__)
MOST_TRIES = 12
LONGEST = 30.0
"""Seconds that one target may take."""
PLAIN_KINDS = ("json", "xml", "form")
"""Kinds of apprise that post to any host, without TLS; each has a safe twin with an s."""
MOST_NAMED = 10
"""Failed bookings that one message lists."""
WAIT = (30.0, 3600.0)
"""Seconds until a failed notice is sent again: the first wait, the longest wait."""
WORDS = {
    NoticeKind.EXPIRING: ("is about to break", apprise.NotifyType.WARNING),
    NoticeKind.BROKEN: ("is broken", apprise.NotifyType.FAILURE),
    NoticeKind.RESTORED: ("works again", apprise.NotifyType.SUCCESS),
    NoticeKind.FAILING: ("does not accept bookings", apprise.NotifyType.FAILURE),
    NoticeKind.FAILED: ("did not accept some bookings", apprise.NotifyType.FAILURE),
    NoticeKind.STALLED: ("makes no progress", apprise.NotifyType.FAILURE),
    NoticeKind.OVERDUE: ("keeps bookings waiting", apprise.NotifyType.WARNING),
    NoticeKind.CAUGHT_UP: ("has caught up", apprise.NotifyType.SUCCESS),
    NoticeKind.PASSING: ("accepts bookings again", apprise.NotifyType.SUCCESS),
}


class Notifier:
    """Sends the notices that changes of status left behind."""

    def __init__(self, store: Store, providers: Providers, urls: str, public_url: str) -> None:
        """`urls`: apprise addresses, separated by blanks or commas. Raises ValueError for a bad one."""
        # Apprise logs the addresses, which hold passwords.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self._store = store
        self._providers = providers
        self._public_url = public_url
        # A redirect would lead to a machine that nobody has named.
        asset = apprise.AppriseAsset(http_redirects=False)
        self.targets: dict[str, apprise.NotifyBase] = {}
        addresses = parse_urls(urls)  # type: ignore[no-untyped-call]
        for number, url in enumerate(addresses, 1):
            target = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
            if target is not None and _in_the_clear(url, target):
                raise ValueError(
                    f"NOTIFY_URLS: address number {number} would send messages in the clear. Write its"
                    " kind with an s at the end (jsons://), or name 127.0.0.1."
                )
            if target is None:
                raise ValueError(
                    f"NOTIFY_URLS: apprise does not know the kind of address number {number}."
                    " See https://github.com/caronc/apprise/wiki for the right form."
                )
            self.targets[hashlib.sha256(url.encode()).hexdigest()[:16]] = target

    def due(self) -> bool:
        """Whether a notice waits to be sent."""
        query = select(func.count()).where(Notice.next_try_at <= utcnow())
        with self._store.read() as session:
            return bool(session.scalar(query))

    def send_due(self) -> int:
        """Send the due notices, oldest first; return how many have reached every target."""
        done = 0
        while True:
            notice = self._claim()
            if notice is None:
                return done
            done += self._send(notice)

    def test(self) -> list[bool]:
        """Send a test message to every target; return for each whether it was accepted."""
        body = "If you read this, messages about broken CRM connections will reach you."
        kind = apprise.NotifyType.INFO
        title = "meetergo CRM bridge: test"
        return [_reached(target, body, title, kind) for target in self.targets.values()]

    def _claim(self) -> Notice | None:
        """Take the oldest notice that is due; the time of the next try is set before this one."""
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
        failed = self._failed(notice)
        if notice.kind == NoticeKind.FAILED and not failed:
            self._close(notice, set(), [])
            return True
        title, body, kind = self._compose(notice, failed)
        told = set(notice.reached_targets)
        for token, target in self.targets.items():
            if token not in told and _reached(target, body, title, kind):
                told.add(token)
        reached = told >= set(self.targets)
        given_up = notice.tries >= MOST_TRIES
        if not reached:
            log.warning("notice_not_sent", notice_id=notice.id, tries=notice.tries)
        if reached or given_up:
            self._close(notice, told, failed)
        else:
            with self._store.write() as session:
                told_so_far = {"reached_targets": sorted(told)}
                session.execute(update(Notice).where(Notice.id == notice.id).values(told_so_far))
        return reached

    def _close(self, notice: Notice, told: set[str], failed: list[tuple[DeliveryRow, str]]) -> None:
        """Close a notice: every target has it, or the tries are used up; it is not sent again."""
        with self._store.write() as session:
            done = {"reached_targets": sorted(told), "next_try_at": None}
            session.execute(update(Notice).where(Notice.id == notice.id).values(done))
            ids = [delivery.id for delivery, _ in failed]
            session.execute(
                update(DeliveryRow).where(DeliveryRow.id.in_(ids)).values(failure_notified=True)
            )

    def _failed(self, notice: Notice) -> list[tuple[DeliveryRow, str]]:
        """The deliveries of a failure notice: given up, and not yet notified."""
        if notice.kind != NoticeKind.FAILED:
            return []
        query = (
            select(DeliveryRow, BookingRow.key)
            .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
            .where(
                DeliveryRow.connection_id == notice.connection_id,
                DeliveryRow.state == DeliveryState.FAILED,
                DeliveryRow.failure_notified.is_(False),
            )
            .order_by(DeliveryRow.id)
        )
        with self._store.read() as session:
            return [(delivery, key) for delivery, key in session.execute(query)]

    def _compose(
        self, notice: Notice, failed: list[tuple[DeliveryRow, str]]
    ) -> tuple[str, str, apprise.NotifyType]:
        words, kind = WORDS[NoticeKind(notice.kind)]
        name, waiting, page = self._about(notice)
        lines = [f"{_minute(notice.created_at)}: {name} {words}."]
        lines += [text for text in (notice.reason, notice.next_step) if text]
        for delivery, key in failed[:MOST_NAMED]:
            fields = f" ({', '.join(delivery.error_fields)})" if delivery.error_fields else ""
            lines.append(f"Booking {key}{fields}: {delivery.error_message}")
        if len(failed) > MOST_NAMED:
            lines.append(f"... and {len(failed) - MOST_NAMED} more.")
        if waiting:
            lines.append(f"{waiting} bookings wait; no booking is lost.")
        lines.append(f"{self._public_url}{page}")
        return f"{name} {words}", "\n".join(lines), kind

    def _about(self, notice: Notice) -> tuple[str, int, str]:
        """The subject of a notice: its name, how many bookings wait for it, its page."""
        with self._store.read() as session:
            if notice.connection_id is None:
                waiting = count_waiting(session).get(str(notice.source), (0, None))[0]
                return f"meetergo, source {notice.source}", waiting, "/sources"
            row = session.get_one(ConnectionRow, notice.connection_id)
            waiting = count_parked(session, row.id)
        provider = self._providers.get(row.provider)
        name = f"{provider.title if provider else row.provider}: {row.account}"
        return name, waiting, f"/connections/{row.id}"


def _in_the_clear(url: str, target: apprise.NotifyBase) -> bool:
    """Whether a target posts to a host of its own without TLS; on this machine that is no harm."""
    kind = url.partition("://")[0].strip().lower()
    return kind in PLAIN_KINDS and str(target.host).strip("[]") not in LOOPBACK


def _reached(target: apprise.NotifyBase, body: str, title: str, kind: apprise.NotifyType) -> bool:
    """Whether a target accepts a message in time.

    apprise has its own sockets, whose limit is for each read only: a slower target is given up.
    """
    outcome: list[bool] = []

    def send() -> None:
        try:
            outcome.append(bool(target.notify(body=body, title=title, notify_type=kind)))
        except Exception as error:
            # The error may come from a stranger's answer; apprise handles most of these itself.
            log.warning("notice_failed", kind=type(error).__name__)

    thread = threading.Thread(target=send, name="notice", daemon=True)
    thread.start()
    thread.join(LONGEST)
    return outcome == [True]


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
