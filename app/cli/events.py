"""`bridge events …`: the webhooks that arrived."""

from __future__ import annotations

import click
from rich.console import Console
from rich.progress import Progress

from app.bootstrap import Services
from app.cli.command import Answer, Group, as_json_text, command, listing, many
from app.cli.moments import read_moment
from app.domain.errors import ContentDeleted, UnfitPayload
from app.services.overview import Overview
from app.services.replay import Replayed, ReplaySelection, count, replay

events = Group("events", help="The webhooks that arrived.")
COLUMNS = {
    "id": "id", "received (UTC)": "shown_at", "type": "type", "status": "status",
    "booking": "booking", "reason": "reason",
}  # fmt: skip


@command("list", "bridge events list --limit 50", events)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
def list_(services: Services, limit: int) -> Answer:
    """List the newest webhooks."""
    items = [
        {
            "id": row.id, "received_at": row.received_at, "type": row.type, "status": row.status,
            "booking": row.booking_key, "reason": row.error,
        }
        for row in Overview(services.store, services.cipher).events(limit)
    ]  # fmt: skip
    shown = [{**item, "shown_at": f"{item['received_at']:%Y-%m-%d %H:%M:%S}"} for item in items]
    answer = listing("events", shown, COLUMNS, "No webhook has arrived yet.")
    return Answer({"events": items}, answer.shown)


@command("show", "bridge events show 12", events)
@click.argument("event_id", type=int)
def show(services: Services, event_id: int) -> Answer:
    """Show one webhook as JSON, without the booking's credential."""
    try:
        event = Overview(services.store, services.cipher).event(event_id)
    except ContentDeleted as error:
        raise click.ClickException(f"Event {event_id}: {error}.") from None
    if event is None:
        raise click.ClickException(f"There is no event {event_id}: `bridge events list`.")
    return Answer(event.payload, [as_json_text(event.payload)])


@command("replay", "bridge events replay --since 2026-11-01", events)
@click.argument("event_ids", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every stored webhook.")
@click.option("--since", help="Webhooks that arrived since: a date, today, last-week, last-month.")
@click.option(
    "--quarantined", is_flag=True,
    help="Only quarantined webhooks: unreadable ones, or another company's.",
)  # fmt: skip
@click.option(
    "--after", default=0,
    help="With --all, --since or --quarantined: start after this event id.",
)  # fmt: skip
def replay_(
    services: Services, event_ids: tuple[int, ...], everything: bool, since: str | None,
    quarantined: bool, after: int,
) -> Answer:  # fmt: skip
    """Process stored webhooks again; records that are correct already are not written again."""
    if bool(event_ids) == (everything or quarantined or since is not None):
        raise click.UsageError("Give ids, or one of --all, --since, --quarantined.")
    if event_ids:
        return _replay_some(services, event_ids)
    moment = read_moment(since) if since else None
    return _replay_many(services, ReplaySelection(moment, quarantined, after))


def _replay_some(services: Services, event_ids: tuple[int, ...]) -> Answer:
    wake: set[int] = set()
    for event_id in event_ids:
        try:
            wake.update(services.intake.replay(event_id))
        except (LookupError, UnfitPayload) as error:
            raise click.ClickException(f"Event {event_id}: {error}.") from None
    services.waker.wake(sorted(wake))
    return _told(Replayed(done=len(event_ids), last_id=max(event_ids)))


def _replay_many(services: Services, choice: ReplaySelection) -> Answer:
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
    return _told(told)


def _told(told: Replayed) -> Answer:
    data = {
        "replayed": told.done, "unreadable": told.unfit, "deleted": told.deleted,
        "last_id": told.last_id,
    }  # fmt: skip
    shown = [f"{many(told.done, 'event')} replayed."]
    if told.unfit:
        shown.append(f"{many(told.unfit, 'event')} still cannot be read.")
    if told.deleted:
        shown.append(
            f"{many(told.deleted, 'event')} cannot be replayed any more: their content was deleted"
            " after RETENTION_DAYS or on request. What they wrote into the CRMs stays."
        )
    problem = "" if told.done else "No event was replayed: `bridge events list` shows them."
    return Answer(data, shown if told.done else shown[1:], problem)
