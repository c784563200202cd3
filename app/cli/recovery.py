"""`flask deliveries … | secrets …`: failed deliveries and new tries, and the webhook secrets."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.table import Table

from app.bootstrap import Services
from app.services.bookings import note_act, retry_all
from app.services.overview import Overview
from app.services.sources import DEFAULT_SOURCE, SourceRules, UnknownSource
from app.store.states import DeliveryState

SOURCE = click.option("--source", default=DEFAULT_SOURCE, show_default=True, help="Workspace.")
STATES = click.Choice([state.value for state in DeliveryState])


def deliveries_group(services: Services) -> AppGroup:
    """The commands about bookings on their way into CRMs."""
    group = AppGroup("deliveries", help="Bookings on their way into the CRMs.")

    @group.command("list")
    @click.option("--state", type=STATES, default="failed", show_default=True)
    @click.option("--connection", type=int)
    @click.option("--limit", default=50, show_default=True)
    def list_(state: str, connection: int | None, limit: int) -> None:
        """List the failed deliveries with the reason, or the deliveries in another state."""
        table = Table("id", "booking", "connection", "attempts", "fields", "why", "what to do")
        overview = Overview(services.store, services.cipher)
        for row, key in overview.deliveries(DeliveryState(state), connection, limit):
            fields = ", ".join(row.error_fields)
            why, step = row.error_message or "", row.error_advice or ""
            numbers = (str(row.connection_id), str(row.attempts))
            table.add_row(str(row.id), key, *numbers, fields, why, step)
        Console().print(table)

    @group.command("retry")
    @click.argument("delivery_ids", type=int, nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="Every failed delivery.")
    @click.option("--connection", type=int, help="Only deliveries of this connection.")
    def retry(delivery_ids: tuple[int, ...], everything: bool, connection: int | None) -> None:
        """Try failed deliveries again, some or all of them."""
        if bool(delivery_ids) == everything:
            raise click.ClickException("Give the ids of deliveries, or --all.")
        taken = retry_all(services.store, connection, delivery_ids, "cli")
        services.waker.wake(sorted(set(taken)))
        click.echo(f"{len(taken)} deliveries are tried again")

    return group


def secrets_group(services: Services) -> AppGroup:
    """The commands about the secrets of webhooks."""
    group = AppGroup(
        "secrets", help="The secrets that webhooks are signed with; several may be valid."
    )

    @group.command("list")
    @SOURCE
    def list_(source: str) -> None:
        """List the secrets by fingerprint, with their end and last use."""
        table = Table("fingerprint", "kept in", "since", "ends", "last used (UTC)")
        for view in services.intake.secrets.views(source, _rules(services, source).secrets):
            times = (view.created_at, view.ends_at, view.last_used_at)
            table.add_row(view.fingerprint, view.kept_in, *map(_shown, times))
        Console().print(table)

    @group.command("add")
    @SOURCE
    @click.option(
        "--stdin", is_flag=True, help="Read the secret from standard input instead of making one."
    )
    @click.option("--old-end-in", type=float, help="Hours until the older secrets end.")
    def add(source: str, stdin: bool, old_end_in: float | None) -> None:
        """Add a secret, valid from now on, and show it; it is not shown again."""
        scheme = _rules(services, source).scheme
        given = sys.stdin.readline().strip() if stdin else None
        if stdin and not given:
            raise click.ClickException("There is no secret on standard input.")
        end = None if old_end_in is None else timedelta(hours=old_end_in)
        try:
            made = services.intake.secrets.add(source, given, end, scheme)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        _note(services, "secret_add", source)
        if not stdin:
            click.echo(made)

    @group.command("end")
    @click.argument("fingerprint")
    @SOURCE
    @click.option("--in", "hours", type=float, default=0.0, help="Hours until it ends.")
    def end(fingerprint: str, source: str, hours: float) -> None:
        """Stop accepting a secret. To end a secret of the environment, remove it there."""
        if not services.intake.secrets.end(source, fingerprint, timedelta(hours=hours)):
            raise click.ClickException(f"The database has no secret {fingerprint} of {source}.")
        _note(services, "secret_end", source)
        click.echo("It ends " + (f"in {hours:g} hours" if hours else "now"))

    return group


def _rules(services: Services, source: str) -> SourceRules:
    try:
        return services.sources.rules(source)
    except UnknownSource:
        raise click.ClickException(f"There is no source {source!r}.") from None


def _note(services: Services, action: str, subject: str) -> None:
    note_act(services.store, "cli", action, subject)


def _shown(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""
