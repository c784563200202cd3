"""`flask backfill | reconcile | webhooks …`: the commands that work at meetergo itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import click
from flask import Flask
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from app.bootstrap import Services
from app.cli.moments import read_moment
from app.domain.errors import CrmError, RateLimited
from app.domain.events import BOOKING_EVENTS, FORM_EVENT
from app.meetergo.client import MOST_WEBHOOKS, MeetergoClient
from app.services.catch_up import Progress, WalkKind
from app.services.sources import DEFAULT_SOURCE, UnknownSource
from app.store.engine import utcnow
from config.settings import SignatureScheme

SOURCE = click.option("--source", default=DEFAULT_SOURCE, show_default=True, help="Workspace.")
Answer = TypeVar("Answer")
LONGEST_WAIT = 60.0
"""Seconds: meetergo counts calls by the minute."""


def register_meetergo(app: Flask, services: Services) -> None:
    """Add the commands about meetergo to an application."""

    @app.cli.command("backfill")
    @click.option("--since", required=True, help="A date, or today, last-week, last-month.")
    @click.option(
        "--until",
        help="Last start of the meetings to read; bookings made since are read in any case.",
    )
    @SOURCE
    def backfill(since: str, until: str | None, source: str) -> None:
        """Read the bookings that were made, or take place, since a date from meetergo.

        If it is interrupted, call it again with the same date: it continues from there.
        """
        ends = read_moment(until) if until else None
        _walk(services, source, WalkKind.BACKFILL, read_moment(since), ends)

    @app.cli.command("reconcile")
    @SOURCE
    def reconcile(source: str) -> None:
        """Look now for bookings whose webhook never arrived; the schedule does the same by itself."""
        settings, now = services.settings, utcnow()
        since = now - timedelta(days=settings.reconcile_back_days)
        until = now + timedelta(days=settings.reconcile_ahead_days)
        _walk(services, source, WalkKind.RECONCILE, since, until)

    app.cli.add_command(_webhooks(services))


def _walk(
    services: Services, source: str, kind: WalkKind, since: datetime, until: datetime | None
) -> None:
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
        raise click.ClickException(f"{error.message} Call it again to go on.") from None
    click.echo(f"{found} bookings found without a webhook; workers sync them now")


def _run(services: Services, number: int, show: Callable[[Progress], None]) -> bool:
    """Walk to the end; False after a wait for meetergo's limit of calls."""
    try:
        return services.catch_up.run(number, show)
    except RateLimited as error:
        time.sleep(min(error.after or LONGEST_WAIT, LONGEST_WAIT))
        return False


def _client_call(call: Callable[[], Answer]) -> Answer:
    try:
        return call()
    except CrmError as error:
        raise click.ClickException(error.message) from None


def _webhooks(services: Services) -> AppGroup:
    group = AppGroup("webhooks", help="The webhook registrations at meetergo.")

    @group.command("list")
    @SOURCE
    def list_(source: str) -> None:
        """List the company's webhook registrations; tokens in addresses are hidden."""
        table = Table("id", "address", "events", "ours")
        rows = _client_call(_client(services, source).webhooks)
        ours, wanted = _ours(services, source, rows), _address(services, source)
        for row in rows:
            address = str(row.get("endpoint", ""))
            mark = "" if row not in ours else "yes" if address == wanted else "old address"
            events = ", ".join(map(str, row.get("eventTypes") or ()))
            table.add_row(str(row.get("id", "")), _hidden(services, address), events, mark)
        Console().print(table)

    @group.command("register")
    @SOURCE
    @click.option("--forms", is_flag=True, help="Also receive submitted forms.")
    def register(source: str, forms: bool) -> None:
        """Register the webhook that MEETERGO_SIGNATURE_SCHEME needs, or correct the existing one."""
        _register(services, source, forms)

    @group.command("remove")
    @SOURCE
    def remove(source: str) -> None:
        """Remove this service's webhooks from meetergo, which then posts no more bookings here."""
        client = _client(services, source)
        ours = _ours(services, source, _client_call(client.webhooks))
        for row in ours:
            _client_call(partial(client.remove, str(row.get("id"))))
        click.echo(f"{len(ours)} webhooks removed.")

    return group


def _register(services: Services, source: str, forms: bool) -> None:
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
    if mine is None:
        made = _client_call(lambda: client.register(address, events))
        click.echo(f"Registered as {made.get('id', '?')}: {_hidden(services, address)}")
    elif mine.get("endpoint") == address and set(mine.get("eventTypes") or ()) >= set(events):
        click.echo(f"The webhook is registered already as {mine.get('id')}.")
    else:
        _client_call(lambda: client.change(str(mine.get("id")), address, events))
        click.echo(f"Webhook {mine.get('id')} now sends: {', '.join(events)}")
    for row in ours:
        if row is not mine:
            _client_call(partial(client.remove, str(row.get("id"))))
            click.echo(f"Webhook {row.get('id')} was a duplicate and is removed.")
    if services.sources.rules(source).scheme is not SignatureScheme.URL_TOKEN:
        click.echo(
            "Note: meetergo does not sign webhooks. Let a proxy sign them, or set"
            " MEETERGO_SIGNATURE_SCHEME=url-token and register again."
        )


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
        raise click.ClickException("There is no secret yet: `flask --app app secrets add`.")
    return f"{base}/{source}/{secrets[0]}"


def _hidden(services: Services, address: str) -> str:
    """An address without the token that it may hold."""
    own = re.escape(services.settings.public_url)
    return re.sub(rf"^({own}/webhooks/meetergo/[^/]+/).+", r"\1…", address)
