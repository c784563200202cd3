"""`bridge backfill | reconcile | webhooks …`: the commands that work at meetergo itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from app.bootstrap import Services
from app.cli.command import Answer, Group, command, listing, many
from app.cli.moments import read_moment
from app.domain.errors import CrmError, RateLimited
from app.domain.events import BOOKING_EVENTS, FORM_EVENT
from app.meetergo.client import MOST_WEBHOOKS, MeetergoClient
from app.services.catch_up import Progress, WalkKind
from app.services.sources import DEFAULT_SOURCE, UnknownSource
from app.store.engine import utcnow
from config.settings import SignatureScheme

SOURCE = click.option("--source", default=DEFAULT_SOURCE, show_default=True, help="Workspace.")
Reply = TypeVar("Reply")
LONGEST_WAIT = 60.0
"""Seconds: meetergo counts calls by the minute."""


webhooks = Group("webhooks", help="The webhook registrations at meetergo.")
COLUMNS = {"id": "id", "address": "address", "events": "events", "ours": "ours"}


@command("backfill", "bridge backfill --since 2026-01-01")
@click.option("--since", required=True, help="A date, or today, last-week, last-month.")
@click.option(
    "--until",
    help="Last start of the meetings to read; bookings made since are read in any case.",
)
@SOURCE
def backfill(services: Services, since: str, until: str | None, source: str) -> Answer:
    """Read older bookings from meetergo: those made, or taking place, since a date.

    If it is interrupted, call it again with the same date: it continues from there.
    """
    ends = read_moment(until) if until else None
    return _walk(services, source, WalkKind.BACKFILL, read_moment(since), ends)


@command("reconcile", "bridge reconcile")
@SOURCE
def reconcile(services: Services, source: str) -> Answer:
    """Look now for bookings whose webhook never arrived; the schedule does the same by itself."""
    settings, now = services.settings, utcnow()
    since = now - timedelta(days=settings.reconcile_back_days)
    until = now + timedelta(days=settings.reconcile_ahead_days)
    return _walk(services, source, WalkKind.RECONCILE, since, until)


def _walk(
    services: Services, source: str, kind: WalkKind, since: datetime, until: datetime | None
) -> Answer:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    found = 0
    try:
        number = services.catch_up.begin(source, kind, since, until)
        with Bars(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task("Asking meetergo", total=None)

            def show(at: Progress) -> None:
                nonlocal found
                found = at.found
                words = {"created": "Newest bookings first", "starts": "Meetings by their start"}
                bars.update(
                    task, description=words[at.phase], completed=at.seen, total=at.total
                )  # fmt: skip

            while not _run(services, number, show):
                bars.update(task, description="meetergo's rate limit is used up, waiting")
    except UnknownSource:
        raise click.ClickException(f"There is no source {source!r}.") from None
    except CrmError as error:
        raise click.ClickException(f"{error.message} Then run the command again.") from None
    told = f"{many(found, 'booking')} found without a webhook"
    return Answer({"found": found}, [f"{told}; workers sync them now." if found else f"{told}."])


def _run(services: Services, number: int, show: Callable[[Progress], None]) -> bool:
    """Walk to the end; False after a wait for meetergo's limit of calls."""
    try:
        return services.catch_up.run(number, show)
    except RateLimited as error:
        time.sleep(min(error.after or LONGEST_WAIT, LONGEST_WAIT))
        return False


def _client_call(call: Callable[[], Reply]) -> Reply:
    try:
        return call()
    except CrmError as error:
        raise click.ClickException(error.message) from None


@command("list", "bridge webhooks list", webhooks)
@SOURCE
def list_(services: Services, source: str) -> Answer:
    """List the company's webhook registrations; tokens in addresses are hidden."""
    rows = _client_call(_client(services, source).webhooks)
    ours, wanted = _ours(services, source, rows), _address(services, source)
    items = []
    for row in rows:
        address = str(row.get("endpoint", ""))
        mark = None if row not in ours else "yes" if address == wanted else "old address"
        items.append(
            {
                "id": str(row.get("id", "")), "address": _hidden(services, address),
                "events": [str(name) for name in row.get("eventTypes") or ()], "ours": mark,
            }
        )  # fmt: skip
    empty = "meetergo has no webhook of this company: `bridge webhooks register` makes one."
    return listing("webhooks", items, COLUMNS, empty)


@command("register", "bridge webhooks register", webhooks)
@SOURCE
@click.option("--forms", is_flag=True, help="Also receive submitted forms.")
def register(services: Services, source: str, forms: bool) -> Answer:
    """Register the webhook of this service; correct the one that is there, if it is another."""
    return _register(services, source, forms)


@command("remove", "bridge webhooks remove", webhooks)
@SOURCE
def remove(services: Services, source: str) -> Answer:
    """Remove this service's webhooks from meetergo; it then posts no more bookings here."""
    client = _client(services, source)
    ours = _ours(services, source, _client_call(client.webhooks))
    for row in ours:
        _client_call(partial(client.remove, str(row.get("id"))))
    problem = "" if ours else "meetergo has no webhook of this service: nothing was removed."
    shown = [f"{many(len(ours), 'webhook')} removed."] if ours else []
    return Answer({"removed": [str(row.get("id")) for row in ours]}, shown, problem)


def _register(services: Services, source: str, forms: bool) -> Answer:
    """Have meetergo post to our address: keep or change one webhook, remove our other ones."""
    address = _address(services, source)
    if not address.startswith("https://"):
        raise click.ClickException("meetergo posts only to https addresses: set PUBLIC_URL to one.")
    events = sorted(BOOKING_EVENTS) + ([FORM_EVENT] if forms else [])
    client = _client(services, source)
    there = _client_call(client.webhooks)
    ours = _ours(services, source, there)
    mine = next((row for row in ours if row.get("endpoint") == address), None)
    # A webhook with another secret in its address is changed; any further one of ours is removed.
    mine = mine or next(iter(ours), None)
    if mine is None and len(there) >= MOST_WEBHOOKS:
        raise click.ClickException(
            f"meetergo allows {MOST_WEBHOOKS} webhooks per company, and {len(there)} exist."
            " Delete one that nobody needs (`webhooks list` shows them) and try again."
        )
    duplicates = [row for row in ours if row is not mine]
    number, did, told = _place(client, mine, address, events)
    shown = [f"{told} {_hidden(services, address)}" if did == "created" else told]
    for row in duplicates:
        _client_call(partial(client.remove, str(row.get("id"))))
        shown.append(f"Webhook {row.get('id')} was a duplicate and is removed.")
    if services.sources.rules(source).scheme is not SignatureScheme.URL_TOKEN:
        shown.append(
            "Note: meetergo does not sign webhooks. Let a proxy sign them, or set"
            " MEETERGO_SIGNATURE_SCHEME=url-token and register again."
        )
    removed = [str(row.get("id")) for row in duplicates]
    return Answer({"id": number, "webhook": did, "removed": removed}, shown)


def _place(
    client: MeetergoClient, mine: Mapping[str, Any] | None, address: str, events: list[str]
) -> tuple[str, str, str]:
    """Create a webhook, change it or leave it; return its id, what was done, and that in words."""
    if mine is None:
        made = str(_client_call(lambda: client.register(address, events)).get("id", "?"))
        return made, "created", f"Registered as {made}:"
    number = str(mine.get("id"))
    if mine.get("endpoint") == address and set(mine.get("eventTypes") or ()) >= set(events):
        return number, "unchanged", f"The webhook is registered already as {number}."
    _client_call(lambda: client.change(number, address, events))
    return number, "changed", f"Webhook {number} now sends: {', '.join(events)}"


def _client(services: Services, source: str) -> MeetergoClient:
    try:
        return services.sources.client(source)
    except UnknownSource:
        raise click.ClickException(f"There is no source {source!r}.") from None


def _ours(
    services: Services, source: str, rows: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """A source's webhooks that post to this service, whatever secret is in their address."""
    base = f"{services.settings.public_url}/webhooks/meetergo"
    exact = {f"{base}/{source}"} | ({base} if source == DEFAULT_SOURCE else set())
    return [
        row
        for row in rows
        if row.get("endpoint") in exact or str(row.get("endpoint")).startswith(f"{base}/{source}/")
    ]


def _address(services: Services, source: str) -> str:
    """The address to which meetergo has to post; with url-token it ends in the newest secret."""
    try:
        rules = services.sources.rules(source)
    except UnknownSource:
        raise click.ClickException(f"There is no source {source!r}.") from None
    base = f"{services.settings.public_url}/webhooks/meetergo"
    if rules.scheme is not SignatureScheme.URL_TOKEN:
        return base if source == DEFAULT_SOURCE else f"{base}/{source}"
    secrets = (*services.intake.secrets.of(source, anew=True), *rules.secrets)
    if not secrets:
        raise click.ClickException("There is no secret yet: `bridge secrets add`.")
    return f"{base}/{source}/{secrets[0]}"


def _hidden(services: Services, address: str) -> str:
    """An address without the token that it may hold."""
    own = re.escape(services.settings.public_url)
    return re.sub(rf"^({own}/webhooks/meetergo/[^/]+/).+", r"\1…", address)
