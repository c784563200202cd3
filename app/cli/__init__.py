"""`flask --app app <command>`: the same services as the web, for a developer's terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime

import click
from flask import Flask
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.bootstrap import Services
from app.cli.mappings import mappings_group
from app.cli.meetergo import register_meetergo
from app.cli.moments import read_moment
from app.cli.privacy import register_privacy, retention_group
from app.cli.recovery import deliveries_group, secrets_group
from app.cli.schema import db_group
from app.cli.sources import sources_group
from app.domain.booking import MeetingOutcome
from app.domain.errors import ContentDeleted, CrmError, UnfitPayload
from app.oauth.flow import ConnectRequest
from app.services.connect import OtherAccount, UnfitGrant
from app.services.findings import Health
from app.services.overview import Overview
from app.services.replay import Replayed, ReplaySelection, count, replay
from app.store.models import ConnectionRow
from app.store.rekey import rekey
from config.version import VERSION

MARKS = {Health.GOOD: ("✓", "green"), Health.NOTE: ("!", "yellow"), Health.BAD: ("✗", "red")}


def register_commands(app: Flask, services: Services) -> None:
    """Add the command groups to an application."""
    for group in (
        _keys(services),
        _connections(services),
        _events(services),
        _bookings(services),
        mappings_group(services),
        deliveries_group(services),
        secrets_group(services),
        sources_group(services),
        db_group(services),
        retention_group(services),
    ):
        app.cli.add_command(group)
    register_meetergo(app, services)
    register_privacy(app, services)

    @app.cli.command("doctor")
    @click.option("--connection", type=int, help="Only this connection.")
    @click.option("--notify", is_flag=True, help="Also send a test message to NOTIFY_URLS.")
    def doctor(connection: int | None, notify: bool) -> None:
        """Examine the service and every connection end to end; exit 1 if there is something to fix."""
        if connection is not None:
            _must_exist(services, connection)
        bad = 0
        console = Console()
        for found in services.doctor.examine(connection):
            mark, style = MARKS[found.verdict]
            bad += found.verdict is Health.BAD
            console.print(f"{mark} {found.subject} · {found.check}", style=style, markup=False)
            if found.detail:
                console.print(f"    {found.detail}", markup=False, highlight=False)
            if found.fix and found.verdict is not Health.GOOD:
                console.print(f"    → {found.fix}", markup=False, highlight=False)
        if notify:
            taken = services.notifier.test()
            bad += taken.count(False)
            click.echo(f"{taken.count(True)} of {len(taken)} targets accepted the test message")
        if bad:
            raise click.ClickException(f"{bad} things to fix.")
        click.echo("Nothing to fix.")

    @app.cli.command("version")
    def version() -> None:
        """Show the version of this service."""
        click.echo(VERSION)

    @app.cli.command("sweep")
    def sweep() -> None:
        """Wake the workers for every connection with due work."""
        due = Overview(services.store, services.cipher).with_work()
        if not services.waker.wake(due):
            raise click.ClickException("Redis does not answer at REDIS_URL.")
        click.echo(f"{len(due)} connections woken")


def seeks_command() -> bool:
    """Whether `flask` is loading the application to find a command in it, and not to serve it."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, click.Group)


def prepare_before(group: click.Group, prepare: Callable[[], None]) -> None:
    """Let each command but `db` call `prepare` before it runs."""
    for name in group.commands.keys() - {"db"}:
        _prepare_first(group.commands[name], prepare)


def _prepare_first(command: click.Command, prepare: Callable[[], None]) -> None:
    run = command.invoke

    def invoke(context: click.Context) -> object:
        prepare()
        return run(context)

    command.invoke = invoke  # type: ignore[method-assign,assignment]


def _keys(services: Services) -> AppGroup:
    group = AppGroup("keys", help="API keys; people also sign in to the pages with them.")

    @group.command("create")
    @click.argument("name")
    def create(name: str) -> None:
        """Create a key and show it; it is not shown again."""
        click.echo(services.keys.create(name, "cli"))

    @group.command("revoke")
    @click.argument("name")
    def revoke(name: str) -> None:
        """Revoke every key with this name."""
        number = services.keys.revoke(name, "cli")
        if not number:
            raise click.ClickException(f"There is no valid key named {name!r}.")
        click.echo(f"{number} keys revoked")

    @group.command("list")
    def list_() -> None:
        """List the keys, with the start and the last use of their open browser sessions."""
        table = Table(
            "name", "created (UTC)", "revoked (UTC)", "sessions: started, last used (UTC)"
        )
        alive = services.sessions.alive()
        for row in services.keys.all():
            own = [f"{_minute(s.created_at)}, {_minute(s.seen_at)}" for s in alive.get(row.id, [])]
            table.add_row(
                row.name, _minute(row.created_at), _minute(row.revoked_at), "\n".join(own)
            )
        Console().print(table)

    @group.command("rotate")
    def rotate() -> None:
        """Re-encrypt everything with the first key of ENCRYPTION_KEYS; then you may remove the others."""
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("Re-encrypting", total=None)
            done = rekey(
                services.store,
                services.cipher,
                lambda number, total: progress.update(task, completed=number, total=total),
            )
        click.echo(f"{done} values re-encrypted with key {services.cipher.newest}")

    return group


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _connections(services: Services) -> AppGroup:
    group = AppGroup("connections", help="The CRM accounts.")

    @group.command("list")
    def list_() -> None:
        """List the connections with their state."""
        table = Table("id", "CRM", "account", "status", "since (UTC)", "why", "what to do")
        for row in Overview(services.store, services.cipher).connections():
            since = row.status_since.strftime("%Y-%m-%d %H:%M")
            table.add_row(
                str(row.id), row.provider, row.account, row.status, since,
                row.last_error or "", row.next_step or "",
            )  # fmt: skip
        Console().print(table)

    @group.command("add-token")
    @click.argument("crm")
    @click.option("--connection", type=int, help="The existing connection that gets the new key.")
    @click.option("--other-account", is_flag=True, help="Accept a key of another account.")
    def add_token(crm: str, connection: int | None, other_account: bool) -> None:
        """Connect with a key that a person made; the command asks for it, or reads it from a pipe."""
        provider = services.providers.get(crm)
        if provider is None:
            raise click.ClickException(f"There is no CRM {crm!r}.")
        # Never an argument: the list of processes and the shell's history show arguments.
        words = provider.key.title if provider.key else "key"
        piped = not sys.stdin.isatty()
        key = sys.stdin.readline() if piped else click.prompt(words, hide_input=True)
        wish = ConnectRequest(connection_id=connection, other_account=other_account)
        try:
            number = services.connector.add_key(provider, key.strip(), "cli", wish)
        except (CrmError, UnfitGrant, OtherAccount) as error:
            raise click.ClickException(str(error)) from None
        services.waker.wake([number])
        click.echo(f"connected as number {number}")

    _add_repairs(group, services)
    return group


def _add_repairs(group: AppGroup, services: Services) -> None:
    @group.command("refresh")
    @click.argument("connection_id", type=int)
    def refresh(connection_id: int) -> None:
        """Renew a connection's access now and resume its work."""
        _must_exist(services, connection_id)
        try:
            services.connector.resume(connection_id, "cli")
        except CrmError as error:
            raise click.ClickException(f"{error.message} {error.advice}") from None
        services.waker.wake([connection_id])
        click.echo("refreshed")

    @group.command("disconnect")
    @click.argument("connection_id", type=int)
    @click.option(
        "--parked", type=click.Choice(["keep", "discard"]), default=None,
        help="Keep or discard the bookings that wait; without this option the command asks.",
    )  # fmt: skip
    def disconnect(connection_id: int, parked: str | None) -> None:
        """Erase a connection's tokens and revoke them at the CRM."""
        row = _must_exist(services, connection_id)
        waiting = Overview(services.store, services.cipher).parked(connection_id)
        if waiting and parked is None:
            question = f"{waiting} bookings wait for this account. Keep them for a reconnect?"
            parked = "keep" if click.confirm(question, default=True) else "discard"
        discard = parked == "discard"
        gone, problem = services.connector.disconnect(connection_id, "cli", discard)
        click.echo("disconnected" + (f", {gone} bookings discarded" if gone else ""))
        if problem:
            click.echo(problem)
        provider = services.providers[row.provider]
        click.echo(f"{provider.title} lists connected apps under: {provider.apps_where}")


def _must_exist(services: Services, connection_id: int) -> ConnectionRow:
    row = Overview(services.store, services.cipher).connection(connection_id)
    if row is None:
        raise click.ClickException(f"There is no connection {connection_id}.")
    return row


def _events(services: Services) -> AppGroup:
    group = AppGroup("events", help="The webhooks that arrived.")

    @group.command("list")
    @click.option("--limit", default=20, show_default=True)
    def list_(limit: int) -> None:
        """List the newest webhooks."""
        table = Table("id", "received (UTC)", "type", "status", "booking", "reason")
        for row in Overview(services.store, services.cipher).events(limit):
            at = row.received_at.strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(
                str(row.id), at, row.type, row.status, row.booking_key or "", row.error or ""
            )
        Console().print(table)

    @group.command("show")
    @click.argument("event_id", type=int)
    def show(event_id: int) -> None:
        """Show one webhook, without the booking's credential."""
        try:
            event = Overview(services.store, services.cipher).event(event_id)
        except ContentDeleted as error:
            raise click.ClickException(f"Event {event_id}: {error}.") from None
        if event is None:
            raise click.ClickException(f"There is no event {event_id}.")
        click.echo(json.dumps(event.payload, indent=2, ensure_ascii=False))

    @group.command("replay")
    @click.argument("event_ids", type=int, nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="Every stored webhook.")
    @click.option(
        "--since", help="Webhooks that arrived since: a date, today, last-week, last-month."
    )
    @click.option(
        "--quarantined",
        is_flag=True,
        help="Only quarantined webhooks: unreadable ones, or another company's.",
    )
    @click.option(
        "--after",
        default=0,
        help="With --all, --since or --quarantined: start after this event id.",
    )
    def replay_(
        event_ids: tuple[int, ...],
        everything: bool,
        since: str | None,
        quarantined: bool,
        after: int,
    ) -> None:
        """Process stored webhooks again; records that are correct already are not written again."""
        if bool(event_ids) == (everything or quarantined or since is not None):
            raise click.ClickException("Give ids, or one of --all, --since, --quarantined.")
        if event_ids:
            _replay_some(services, event_ids)
        else:
            moment = read_moment(since) if since else None
            _replay_many(services, ReplaySelection(moment, quarantined, after))

    return group


def _replay_some(services: Services, event_ids: tuple[int, ...]) -> None:
    wake: set[int] = set()
    for event_id in event_ids:
        try:
            wake.update(services.intake.replay(event_id))
        except (LookupError, UnfitPayload) as error:
            raise click.ClickException(f"Event {event_id}: {error}.") from None
    services.waker.wake(sorted(wake))
    click.echo(f"{len(event_ids)} events replayed")


def _replay_many(services: Services, choice: ReplaySelection) -> None:
    told = Replayed(last_id=choice.after)

    def show(at: Replayed) -> None:
        nonlocal told
        told = at
        progress.update(task, completed=at.done + at.unfit)

    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("Replaying", total=count(services.store, choice))
            told = replay(services.store, services.intake, choice, services.waker.wake, show)
    except KeyboardInterrupt:
        raise click.ClickException(f"Stopped. To continue, add --after {told.last_id}.") from None
    unfit = f", {told.unfit} still cannot be read" if told.unfit else ""
    click.echo(f"{told.done} events replayed{unfit}")
    if told.deleted:
        click.echo(
            f"{told.deleted} events cannot be replayed any more: their content was deleted after"
            " RETENTION_DAYS or on request. What they wrote into the CRMs stays."
        )


def _bookings(services: Services) -> AppGroup:
    group = AppGroup("bookings", help="The bookings and their state.")

    @group.command("show")
    @click.argument("key")
    def show(key: str) -> None:
        """Show one booking with its records in every CRM."""
        found = Overview(services.store, services.cipher).booking(key)
        if found is None:
            raise click.ClickException(f"There is no booking {key!r}.")
        click.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))

    @group.command("outcome")
    @click.argument("key")
    @click.argument(
        "outcome", type=click.Choice([*(item.value for item in MeetingOutcome), "none"])
    )
    def outcome_(key: str, outcome: str) -> None:
        """Set how a meeting went: held, no_show, or none to take it back."""
        said = MeetingOutcome(outcome) if outcome != "none" else None
        try:
            wake = services.intake.say_outcome(key, said, "cli")
        except LookupError as error:
            raise click.ClickException(f"{error}.") from None
        services.waker.wake(wake)
        click.echo(f"{outcome}: workers now write it to the CRMs")

    return group
