"""`bridge bookings …`: the bookings and their state."""

from __future__ import annotations

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, as_json_text, command
from app.domain.booking import MeetingOutcome
from app.services.overview import Overview

bookings = Group("bookings", help="The bookings and their state.")
NONE = "none"
"""The word that takes an outcome back."""


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
