"""`bridge deliveries … | secrets …`: failed deliveries and new tries, and the webhook secrets."""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, command, listing, many
from app.services.bookings import note_act, retry_all
from app.services.broken import why_parked
from app.services.overview import Overview
from app.services.sources import DEFAULT_SOURCE, SourceRules, UnknownSource
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import DeliveryState

SOURCE = click.option("--source", default=DEFAULT_SOURCE, show_default=True, help="Workspace.")
STATES = click.Choice([state.value for state in DeliveryState])

deliveries = Group("deliveries", help="Bookings on their way into the CRMs.")
secrets = Group("secrets", help="The secrets that webhooks are signed with; several may be valid.")
DELIVERY_COLUMNS = {
    "id": "id", "booking": "booking", "connection": "connection", "attempts": "attempts",
    "fields": "fields", "why": "error", "what to do": "advice",
}  # fmt: skip
SECRET_COLUMNS = {
    "fingerprint": "fingerprint", "kept in": "kept_in", "since": "created_at", "ends": "ends_at",
    "last used (UTC)": "last_used_at",
}  # fmt: skip


@command("list", "bridge deliveries list --state parked", deliveries)
@click.option("--state", type=STATES, default="failed", show_default=True, help="Only these.")
@click.option("--connection", type=int, help="Only deliveries of this connection.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
def list_(services: Services, state: str, connection: int | None, limit: int) -> Answer:
    """List the failed deliveries and why; or the deliveries in another state."""
    overview = Overview(services.store, services.cipher)
    items = [
        {
            "id": row.id, "booking": key, "connection": row.connection_id, "state": row.state,
            "attempts": row.attempts, "fields": list(row.error_fields or ()),
            **_told(row, place), "raw": row.error_raw, "cause": row.cause_key,
        }
        for row, key, place in overview.deliveries(DeliveryState(state), connection, limit)
    ]  # fmt: skip
    return listing("deliveries", items, DELIVERY_COLUMNS, f"No delivery is {state}.")


@command("retry", "bridge deliveries retry 17 18", deliveries)
@click.argument("delivery_ids", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every failed delivery.")
@click.option("--connection", type=int, help="Only deliveries of this connection.")
def retry(
    services: Services, delivery_ids: tuple[int, ...], everything: bool, connection: int | None
) -> Answer:
    """Try failed deliveries again, some or all of them; exit 1 if there was none."""
    if bool(delivery_ids) == everything:
        raise click.UsageError("Give the ids of deliveries, or --all.")
    taken = retry_all(services.store, connection, delivery_ids, "cli")
    wake = sorted(set(taken))
    services.waker.wake(wake)
    data = {"retried": len(taken), "connections": wake}
    if not taken:
        return Answer(data, problem=(
            "No delivery is tried again: none of these is failed, on a connection that works."
            " `bridge deliveries list` shows the failed ones."
        ))  # fmt: skip
    left = len(set(delivery_ids)) - len(taken) if delivery_ids else 0
    shown = [f"{many(len(taken), 'delivery is', 'deliveries are')} tried again."]
    if left:
        shown.append(f"{left} of the ids are no failed deliveries of a connection that works.")
    return Answer(data, shown)


@command("list", "bridge secrets list", secrets)
@SOURCE
def list_secrets(services: Services, source: str) -> Answer:
    """List the secrets by fingerprint, with their end and last use."""
    views = services.intake.secrets.views(source, _rules(services, source).secrets)
    items = [{key: getattr(view, key) for key in SECRET_COLUMNS.values()} for view in views]
    empty = f"Source {source} has no secret: `bridge secrets add` makes one."
    return listing("secrets", items, SECRET_COLUMNS, empty)


@command("add", "bridge secrets add --old-end-in 24", secrets)
@SOURCE
@click.option(
    "--stdin", is_flag=True, help="Read the secret from standard input instead of making one."
)
@click.option("--old-end-in", type=float, help="Hours until the older secrets end.")
def add(services: Services, source: str, stdin: bool, old_end_in: float | None) -> Answer:
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
    note_act(services.store, "cli", "secret_add", source)
    if stdin:
        return Answer({"source": source, "added": True}, [f"The secret of {source} is added."])
    return Answer({"source": source, "secret": made}, [made])


@command("end", "bridge secrets end 1a2b3c4d --in 24", secrets)
@click.argument("fingerprint")
@SOURCE
@click.option("--in", "hours", type=float, default=0.0, help="Hours until it ends.")
def end(services: Services, fingerprint: str, source: str, hours: float) -> Answer:
    """Stop accepting a secret. To end a secret of the environment, remove it there."""
    if not services.intake.secrets.end(source, fingerprint, timedelta(hours=hours)):
        raise click.ClickException(f"The database has no secret {fingerprint} of {source}.")
    note_act(services.store, "cli", "secret_end", source)
    when = f"in {hours:g} hours" if hours else "now"
    data = {"source": source, "fingerprint": fingerprint, "ends_in_hours": hours}
    return Answer(data, [f"Secret {fingerprint} of {source} ends {when}."])


def _told(row: DeliveryRow, connection: ConnectionRow) -> dict[str, str | None]:
    """Why a delivery is not synced, and what to do."""
    error, advice = row.error_message, row.error_advice
    if row.state == DeliveryState.PARKED:
        error, advice = why_parked(connection)
    return {"error": error, "advice": advice}


def _rules(services: Services, source: str) -> SourceRules:
    try:
        return services.sources.rules(source)
    except UnknownSource:
        raise click.ClickException(f"There is no source {source!r}.") from None
