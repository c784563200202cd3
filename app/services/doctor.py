"""Examines the service and each connection end to end, and reports what to fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError
from sqlalchemy import func, select

from app.crm.objects import ObjectName
from app.crm.port import Adapter
from app.crm.schema import Directory
from app.domain.errors import CrmError
from app.meetergo.client import MeetergoClient
from app.oauth.tokens import TokenService
from app.security.encryption import Cipher
from app.services.findings import Finding, Health
from app.services.mappings import MappingFiles
from app.services.notify import Notifier
from app.services.processes import Processes
from app.services.redis_client import explain as redis_trouble
from app.services.redis_client import probe
from app.services.secrets import WebhookSecrets, fingerprint
from app.services.sources import Sources, SourceView
from app.services.surroundings import (
    check_clocks,
    check_crm_clock,
    check_last_webhook,
    check_public_url,
)
from app.services.wake import Waker
from app.services.watch import number_waiting, waiting
from app.store.delivery_marking import count_parked
from app.store.engine import DATABASE_DOWN, Store, utcnow
from app.store.models import ConnectionRow, DeliveryRow
from app.store.rekey import MissingKey, check_keys
from app.store.schema import SchemaFit
from app.store.states import WORKING, ConnectionStatus, DeliveryState
from config.providers import Providers
from config.settings import SignatureScheme, secret_weakness

REDIS_FIX = (
    "Until then webhooks are accepted as ever, and workers find due bookings by themselves, some"
    " seconds later."
)


@dataclass(frozen=True)
class Doctor:
    """Examines the service, its sources and its connections."""

    store: Store
    cipher: Cipher
    public_url: str
    providers: Providers
    mappings: MappingFiles
    tokens: TokenService
    sources: Sources
    secrets: WebhookSecrets
    waker: Waker
    processes: Processes
    notifier: Notifier
    adapter: Callable[[int], Adapter]

    def examine(self, connection_id: int | None = None) -> Iterator[Finding]:
        """Yield every finding on the service and its connections (or one of them) as it is made."""
        if connection_id is None:
            basics = list(self._basics())
            yield from basics
            if any(found.verdict is Health.BAD for found in basics):
                return  # Every other check reads the database.
            yield from self.examine_service()
        with self.store.read() as session:
            rows = list(session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)))
        for row in rows:
            if connection_id in (None, row.id):
                yield from self.examine_connection(row)
        if not rows:
            fix = f"Sign in at {self.public_url} and press the CRM's name."
            yield Finding("service", "connections", Health.NOTE, "No CRM is connected.", fix)

    def examine_service(self) -> Iterator[Finding]:
        """Check keys, Redis, processes, sources, CRM apps and notifications."""
        yield _tried("service", "encryption keys", lambda: check_keys(self.store, self.cipher), "")
        files = self.store.open_to_others()
        yield _stated(
            "service", "files of the database", not files,
            f"Other users of this machine may open {', '.join(files)}.",
            "Take their rights away: `chmod go= FILE`.",
        )  # fmt: skip
        redis = self.waker.redis
        yield _tried("service", "Redis", lambda: probe(redis), REDIS_FIX, redis_trouble)
        yield from self._processes()
        yield from check_public_url(self.public_url)
        yield check_clocks(self.store, redis)
        for view in self.sources.views():
            yield from self.examine_source(view)
        missing = [p.title for p in self.providers.values() if not p.configured]
        if missing:
            detail = f"{', '.join(missing)} cannot be connected: client id and secret are not set."
            fix = "Set <CRM>_CLIENT_ID and <CRM>_CLIENT_SECRET, if you use that CRM."
            yield Finding("service", "CRM apps", Health.NOTE, detail, fix)
        if not self.notifier.targets:
            detail = "Nobody is notified when a connection breaks."
            yield Finding("service", "notifications", Health.NOTE, detail, "Set NOTIFY_URLS.")

    def _processes(self) -> Iterator[Finding]:
        """Check that workers and one scheduler run, and that webhooks come and are processed."""
        found, now = self.processes.workers(), utcnow()
        last = (
            f"The last one reported {found.last_seen:%Y-%m-%d %H:%M} UTC. "
            if found.last_seen
            else ""
        )
        yield _stated(
            "service", "workers", found.alive > 0,
            f"No worker runs. {last}Webhooks are stored, and wait.",
            "Start `python -m workers.worker`, and have it started again whenever it ends.",
        )  # fmt: skip
        if found.late(now):
            detail = f"{found.stored}, the oldest since {found.stored_since:%Y-%m-%d %H:%M} UTC"
            fix = "Check that workers run, and read their logs."
            yield Finding("service", "webhooks not processed", Health.BAD, detail, fix)
        try:
            schedulers = self.waker.schedulers()
        except (RedisError, OSError):
            return  # Redis has a finding of its own.
        if not schedulers:
            detail = "No scheduler runs: bookings whose webhook was lost are not looked for."
            yield Finding(
                "service", "scheduler", Health.NOTE, detail, "Start `python -m workers.schedule`."
            )
        elif schedulers > 1:
            detail = f"{schedulers} run. That does no harm, but one is enough."
            yield Finding("service", "scheduler", Health.NOTE, detail)

    def _basics(self) -> Iterator[Finding]:
        """Check that the database can be reached, fits the code and takes writes."""
        schema, explain = self.store.schema, self.store.explain
        reached = _tried("service", "database", schema.state, "", explain)
        if reached.verdict is Health.BAD:
            yield reached
            return
        state = schema.state()
        fits = state.fit is SchemaFit.FITS
        yield _stated("service", "schema", fits, f"It is at {state.database}.", state.advice)
        if fits:
            yield _tried("service", "database", self.store.check, "", explain)

    def examine_source(self, view: SourceView) -> Iterator[Finding]:
        """Check secrets, key, permissions and waiting webhooks of one meetergo workspace."""
        rules, subject = self.sources.rules(view.name), f"source {view.name}"
        known = (*rules.secrets, *self.secrets.of(view.name, anew=True))
        yield _stated(
            subject, "webhook secret", bool(known), "There is no secret: every webhook is refused.",
            "Make one with `bridge secrets add`.",
        )  # fmt: skip
        yield from self._weak_secrets(view.name)
        yield check_last_webhook(self.store, view.name, utcnow())
        if not rules.api_key:
            needed = rules.scheme is SignatureScheme.URL_TOKEN
            detail = (
                "There is no API key: webhooks are not checked at meetergo, and lost webhooks"
                " are not found."
            )
            verdict = Health.BAD if needed else Health.NOTE
            yield Finding(subject, "meetergo key", verdict, detail, "Set MEETERGO_API_KEY.")
            return
        for check, ask in permissions(self.sources.client(view.name)).items():
            yield _tried(subject, check, ask, "")
        self.sources.probe(view.name, by_page=True)
        state = self.sources.view(view.name)
        good = Health.GOOD if state.works else Health.BAD
        detail = "" if state.works else f"{state.status}: {state.problem or ''}"
        yield Finding(subject, "state", good, detail, state.next_step or "")
        if state.key_ends_soon and state.key_ends_at:
            detail = f"The key ends on {state.key_ends_at:%Y-%m-%d %H:%M} UTC."
            yield Finding(
                subject, "end of the key", Health.BAD, detail, "Make a new key in meetergo."
            )
        if state.waiting and state.waiting_since:
            detail = f"{state.waiting} since {state.waiting_since:%Y-%m-%d %H:%M} UTC"
            fix = "They are processed when meetergo confirms them."
            yield Finding(subject, "webhooks that wait", Health.NOTE, detail, fix)

    def _weak_secrets(self, source: str) -> Iterator[Finding]:
        rules = self.sources.rules(source)
        known = (*rules.secrets, *self.secrets.of(source, anew=True))
        for secret in known:
            problem = secret_weakness(secret, rules.scheme)
            if problem:
                detail = f"The secret {fingerprint(secret)} of source {source} {problem}."
                fix = "Make a new one with `bridge secrets add`, then end this one."
                yield Finding("service", "strength of secrets", Health.BAD, detail, fix)

    def examine_connection(self, row: ConnectionRow) -> Iterator[Finding]:
        """Check one connection: status, token, account, scopes, records, fields, limits, work."""
        title = self.providers[row.provider].title
        subject = f"{row.id} {title}: {row.account}"
        if row.status == ConnectionStatus.DISCONNECTED:
            detail = f"disconnected since {row.status_since:%Y-%m-%d %H:%M} UTC"
            yield Finding(
                subject, "status", Health.NOTE, detail, "Connect the account again, if you need it."
            )
            return
        good = Health.GOOD if row.status == ConnectionStatus.ACTIVE else Health.BAD
        yield Finding(
            subject,
            "status",
            good,
            f"{row.status} {row.last_error or ''}".strip(),
            row.next_step or "",
        )
        token = _tried(subject, "token", lambda: self.tokens.token(row.id), "")
        yield token
        if token.verdict is Health.BAD:
            return
        adapter = self.adapter(row.id)
        yield _tried(subject, "account", lambda: _same_account(adapter.whoami().id, row), "")
        yield from self._scopes(subject, row)
        for name in self.mappings[row.provider].objects():
            yield _tried(subject, f"read {name}", partial(adapter.check, name), "")
        directory = Directory()
        try:
            directory = adapter.directory()
        except CrmError as error:
            yield Finding(subject, "directory", Health.BAD, error.message, error.advice)
        else:
            yield from _directory(subject, directory)
        clock = check_crm_clock(subject, adapter.access.meter.date, utcnow())
        if clock:
            yield clock
        for label, (left, most) in adapter.access.meter.limits.items():
            detail = f"{left} calls left of {most}" if most is not None else f"{left} left"
            low = most is not None and left < most * 0.1
            fix = "Other apps use most of this account's calls." if low else ""
            verdict = Health.NOTE if low else Health.GOOD
            yield Finding(subject, f"limit, {label}", verdict, detail, fix)
        yield from self._work(subject, row)

    def _scopes(self, subject: str, row: ConnectionRow) -> Iterator[Finding]:
        provider = self.providers[row.provider]
        lacking = provider.lacking(row.scopes, self.mappings[row.provider].makes_inbox_leads)
        needed = [scope for scope in lacking if scope not in provider.optional_scopes]
        if not lacking:
            yield Finding(
                subject,
                "scopes",
                Health.GOOD,
                "all granted" if row.scopes else "the CRM does not report them",
            )
        for scope, why in lacking.items():
            verdict = Health.BAD if scope in needed else Health.NOTE
            fix = f"Grant it in the app or the consent page: {self.public_url}/connections/{row.id}"
            yield Finding(subject, f"scope {scope}", verdict, f"not granted; it is {why}", fix)

    def _work(self, subject: str, row: ConnectionRow) -> Iterator[Finding]:
        with self.store.read() as session:
            parked = count_parked(session, row.id)
            found = waiting(session, utcnow(), row.id)
            late = found.get(row.id)
            number = number_waiting(session, late, utcnow()) if late else 0
            failed = session.scalar(
                select(func.count()).where(
                    DeliveryRow.connection_id == row.id, DeliveryRow.state == DeliveryState.FAILED
                )
            )
        if late and late.overdue(utcnow()):
            detail = f"{number} bookings wait, the oldest since {late.since:%Y-%m-%d %H:%M} UTC"
            yield Finding(subject, "waiting too long", Health.BAD, detail, late.reason)
        for note in row.account_notes:
            yield Finding(subject, "done without", Health.NOTE, str(note))
        if parked and row.status not in WORKING:
            detail = f"{parked} bookings wait for the connection"
            yield Finding(
                subject, "parked", Health.NOTE, detail, "They are synced when the connection works."
            )
        if failed:
            fix = "The dashboard shows the reason; fix it, then retry the deliveries."
            yield Finding(subject, "failed", Health.NOTE, f"{failed} bookings failed", fix)


def permissions(client: MeetergoClient) -> dict[str, Callable[[], object]]:
    """Permission that a source's key needs -> a harmless call that tries it."""
    return {
        "read appointments": lambda: client.appointments(0, "createdAt", descending=True, size=1),
        "read meeting types": client.meeting_types,
        "read webhooks": client.webhooks,
    }


def _same_account(found: str, row: ConnectionRow) -> str:
    if row.account_id and found != row.account_id:
        raise ValueError(f"the token opens account {found}, not {row.account_id}. Connect again")
    return row.account


def _directory(subject: str, directory: Directory) -> Iterator[Finding]:
    yield _stated(
        subject, "owners", bool(directory.owners), "The account shows no users.",
        "Grant the scope for users; without it, no record gets an owner.",
    )  # fmt: skip
    yield _stated(
        subject, "pipelines", any(p.stages for p in directory.pipelines),
        "The account shows no pipeline with stages.", "Create a pipeline, or write no deals.",
    )  # fmt: skip
    found = ", ".join(f"{n}.{f}" for n, f in directory.booking_fields.items())
    if ObjectName.DEAL in directory.booking_fields:
        yield Finding(subject, "booking-id field", Health.GOOD, found)
    else:
        detail = "not on deals: bookings are synced, but duplicates are more likely"
        fix = "Let an administrator connect, or grant the scope for creating fields."
        yield Finding(subject, "booking-id field", Health.NOTE, detail, fix)


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _tried(
    subject: str,
    check: str,
    action: Callable[[], object],
    fix: str,
    explain: Callable[[BaseException], str] = _kind,
) -> Finding:
    """`explain`: what a database or a Redis that does not work is called in the finding."""
    try:
        found = action()
    except CrmError as error:
        return Finding(subject, check, Health.BAD, error.message, fix or error.advice)
    except (MissingKey, ValueError) as error:
        return Finding(subject, check, Health.BAD, str(error), fix)
    except (*DATABASE_DOWN, RedisError, OSError) as error:
        return Finding(subject, check, Health.BAD, explain(error), fix)
    # Only the account's name is shown: any other text may be a token.
    return Finding(subject, check, Health.GOOD, str(found) if check == "account" else "")


def _stated(subject: str, check: str, good: bool, detail: str, fix: str) -> Finding:
    if good:
        return Finding(subject, check, Health.GOOD)
    return Finding(subject, check, Health.BAD, detail, fix)
