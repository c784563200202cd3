"""`bridge bookings …`: the bookings and their state."""

from __future__ import annotations

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, as_json_text, command
from app.cli.tables import table_of
from app.domain.booking import MeetingOutcome
from app.services.booking_list import BookingList, Filters, UnfitFilter
from app.services.overview import Overview

bookings = Group("bookings", help="The bookings and their state.")
NONE = "none"
"""The word that takes an outcome back."""


COLUMNS = {
    "key": "key", "title": "title", "who": "who", "start (UTC)": "start", "in the CRMs": "crms",
}  # fmt: skip


@command("list", 'bridge bookings list --search "anna acme" --state failed', bookings)
@click.option("--search", default="", help="Beginnings of words: name, address, domain, id.")
@click.option("--state", default="", help="Only bookings in this state in some CRM.")
@click.option("--crm", default="", help="Only bookings of this CRM, such as hubspot.")
@click.option("--host", default="", help="Only bookings of the host with this address.")
@click.option("--period", default="", help="Only changed ones: today, 7 days or 30 days.")
@click.option("--after", help="The next page: the `after` of the page before.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
def list_(services: Services, after: str | None, limit: int, search: str, **asked: str) -> Answer:
    """List bookings, the newest or those that changed last first."""
    reader = BookingList(services.store, services.cipher)
    try:
        page = reader.page(Filters(q=search, **asked), after, limit)
    except UnfitFilter as error:
        raise click.UsageError(str(error)) from None
    items = [view.as_json() for view in page.bookings]
    rows = [
        item | {"crms": ", ".join(f"{d['provider']} {d['state']}" for d in item["deliveries"])}
        for item in items
    ]
    shown = [table_of(rows, COLUMNS) if rows else "No booking fits."]
    if page.after:
        shown.append(f"There are more: add --after {page.after}")
    return Answer({"bookings": items, "after": page.after}, shown)


@command("show", "bridge bookings show b-1001", bookings)
@click.argument("key")
def show(services: Services, key: str) -> Answer:
    """Show one booking with its records in every CRM, as JSON."""
    found = Overview(services.store, services.cipher).booking(key)
    if found is None:
        raise click.ClickException(f"There is no booking {key!r}.")
    data = found.as_json()
    return Answer(data, [as_json_text(data)])


@command("outcome", "bridge bookings outcome b-1001 held", bookings)
@click.argument("key")
@click.argument("outcome", type=click.Choice([*(item.value for item in MeetingOutcome), NONE]))
def outcome_(services: Services, key: str, outcome: str) -> Answer:
    """Set how a meeting went: held, no_show, or none to take it back."""
    said = MeetingOutcome(outcome) if outcome != NONE else None
    found = Overview(services.store, services.cipher).detail(key)
    if found is None:
        raise click.ClickException(f"There is no booking {key!r}.")
    if found.booking.form:
        raise click.ClickException(f"{found.view.key} is a form: it has no meeting, so no outcome.")
    try:
        wake = services.intake.say_outcome(found.view.key, said, "cli")
    except LookupError as error:
        raise click.ClickException(f"{error}.") from None
    services.waker.wake(wake)
    data = {"key": found.view.key, "outcome": said, "connections": wake}
    return Answer(data, [f"{outcome}: workers now write it to the CRMs."])
